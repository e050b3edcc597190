"""Stops a training that diverges: a loss, a gradient norm, a weight or a logit that is not finite."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mrpcbench.errors import MrpcbenchError
from mrpcbench.models.finite import first_not_finite

# Reading a value waits for the GPU, so that many are read at once there. The CPU has each one at once.
READ_EVERY = 32
SHOWN = 5
ADVICE = "lower --learning-rate, or use --precision fp32; the checkpoints until then are kept"


@dataclass(frozen=True)
class _Value:
    name: str
    step: int
    rows: tuple[torch.Tensor | NDArray[np.int64], ...]
    value: torch.Tensor


class DivergenceGuard:
    """Collects the losses and gradient norms of a run, and raises `MrpcbenchError` for the first that is not finite."""

    def __init__(self) -> None:
        self._unread: list[_Value] = []
        self._rows: list[torch.Tensor | NDArray[np.int64]] = []
        self._step = 0

    def loss(self, step: int, rows: torch.Tensor | NDArray[np.int64], value: torch.Tensor) -> None:
        """The loss of a batch of the training pairs `rows` [B], in the optimiser step `step`, counted from 1."""
        if step != self._step:
            self._rows, self._step = [], step
        self._rows.append(rows)
        self._add(_Value("loss", step, (rows,), value))

    def gradient_norm(self, step: int, value: torch.Tensor) -> None:
        """The norm, before clipping, of the gradients of all batches that came last; they are those of `step`."""
        self._add(_Value("gradient norm", step, tuple(self._rows), value))

    def _add(self, found: _Value) -> None:
        self._unread.append(found)
        if found.value.device.type == "cpu" or len(self._unread) >= READ_EVERY:
            self.read()

    def read(self) -> None:
        """Read the values that have come since the last time. Raises `MrpcbenchError` for one that is not finite."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        for found, value in zip(unread, torch.stack([item.value.detach() for item in unread]).tolist(), strict=True):
            if not np.isfinite(value):
                pairs = [int(row) for rows in found.rows for row in rows]
                raise MrpcbenchError(
                    f"training diverged at step {found.step}: the {found.name} is {value} "
                    f"(training pairs {_listed(pairs)}); {ADVICE}"
                )


def check_weights(named: Iterable[tuple[str, torch.Tensor]], step: int) -> None:
    """Raise `MrpcbenchError` if one of the weights after `step` is not finite."""
    if name := first_not_finite(named):
        raise MrpcbenchError(f"training diverged at step {step}: the weight {name} is not finite; {ADVICE}")


def check_logits(logits: NDArray[np.float32], step: int) -> None:
    """Raise `MrpcbenchError` if a logit of the validation pairs, [N, 2], is not finite after `step`."""
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        raise MrpcbenchError(
            f"training diverged at step {step}: {len(broken)} of {len(logits)} validation pairs got non-finite logits "
            f"(pairs {_listed(broken.tolist())}); {ADVICE}"
        )


def _listed(pairs: list[int]) -> str:
    shown = ", ".join(map(str, pairs[:SHOWN]))
    return f"{shown}, ... ({len(pairs)})" if len(pairs) > SHOWN else shown
