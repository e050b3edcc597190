"""The model card of a fine-tuned classifier, and its upload to the hub."""

from pathlib import Path

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from mrpcbench.display.numbers import logged
from mrpcbench.errors import MrpcbenchError, UsageError, first_line
from mrpcbench.schema.records import TrainRecord
from mrpcbench.schema.results import TrainSection

GLUE_DATASET = "nyu-mll/glue"
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
# Packages whose version the card names.
PACKAGES = ("transformers", "torch", "datasets", "tokenizers")
# Checkpoints, a tracker's logs (their names hold the host's), temporary files, and an ONNX graph of earlier weights.
NOT_UPLOADED = ["checkpoint-*/**", "runs/**", ".*", ".*/**", "onnx/**", "mrpcbench-run.json"]


def model_card(record: TrainRecord) -> str:
    """README.md of the model that the train `record` made: what it is, how it was trained, how accurate it is."""
    section = record.train
    training, validation = record.data
    packages = record.environment.packages
    card = ModelCard.from_template(
        _metadata(record, section),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        record=record,
        section=section,
        recipe=section.recipe,
        training=training,
        validation=validation,
        versions=", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages),
        number=logged,
    )
    return f"{card}\n"


def _metadata(record: TrainRecord, section: TrainSection) -> ModelCardData:
    best = next(line for line in section.epochs if line.step == section.best_step)
    base, from_hub = section.base_model.name, [item.source.startswith("hub:") for item in record.data]
    validation = record.data[1]
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type=GLUE_DATASET if from_hub[1] else "mrpcbench",
            dataset_name=validation.source,
            dataset_config="mrpc" if from_hub[1] else None,
            dataset_split=validation.split,
            metric_type=metric,
            metric_value=round(value, 6),
        )
        for metric, value in (("accuracy", best.eval_accuracy_score), ("f1", best.eval_f1_score))
    ]
    return ModelCardData(
        base_model=base if "/" in base else None,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["paraphrase-identification", "mrpcbench"],
        datasets=[GLUE_DATASET] if from_hub[0] else None,
        model_name=record.model.name,
        eval_results=results,
    )


def check_repository(repo_id: str) -> None:
    """Raise `UsageError` for a name that no repository can have; the hub is not asked."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"--push-to-hub {repo_id}: not a repository name (OWNER/NAME)") from error


def push(folder: Path, repo_id: str) -> str:
    """Upload the model in `folder`, without its checkpoints, to `repo_id` on the hub; return the address.

    Raises `UsageError` for an invalid name, and `MrpcbenchError` if the upload fails. The folder is kept.
    """
    api = HfApi()
    try:
        url = api.create_repo(repo_id, exist_ok=True).url
        api.upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=NOT_UPLOADED)
    except HFValidationError as error:
        raise UsageError(f"--push-to-hub {repo_id}: not a repository name (OWNER/NAME)") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise MrpcbenchError(
            f"--push-to-hub {repo_id}: the upload failed ({first_line(error)}); the model is saved in "
            f"{folder}, and `huggingface-cli login` signs in"
        ) from error
    return str(url)
