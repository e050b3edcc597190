"""The model card of a fine-tuned classifier, README.md with the metadata that the hub reads, and its upload."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load

from mrpcbench.display.numbers import logged
from mrpcbench.errors import UsageError
from mrpcbench.hub import uploads
from mrpcbench.hub.cards import BEGIN, END, section_of, with_section
from mrpcbench.hub.repository import split_revision
from mrpcbench.hub.uploads import Target
from mrpcbench.models.files import matches, weight_files
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.records.scores import accuracy_of, confusion_of, f1_interval, f1_of
from mrpcbench.schema.identity import DataIdentity, ModelIdentity
from mrpcbench.schema.records import TrainRecord
from mrpcbench.schema.requests import TrainRequest
from mrpcbench.schema.results import EpochMetrics
from mrpcbench.schema.verdicts import Interval
from mrpcbench.statistics import wilson_interval
from mrpcbench.training.checkpoints import MODEL_FILES, RECORD_FILE

GLUE_DATASET = "nyu-mll/glue"
CARD = "README.md"
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
# Packages whose version the card names.
PACKAGES = ("transformers", "torch", "datasets", "tokenizers")
# What the bundled pairs and GLUE are written in.
LANGUAGE = "en"
# The part of a base model's metadata that holds for a model made from it.
INHERITED = ("license", "license_name", "license_link", "language")
# What an older upload can have left: other weights, vocabularies, and graphs of earlier weights.
STALE = (
    *(name for name in MODEL_FILES if name != CARD),
    *"*.safetensors *.bin *.safetensors.index.json *.bin.index.json *.pt *.h5 *.msgpack *.onnx *.onnx_data".split(),
)
STALE_FOLDERS = ("onnx", "onnx-*", "checkpoint-*", "runs")


@dataclass(frozen=True)
class Score:
    """A metric of the validation pairs, with its interval."""

    name: str
    kind: str
    value: float
    interval: Interval


def model_card(record: TrainRecord, base_folder: Path | None, name: str | None = None) -> str:
    """README.md of the model that the train `record` made.

    `name` is the repository or the folder that the examples load; by default, the record's. Licence and language are
    those of the card in `base_folder`, if it has one.
    """
    section = record.train
    training, validation = record.data
    inherited = _inherited(base_folder)
    scores = scores_of(record)
    title = f"{section.base_model.name.rsplit('/', 1)[-1]} for paraphrases ({data_name(training)})"
    packages = record.environment.packages
    card = ModelCard.from_template(
        _metadata(record, scores, inherited, name or record.model.name),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        record=record,
        section=section,
        recipe=section.recipe,
        training=training,
        validation=validation,
        training_name=_linked(training),
        validation_name=_linked(validation),
        base=_base(section.base_model),
        scores=[(score.name, score.value, score.interval) for score in scores],
        title=title,
        name=name or record.model.name,
        license_words=inherited.get("license_name") or inherited.get("license"),
        onnx_begin=BEGIN,
        onnx_end=END,
        versions=", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages),
        number=logged,
    )
    return f"{card}\n"


def _inherited(folder: Path | None) -> dict[str, Any]:
    """The metadata that the card in `folder` hands on."""
    path = folder / "README.md" if folder else None
    if path is None or not path.is_file():
        return {}
    try:
        found = metadata_load(path) or {}
    except Exception:  # a damaged card, of which the YAML parser raises its own errors
        return {}
    return {key: found[key] for key in INHERITED if found.get(key)}


def data_name(data: DataIdentity) -> str:
    """A readable name of the pairs."""
    if data.source.startswith("hub:"):
        return "GLUE MRPC"
    return "mrpcbench's quickstart pairs" if data.source == "quickstart" else data.source.removeprefix("folder:")


def _linked(data: DataIdentity) -> str:
    """The name of the pairs, with their address and commit on the hub."""
    if not data.source.startswith("hub:"):
        return data_name(data)
    return f"[{data_name(data)}](https://huggingface.co/datasets/{GLUE_DATASET}){_at(data.revision)}"


def _base(model: ModelIdentity) -> str:
    address = f"[{model.name}](https://huggingface.co/{model.name})" if model.revision else f"`{model.name}`"
    return f"{address}{_at(model.revision)} ({model.architecture}, {model.weights_label} weights)"


def _at(revision: str | None) -> str:
    return f" at commit `{revision}`" if revision else ""


def scores_of(record: TrainRecord) -> tuple[Score, Score]:
    """Accuracy and F1 of the saved weights on the validation pairs, with 95% intervals."""
    best: EpochMetrics = next(line for line in record.train.epochs if line.step == record.train.best_step)
    validation = record.data[1]
    counts = confusion_of(validation.pairs, validation.positives, best.eval_accuracy_score, best.eval_f1_score)
    right = counts.true_positive + counts.true_negative
    return (
        Score("accuracy", "accuracy", accuracy_of(counts), wilson_interval(right, validation.pairs)),
        Score("F1", "f1", f1_of(counts), f1_interval(counts)),
    )


def _metadata(record: TrainRecord, scores: tuple[Score, Score], inherited: dict[str, Any], name: str) -> ModelCardData:
    base = record.train.base_model
    training, validation = record.data
    is_glue = validation.source.startswith("hub:")
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="Paraphrase identification",
            dataset_type=GLUE_DATASET if is_glue else "mrpcbench",
            dataset_name=data_name(validation),
            dataset_config="mrpc" if is_glue else None,
            dataset_split=validation.split,
            dataset_revision=validation.revision,
            metric_type=score.kind,
            metric_value=round(score.value, 6),
            metric_name=f"{score.name} (95% interval {score.interval.low:.4f} to {score.interval.high:.4f})",
        )
        for score in scores
    ]
    known_language = training.source == "quickstart" or training.source.startswith("hub:")
    return ModelCardData(
        **{**inherited, **({"language": LANGUAGE} if known_language else {})},
        base_model=split_revision(base.name)[0] if base.revision else None,
        base_model_relation="finetune" if base.revision else None,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["paraphrase-identification", "mrpcbench"],
        datasets=[GLUE_DATASET] if training.source.startswith("hub:") else None,
        model_name=name.rsplit("/", 1)[-1],
        eval_results=results,
    )


def check_target(request: TrainRequest) -> Target | None:
    """The repository for --push-to-hub, before any work; None without the option. Raises `UsageError`; see `target`."""
    if request.push_to_hub is None:
        if request.private:
            raise UsageError("--private: applies to --push-to-hub; add it, or omit --private")
        return None
    return uploads.target(request.push_to_hub, private=request.private)


def push(
    record: TrainRecord,
    request: TrainRequest,
    to: Target | None,
    base_folder: Path,
    results: Path | None,
    observer: Observer,
) -> TrainRecord:
    """Upload the model in the output folder, and return `record` with the address of the commit, after saving it.

    Without a repository, nothing happens. `base_folder` holds the base model's card, if it has one.

    The card is written again, with the name of the repository. Files of an older upload that do not belong to this
    model are removed in the same commit; a graph of the same weights stays. Raises `MrpcbenchError` if the upload
    fails.
    """
    if to is None:
        return record
    folder = Path(request.output_dir)
    observer.say(f"uploading the model to {to.repo_id}")
    weights = weight_files(folder, f"--output-dir {folder}")
    newest, names, _ = to.listing()
    has_same = to.other_file(newest, weights) is None
    card = model_card(record, base_folder, to.repo_id)
    if has_same and CARD in names:
        card = with_section(card, section_of(to.text(newest, CARD)))
    store.write_text(folder / CARD, card)
    index = [folder / "model.safetensors.index.json"] if len(weights) > 1 else []
    others = [path for path in sorted(folder.iterdir()) if path.is_file() and matches(path.name, MODEL_FILES)]
    address = uploads.commit(
        to,
        {path.name: path for path in (*others, *index, *weights)},
        lambda name: is_stale(name) and not (has_same and name.startswith("onnx")),
        f"{record.model.architecture} trained by mrpcbench",
        f"the model is saved in {folder}; the same command with --resume uploads it",
    )
    pushed = replace(record, train=replace(record.train, pushed=address))
    store.save(pushed, folder / RECORD_FILE)
    store.save(pushed, results)
    observer.say(f"uploaded: {address}")
    return pushed


def is_stale(name: str) -> bool:
    """Whether the file `name` of a repository belongs to a model, so that it goes if another model takes its place."""
    folder, _, _ = name.partition("/")
    return matches(folder, STALE_FOLDERS) if "/" in name else matches(name, STALE)
