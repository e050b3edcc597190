"""A training recipe as the Hugging Face Trainer's arguments."""

import os
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from mrpcbench.environment.machine import BF16, has_instructions
from mrpcbench.errors import MissingError, UsageError, first_line
from mrpcbench.modernbert.forward import refusal
from mrpcbench.schema.requests import DEFAULT_BATCH_SIZE, Engine, Precision, TrainRecipe

# transformers' names of torch's AdamW.
ADAMW = ("adamw_torch", "adamw_torch_fused")
# The dataset column with the number of tokens of a pair, by which pairs of similar length are grouped.
LENGTH = "length"
# The dataset column with the number of a pair, by which an error names it.
ROW = "row"
# Trackers whose package has another name.
PACKAGES_OF_TRACKERS = {"azure_ml": "azureml-core", "comet_ml": "comet-ml", "flyte": "flytekit"}
# Fields of the recipe that are not the Trainer's, or that it takes in another form. All others have its names.
NOT_THE_TRAINERS = {"batch_size", "engine", "precision", "metric_for_best_model", "group_by_length"}


class OneGpuArguments(TrainingArguments):  # type: ignore[misc]  # transformers is untyped here
    """The Trainer's arguments for one GPU, even if several are visible.

    With several GPUs in one process the Trainer splits each batch over all of them, which is another recipe.
    """

    @property
    def n_gpu(self) -> int:
        """GPUs that the Trainer uses: 1, or 0 on the CPU."""
        return min(int(super().n_gpu), 1)

    @property
    def device(self) -> torch.device:
        """The device of this process. On a CPU accelerate numbers it, and torch restores no checkpoint to cpu:0."""
        found: torch.device = super().device
        return torch.device("cpu") if found.type == "cpu" else found


def resolve_precision(asked: Precision, device: str) -> str:
    """`bf16`, `fp16` or `fp32`. Raises `MissingError` if `device` cannot train in the precision that was asked for.

    `auto` is that of the reference run, bf16, where the hardware has it. A processor without bf16 instructions converts
    it to float32 and back, which is slower than float32.
    """
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if device == "cuda" else has_instructions(BF16)
    if asked == "auto":
        return "bf16" if has_bf16 else "fp32"
    if asked == "fp16" and device == "cpu":
        raise MissingError("--precision fp16: training in fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if asked == "bf16" and device == "cuda" and not has_bf16:
        raise MissingError("--precision bf16: this GPU has no bf16; use --precision fp16 or fp32")
    return asked


def resolve_engine(recipe: TrainRecipe, net: PreTrainedModel, device: str) -> Engine:
    """`trainer` or `packed`: `auto` is packed on a CPU if it supports the model and the optimiser of `recipe`.

    On a GPU it is trainer, because equal results are shown only for a CPU (docs/benchmarks/packed-equality.json).
    """
    if recipe.engine != "auto":
        return recipe.engine
    supported = refusal(net.config, type(net).__name__, training=True) is None and recipe.optim in ADAMW
    return "packed" if device == "cpu" and supported else "trainer"


def with_batch_sizes(recipe: TrainRecipe, processes: int) -> TrainRecipe:
    """`recipe` with the batch of all `processes`, and the equal share of each one.

    Raises `UsageError` if the batch cannot be divided, or if both sizes are given and contradict each other.
    """
    share, batch = recipe.per_device_train_batch_size, recipe.batch_size
    if share is None:
        batch = batch or DEFAULT_BATCH_SIZE
        if batch % processes:
            raise UsageError(
                f"--batch-size {batch}: {processes} processes cannot share it equally; use a multiple of {processes}"
            )
        share = batch // processes
    elif batch is not None and batch != share * processes:
        raise UsageError(
            f"--batch-size {batch} contradicts --per-device-train-batch-size {share} with {processes} "
            f"process{'' if processes == 1 else 'es'}; leave one of them out"
        )
    return replace(recipe, batch_size=share * processes, per_device_train_batch_size=share)


def training_arguments(
    recipe: TrainRecipe, output_dir: Path, *, device: str, precision: str, report_to: str
) -> TrainingArguments:
    """The Trainer's arguments for `recipe`. Raises `UsageError` for a value that transformers rejects."""
    metric = recipe.metric_for_best_model
    # accelerate prefers this variable to the arguments, so it must agree with the recipe.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no" if precision == "fp32" else precision
    try:
        return OneGpuArguments(
            **{name: value for name, value in asdict(recipe).items() if name not in NOT_THE_TRAINERS},
            output_dir=str(output_dir),
            **_sampling(recipe),
            **_tracking(),
            length_column_name=LENGTH,
            remove_unused_columns=False,  # the collator takes what the model takes
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            use_cpu=device == "cpu",
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_strategy="epoch",
            logging_nan_inf_filter=False,
            metric_for_best_model=metric if metric == "loss" else f"{metric}_score",
            greater_is_better=metric != "loss",
            disable_tqdm=True,
            dataloader_pin_memory=device == "cuda",
            report_to=[report_to],
            # All weights of a classifier take part in its loss, and a search for others costs time in every step.
            ddp_find_unused_parameters=False,
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"transformers rejected an option: {first_line(error)}") from error


def check_tracker(name: str) -> None:
    """Raise `UsageError` for an experiment tracker that transformers does not know, `MissingError` without its package.

    "all" means those that are installed, so it needs none.
    """
    if name in ("none", "all"):
        return
    if name not in INTEGRATION_TO_CALLBACK:
        known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
        raise UsageError(f"--report-to {name}: not a tracker that transformers knows; use none, all, {known}")
    if name not in get_available_reporting_integrations():
        package = PACKAGES_OF_TRACKERS.get(name, name)
        raise MissingError(f"--report-to {name}: its package is missing; install it with pip install {package}")


def _tracking() -> dict[str, object]:
    """Has trackio keep its log on this machine; transformers would upload it, unless TRACKIO_SPACE_ID names a Space."""
    name = "trackio_space_id"
    known = {item.name for item in fields(TrainingArguments)}
    return {name: os.environ.get("TRACKIO_SPACE_ID")} if name in known else {}


def _sampling(recipe: TrainRecipe) -> dict[str, object]:
    """The Trainer's argument for `group_by_length`, which transformers 5 renamed."""
    if not recipe.group_by_length:
        return {}
    old = "group_by_length"
    known = {item.name for item in fields(TrainingArguments)}
    return {old: True} if old in known else {"train_sampling_strategy": old}
