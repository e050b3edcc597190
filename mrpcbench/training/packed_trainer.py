"""The Hugging Face Trainer with training steps without padding: `mrpcbench train --engine packed`.

The order of the data, the schedule, the log, evaluation, checkpoints and resuming are the Trainer's own.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch.nn import functional
from transformers import Trainer, TrainingArguments

from mrpcbench.backends.pytorch import DTYPE_NAMES, DTYPES, placement_of
from mrpcbench.errors import UsageError
from mrpcbench.models.classifier import LoadedModel
from mrpcbench.modernbert import forward
from mrpcbench.modernbert.cuda_graphs import WARM_UPS, Capturer, CaptureWork
from mrpcbench.modernbert.packing import Resident
from mrpcbench.progress import Observer
from mrpcbench.schema.identity import Placement
from mrpcbench.training.arguments import LENGTH, ROW
from mrpcbench.training.distributed import World
from mrpcbench.training.packed_step import Labelled, PackedAdamW, PackedStep
from mrpcbench.training.trainer import ObservedTrainer


class RowCollator:
    """Makes a batch of row numbers, int64 [B] on the host. The tokens of the rows are already on the device."""

    def __init__(self) -> None:
        self.real_tokens = 0
        self.padding_tokens = 0
        # Set when the step exists: it knows the shape to which a batch is padded.
        self.step: PackedStep | None = None

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, NDArray[np.int64]]:
        """The rows of `features`."""
        rows = np.array([feature[ROW] for feature in features], dtype=np.int64)
        if self.step is not None:
            real = sum(feature[LENGTH] for feature in features)
            self.real_tokens += real
            self.padding_tokens += self.step.shape(rows).tokens - real
        return {ROW: rows}


class PackedTrainer(ObservedTrainer):
    """A Trainer whose steps and evaluations run without padding; `precision` is bf16 or fp32.

    Raises `UsageError` for a model, an optimiser or a precision that the packed step does not support.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        arguments: TrainingArguments,
        train: Dataset,
        validation: Dataset,
        observer: Observer,
        precision: str,
        *,
        world: World | None = None,
    ) -> None:
        config = loaded.model.config
        if reason := forward.refusal(config, type(loaded.model).__name__, training=True):
            raise UsageError(f"--engine packed: {reason}")
        if precision == "fp16":
            raise UsageError("--engine packed: trains in bf16 or fp32; use --precision bf16, or --engine trainer")
        self.get_optimizer_cls_and_kwargs(arguments)  # raises for an unsupported optimiser, before the run begins
        # The optimiser clips in its own CUDA graph. The Trainer would clip gradients that are not there.
        max_norm, arguments.max_grad_norm = arguments.max_grad_norm, 0.0
        counted = RowCollator()
        super().__init__(
            *(loaded, arguments, _rows(train), _rows(validation), observer),
            world=world,
            collator=RowCollator(),
            counted=counted,
        )
        device, filler = self.args.device, int(config.pad_token_id or 0)
        data, self._validation = (_labelled(split, device, filler) for split in (train, validation))
        self.step = PackedStep(
            self.model,
            data,
            DTYPES[precision],
            capture=self._timed(capture_on(device)),
            accumulates=arguments.gradient_accumulation_steps > 1,
        )
        counted.step = self.step
        self._max_norm = max_norm
        self._accumulated = 0
        self._last_watched: int | None = None
        self._token_flops = 6 * self.model.num_parameters(exclude_embeddings=True)

    @property
    def precision(self) -> str:
        """The arithmetic of the encoder's layers."""
        return DTYPE_NAMES[self.step.dtype]

    @property
    def placement(self) -> Placement:
        """Where and how it trains."""
        found = placement_of(self.model)
        captured = self.step.capture is not None
        provider = forward.kernels(self.model.config, self.args.device, self.step.dtype, captured=captured)
        return replace(found, provider=provider, dtype=self.precision)

    def _timed(self, capture: CaptureWork | None) -> CaptureWork | None:
        """`capture`, whose time counts as one-time work."""
        if capture is None:
            return None

        def timed(work: Callable[[], None], *, warm_ups: int = WARM_UPS) -> Callable[[], None]:
            with self.stopwatch.measuring("cold_s"):
                return capture(work, warm_ups=warm_ups)

        return timed

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model: Any = None) -> tuple[type[PackedAdamW], Any]:
        """The Trainer's options of AdamW, for `PackedAdamW`."""
        kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        if kind is not torch.optim.AdamW:
            raise UsageError(
                f"--engine packed: supports AdamW only; use --optim adamw_torch, or --engine trainer for "
                f"{args.optim.value}"
            )
        return PackedAdamW, options

    def create_optimizer(self) -> Any:
        """The Trainer's own, on the gradients of the packed step. A checkpoint's weights are already loaded."""
        made = super().create_optimizer()
        made.attach(self.step, self._max_norm)
        self._adamw: PackedAdamW = made
        self.step.refresh()
        return made

    def training_step(self, model: Any, inputs: dict[str, NDArray[np.int64]], num_items_in_batch: Any = None) -> Any:
        """Loss of the batch, divided by the number of accumulated batches; it stays on the device."""
        self._watch_gradient_norm()
        total = self.current_gradient_accumulation_steps
        scale = self.world.weight(len(inputs[ROW])) / total
        self.progress.loss = self.step.backward(inputs[ROW], scale=scale, adds=self._accumulated > 0)
        self.guard.loss(self.step_now, inputs[ROW], self.progress.loss)
        self._accumulated = (self._accumulated + 1) % total
        if self._accumulated == 0:
            self.world.average(self.step.gradients)  # the optimiser clips them next
        return self.progress.loss

    def _watch_gradient_norm(self) -> None:
        """Have the guard see the norm of the last whole step, unless it has."""
        step = int(self.state.global_step)
        if self._max_norm and self._last_watched is not None and step > self._last_watched:
            self.guard.gradient_norm(step, self._adamw.gradient_norm.clone())
        self._last_watched = step

    def check_finite(self) -> None:
        """Raise `MrpcbenchError` if a loss, a gradient norm or a weight is not finite."""
        self._watch_gradient_norm()
        super().check_finite()

    def prediction_step(
        self, model: Any, inputs: dict[str, NDArray[np.int64]], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, logits [B, 2] and labels [B] of a batch of validation pairs."""
        logits, labels = self.step.logits(self._validation, inputs[ROW])
        return functional.cross_entropy(logits, labels), logits, labels

    def floating_point_ops(self, inputs: dict[str, NDArray[np.int64]]) -> float:
        """The Trainer's own estimate, six operations per token and weight, for tokens that are not padding."""
        return float(self._token_flops * self.step.real_tokens(inputs[ROW]))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The Trainer's own; the epoch's line gets the gradient norm, which the packed optimiser knows."""
        if "loss" in logs and self._max_norm:
            logs = {**logs, "grad_norm": float(self._adamw.gradient_norm)}
        super().log(logs, *args, **kwargs)


def capture_on(device: torch.device) -> CaptureWork | None:
    """Captures steps on `device` as CUDA graphs; None on the CPU."""
    return Capturer() if device.type == "cuda" else None


def _rows(split: Dataset) -> Dataset:
    """The columns of a split that the Trainer's samplers need."""
    return Dataset.from_dict({ROW: np.arange(len(split)), LENGTH: split[LENGTH][:]})


def _labelled(split: Dataset, device: torch.device, filler: int) -> Labelled:
    sequences = [np.asarray(ids, dtype=np.int64) for ids in split["input_ids"][:]]
    return Labelled(Resident(sequences, device, filler=filler), np.asarray(split["labels"][:], dtype=np.int64), device)
