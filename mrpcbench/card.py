"""The model card of a fine-tuned classifier, with the hub's own metadata, and its upload."""

from pathlib import Path

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from mrpcbench.errors import MrpcbenchError, UsageError, first_line
from mrpcbench.schema import RunRecord, TrainSection

GLUE_DATASET = "nyu-mll/glue"
# Checkpoints, a tracker's logs (their names hold the host's), temporary files, and an ONNX graph of earlier weights.
NOT_UPLOADED = ["checkpoint-*/**", "runs/**", ".*", ".*/**", "onnx/**", "mrpcbench-run.json"]


def model_card(record: RunRecord) -> str:
    """README.md of the model that the train `record` made: what it is, how it was made, how well it does."""
    section = record.train
    assert section is not None
    best = next(line for line in section.epochs if line.step == section.best_step)
    card_data = ModelCardData(
        base_model=section.base_model.name if "/" in section.base_model.name else None,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["paraphrase-identification", "mrpcbench"],
        datasets=[GLUE_DATASET] if record.data[0].source.startswith("hub:") else None,
        model_name=record.model.name,
        eval_results=[
            _result(record, "accuracy", best.eval_accuracy_score),
            _result(record, "f1", best.eval_f1_score),
        ],
    )
    return str(ModelCard(f"---\n{card_data.to_yaml()}\n---\n\n{_body(record, section)}"))


def _result(record: RunRecord, metric: str, value: float) -> EvalResult:
    validation = record.data[1]
    return EvalResult(
        task_type="text-classification",
        dataset_type=GLUE_DATASET if validation.source.startswith("hub:") else "mrpcbench",
        dataset_name=validation.source,
        dataset_config="mrpc" if validation.source.startswith("hub:") else None,
        dataset_split=validation.split,
        metric_type=metric,
        metric_value=round(value, 6),
    )


def _body(record: RunRecord, section: TrainSection) -> str:
    recipe, data, environment = section.recipe, record.data, record.environment
    steps = [
        f"| {line.train_epoch:g} | {line.step} | {_number(line.train_loss)} | {_number(line.eval_loss)} "
        f"| {line.eval_accuracy_score:.6f} | {line.eval_f1_score:.6f} |"
        for line in section.epochs
    ]
    versions = ", ".join(
        f"{name} {environment.packages[name]}"
        for name in ("transformers", "torch", "datasets", "tokenizers")
        if name in environment.packages
    )
    names = data[0].label_names
    return "\n".join(
        [
            f"# {record.model.name}",
            "",
            "Says whether two sentences mean the same: "
            f"`{section.base_model.name}` ({section.base_model.architecture}, "
            f"{section.base_model.weights_label} weights), fine-tuned on {data[0].pairs} pairs of {data[0].source}. "
            f"The weights are those of step {section.best_step}, best by validation {recipe.metric_for_best_model}.",
            "",
            "| epoch | step | training loss | validation loss | accuracy | F1 |",
            "|---|---|---|---|---|---|",
            *steps,
            "",
            f"Validated on {data[1].pairs} pairs. Labels: 0 is {names[0].upper()}, 1 is {names[1].upper()}.",
            "",
            "## Recipe",
            "",
            f"- {section.total_steps} steps of {recipe.gradient_accumulation_steps} x "
            f"{recipe.per_device_train_batch_size} pairs, seed {recipe.seed}",
            f"- learning rate {recipe.learning_rate:g}, {recipe.lr_scheduler_type}, "
            f"{recipe.warmup_steps} steps of warm-up",
            f"- {recipe.optim}, betas ({recipe.adam_beta1:g}, {recipe.adam_beta2:g}), eps {recipe.adam_epsilon:g}, "
            f"weight decay {recipe.weight_decay:g}, gradient norm clipped at {recipe.max_grad_norm:g}",
            f"- {section.placement.dtype} on {section.placement.device}",
            f"- {versions}",
            f"- hash of the weights: `{record.model.model_sha256}`",
            "",
        ]
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6f}"


def push(folder: Path, repo_id: str) -> str:
    """Upload the model in `folder`, without its checkpoints, to `repo_id` on the hub; return the address.

    Raises `UsageError` for a name that cannot be one, `MrpcbenchError` where the upload fails; the folder stays.
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
