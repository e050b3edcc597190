"""Fine-tune a paraphrase classifier with the Hugging Face Trainer: `mrpcbench train`."""

import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_model
from transformers import PretrainedConfig, TrainingArguments
from transformers.utils import logging as transformers_logging

from mrpcbench.data import loading
from mrpcbench.data.labels import are_numbers, normal
from mrpcbench.environment.capture import capture, exact_float32, resolve_device, resolve_threads
from mrpcbench.environment.machine import BF16, has_instructions
from mrpcbench.environment.redaction import public_name
from mrpcbench.errors import InterruptedRunError, MissingError, UsageError
from mrpcbench.hub.uploads import Target
from mrpcbench.models.classifier import LoadedModel, load_classifier
from mrpcbench.models.hashes import weights_sha256
from mrpcbench.models.sources import ModelSource, load_config, weights_source
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.records.outputs import check_file, check_space, check_writable, record_of
from mrpcbench.schema.fields import check
from mrpcbench.schema.identity import DataIdentity, Environment
from mrpcbench.schema.records import TrainRecord
from mrpcbench.schema.requests import TrainRecipe, TrainRequest
from mrpcbench.schema.results import EpochMetrics, TrainSection
from mrpcbench.training import checkpoints, launch, model_card
from mrpcbench.training.arguments import (
    LENGTH,
    ROW,
    check_tracker,
    resolve_engine,
    resolve_precision,
    training_arguments,
    with_batch_sizes,
)
from mrpcbench.training.callbacks import Interruptible
from mrpcbench.training.distributed import World
from mrpcbench.training.epoch_log import epochs_of, metrics_csv
from mrpcbench.training.packed_trainer import PackedTrainer
from mrpcbench.training.trainer import LABELS, ObservedTrainer

SPLITS = ("train", "validation")
SPECIAL_TOKENS = ("eos_token_id", "bos_token_id", "pad_token_id")


def train(request: TrainRequest, recipe: TrainRecipe, results: Path | None, observer: Observer) -> TrainRecord:
    """Fine-tune the model of `request` with `recipe`; write the model folder, and the record to `results`.

    The record is saved after every epoch. Raises `UsageError` for an unsuitable model, data source or output folder,
    and `MissingError` if the device cannot train as requested. Ctrl-C saves a checkpoint, from which `resume`
    continues, and raises `InterruptedRunError`. Of several processes that a launcher has started, the first one writes;
    the others return the record as it is when the training ends.
    """
    check(request, recipe)
    with launch.launched(request, recipe, observer) as (world, shown):
        recipe = with_batch_sizes(recipe, world.size)
        return _train_in(world, request, recipe, results if world.is_first else None, shown)


@dataclass(frozen=True)
class Job:
    """A run that is ready to begin: its recipe with the engine that trains, its model, its pairs and its trainer.

    `base_folder` holds the files of the model that training starts from.
    """

    recipe: TrainRecipe
    loaded: LoadedModel
    identities: tuple[DataIdentity, ...]
    trainer: ObservedTrainer
    base_folder: Path


def job_of(request: TrainRequest, recipe: TrainRecipe, observer: Observer, world: World | None = None) -> Job:
    """Check all of `request` and `recipe`, load model and pairs, and make the trainer; nothing is written.

    Raises what `train` raises before its first step.
    """
    if recipe.max_steps == 0 or recipe.max_steps < -1:
        raise UsageError(f"--max-steps {recipe.max_steps}: at least 1, or -1 for whole epochs")
    check_tracker(request.report_to)
    checkpoints.check_output(request)
    check_writable("--output-dir", request.output_dir)
    torch.set_num_threads(resolve_threads())
    device = resolve_device(request.device)
    exact_float32()
    precision = resolve_precision(recipe.precision, device)
    splits = loading.load(request.data, observer, SPLITS)
    pairs = {name: loading.split_of(splits, request.data, name) for name in SPLITS}
    source = weights_source(
        request.model, to_train=True, random_init=request.random_init, with_card=request.push_to_hub is not None
    )
    loaded = load_classifier(
        source,
        label_names=loading.label_names(pairs["train"]),
        random_init=request.random_init,
        seed=recipe.seed,
        new_head=True,
    )
    recipe = _with_engine(recipe, loaded, device, precision, observer)
    _report_mismatches(loaded, observer)
    _report_labels(source, loaded, observer)
    made = training_arguments(
        recipe, Path(request.output_dir), device=device, precision=precision, report_to=request.report_to
    )
    tokens = {name: _tokens(split, source) for name, split in pairs.items()}
    source.tell(observer)
    trainer = _trainer(recipe, loaded, made, tokens, observer, precision, world or World())
    trainer.check_optimizer()
    identities = tuple(loading.identity(split, request.data, name) for name, split in pairs.items())
    return Job(recipe, loaded, identities, trainer, source.folder)


def _train_in(
    world: World, request: TrainRequest, recipe: TrainRecipe, results: Path | None, observer: Observer
) -> TrainRecord:
    environment = capture()
    check_file("--results", results, record_of("train"))
    to = model_card.check_target(request) if world.is_first else None
    job = job_of(request, recipe, observer, world)
    with checkpoints.alone(request) if world.is_first else nullcontext():
        return _trained(world, job, environment, request, to, results, observer)


def _trained(
    world: World,
    job: Job,
    environment: Environment,
    request: TrainRequest,
    to: Target | None,
    results: Path | None,
    observer: Observer,
) -> TrainRecord:
    """Train `job` in an output folder that no other training uses; upload the model to the repository `to`."""
    recipe, loaded, trainer, output_dir = job.recipe, job.loaded, job.trainer, Path(request.output_dir)
    run = checkpoints.run_of(recipe, loaded.identity, job.identities, trainer.precision)
    newest = None
    if request.resume:
        checkpoints.check_same_run(run, output_dir)
        if done := checkpoints.finished(run, output_dir):
            observer.say(f"the run in {output_dir} is finished; nothing is left to train, and this is its record")
            store.save(done, results)
            return model_card.push(done, request, to, job.base_folder, results, observer)
        newest = checkpoints.newest_checkpoint(output_dir, observer)
        checkpoints.check_best(newest, output_dir)
    begun_at = checkpoints.state_of(newest).global_step if newest else 0
    needed = checkpoints.bytes_to_write(trainer, recipe, begun_at)
    check_space("--output-dir", output_dir, needed)
    world.wait()  # for the checks of all
    if world.is_first:
        checkpoints.start(request, run, newest, observer)
    record = _first_record(job, environment, newest)
    observer.began(record)
    with checkpoints.saving(output_dir, needed):
        record = _run(trainer, record, newest, results, observer)
        if not world.is_first:
            return record
        record = _finish(job, record, request, results)
    return model_card.push(record, request, to, job.base_folder, results, observer)


def _with_engine(
    recipe: TrainRecipe, loaded: LoadedModel, device: str, precision: str, observer: Observer
) -> TrainRecipe:
    """`recipe` with the engine that trains. Says which engine and precision that is."""
    engine = resolve_engine(recipe, loaded.model, device)
    chosen = [name for name in ("precision", "engine") if getattr(recipe, name) == "auto"]
    how = f" ({', '.join(f'--{name} auto' for name in chosen)})" if chosen else ""
    observer.say(f"training on {device} in {precision} with engine {engine}{how}")
    if precision == "bf16" and device == "cpu" and not has_instructions(BF16):
        observer.warn("--precision bf16: this processor has no bf16 instructions, so training is slow; use fp32")
    return replace(recipe, engine=engine)


def _report_mismatches(loaded: LoadedModel, observer: Observer) -> None:
    report = loaded.report
    # Unexpected weights are normal: the classifier does not use the pretraining head of a checkpoint.
    for report_line, kind, keys in (
        (observer.warn, "missing from", report.missing),
        (observer.say, "unexpected in", report.unexpected),
    ):
        if keys:
            shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
            report_line(f"{len(keys)} weights {kind} the checkpoint {loaded.identity.name}: {shown}")


def _report_labels(source: ModelSource, loaded: LoadedModel, observer: Observer) -> None:
    """Say it if a classification head that training begins from had other labels, or the same in another order."""
    before, now = source.label_names, tuple(loaded.model.config.id2label.values())
    is_headed = not loaded.report.new_head and loaded.identity.weights != "random-init"
    if is_headed and not are_numbers(before) and list(map(normal, before)) != list(map(normal, now)):
        observer.warn(
            f"the head of {source.name} has the labels {', '.join(before)}; it is trained for {', '.join(now)}"
        )


def _tokens(split: Dataset, source: ModelSource) -> Dataset:
    encoded = source.reader.encode(split)
    numbers = {LENGTH: encoded.lengths, ROW: list(range(len(encoded.lengths)))}
    return Dataset.from_dict({**encoded.columns, LABELS: split["label"][:], **numbers})


def _trainer(
    recipe: TrainRecipe,
    loaded: LoadedModel,
    made: TrainingArguments,
    tokens: dict[str, Dataset],
    observer: Observer,
    precision: str,
    world: World,
) -> ObservedTrainer:
    """The trainer for the engine of `recipe`. Raises `MissingError` if it would train in another precision."""
    if recipe.engine == "packed":
        return PackedTrainer(loaded, made, tokens["train"], tokens["validation"], observer, precision, world=world)
    trainer = ObservedTrainer(loaded, made, tokens["train"], tokens["validation"], observer, world=world)
    if trainer.precision != precision:
        raise MissingError(
            f"--precision {recipe.precision}: requested {precision}, but {trainer.precision} would be used"
        )
    return trainer


def _first_record(job: Job, environment: Environment, checkpoint: Path | None) -> TrainRecord:
    loaded, trainer = job.loaded, job.trainer
    section = TrainSection(
        recipe=job.recipe,
        placement=trainer.placement,
        processes=trainer.world.size,
        devices=tuple(trainer.world.gather(trainer.placement.device)),
        base_model=loaded.identity,
        load_report=loaded.report,
        aligned_tokens={},
        total_steps=trainer.total_steps,
        resumed_from_step=int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else None,
        epochs=(),
        best_step=None,
        train_s=None,
        real_tokens=0,
        padding_tokens=0,
    )
    return TrainRecord(
        complete=False,
        environment=environment,
        model=loaded.identity,
        data=job.identities,
        train=section,
    )


def _run(
    trainer: ObservedTrainer, record: TrainRecord, checkpoint: Path | None, results: Path | None, observer: Observer
) -> TrainRecord:
    """Train to the end, save the record after every epoch, and return it with the complete log."""
    before = _special_tokens(trainer.model.config)
    begun = record.train

    def save_epoch(epochs: tuple[EpochMetrics, ...]) -> None:
        store.save(replace(record, train=replace(begun, epochs=epochs)), results)

    interruptible = Interruptible(save_epoch, trainer.world)
    trainer.add_callback(interruptible)
    begin, spent = time.monotonic(), dict[str, Any]()
    reached = checkpoints.state_of(checkpoint) if checkpoint else None
    if checkpoint and reached and reached.global_step >= begun.total_steps:
        # The run stopped after its last checkpoint. The Trainer would take another step, although none is left.
        trainer.state = reached
        trainer.model.config = load_config(checkpoint, checkpoint.name)
    else:
        _train(trainer, interruptible, checkpoint)
        spent = {"train_s": time.monotonic() - begin, **trainer.stopwatch.seconds}
    after = _special_tokens(trainer.model.config)
    aligned = {name: after[name] for name in SPECIAL_TOKENS if after[name] != before[name]}
    real_tokens, padding_tokens = trainer.world.totals(trainer.counted.real_tokens, trainer.counted.padding_tokens)
    section = replace(
        begun,
        aligned_tokens=aligned,
        epochs=epochs_of(trainer.state.log_history),
        best_step=trainer.state.best_global_step or trainer.state.global_step,
        **spent,
        real_tokens=real_tokens,
        padding_tokens=padding_tokens,
    )
    return replace(record, train=section)


def _train(trainer: ObservedTrainer, interruptible: Interruptible, checkpoint: Path | None) -> None:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with interruptible.catching_interrupts():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except KeyboardInterrupt:
        raise InterruptedRunError(_interruption(trainer)) from None
    finally:
        transformers_logging.set_verbosity(level)


def _interruption(trainer: ObservedTrainer) -> str:
    state, folder = trainer.state, Path(trainer.args.output_dir)
    saved = checkpoints.newest_checkpoint(folder)
    kept = f"{saved.name} is saved and --resume continues from it" if saved else "no checkpoint is saved yet"
    return f"interrupted at step {state.global_step} of {state.max_steps}; {kept}"


def _special_tokens(config: PretrainedConfig) -> dict[str, int | None]:
    return {name: getattr(config, name, None) for name in SPECIAL_TOKENS}


def _finish(job: Job, record: TrainRecord, request: TrainRequest, results: Path | None) -> TrainRecord:
    """Save the best model with its tokenizer, lineage, log and card, then the finished record."""
    trainer, loaded = job.trainer, job.loaded
    section = record.train
    folder = Path(request.output_dir)
    model = trainer.model.to("cpu").float()
    # The path that the Trainer stored for its best checkpoint is wrong if the folder was moved.
    load_model(model, folder / f"checkpoint-{section.best_step}" / "model.safetensors")
    identity = replace(
        loaded.identity,
        name=public_name(request.output_dir),
        weights="fine-tuned",
        revision=None,
        model_sha256=weights_sha256(model),
    )
    finished = replace(record, complete=True, model=identity)
    lineage = replace(
        checkpoints.run_of(section.recipe, loaded.identity, record.data, trainer.precision), model=identity
    )

    def write(staged: Path) -> None:
        model.save_pretrained(staged, safe_serialization=True)
        loaded.tokenizer.save_pretrained(staged)
        store.save_lineage(lineage, staged)
        store.save(finished, staged / checkpoints.RECORD_FILE)
        (staged / "metrics.csv").write_text(metrics_csv(section.epochs), encoding="utf-8")
        (staged / "README.md").write_text(model_card.model_card(finished, job.base_folder), encoding="utf-8")

    store.write_folder(folder, write)
    store.save(finished, results)
    return finished
