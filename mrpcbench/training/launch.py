"""How a launcher started this process: alone, or as one of several that train together.

A launcher tells its processes with environment variables. accelerate would let some of them change the recipe, unseen
by the record.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mrpcbench.environment.capture import resolve_device, usable_cores
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.progress import Observer, Silent
from mrpcbench.schema.requests import TrainRecipe, TrainRequest
from mrpcbench.training.distributed import World, joined

# accelerate and transformers read the number and the rank of processes from these (accelerate.utils.environment).
# What torchrun sets in each process, and accelerate launch, which uses it.
JOINED = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Whether torchrun holds the store in which the processes meet.
AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
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
def launched(request: TrainRequest, recipe: TrainRecipe, observer: Observer) -> Iterator[tuple[World, Observer]]:
    """Run the body as the launcher wants it, without the variables of launchers that could change the recipe.

    Gives the processes that train together, and the observer of this one: `observer` in the first, and a silent one in
    the others. The variables are restored afterwards. Raises `UsageError` for an incomplete launch, and for a variable
    that contradicts an option, and `MissingError` for more processes than GPUs.
    """
    size, rank, local_size = _check_launch()
    _check_recipe(request, recipe)
    before = _taken_out()
    try:
        if size == 1:
            if before:
                observer.say(f"ignored variables of a launcher: {', '.join(sorted(before))}")
            if resolve_device(request.device) == "cuda" and (gpus := torch.cuda.device_count()) > 1:
                observer.say(f"training on one of {gpus} GPUs; torchrun --nproc-per-node {gpus} would use all")
            yield World(), observer
            return
        os.environ.update({name: before[name] for name in before if name in (*JOINED, AGENT_STORE)})
        on_gpu = _has_gpus(request, local_size)
        if recipe.group_by_length:
            raise UsageError("--group-by-length: several processes would train on other batches than one; leave it out")
        # Else each process would use all cores.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // local_size)))
        with joined(rank, size, on_gpu=on_gpu) as world:
            yield world, observer if world.is_first else Silent()
    finally:
        _taken_out()  # accelerate sets some itself
        os.environ.update(before)


def _taken_out() -> dict[str, str]:
    """Unset the variables of launchers, and return them."""
    names = [name for name in os.environ if name in (*SIZES, *RANKS, *OTHERS) or name.startswith(PREFIXES)]
    return {name: os.environ.pop(name) for name in names}


def _check_launch() -> tuple[int, int, int]:
    """The number of processes, the rank of this one, and the number of processes on this machine.

    Raises `UsageError` for a launch of several processes that cannot meet.
    """
    size = _number(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and all(name in os.environ for name in JOINED):
        numbers = [_number(os.environ[name]) for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE")]
        if all(number.is_integer() for number in numbers) and 0 <= numbers[1] < numbers[0]:
            return int(numbers[0]), int(numbers[1]), int(numbers[2])
    for names, least, most in ((SIZES, 1, 1), (RANKS, -1, 0)):
        for name in names:
            if name in os.environ and not least <= _number(os.environ[name]) <= most:
                raise UsageError(
                    f"{name}={os.environ[name]}: one of several processes, but not started by torchrun or accelerate "
                    f"launch, which set {', '.join(JOINED)}; start it with torchrun, or unset {name}"
                )
    return 1, 0, 1


def _has_gpus(request: TrainRequest, local_size: int) -> bool:
    """Whether the processes train on GPUs. Raises `MissingError` if this machine has fewer GPUs than processes."""
    if resolve_device(request.device) != "cuda":
        return False
    if (gpus := torch.cuda.device_count()) < local_size:
        raise MissingError(
            f"{local_size} processes on this machine, and {gpus} GPU{'' if gpus == 1 else 's'}: each needs its own; "
            "start fewer processes, or use --device cpu"
        )
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return True


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
