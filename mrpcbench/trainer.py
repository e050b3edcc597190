"""The Hugging Face Trainer, made to say what it does, to count its tokens and to stop where it can be resumed."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from mrpcbench.backends.pytorch import placement_of
from mrpcbench.checkpoints import LossSoFar
from mrpcbench.errors import MissingError, UsageError, first_line
from mrpcbench.metrics import finite_or_none, paraphrase_metric
from mrpcbench.models import LoadedModel
from mrpcbench.plans import Precision, TrainRecipe
from mrpcbench.progress import Observer
from mrpcbench.schema import EpochMetrics, Placement

# Reading the loss waits for the GPU; twice a second is often enough for a person and too rare to cost anything.
DISPLAY_EVERY_S = 0.5
# The column of a dataset by which pairs of like length are grouped.
LENGTH = "length"


class Collator(Protocol):
    """Makes batches of training pairs, and counts their tokens."""

    real_tokens: int
    padding_tokens: int

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        """The batch of `features`."""


class CountingCollator(DataCollatorWithPadding):  # type: ignore[misc]  # transformers is untyped here
    """Pads a batch to its longest pair, and counts what it padded."""

    real_tokens = 0
    padding_tokens = 0

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        """The padded tensors of `features`."""
        batch = super().__call__(features)
        real = int(batch["attention_mask"].sum())
        self.real_tokens += real
        self.padding_tokens += batch["input_ids"].numel() - real
        return batch


@dataclass
class Spent:
    """Seconds of a run that are not its steps' own: what is done once, the evaluations, the saves."""

    cold_s: float = 0.0
    evaluate_s: float = 0.0
    save_s: float = 0.0


class ObservedTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """A Trainer that tells an observer of each step.

    Raises `UsageError` for a tracker in `report_to` that is not installed or not known.
    """

    data_collator: Any

    def __init__(
        self,
        loaded: LoadedModel,
        arguments: TrainingArguments,
        train: Dataset,
        validation: Dataset,
        observer: Observer,
        *,
        collator: Any = None,
        counted: Collator | None = None,
    ) -> None:
        """`collator` makes the batches of evaluation, `counted` those of training; unless given, padded ones."""
        try:
            super().__init__(
                model=loaded.model,
                args=arguments,
                train_dataset=train,
                eval_dataset=validation,
                processing_class=loaded.tokenizer,
                data_collator=collator or _collator(DataCollatorWithPadding, loaded.tokenizer),
                compute_metrics=compute_metrics,
            )
        except (ValueError, RuntimeError, ImportError) as error:
            raise UsageError(f"--report-to {', '.join(arguments.report_to)}: {first_line(error)}") from error
        # ModernBERT takes any keyword, which the Trainer takes for a loss that is already averaged over accumulated
        # batches; it is not, and loss and gradient would be as many times too large.
        self.model_accepts_loss_kwargs = False
        # Its lines would go to stdout, among the results; the observer is told the same.
        self.remove_callback(PrinterCallback)
        self.counted: Collator = counted or _collator(CountingCollator, loaded.tokenizer)
        self.spent = Spent()
        self._observer = observer
        self._loss = torch.tensor(float("nan"))
        self._shown_at = 0.0
        self._started_at, self._started_step = 0.0, 0
        self._last_step = 0
        self._stepped = False
        self._carried: LossSoFar | None = None
        self._loss_since_log = torch.tensor(0.0)

    @property
    def precision(self) -> str:
        """The arithmetic that autocast computes in, as accelerate has it: bf16, fp16 or fp32."""
        found = str(self.accelerator.mixed_precision)
        return "fp32" if found == "no" else found

    def get_train_dataloader(self) -> Any:
        """The Trainer's own, whose batches are counted; those of evaluation are not."""
        plain, self.data_collator = self.data_collator, self.counted
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = plain

    @property
    def placement(self) -> Placement:
        """Where and how it trains."""
        found = placement_of(self.model)
        return replace(found, engine=f"Trainer, {found.engine}", dtype=self.precision)

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        """The Trainer's own; an epoch that is continued has the mean loss of all its steps in the log."""
        self._carried = LossSoFar.of(Path(resume_from_checkpoint)) if resume_from_checkpoint else None
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The Trainer's own; its loss is kept on the device for the display, and the first is timed by itself."""
        if self._stepped:
            self._loss = super().training_step(*args, **kwargs).detach()
            return self._loss
        self._stepped = True
        with self._timed("cold_s"):
            self._loss = super().training_step(*args, **kwargs).detach()
        return self._loss

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own, timed."""
        with self._timed("evaluate_s"):
            return super().evaluate(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self._timed("save_s"):
            # Before the rest, so that a checkpoint that is whole has it.
            so_far = LossSoFar(
                total=finite_or_none(float(self._loss_since_log)), last_logged=self._globalstep_last_logged
            )
            so_far.save(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
            super()._save_checkpoint(*args, **kwargs)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Add the time of the body, of the device's work in it too, to what `spent` calls `name`."""
        self._wait()
        start = time.monotonic()
        yield
        self._wait()
        setattr(self.spent, name, getattr(self.spent, name) + time.monotonic() - start)

    def _wait(self) -> None:
        if self.args.device.type == "cuda":
            torch.cuda.synchronize()

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        self._show(grad_norm, kwargs.get("learning_rate"))
        if self._carried is not None:
            tr_loss += float("nan") if self._carried.total is None else self._carried.total
            self._globalstep_last_logged, self._carried = self._carried.last_logged, None
        self._loss_since_log = tr_loss  # which the Trainer empties in place when it logs
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _show(self, grad_norm: Any, learning_rate: float | None) -> None:
        step, now = self.state.global_step, time.monotonic()
        if step == self._last_step:
            return  # the end of an epoch comes through here again
        self._last_step = step
        if not self._started_step:
            self._started_at, self._started_step = now, step
        detail = ""
        if now - self._shown_at >= DISPLAY_EVERY_S or step == self.state.max_steps:
            self._shown_at = now
            seconds = max(now - self._started_at, 1e-9)
            pairs = (step - self._started_step) * self.args.train_batch_size * self.args.gradient_accumulation_steps
            detail = (
                f"loss {float(self._loss) * self.args.gradient_accumulation_steps:.4f}  lr {learning_rate or 0:.2e}  "
                f"grad {float(grad_norm or 0):.2f}"
            )
            if pairs:
                detail += f"  {pairs / seconds:.0f} pairs/s"
        self._observer.advance("train", step, self.state.max_steps, detail)


def _collator(kind: type[Any], tokenizer: PreTrainedTokenizerBase) -> Any:
    return kind(tokenizer, padding="longest")


class Narrator(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Hands on the log at each evaluation, and turns an interrupt into a checkpoint."""

    def __init__(self, on_epoch: Callable[[tuple[EpochMetrics, ...]], None]) -> None:
        self.interrupted = False
        self._on_epoch = on_epoch

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called after each evaluation, when the log of the epoch is whole."""
        self._on_epoch(epochs_of(state.log_history))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An interrupted run saves where it stands, between two steps.

        At the end of an epoch the Trainer saves by itself, after the evaluation that belongs to it.
        """
        at_an_end = float(state.epoch).is_integer() or state.global_step >= state.max_steps
        if self.interrupted and not at_an_end:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Called when a checkpoint is complete."""
        if self.interrupted:
            raise KeyboardInterrupt

    @contextmanager
    def catching_interrupts(self) -> Iterator[None]:
        """The first Ctrl-C asks for a checkpoint and an end; the second ends at once."""

        def note(number: int, frame: FrameType | None) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        previous = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """The two validation metrics, under the names that the reference run logged."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    found = paraphrase_metric().compute(predictions=np.argmax(logits, axis=1), references=prediction.label_ids)
    return {"accuracy_score": found["accuracy"], "f1_score": found["f1"]}


def resolve_precision(asked: Precision, device: str) -> str:
    """`bf16`, `fp16` or `fp32`; raises `MissingError` where the device cannot train in what was asked."""
    has_bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == "auto":
        return "bf16" if has_bf16 else "fp32"
    if asked == "fp16" and device == "cpu":
        raise MissingError("--precision fp16: training in it needs a GPU; use bf16 or fp32 on the CPU")
    if asked == "bf16" and device == "cuda" and not has_bf16:
        raise MissingError("--precision bf16: this GPU has no bf16; use --precision fp16 or fp32")
    return asked


def arguments(
    recipe: TrainRecipe, output_dir: Path, *, device: str, precision: str, report_to: str
) -> TrainingArguments:
    """`recipe` in the Trainer's own words; raises `UsageError` for a name that transformers does not know."""
    metric = recipe.metric_for_best_model
    # accelerate would take its precision from this variable, whatever the recipe says.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no" if precision == "fp32" else precision
    try:
        made = TrainingArguments(
            output_dir=str(output_dir),
            per_device_train_batch_size=recipe.per_device_train_batch_size,
            per_device_eval_batch_size=recipe.per_device_eval_batch_size,
            num_train_epochs=recipe.num_train_epochs,
            max_steps=recipe.max_steps,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.lr_scheduler_type,
            warmup_steps=recipe.warmup_steps,
            optim=recipe.optim,
            adam_beta1=recipe.adam_beta1,
            adam_beta2=recipe.adam_beta2,
            adam_epsilon=recipe.adam_epsilon,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.max_grad_norm,
            gradient_accumulation_steps=recipe.gradient_accumulation_steps,
            group_by_length=recipe.group_by_length,
            length_column_name=LENGTH,
            seed=recipe.seed,
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
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"the recipe is not one that transformers takes: {first_line(error)}") from error
    # One GPU: with several, the Trainer would split each batch over all of them and be another recipe.
    made._n_gpu = min(made.n_gpu, 1)
    return made


def epochs_of(log: Sequence[Mapping[str, Any]]) -> tuple[EpochMetrics, ...]:
    """The Trainer's log, in which training and evaluation stand apart, as one line an evaluation."""
    lines, training = [], {}
    for entry in log:
        if "loss" in entry:
            training = dict(entry)
        if "eval_loss" in entry:
            lines.append(
                EpochMetrics(
                    step=entry["step"],
                    train_loss=finite_or_none(training.get("loss")),
                    train_grad_norm=finite_or_none(training.get("grad_norm")),
                    train_learning_rate=training.get("learning_rate", 0.0),
                    train_epoch=float(entry["epoch"]),
                    eval_loss=finite_or_none(entry["eval_loss"]),
                    eval_accuracy_score=entry["eval_accuracy_score"],
                    eval_f1_score=entry["eval_f1_score"],
                )
            )
    return tuple(lines)
