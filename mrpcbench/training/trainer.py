"""The Hugging Face Trainer with progress, timings and token counts, through its public interface alone."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from mrpcbench.backends.pytorch import placement_of
from mrpcbench.data.batches import padded, padding_of
from mrpcbench.errors import UsageError, first_line
from mrpcbench.models.classifier import LoadedModel
from mrpcbench.progress import Observer
from mrpcbench.schema.identity import Placement
from mrpcbench.training.callbacks import Progress, Stopwatch
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

    def __init__(self, padding: Mapping[str, int]) -> None:
        """`padding` is that of `batches.padding_of`."""
        self.real_tokens = 0
        self.padding_tokens = 0
        self._padding = padding

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """The tensors of `features`: int64 [B, L] for each input of the model, and the labels, int64 [B]."""
        names = [name for name in features[0] if name != LABELS]
        inputs = padded({name: [feature[name] for feature in features] for name in names}, self._padding)
        real = int(inputs["attention_mask"].sum())
        self.real_tokens += real
        self.padding_tokens += inputs["input_ids"].size - real
        batch = {name: torch.from_numpy(array) for name, array in inputs.items()}
        return {**batch, LABELS: torch.tensor([feature[LABELS] for feature in features])}


class ObservedTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """A Trainer that reports each step to an observer.

    Raises `UsageError` for a tracker in `report_to` that is unknown or not installed.
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
        """`collator` makes the batches of evaluation, `counted` those of training; by default padded ones."""
        try:
            super().__init__(
                model=loaded.model,
                args=arguments,
                train_dataset=train,
                eval_dataset=validation,
                processing_class=loaded.tokenizer,
                data_collator=collator or PairCollator(padding_of(loaded.tokenizer)),
                compute_metrics=compute_metrics,
            )
        except (ValueError, RuntimeError, ImportError) as error:
            raise UsageError(f"--report-to {', '.join(arguments.report_to)}: {first_line(error)}") from error
        # ModernBERT accepts any keyword, from which the Trainer concludes that its loss is already averaged over
        # accumulated batches. It is not, and loss and gradient would be too large by their number.
        self.model_accepts_loss_kwargs = False
        # It prints to stdout, which is for results; the observer gets the same.
        self.remove_callback(PrinterCallback)
        self.counted: Collator = counted or PairCollator(padding_of(loaded.tokenizer))
        self.stopwatch = Stopwatch(arguments.device)
        self.progress = Progress(observer, self.stopwatch)
        self.add_callback(self.progress)

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
        batches = math.ceil(len(self.train_dataset) / self.args.train_batch_size)
        steps_per_epoch = math.ceil(batches / self.args.gradient_accumulation_steps)
        return math.ceil(float(self.args.num_train_epochs) * int(steps_per_epoch))

    def get_train_dataloader(self) -> Any:
        """The Trainer's own, whose batches are counted; those of evaluation are not."""
        plain, self.data_collator = self.data_collator, self.counted
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = plain

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The Trainer's own; its loss stays on the device until it is displayed."""
        self.progress.loss = super().training_step(*args, **kwargs).detach()
        return self.progress.loss

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own, timed."""
        with self.stopwatch.measuring("evaluate_s"):
            return super().evaluate(*args, **kwargs)

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """The Trainer's own, with which the saving of a checkpoint begins; it ends with the callback `on_save`."""
        self.stopwatch.start("save_s")
        super().save_model(*args, **kwargs)


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Validation accuracy and F1, under the names that the reference run logged."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    found = paraphrase_metric().compute(predictions=np.argmax(logits, axis=1), references=prediction.label_ids)
    return {"accuracy_score": found["accuracy"], "f1_score": found["f1"]}
