"""A training run's folder: which run was started in it, its newest checkpoint, and whether it is finished."""

import math
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
from mrpcbench.models.files import check_safetensors
from mrpcbench.models.sources import ModelSource
from mrpcbench.progress import Observer, Silent
from mrpcbench.records import store
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


def check_output(request: TrainRequest) -> None:
    """Raise `UsageError` for a folder with an earlier run, unless it is to be resumed or replaced."""
    folder = Path(request.output_dir)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output-dir {folder}: a file; name a folder")
    if request.resume and request.overwrite:
        raise UsageError("--resume and --overwrite exclude each other: continue the run, or discard it")
    if request.resume and not (folder / RUN_FILE).exists():
        raise _nothing_to_resume(folder)  # before the Trainer makes the folder
    if request.resume or request.overwrite or not folder.is_dir():
        return
    if (folder / store.LINEAGE_FILE).exists() or any(folder.glob("checkpoint-*")) or (folder / "config.json").exists():
        raise UsageError(
            f"--output-dir {folder}: already holds a model or a run; continue it with --resume, replace it with "
            "--overwrite, or name another folder"
        )


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
    for old in folder.glob("checkpoint-*"):
        shutil.rmtree(old)
    # Until this run ends, a model in the folder is that of another run.
    (folder / store.LINEAGE_FILE).unlink(missing_ok=True)
    store.save_lineage(run, folder, RUN_FILE)


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
    numbered = [(path, path.name.removeprefix("checkpoint-")) for path in output_dir.glob("checkpoint-*")]
    steps = {int(number): path for path, number in numbered if number.isdecimal()}
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
