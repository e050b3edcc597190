"""One optimiser step of a ModernBERT classifier without padding: gradients in bf16, AdamW on float32 masters.

The model's own parameters are the masters, so saving, exporting and resuming are Hugging Face's. A CUDA graph is
replayed as one launch, and the host never waits for the device in a step.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import PreTrainedModel

from mrpcbench.modernbert import forward
from mrpcbench.modernbert.cuda_graphs import Captures, CaptureWork
from mrpcbench.modernbert.packing import Resident, Shape

# The matrices of the encoder's layers (and their biases) compute in `dtype`, as under autocast. Norms, the residual
# stream and embeddings stay in float32, as under autocast too. So does the head, which runs once per pair.
IN_DTYPE = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
CLIP_EPSILON = 1e-6  # of torch's clip_grad_norm_
IGNORED = -100  # the default `ignore_index` of torch's cross_entropy


class Labelled:
    """Sequences on a device with their labels, int64 [N]."""

    def __init__(self, sequences: Resident, labels: NDArray[np.int64], device: torch.device) -> None:
        self.sequences = sequences
        self._labels = torch.from_numpy(labels).to(device)

    def targets(self, rows: torch.Tensor) -> torch.Tensor:
        """Labels of `rows`, int64 [S] on the device; `IGNORED` for row -1, an empty segment."""
        return self._labels[rows.clamp(min=0)].masked_fill_(rows < 0, IGNORED)


class PackedStep:
    """Loss and gradients of `net`, whose weights are float32, computed in `dtype`.

    With `capture`, batches are padded to a few shapes, and each shape is captured when it first occurs. `accumulates`
    allows adding up the gradients of several batches.
    """

    def __init__(
        self,
        net: PreTrainedModel,
        data: Labelled,
        dtype: torch.dtype,
        *,
        capture: CaptureWork | None = None,
        accumulates: bool = False,
    ) -> None:
        self.dtype = dtype
        self.capture = capture
        self._config = net.config
        self._data = data
        self.masters = dict(net.named_parameters())
        self._device = next(net.parameters()).device
        self._rotary = forward.rotary_table(net.config, self._device, dtype)
        in_dtype = [name for name in self.masters if name.rpartition(".")[0].endswith(IN_DTYPE)]
        self._shadowed = [] if dtype == torch.float32 else in_dtype
        copies = {name: self.masters[name].detach().to(dtype).requires_grad_() for name in self._shadowed}
        self._weights = {**self.masters, **copies}
        self._found = [torch.zeros_like(master) for master in self.masters.values()]
        # The optimiser reads these; same order as the masters.
        self.gradients = [torch.zeros_like(found) for found in self._found] if accumulates else self._found
        self._scale = torch.ones((), device=self._device)
        self._loss = torch.zeros((), device=self._device)
        self._windowless = forward.windowless(net.config) if capture else None
        self._captures = Captures[tuple[torch.Tensor, Callable[[], None]]]()

    def refresh(self) -> None:
        """Copy the masters to their copies in `dtype`, after the masters have changed."""
        with torch.no_grad():
            if self._shadowed:
                torch._foreach_copy_(
                    [self._weights[name] for name in self._shadowed], [self.masters[name] for name in self._shadowed]
                )

    def backward(self, rows: NDArray[np.int64], *, scale: float = 1.0, adds: bool = False) -> torch.Tensor:
        """The mean loss of the pairs `rows` [B] times `scale`, on the device; puts its gradients into `gradients`.

        With `adds` they are added to those that are there, which needs `accumulates`.
        """
        shape = self.shape(rows)
        self._scale.fill_(scale)
        padded = np.full(shape.segments, -1, dtype=np.int64)
        padded[: len(rows)] = rows
        given = self._host(padded)
        if self.capture is None:
            self._compute(given.to(self._device), shape)
        else:
            inputs, replay = self._captures.get(shape, partial(self._captured, self.capture, shape, given))
            inputs.copy_(given, non_blocking=True)
            replay()
        if self.gradients is not self._found:
            (torch._foreach_add_ if adds else torch._foreach_copy_)(self.gradients, self._found)
        return self._loss.clone()

    def logits(self, data: Labelled, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [B, 2] in float32 and labels [B] of the pairs `rows` [B] of `data`, on the device."""
        there = self._host(rows).to(self._device)
        with torch.no_grad():
            found = self._forward(data, there, data.sequences.shape(rows, None))
        return found, data.targets(there)

    def shape(self, rows: NDArray[np.int64]) -> Shape:
        """The shape in which the pairs `rows` [B] are computed."""
        return self._data.sequences.shape(rows, self._windowless)

    def real_tokens(self, rows: NDArray[np.int64]) -> int:
        """Tokens of the pairs `rows` [B]."""
        return int(self._data.sequences.lengths[rows].sum())

    def _captured(
        self, capture: CaptureWork, shape: Shape, given: torch.Tensor
    ) -> tuple[torch.Tensor, Callable[[], None]]:
        """The input tensor for rows of `shape`, and the function that then computes their loss and gradients.

        Warm-up runs use `given`, rows that really fill `shape`: kernels rely on that.
        """
        inputs = given.to(self._device, copy=True, non_blocking=True)
        return inputs, capture(lambda: self._compute(inputs, shape))

    def _compute(self, rows: torch.Tensor, shape: Shape) -> None:
        with torch.enable_grad():
            found = self._forward(self._data, rows, shape)
            loss = functional.cross_entropy(found, self._data.targets(rows), ignore_index=IGNORED) * self._scale
            gradients = torch.autograd.grad(loss, list(self._weights.values()))
        # A copy of many tensors is one kernel only if all of them have the same dtype.
        for dtype in dict.fromkeys(gradient.dtype for gradient in gradients):
            chosen = [index for index, gradient in enumerate(gradients) if gradient.dtype == dtype]
            torch._foreach_copy_([self._found[index] for index in chosen], [gradients[index] for index in chosen])
        self._loss.copy_(loss.detach())

    def _forward(self, data: Labelled, rows: torch.Tensor, shape: Shape) -> torch.Tensor:
        found = forward.logits(self._weights, self._config, data.sequences.pack(rows, shape), self._rotary)
        return found.float()

    def _host(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """`rows` in memory that the device can read asynchronously."""
        found = torch.from_numpy(rows)
        return found.pin_memory() if self._device.type == "cuda" else found


class PackedAdamW(torch.optim.AdamW):
    """torch's fused AdamW over the masters of a `PackedStep`, with clipping; it also refreshes the step's weights.

    Call `attach` before the first step. Its state is that of `torch.optim.AdamW`, also in checkpoints.
    """

    grad_scale: torch.Tensor | None = None  # by which torch's fused kernel divides gradients
    _step: PackedStep
    _replay: Callable[[], None] | None = None

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        super().__init__(params, **{**options, "fused": True})

    def attach(self, step: PackedStep, max_norm: float) -> None:
        """Use the gradients of `step`, with their norm clipped at `max_norm` unless that is 0."""
        self._step, self._max_norm = step, max_norm
        device = step.gradients[0].device
        # A CUDA graph reads its learning rate from a tensor, which the host can change.
        self._rates = [torch.zeros((), device=device) for _ in self.param_groups]
        self.gradient_norm = torch.zeros((), device=device)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure computes its loss
        """One step with the current gradients. It creates no state, so it can be captured."""
        for rate, group in zip(self._rates, self.param_groups, strict=True):
            rate.fill_(float(group["lr"]))
        if self._replay is None:
            self._replay = self._captured()
        self._replay()

    def _captured(self) -> Callable[[], None]:
        capture = self._step.capture
        for group in self.param_groups:
            group["capturable"] = capture is not None
            for master in group["params"]:
                if not self.state[master]:
                    self.state[master] = {
                        "step": torch.zeros((), device=master.device),
                        "exp_avg": torch.zeros_like(master),
                        "exp_avg_sq": torch.zeros_like(master),
                    }
        if capture is None:
            return self._update
        # A warm-up run would change the weights, so the kernels are loaded by a step of another weight.
        other = torch.nn.Parameter(torch.zeros(1, device=self.gradient_norm.device))
        other.grad = torch.ones_like(other)
        if self._max_norm:
            self._measure([other.grad, other.grad])
        torch.optim.AdamW([other], fused=True, capturable=True).step()
        return capture(self._update, warm_ups=0)

    def _update(self) -> None:
        masters = list(self._step.masters.values())
        for master, gradient in zip(masters, self._step.gradients, strict=True):
            master.grad = gradient
        if self._max_norm:
            self._measure(self._step.gradients)
        rates = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, self._rates, strict=True):
            group["lr"] = rate
        super().step()
        self.grad_scale = None
        for group, given in zip(self.param_groups, rates, strict=True):
            group["lr"] = given
        self._step.refresh()
        for master in masters:
            master.grad = None

    def _measure(self, gradients: list[torch.Tensor]) -> None:
        """Set the norm of `gradients`, and the number by which the fused kernel divides them to clip that norm.

        It is the reciprocal of the coefficient of torch's `clip_grad_norm_`, which would be one more pass over memory.
        """
        self.gradient_norm.copy_(torch.nn.utils.get_total_norm(gradients, foreach=True))
        self.grad_scale = ((self.gradient_norm + CLIP_EPSILON) / self._max_norm).clamp_(min=1.0)
