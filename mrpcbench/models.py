"""Models in and out: where `--model` points, loading without remote code and from safetensors only, and identity."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from mrpcbench import hub, store
from mrpcbench.batches import Reader
from mrpcbench.errors import MrpcbenchError, UsageError, first_line
from mrpcbench.plans import DEFAULT_MODEL_DIR, QUICKSTART
from mrpcbench.redaction import public_name
from mrpcbench.schema import LoadReport, ModelIdentity
from mrpcbench.tiny import CHECKPOINT_DIR

# Everything but weights in formats that can run code when they are read.
ONNX_FILE = "model.onnx"
HUB_FILES = {False: ["*.json", "*.safetensors", "*.txt", "*.model"], True: ["*.json", "*.txt", f"onnx/{ONNX_FILE}*"]}
LABELS = 2


@dataclass(frozen=True)
class LoadedModel:
    """A sequence classifier in float32 on the CPU, with its tokenizer and what is known of both."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: ModelIdentity
    report: LoadReport


def locate(model: str, *, onnx: bool = False) -> Path:
    """The folder that `--model` means: a folder, the bundled checkpoint, or a snapshot of a hub repository.

    `onnx` says whether the graph of a hub repository is wanted, or its weights.
    """
    if model == QUICKSTART:
        return CHECKPOINT_DIR
    folder = Path(model)
    if folder.is_dir():
        return folder
    if model == DEFAULT_MODEL_DIR:
        raise UsageError(
            f"no folder {model} here: run `mrpcbench train` first, or name a fine-tuned model with --model"
        )
    if folder.exists():
        raise UsageError(f"--model {model}: a file; name the folder that holds config.json")
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise UsageError(f"--model {model}: no such folder")
    if "/" in model and folder.parent.is_dir():  # OWNER/NAME of the hub has no such folder here
        raise UsageError(f"--model {model}: no {folder.name} in {folder.parent}; `mrpcbench export` makes graphs there")
    return hub.snapshot(model, kind="model", patterns=HUB_FILES[onnx])


def onnx_folder(folder: Path, name: str) -> Path:
    """The folder with the graph: `folder` itself, or its `onnx/`. Raises `UsageError` where neither has one."""
    for candidate in (folder, folder / "onnx"):
        if (candidate / ONNX_FILE).exists():
            return candidate
    others = sorted(path.parent.name for path in folder.glob(f"onnx-*/{ONNX_FILE}"))
    instead = f"name its other graph, --model {name}/{others[0]}" if others else "run `mrpcbench export` first"
    raise UsageError(f"--model {name}: no {ONNX_FILE} in it or in its onnx/; {instead}")


def graph_folder(model: str, optimize: str, *, random_init: bool = False) -> Path:
    """Where the graph of `--model model` that was made for `optimize` goes unless `--output-dir` says otherwise."""
    graph = "onnx" if optimize == "none" else f"onnx-{optimize}"
    if Path(model).is_dir() and not random_init:
        return Path(model) / graph
    # A hub model lies in a cache that other programs share, and random weights are none of a folder's own.
    suffix = f"-random-init-{graph}" if random_init else f"-{graph}"
    return Path(public_name(model).rsplit("/", 1)[-1] + suffix)


def load_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`; `name` is what the user called it. Raises `UsageError` where there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what a broken tokenizer raises depends on what of it is broken
        raise UsageError(f"--model {name}: no usable tokenizer in it ({first_line(error)})") from error
    if tokenizer.pad_token_id is None:
        raise UsageError(f"--model {name}: its tokenizer has no padding token, so pairs cannot be batched")
    return tokenizer


def load_config(folder: Path, name: str) -> PretrainedConfig:
    """The architecture in `folder`; raises `UsageError` where there is none."""
    if not (folder / "config.json").exists():
        # transformers would guess an architecture from the folder's name.
        raise UsageError(f"--model {name}: no config.json in it; name a folder that a model was saved to")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"--model {name}: no usable config.json in it ({first_line(error)})") from error


def load_classifier(
    name: str,
    *,
    label_names: Sequence[str] | None = None,
    random_init: bool = False,
    seed: int = 0,
    new_head: bool = False,
) -> LoadedModel:
    """Load `--model name` as a classifier of two labels, in float32 on the CPU, in evaluation mode.

    `label_names` are put into its configuration (None keeps those it has); `random_init` makes all weights anew from
    the architecture; `new_head` allows a checkpoint without a classification head, whose head is then made from `seed`.
    Raises `UsageError` where the folder lacks what was asked for.
    """
    folder = locate(name)
    config = _classifier_config(folder, name, label_names)
    tokenizer = load_tokenizer(folder, name)
    set_seed(seed)
    if random_init:
        model = _build(config)
        report = LoadReport()
    else:
        _check_weight_files(folder, name)
        model, report = _read(folder, name, config)
        if not new_head:
            _check_whole(report, name)
    model.eval()
    identity = _identity(model, tokenizer, folder, name, random_init=random_init, report=report)
    return LoadedModel(model, tokenizer, identity, report)


def _check_whole(report: LoadReport, name: str) -> None:
    """Refuse a checkpoint of which a part would be random; only training may begin so."""
    if report.new_head:
        raise UsageError(f"--model {name}: no classification head in it; fine-tune it first with `mrpcbench train`")
    if report.missing:
        raise UsageError(
            f"--model {name}: {len(report.missing)} weights of its encoder are missing, {report.missing[0]} first; "
            "they would be random: fine-tune it first with `mrpcbench train`, or name a whole model"
        )


def _classifier_config(folder: Path, name: str, label_names: Sequence[str] | None) -> PretrainedConfig:
    config = load_config(folder, name)
    has_head = any("SequenceClassification" in item for item in config.architectures or ())
    if has_head and config.num_labels != LABELS:
        raise UsageError(f"--model {name}: its head has {config.num_labels} labels, and paraphrase needs {LABELS}")
    if label_names is not None:
        config.id2label = {index: label.upper() for index, label in enumerate(label_names)}
        config.label2id = {label: index for index, label in config.id2label.items()}
    if hasattr(config, "reference_compile"):
        # ModernBERT would compile itself where it can, and the time of a run would depend on whether it could.
        config.reference_compile = False
    return config


def _check_weight_files(folder: Path, name: str) -> None:
    if any(folder.glob("*.safetensors")):
        return
    if (folder / ONNX_FILE).exists():
        raise UsageError(f"--model {name}: holds an ONNX graph and no weights; add --backend onnx")
    if any(folder.glob("*.bin")):
        raise UsageError(f"--model {name}: only pickled weights (*.bin) in it; save them as safetensors first")
    raise UsageError(
        f"--model {name}: an architecture (config.json) without weights in safetensors, the only format that is read; "
        "pass --random-init to use random weights"
    )


def attention_of(config: PretrainedConfig) -> str:
    """The attention that torch runs: scaled-dot-product attention where the architecture has it."""
    kind = AutoModelForSequenceClassification._model_mapping.get(type(config), None)
    if kind is None:
        raise UsageError(f"{type(config).__name__} has no sequence classifier in transformers; name another --model")
    return "sdpa" if kind._supports_sdpa else "eager"


def _build(config: PretrainedConfig) -> PreTrainedModel:
    return AutoModelForSequenceClassification.from_config(
        config, dtype=torch.float32, attn_implementation=attention_of(config), trust_remote_code=False
    )


def _read(folder: Path, name: str, config: PretrainedConfig) -> tuple[PreTrainedModel, LoadReport]:
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation=attention_of(config),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except MrpcbenchError:
        raise
    except Exception as error:  # safetensors raises its own types, which share no base
        raise MrpcbenchError(f"--model {name}: its weights cannot be loaded ({first_line(error)})") from error
    encoder = f"{model.base_model_prefix}."
    missing = sorted(info["missing_keys"])
    report = LoadReport(
        new_head=tuple(key for key in missing if not key.startswith(encoder)),
        missing=tuple(key for key in missing if key.startswith(encoder)),
        unexpected=tuple(sorted(info["unexpected_keys"])),
        loaded_sha256=weights_sha256(model, without=missing) if missing else None,
    )
    if len(report.missing) == sum(key.startswith(encoder) for key in model.state_dict()):
        raise UsageError(f"--model {name}: none of its weights belongs to {type(model).__name__}; name another --model")
    return model, report


def _identity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    name: str,
    *,
    random_init: bool,
    report: LoadReport,
) -> ModelIdentity:
    found = ModelIdentity(
        name=public_name(name),
        architecture=type(model).__name__,
        parameters=sum(weight.numel() for weight in model.parameters()),
        weights="random-init" if random_init else "pretrained" if report.new_head else "fine-tuned",
        origin="random-init" if random_init else "pretrained" if report.new_head else "unknown",
        model_sha256=weights_sha256(model),
        tokenizer_sha256=tokenizer_sha256(tokenizer),
    )
    lineage = None if random_init else store.load_lineage(folder)
    if lineage and lineage.model.model_sha256 == found.model_sha256:
        return replace(found, weights=lineage.model.weights, origin=lineage.model.origin)
    return found


def weights_sha256(model: PreTrainedModel, *, without: Collection[str] = ()) -> str:
    """Hash over name, dtype, shape and bytes of every weight in the order of names, whatever files held them."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if name in without:
            continue
        digest.update(f"{name}\0{weight.dtype}\0{tuple(weight.shape)}\0".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of what `tokenizer` does, which loading and saving do not change, as they change the bytes of its files."""
    if tokenizer.is_fast:
        # What a call has set for padding and truncation is no part of the tokenizer.
        return store.canonical_sha256(tokenizer.backend_tokenizer.to_str(), without=("padding", "truncation"))
    content = (sorted(tokenizer.get_vocab().items()), sorted(tokenizer.special_tokens_map.items()))
    return hashlib.sha256(repr(content).encode()).hexdigest()


def files_sha256(paths: Sequence[Path]) -> str:
    """Hash over the names and bytes of `paths`."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()


def reader(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> Reader:
    """How a model reads pairs: of as many tokens as it has positions, or its tokenizer allows, whichever is fewer."""
    positions = int(getattr(config, "max_position_embeddings", None) or 512)
    return Reader(tokenizer, min(positions, int(tokenizer.model_max_length)))
