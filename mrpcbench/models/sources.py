"""Resolves `--model` to a local folder, once per command, and reads its configuration and tokenizer.

`models.classifier` loads the weights. transformers and the hub client are imported only when needed, because the
worker processes of `ab` need neither.
"""

import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from mrpcbench.data.batches import Reader
from mrpcbench.data.labels import are_numbers, normal, parsed_map
from mrpcbench.environment.redaction import public_name
from mrpcbench.errors import UsageError, first_line
from mrpcbench.hub.repository import split_revision
from mrpcbench.models.files import unreadable, what_is
from mrpcbench.models.settings import check_settings
from mrpcbench.progress import Observer
from mrpcbench.quickstart import CHECKPOINT_DIR, CLASSIFIER_DIR
from mrpcbench.records.documents import check_json
from mrpcbench.schema.requests import DEFAULT_MODEL_DIR, QUICKSTART

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from mrpcbench.hub.snapshots import Snapshot
    from mrpcbench.models.downloads import Part

ONNX_FILE = "model.onnx"
# What transformers reads as JSON.
MODEL_JSON = ("config.json", "model.safetensors.index.json")
TOKENIZER_JSON = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
# The labels of paraphrase: not equivalent, equivalent.
LABELS = 2


@dataclass(frozen=True)
class ModelSource:
    """The files of a `--model`. A command resolves them once and passes them on.

    `name` is the value of `--model`, for messages. `folder` holds config.json and the tokenizer, with the weights or,
    for the onnx backend, the ONNX graph. `revision` is the commit of a hub model. Each file is read at most once.
    `notes` are messages for the user about settings that were corrected.
    """

    name: str
    folder: Path
    revision: str | None = None
    notes: list[str] = field(default_factory=list, compare=False, repr=False)
    noted: set[str] = field(default_factory=set, compare=False, repr=False)

    @cached_property
    def config(self) -> "PretrainedConfig":
        """The model's configuration, which callers must not change. Raises `UsageError` if there is none."""
        return load_config(self.folder, self.name)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer, set to pad on the right. Raises `UsageError` if there is none."""
        tokenizer = load_tokenizer(self.folder, self.name)
        if tokenizer.padding_side != "right":
            tokenizer.padding_side = "right"
            self.note("its tokenizer pads on the left; pairs are padded on the right")
        return tokenizer

    @cached_property
    def reader(self) -> Reader:
        """Encodes pairs for this model."""
        if getattr(self.config, "summary_type", None) == "last":
            raise UsageError(
                f"--model {self.name}: it classifies by the last position (summary_type), which is padding in a batch "
                "that is padded on the right; use another --model"
            )
        from mrpcbench.models.limits import reader_of

        return reader_of(self.tokenizer, self.config, self.name)

    def note(self, what: str) -> None:
        """Add a line to `notes`, unless it was noted before."""
        if what not in self.noted:
            self.noted.add(what)
            self.notes.append(f"{self.name}: {what}")

    def tell(self, observer: Observer) -> None:
        """Say each of `notes` once."""
        while self.notes:
            observer.say(self.notes.pop(0))

    @property
    def public_name(self) -> str:
        """The name for records: a hub id without its revision, or the folder's last part."""
        return split_revision(self.name)[0] if self.revision else public_name(self.name)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The model's label names, in label order."""
        names = self.config.id2label
        return tuple(str(names[label]) for label in sorted(names))

    def label_order(self, of_data: tuple[str, str], label_map: str | None = None) -> tuple[int, int]:
        """The model's labels for the data's labels 0 and 1: `logits[:, order]` has the order of the data.

        Names are compared as `labels.normal` has them. `label_map` (--label-map) replaces the model's own names. A
        model that has only LABEL_0 and LABEL_1 has GLUE's order, which becomes a note. Raises `UsageError` for names
        that are not those of the data.
        """
        names: tuple[str, ...] = self.label_names
        if label_map is not None:
            names = parsed_map(label_map)
        elif are_numbers(names):
            if not self._is_headless:
                self.notes.append(
                    f"{self.name}: its labels are called {' and '.join(names)}; read as {' and '.join(of_data)} "
                    "(--label-map changes that)"
                )
            return (0, 1)
        else:
            self._check_label_ids()
        found, wanted = [normal(name) for name in names], [normal(name) for name in of_data]
        if sorted(found) != sorted(wanted):
            option = f"--label-map {label_map}" if label_map else f"--model {self.name}"
            raise UsageError(
                f"{option}: its labels are {', '.join(names)}, but the data's are {', '.join(of_data)}; say what its "
                f"labels mean, such as --label-map 0={of_data[0]},1={of_data[1]}"
            )
        order = (found.index(wanted[0]), found.index(wanted[1]))
        if order == (1, 0):
            self.notes.append(f"{self.name}: its labels are {', '.join(names)}; read in the order of the data")
        return order

    @property
    def _is_headless(self) -> bool:
        """Whether it is an architecture without a classifier of its own, whose labels say nothing."""
        return not any("SequenceClassification" in item for item in self.config.architectures or ())

    def _check_label_ids(self) -> None:
        """Raise `UsageError` if id2label and label2id of the configuration contradict each other."""
        ids = self.config.label2id or {}
        for label, name in self.config.id2label.items():
            if name in ids and int(ids[name]) != int(label):
                raise UsageError(
                    f"--model {self.name}: config.json says that {name} is label {label} (id2label) and {ids[name]} "
                    "(label2id); correct it, or say which with --label-map"
                )

    def check_head(self) -> None:
        """Raise `UsageError` unless the classifier has two labels."""
        if self.config.num_labels != LABELS:
            raise UsageError(
                f"--model {self.name}: its head has {self.config.num_labels} labels, but paraphrase needs {LABELS}"
            )


def find_sources(
    wanted: Iterable[tuple[str, "Part"]], *, plain: Collection[str] = ()
) -> Mapping[tuple[str, "Part"], ModelSource]:
    """The source for each (`--model`, what is read of it). Each name is located once, so it is one commit of the hub.

    A graph is in the model folder or in its `onnx/` folder. An engine reads only Optimum's graph of the names in
    `plain`. Raises `UsageError` if a model or its graph does not exist,
    and `MrpcbenchError` if the hub cannot be reached.
    """
    wanted = list(wanted)
    parts: dict[str, set[Part]] = {}
    for name, part in wanted:
        parts.setdefault(name, set()).add(part)
    located = {name: _located(name, frozenset(found)) for name, found in parts.items()}
    sources: dict[tuple[str, Path], ModelSource] = {}
    found = {}
    for name, part in wanted:
        at = located[name]
        folder = onnx_folder(at.folder, name, plain=name in plain) if part == "graph" else at.folder
        found[name, part] = sources.setdefault((name, folder), ModelSource(name, folder, at.revision))
    return found


def weights_source(
    name: str, *, to_train: bool = False, random_init: bool = False, with_card: bool = False
) -> ModelSource:
    """The source of the weights of `--model name`, for `train` and `export`, with its model card; see `locate`."""
    parts: list[Part] = ["configuration" if random_init else "weights"]
    return _located(name, frozenset([*parts, "card"] if with_card else parts), to_train=to_train)


def _located(name: str, parts: "frozenset[Part]", *, to_train: bool = False) -> ModelSource:
    found = locate(name, to_train=to_train)
    if isinstance(found, Path):
        return ModelSource(name, found)
    from mrpcbench.models.downloads import download_model

    return ModelSource(name, download_model(found, parts), found.commit)


def locate(model: str, *, to_train: bool = False) -> "Path | Snapshot":
    """What `--model` means: a folder, a bundled model's folder, or a commit of a hub repository.

    Each call with a hub id makes a request, so a command calls `find_sources` once instead. Raises `UsageError` if
    there is no such model.
    """
    if (folder := local_folder(model, to_train=to_train)) is not None:
        return folder
    from mrpcbench.hub import snapshots

    return snapshots.find(model, "model")


def local_folder(model: str, *, to_train: bool = False) -> Path | None:
    """The folder that `--model` means on this machine; None for a hub id, which is not looked up.

    `quickstart` means the bundled checkpoint with `to_train`, and the bundled fine-tuned classifier otherwise. Raises
    `UsageError` for a path that is no folder.
    """
    if model == QUICKSTART:
        return CHECKPOINT_DIR if to_train else CLASSIFIER_DIR
    folder = Path(model)
    if folder.is_dir():
        return folder
    if model == DEFAULT_MODEL_DIR:
        raise UsageError(
            f"no folder {model} here: run `mrpcbench train` first, or pass a fine-tuned model with --model"
        )
    if folder.exists():
        raise UsageError(f"--model {model}: this is a file; pass the folder with config.json")
    repo_id, revision = split_revision(model)
    if repo_id.startswith((".", "/", "~")) or repo_id.count("/") > 1:
        raise UsageError(f"--model {model}: no such folder")
    if "/" in repo_id and revision is None and folder.parent.is_dir():  # OWNER/NAME of the hub has no such folder here
        raise UsageError(
            f"--model {model}: no {folder.name} in {folder.parent}; `mrpcbench export` writes graphs there"
        )
    return None


def onnx_folder(folder: Path, name: str, *, plain: bool = False) -> Path:
    """The folder with the graph: `folder` itself, or its `onnx/`. Raises `UsageError` if neither has one.

    With `plain`, the error names only graphs of `mrpcbench export --optimize none`.
    """
    for candidate in (folder, folder / "onnx"):
        if (candidate / ONNX_FILE).exists():
            return candidate
    raise UsageError(f"--model {name}: no {ONNX_FILE} in it or in its onnx/; {_other_graph(name, plain=plain)}")


def _other_graph(name: str, *, plain: bool) -> str:
    """What to do if `--model name` has no graph: use one that `mrpcbench export` wrote elsewhere, or export it."""
    default = graph_folder(name, "none")
    names = escape(default.name) + ("" if plain else "*")
    others = sorted(path.parent for path in default.parent.glob(f"{names}/{ONNX_FILE}"))
    if others:
        return f"use --model {shlex.quote(str(others[0]))}"
    export = f"run `{shlex.join(['mrpcbench', 'export', '--model', name])}` first"
    return export if Path(name).is_dir() else f"{export}, then use --model {default}"


def graph_folder(model: str, optimize: str, *, random_init: bool = False) -> Path:
    """The default output folder for the graph of `--model model` with `--optimize optimize`."""
    graph = "onnx" if optimize == "none" else f"onnx-{optimize}"
    if Path(model).is_dir() and not random_init:
        return Path(model) / graph
    # The hub's cache is shared with other programs, and random weights do not belong to the model's folder.
    suffix = f"-random-init-{graph}" if random_init else f"-{graph}"
    return Path(public_name(split_revision(model)[0]).rsplit("/", 1)[-1] + suffix)


def export_command(graph: Path, data: str, optimize: str | None) -> str:
    """The command that exports and verifies the graph in the folder `graph` again, with the pairs of `--data data`.

    The model is the folder above the graph, if that has weights; else the command has MODEL in its place.
    """
    model = str(graph.parent) if any(graph.parent.glob("*.safetensors")) else "MODEL"
    command = ["mrpcbench", "export", "--model", model, "--data", data]
    form = optimize or "none"
    command += [] if form == "none" else ["--optimize", form]
    command += [] if graph_folder(model, form) == graph else ["--output-dir", str(graph)]
    return shlex.join(command)


def _check_json(path: Path, option: str) -> None:
    """Raise `UsageError` if the file `path` exists and transformers cannot read it as a JSON object."""
    if path.exists() and what_is(path):
        raise unreadable(option, path, "")
    if not isinstance(check_json(path) if path.exists() else {}, dict):
        raise UsageError(f"{option}: {path.name} is not a JSON object; save the model again")


def load_tokenizer(folder: Path, name: str) -> "PreTrainedTokenizerBase":
    """The tokenizer in `folder`; `name` is the value of `--model`. Raises `UsageError` if there is none."""
    from transformers import AutoTokenizer

    option = f"--model {name}"
    for file in TOKENIZER_JSON:
        _check_json(folder / file, option)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a broken tokenizer can raise almost anything
        raise UsageError(f"{option}: it has no usable tokenizer (tokenizer.json) ({first_line(error)})") from error
    if tokenizer.pad_token_id is None:
        raise UsageError(f"{option}: its tokenizer has no padding token, so pairs cannot be batched")
    return tokenizer


def load_config(folder: Path, name: str) -> "PretrainedConfig":
    """The configuration in `folder`; raises `UsageError` if there is none."""
    option, path = f"--model {name}", folder / "config.json"
    if not path.exists():
        # Without it, transformers guesses an architecture from the folder's name.
        raise UsageError(f"{option}: it has no config.json; pass a folder with a saved model")
    for file in MODEL_JSON:
        _check_json(folder / file, option)
    from transformers import AutoConfig

    from mrpcbench.models.downloads import check_architecture

    check_architecture(folder, option)

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a broken configuration can raise almost anything
        raise UsageError(f"{option}: it has no usable config.json ({first_line(error)})") from error
    check_settings(config, option)
    return config
