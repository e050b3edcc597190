"""Environment variables of launchers. accelerate would let them change the recipe, unseen by the record."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

from mrpcbench.errors import UsageError
from mrpcbench.progress import Observer
from mrpcbench.schema.requests import TrainRecipe, TrainRequest

# accelerate and transformers read the number and the rank of processes from these (accelerate.utils.environment).
SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = (
    "RANK LOCAL_RANK GROUP_RANK NODE_RANK PMI_RANK OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_LOCAL_RANK MPI_LOCALRANKID "
    "MV2_COMM_WORLD_RANK MV2_COMM_WORLD_LOCAL_RANK SMDATAPARALLEL_LOCAL_RANK"
).split()
OTHERS = ("MASTER_ADDR", "MASTER_PORT", "FORK_LAUNCHED", "XLA_USE_BF16", "XLA_DOWNCAST_BF16", "USE_TORCH_XLA")
PREFIXES = ("ACCELERATE_", "DEEPSPEED_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "SM_", "TORCHELASTIC_")

# Each of these, if on, changes how training runs. `train` has no options for them.
NOT_SUPPORTED = (
    "ACCELERATE_USE_DEEPSPEED ACCELERATE_USE_FSDP ACCELERATE_USE_MEGATRON_LM ACCELERATE_USE_PARALLELISM_CONFIG "
    "ACCELERATE_USE_SAGEMAKER ACCELERATE_DYNAMO_BACKEND"
).split()
OFF = ("", "0", "no", "false", "off", "n", "f")
# accelerate's launcher always sets ACCELERATE_MIXED_PRECISION; the default is "no".
NO_PRECISION = (*OFF, "fp32")


@contextmanager
def alone(request: TrainRequest, recipe: TrainRecipe, observer: Observer) -> Iterator[None]:
    """Run the body as a single process without the variables of a launcher, and restore them afterwards.

    Raises `UsageError` for a launch of several processes, and for a variable that contradicts an option.
    """
    _check_single_process()
    _check_recipe(request, recipe)
    before = _taken_out()
    if before:
        observer.say(f"ignored variables of a launcher: {', '.join(sorted(before))}")
    try:
        yield
    finally:
        _taken_out()  # accelerate sets some itself
        os.environ.update(before)


def _taken_out() -> dict[str, str]:
    """Unset the variables of launchers, and return them."""
    names = [name for name in os.environ if name in (*SIZES, *RANKS, *OTHERS) or name.startswith(PREFIXES)]
    return {name: os.environ.pop(name) for name in names}


def _check_single_process() -> None:
    for names, least, most in ((SIZES, 1, 1), (RANKS, -1, 0)):
        for name in names:
            if name in os.environ and not least <= _number(os.environ[name]) <= most:
                raise UsageError(
                    f"{name}={os.environ[name]}: a launch of several processes, but `train` runs in one; "
                    f"start it without torchrun, accelerate launch or mpirun, or unset {name}"
                )


def _check_recipe(request: TrainRequest, recipe: TrainRecipe) -> None:
    """Raise `UsageError` for a variable that contradicts an option of the recipe."""
    variables = os.environ
    for name, option, value in (
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "--gradient-accumulation-steps", recipe.gradient_accumulation_steps),
        ("ACCELERATE_GRADIENT_CLIPPING", "--max-grad-norm", recipe.max_grad_norm),
    ):
        if variables.get(name, "auto") != "auto" and _number(variables[name]) != value:
            raise UsageError(_contradiction(name, variables[name], f"{option} {value:g}"))
    name = "ACCELERATE_MIXED_PRECISION"
    text = variables.get(name, "no").lower()
    if text not in (*NO_PRECISION, *(("bf16", "fp16") if recipe.precision == "auto" else (recipe.precision,))):
        raise UsageError(_contradiction(name, text, f"--precision {recipe.precision}"))
    wants_cpu = variables.get("ACCELERATE_USE_CPU", "").lower() not in OFF
    if wants_cpu and request.device == "cuda":
        raise UsageError(_contradiction("ACCELERATE_USE_CPU", variables["ACCELERATE_USE_CPU"], "--device cuda"))
    for name in NOT_SUPPORTED:
        if variables.get(name, "").lower() not in OFF:
            raise UsageError(f"{name}={variables[name]}: `train` does not support it; unset {name}")


def _contradiction(name: str, value: str, option: str) -> str:
    return f"{name}={value} contradicts {option}; unset {name}, or change the option"


def _number(text: str) -> float:
    """`text` as a number; NaN, which equals no number, for other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan
