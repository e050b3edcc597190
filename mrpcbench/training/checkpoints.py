"""A training run's folder: which run was started in it, its newest checkpoint, and whether it is finished."""

import math
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from transformers.utils import SAFE_WEIGHTS_NAME

from mrpcbench.errors import MrpcbenchError, UsageError, first_line
from mrpcbench.models.classifier import folder_sha256
from mrpcbench.models.files import SMALL_FILES, WEIGHTS_INDEX, check_safetensors, foreign, matches
from mrpcbench.models.sources import ModelSource
from mrpcbench.progress import Observer, Silent
from mrpcbench.records import store
from mrpcbench.records.outputs import only_writer
from mrpcbench.schema.identity import DataIdentity, Lineage, ModelIdentity
from mrpcbench.schema.records import TrainRecord
from mrpcbench.schema.requests import TrainRecipe, TrainRequest
from mrpcbench.training.trainer import ObservedTrainer

SILENT = Silent()
# What torch.save and safetensors say if the system does not take their bytes.
UNWRITTEN = ("PytorchStreamWriter", "unexpected pos", "file write failed", "os error")
# What a run was started with: --resume continues only the same run.
RUN_FILE = "mrpcbench-run.json"
# The record of a finished run, next to its model.
RECORD_FILE = "mrpcbench-train.json"
PICKLED = ("optimizer.pt", "scheduler.pt")
CHECKPOINT_FILES = (SAFE_WEIGHTS_NAME, *PICKLED, "trainer_state.json")
# The files of a model besides its weights.
MODEL_FILES = (*SMALL_FILES, "README.md", "metrics.csv", store.LINEAGE_FILE, RECORD_FILE)
# What a training replaces in its folder, and what the Trainer writes into a checkpoint; shell patterns.
WEIGHTS_FILES = ("*.safetensors", WEIGHTS_INDEX)
REPLACED = (*MODEL_FILES, *WEIGHTS_FILES, "checkpoint-*")
IN_CHECKPOINT = (*SMALL_FILES, *WEIGHTS_FILES, *CHECKPOINT_FILES, "rng_state*.pth", "scaler.pt", "training_args.bin")


def check_output(request: TrainRequest) -> None:
    """Raise `UsageError` unless a training can write to its folder without a loss.

    An earlier run there is to be resumed or replaced. Anything else that the training would replace is not touched.
    """
    folder = Path(request.output_dir)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output-dir {folder}: a file; name a folder")
    if request.resume and request.overwrite:
        raise UsageError("--resume and --overwrite exclude each other: continue the run, or discard it")
    if request.resume and not (folder / RUN_FILE).exists():
        raise _nothing_to_resume(folder)  # before the Trainer makes the folder
    if request.resume or not folder.is_dir():
        return
    for option, given in (("--model", request.model), ("--data", request.data)):
        if Path(given).exists() and folder.samefile(given):
            raise UsageError(f"--output-dir {folder}: the same folder as {option}; name another folder")
    if _is_of_a_run(folder):
        _check_replaceable(folder, request)
    elif found := next((path for path in sorted(folder.iterdir()) if matches(path.name, REPLACED)), None):
        raise UsageError(
            f"--output-dir {folder}: holds {found.name}, which is of no run of `mrpcbench train`; name another folder, "
            "or move it away"
        )


def _is_of_a_run(folder: Path) -> bool:
    """Whether a run was started in `folder`, or a model that a run made was copied to it."""
    lineage = store.load_lineage(folder)
    return (folder / RUN_FILE).exists() or bool(lineage and lineage.recipe and lineage.model.graph_sha256 is None)


def _check_replaceable(folder: Path, request: TrainRequest) -> None:
    if not request.overwrite:
        raise UsageError(
            f"--output-dir {folder}: already holds a model or a run; continue it with --resume, replace it with "
            "--overwrite, or name another folder"
        )
    for checkpoint in _checkpoints(folder).values():
        other = None if checkpoint.is_symlink() else foreign(checkpoint, IN_CHECKPOINT)
        if checkpoint.is_symlink() or other:
            what = f"with {other}" if other else "a link"
            raise UsageError(f"--overwrite: {checkpoint} is not only a checkpoint ({what}); move it away")


@contextmanager
def alone(request: TrainRequest) -> Iterator[None]:
    """Keep other trainings out of the output folder in the body; it is made if need be.

    Raises `UsageError` if one is running in it, and like `check_output` if one has ended since that was called.
    """
    with only_writer("--output-dir", Path(request.output_dir)):
        check_output(request)
        yield


def run_of(recipe: TrainRecipe, base: ModelIdentity, identities: tuple[DataIdentity, ...], precision: str) -> Lineage:
    """Everything that determines the final weights."""
    return Lineage(
        model=base,
        base_model=base.name,
        base_model_revision=base.revision,
        base_model_sha256=base.model_sha256,
        data_revision=identities[0].revision,
        train_data_sha256=identities[0].data_sha256,
        validation_data_sha256=identities[1].data_sha256,
        recipe=recipe,
        precision=precision,
    )


def start(request: TrainRequest, run: Lineage, newest: Path | None, observer: Observer) -> None:
    """Note in the output folder that `run` was started, or, to resume it, say which checkpoint is the `newest`."""
    folder = Path(request.output_dir)
    if request.resume:
        observer.say(f"resuming from {newest.name}" if newest else "no checkpoint yet: starting at step 0")
        return
    remove_checkpoints(folder)
    # Until this run ends, a model in the folder is that of another run.
    (folder / store.LINEAGE_FILE).unlink(missing_ok=True)
    store.save_lineage(run, folder, RUN_FILE)


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run in `folder`, but no link and nothing with other files in it."""
    for checkpoint in _checkpoints(folder).values():
        if not checkpoint.is_symlink() and foreign(checkpoint, IN_CHECKPOINT) is None:
            shutil.rmtree(checkpoint)


def _checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in `folder`, whole or not, by the step that they were saved after."""
    found = {path: re.fullmatch(r"checkpoint-([0-9]+)", path.name) for path in folder.glob("checkpoint-*")}
    return {int(name[1]): path for path, name in found.items() if name and path.is_dir()}


def check_same_run(now: Lineage, folder: Path) -> None:
    """Raise `UsageError` unless the run `now` was started in `folder`. The message names what differs."""
    before = store.load_lineage(folder, RUN_FILE)
    if before is None:
        raise _nothing_to_resume(folder)
    assert before.recipe is not None and now.recipe is not None
    was, asked = asdict(before.recipe), asdict(now.recipe)
    changed = [f"{name} {was[name]} (now {asked[name]})" for name in was if was[name] != asked[name]]
    if before.precision != now.precision:
        changed.append(f"precision {before.precision} (now {now.precision})")
    if before.base_model_sha256 != now.base_model_sha256:
        changed.append(_other_model(before, now))
    if before.train_data_sha256 != now.train_data_sha256:
        changed.append("other training pairs")
    if before.validation_data_sha256 != now.validation_data_sha256:
        changed.append("other validation pairs")
    if changed:
        raise UsageError(f"--resume: the run in {folder} was started with {', '.join(changed)}; use the same options")


def _nothing_to_resume(folder: Path) -> UsageError:
    return UsageError(f"--resume: no run was started in {folder}; leave --resume out, or check --output-dir")


def finished(run: Lineage, folder: Path) -> TrainRecord | None:
    """The record of `run` if it is finished and `folder` holds its model; else None.

    Raises `UsageError` if the weights in `folder` are others than those that `run` wrote.
    """
    lineage = store.load_lineage(folder)
    if lineage is None or lineage != _at_commits_of(lineage, run) or not (folder / SAFE_WEIGHTS_NAME).exists():
        return None
    if folder_sha256(ModelSource(str(folder), folder)) != lineage.model.model_sha256:
        raise UsageError(
            f"--resume: {folder / SAFE_WEIGHTS_NAME} is not what the run wrote; move it away to restore it from the "
            "best checkpoint, or train from scratch with --overwrite"
        )
    with suppress(UsageError):  # the record is missing or has another version: it is written again
        record = store.load_as(TrainRecord, folder / RECORD_FILE)
        return record if record.model == lineage.model else None
    return None


def _at_commits_of(lineage: Lineage, run: Lineage) -> Lineage:
    """`run` with the model and the commits of `lineage`: another commit of the hub can hold the same files."""
    commits = {name: getattr(lineage, name) for name in ("base_model_revision", "data_revision")}
    return replace(run, model=lineage.model, **commits)


def _other_model(before: Lineage, now: Lineage) -> str:
    if before.base_model_revision and before.base_model == now.base_model:
        return f"commit {before.base_model_revision} of {now.base_model} (pass {now.base_model}@COMMIT)"
    return f"a model other than {now.base_model}"


def check_best(checkpoint: Path | None, folder: Path) -> None:
    """Raise `UsageError` if the best weights until `checkpoint`, which the end of the run needs, are gone."""
    best_step = state_of(checkpoint).best_global_step if checkpoint else None
    if not best_step:
        return
    best = folder / f"checkpoint-{best_step}"
    try:
        with safe_open(best / SAFE_WEIGHTS_NAME, framework="pt") as weights:
            weights.keys()
    except (OSError, SafetensorError) as error:
        raise UsageError(
            f"--resume: {best.name} in {folder} holds the best weights so far, and is missing or damaged "
            f"({first_line(error)}); restore it, or start again with --overwrite"
        ) from error


def bytes_to_write(trainer: ObservedTrainer, recipe: TrainRecipe, begun_at: int) -> int:
    """About the size of the checkpoints that come after step `begun_at`, and of the model, in bytes.

    A checkpoint holds the weights in float32, and AdamW's two moments of each.
    """
    weights: int = 4 * sum(weight.numel() for weight in trainer.model.parameters())
    epoch = trainer.steps_per_epoch
    saves = math.ceil(trainer.total_steps / epoch) - begun_at // epoch
    files = saves * (3 if recipe.optim.startswith("adamw_torch") else 1) + 1
    return int(weights * files)


@contextmanager
def saving(folder: Path, needed: int) -> Iterator[None]:
    """Turn a failure to write in the body into one `MrpcbenchError`, with the bytes that the run needs in `folder`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not isinstance(error, OSError) and not any(words in str(error) for words in UNWRITTEN):
            raise
        raise MrpcbenchError(
            f"--output-dir {folder}: a file cannot be written ({first_line(error)}); the run needs about "
            f"{needed / 1e9:.2g} GB: free some space, then continue with --resume"
        ) from error


def newest_checkpoint(output_dir: Path, observer: Observer = SILENT) -> Path | None:
    """The newest whole checkpoint, or None. `observer` is warned of each newer one that is damaged.

    A kill while saving leaves one that lacks files, of which nothing is said.
    """
    steps = _checkpoints(output_dir)
    for step in sorted(steps, reverse=True):
        pickled = (*PICKLED, *_generators())
        if not all((steps[step] / name).exists() for name in (*CHECKPOINT_FILES, *pickled)):
            continue
        damage = _damage(steps[step], pickled)
        if damage is None:
            return steps[step]
        observer.warn(f"{steps[step]} is damaged ({damage}); it is not used")
    return None


def _damage(checkpoint: Path, pickled: Iterable[str]) -> str | None:
    """Which file of `checkpoint` is damaged, and how; None if it is whole. Nothing is unpickled."""
    for name in pickled:
        try:
            with ZipFile(checkpoint / name) as archive:  # the format of torch.save, with a checksum of every part
                if part := archive.testzip():
                    return f"{name}: {part} is not what was written"
        except (OSError, ValueError, BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
            return f"{name}: {first_line(error)}"
    try:
        check_safetensors(checkpoint / SAFE_WEIGHTS_NAME, checkpoint.name)
        state_of(checkpoint)
    except (MrpcbenchError, ValueError, TypeError, OSError, RecursionError) as error:
        return first_line(error).removeprefix(f"{checkpoint.name}: ")
    return None


def _generators() -> list[str]:
    """The files with the state of the random generators of every process of a run."""
    processes = dist.get_world_size() if dist.is_initialized() else 1
    return ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]


def state_of(checkpoint: Path) -> TrainerState:
    """The Trainer's state at `checkpoint`, with its log until then."""
    return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
