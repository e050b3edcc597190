"""The Hugging Face Trainer with progress, timings and token counts, through its public interface alone."""

import math
from collections.abc import Iterator
from dataclasses import replace
from inspect import signature
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.data_loader import DataLoaderShard
from datasets import Dataset
from numpy.typing import NDArray
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_scheduler,
)

from mrpcbench.backends.pytorch import placement_of
from mrpcbench.data.batches import padded, padding_of
from mrpcbench.errors import MissingError, UsageError, first_line
from mrpcbench.models.classifier import LoadedModel
from mrpcbench.progress import Observer
from mrpcbench.records.scores import cross_entropy
from mrpcbench.schema.identity import Placement
from mrpcbench.training.arguments import LENGTH, ROW
from mrpcbench.training.callbacks import AtTheStart, Progress, Stopwatch
from mrpcbench.training.distributed import Shares, World
from mrpcbench.training.divergence import DivergenceGuard, check_logits, check_weights
from mrpcbench.training.glue_metric import paraphrase_metric

LABELS = "labels"


class Collator(Protocol):
    """Makes batches of training pairs, and counts their tokens."""

    real_tokens: int
    padding_tokens: int

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        """The batch of `features`."""


class PairCollator:
    """Pads a batch of pairs as evaluation, export and benchmark do, and counts its tokens and its padding."""

    def __init__(self, loaded: LoadedModel, *, with_rows: bool = False) -> None:
        """With `with_rows` a batch also says which pairs it holds."""
        self.real_tokens = 0
        self.padding_tokens = 0
        self._padding = padding_of(loaded.tokenizer)
        self._takes = set(signature(loaded.model.forward).parameters) - {LABELS}
        self._with_rows = with_rows

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The tensors of `features`: int64 [B, L] for each input of the model, the labels and the rows, int64 [B]."""
        names = [name for name in features[0] if name in self._takes]
        inputs = padded({name: [feature[name] for feature in features] for name in names}, self._padding)
        real = int(inputs["attention_mask"].sum())
        self.real_tokens += real
        self.padding_tokens += inputs["input_ids"].size - real
        batch = {name: torch.from_numpy(array) for name, array in inputs.items()}
        numbers = (LABELS, ROW) if self._with_rows else (LABELS,)
        return {**batch, **{name: torch.tensor([feature[name] for feature in features]) for name in numbers}}


class ObservedTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """A Trainer that reports each step to an observer.

    Raises `UsageError` for a tracker in `report_to` that does not start.
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
        world: World | None = None,
        collator: Any = None,
        counted: Collator | None = None,
    ) -> None:
        """`collator` makes the batches of evaluation, `counted` those of training; by default padded ones."""
        self.world = world or World()
        self._weight = 1.0
        try:
            super().__init__(
                model=loaded.model,
                args=arguments,
                train_dataset=train,
                eval_dataset=validation,
                processing_class=loaded.tokenizer,
                data_collator=collator or PairCollator(loaded),
                compute_metrics=lambda found: compute_metrics(found, self.state.global_step),
            )
        except (ValueError, RuntimeError, ImportError) as error:
            raise UsageError(f"--report-to {', '.join(arguments.report_to)}: {first_line(error)}") from error
        # ModernBERT accepts any keyword, from which the Trainer concludes that its loss is already averaged over
        # accumulated batches. It is not, and loss and gradient would be too large by their number.
        self.model_accepts_loss_kwargs = False
        # It prints to stdout, which is for results; the observer gets the same.
        self.remove_callback(PrinterCallback)
        self.counted: Collator = counted or PairCollator(loaded, with_rows=True)
        # Whether a batch of each shape is computed before it is trained on; see `warm_up`.
        # Processes that share a batch have batches of different shapes, and would wait for each other.
        self.warms_up = counted is None and arguments.device.type == "cuda" and self.world.size == 1
        self._observer = observer
        self._warm: set[tuple[int, ...]] = set()
        self.guard = DivergenceGuard()
        self._watch_gradients()
        self.stopwatch = Stopwatch(arguments.device)
        self.progress = Progress(observer, self.stopwatch)
        self.add_callback(self.progress)
        self.add_callback(AtTheStart(self.warm_up))

    def check_optimizer(self) -> None:
        """Raise `UsageError` if transformers cannot make the optimiser or the schedule; nothing is kept.

        The Trainer makes both when the training begins. Raises `MissingError` if a package is missing.
        """
        weight, options = torch.nn.Parameter(torch.zeros(1)), self.args.lr_scheduler_kwargs
        made: torch.optim.Optimizer = torch.optim.SGD([weight])
        option = f"--optim {self.args.optim.value}"
        try:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            if not {"params", "model", "optimizer_dict"} & set(settings):  # those are made for all weights of a model
                made = kind([weight], **settings)
            option = f"--lr-scheduler-type {self.args.lr_scheduler_type.value}"
            warm_up = self.args.get_warmup_steps(self.total_steps)
            get_scheduler(self.args.lr_scheduler_type, made, warm_up, self.total_steps, options)
        except ImportError as error:
            raise MissingError(f"{option}: {first_line(error)}") from error
        except (ValueError, TypeError, RuntimeError) as error:
            raise UsageError(f"{option}: transformers cannot make it ({first_line(error)}); use another") from error

    @property
    def precision(self) -> str:
        """The arithmetic of autocast according to accelerate: bf16, fp16 or fp32."""
        found = str(self.accelerator.mixed_precision)
        return "fp32" if found == "no" else found

    @property
    def placement(self) -> Placement:
        """Where and how it trains."""
        found = placement_of(self.model)
        return replace(found, engine=f"Trainer, {found.engine}", dtype=self.precision)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run, as the Trainer counts them."""
        if self.args.max_steps > 0:
            return int(self.args.max_steps)
        return math.ceil(float(self.args.num_train_epochs) * self.steps_per_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one epoch, as the Trainer counts them."""
        batches = math.ceil(len(self.train_dataset) / self.batch_size)
        return math.ceil(batches / int(self.args.gradient_accumulation_steps))

    @property
    def batch_size(self) -> int:
        """Pairs in a batch, over all processes."""
        return int(self.args.train_batch_size) * self.world.size

    def get_train_dataloader(self) -> Any:
        """The Trainer's own, whose batches are counted; those of evaluation are not.

        Several processes share each batch of the one order. The Trainer would fill the last batch up with other pairs.
        """
        plain, self.data_collator = self.data_collator, self.counted
        try:
            found = super().get_train_dataloader()
        finally:
            self.data_collator = plain
        if self.world.size == 1:
            return found
        batches = Shares(found.get_sampler(), self.batch_size, self.world)
        return DataLoaderShard(
            found.dataset, device=self.args.device, batch_sampler=batches, collate_fn=found.collate_fn
        )

    @property
    def step_now(self) -> int:
        """The step that runs, counted from 1."""
        return int(self.state.global_step) + 1

    def _watch_gradients(self) -> None:
        """Have the guard see each gradient norm, which the Trainer hands to nobody."""
        clip = self.accelerator.clip_grad_norm_

        def watched(*args: Any, **kwargs: Any) -> Any:
            norm = clip(*args, **kwargs)
            if norm is not None and self.precision != "fp16":  # there the scaler skips a step that overflows
                self.guard.gradient_norm(self.step_now, norm)
            return norm

        self.accelerator.clip_grad_norm_ = watched

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """The Trainer's own; its loss stays on the device until it is displayed."""
        rows = inputs.pop(ROW)
        if self.warms_up and tuple(inputs["input_ids"].shape) not in self._warm:
            self._compute_once(inputs)
        self._weight = self.world.weight(len(rows))
        self.progress.loss = super().training_step(model, inputs, num_items_in_batch).detach()
        self.guard.loss(self.step_now, rows, self.progress.loss)
        return self.progress.loss

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **given: Any) -> Any:
        """The Trainer's own; the loss of a training batch is weighted by this process's share of its pairs."""
        found = super().compute_loss(model, inputs, return_outputs=return_outputs, **given)
        return found if return_outputs else found * self._weight

    def warm_up(self, loader: Any) -> None:
        """Compute one batch of each shape that `loader` will give, the largest first; nothing on a CPU.

        On SM90 torch's attention is cuDNN's, which builds an execution plan for each new batch size and width, forward
        and backward. MRPC has so many widths that most steps would build plans. A long training builds each plan once,
        so this time belongs to `cold_s`. Torch's memory-efficient attention needs no plans. But it launches 44 more
        kernels per step of ModernBERT-base at widths that are no multiple of 8, and launches bound a step. So the
        default is kept and warmed. TORCH_CUDNN_SDPA_DEPRIORITIZED=1 selects the other one.
        """
        if not self.warms_up:
            return
        # The Trainer sets it before each step, and divides the loss by it.
        self.current_gradient_accumulation_steps = self.args.gradient_accumulation_steps
        rows_of: dict[tuple[int, int], list[int]] = {}
        lengths = self.train_dataset[LENGTH][:]
        with self.stopwatch.measuring("cold_s"):
            with torch.random.fork_rng(self._devices):  # a sampler may draw from the global generator
                for rows in islice(self._order(loader), self.state.max_steps * self.args.gradient_accumulation_steps):
                    rows_of.setdefault((len(rows), max(lengths[row] for row in rows)), rows)
            self._observer.say(f"warm-up: one batch of each of {len(rows_of)} shapes")
            for _, rows in sorted(rows_of.items(), key=lambda item: -math.prod(item[0])):
                self._compute_once(self.data_collator([self.train_dataset[row] for row in rows]))

    def _order(self, loader: Any) -> Iterator[list[int]]:
        """The rows of each batch from the current epoch on. With `group_by_length` it is an approximation."""
        for epoch in range(int(self.state.epoch), int(self.state.num_train_epochs)):
            loader.set_epoch(epoch)
            yield from loader.batch_sampler

    def _compute_once(self, inputs: dict[str, Any]) -> None:
        """Compute loss and gradients of a batch without an effect on training."""
        self._warm.add(tuple(inputs["input_ids"].shape))
        weights = list(self.model.parameters())
        gradients = [weight.grad for weight in weights]
        for weight in weights:
            weight.grad = None
        with self.stopwatch.measuring("cold_s"), torch.random.fork_rng(self._devices):
            super().training_step(self.model_wrapped, dict(inputs))
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient

    @property
    def _devices(self) -> list[torch.device]:
        """The devices whose random generators training uses, besides the CPU's."""
        return [self.args.device] if self.args.device.type == "cuda" else []

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own, timed. Raises `MrpcbenchError` if the training has diverged."""
        self.check_finite()
        with self.stopwatch.measuring("evaluate_s"):
            return super().evaluate(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own. Its mean loss counts the pairs twice that fill up the last batch of several processes."""
        found = super().evaluation_loop(*args, **kwargs)
        if self.world.size > 1:
            found.metrics["eval_loss"] = cross_entropy(_logits(found.predictions), found.label_ids)
        return found

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """The Trainer's own, with which the saving of a checkpoint begins; it ends with the callback `on_save`.

        Raises `MrpcbenchError` if the training has diverged.
        """
        self.check_finite()
        self.stopwatch.start("save_s")
        super().save_model(*args, **kwargs)

    def check_finite(self) -> None:
        """Raise `MrpcbenchError` if a loss, a gradient norm or a weight is not finite."""
        self.guard.read()
        check_weights(self.model.named_parameters(), int(self.state.global_step))


def compute_metrics(prediction: EvalPrediction, step: int) -> dict[str, float]:
    """Validation accuracy and F1 after `step`, under the names that the reference run logged.

    Raises `MrpcbenchError` if a logit is not finite.
    """
    logits = _logits(prediction.predictions)
    check_logits(logits, step)
    found = paraphrase_metric().compute(predictions=np.argmax(logits, axis=1), references=prediction.label_ids)
    return {"accuracy_score": found["accuracy"], "f1_score": found["f1"]}


def _logits(predictions: Any) -> NDArray[np.float32]:
    """The logits [N, 2] among the outputs of a model."""
    found: NDArray[np.float32] = predictions[0] if isinstance(predictions, tuple) else predictions
    return found
