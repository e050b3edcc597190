"""What ModernBERT computes between its matrix products and its attention: torch's operators.

`modernbert.fused.FusedOperators` computes the same with fewer kernels on a GPU.
"""

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import PretrainedConfig
from transformers.activations import ACT2FN


class Affine(NamedTuple):
    """Weight and bias of a linear map, [out, in] and [out], or of a norm, [hidden] each."""

    weight: torch.Tensor
    bias: torch.Tensor | None


class Operators:
    """Operators of one forward, for tokens at `positions`, int64 [T], and matrices in the dtype of `rotary`.

    `rotary` is the table of `forward.rotary_table`. Without gradients, residuals are added in place.
    """

    def __init__(self, config: PretrainedConfig, positions: torch.Tensor, rotary: torch.Tensor) -> None:
        self.dtype = rotary.dtype
        self.heads = int(config.num_attention_heads)
        self.epsilon = float(config.norm_eps)
        self.activation = str(config.hidden_activation)
        self._positions, self._rotary = positions, rotary

    def norm(self, states: torch.Tensor, given: Affine) -> torch.Tensor:
        """LayerNorm of states [T, hidden], in their dtype."""
        return functional.layer_norm(states, given.weight.shape, given.weight, given.bias, self.epsilon)

    def added(self, states: torch.Tensor, inner: torch.Tensor, linear: Affine) -> torch.Tensor:
        """States [T, hidden] plus the linear map of `inner`, [T, in]. In one dtype it is one kernel."""
        if states.dtype != inner.dtype:
            mapped = functional.linear(inner, *linear)
            return states + mapped if torch.is_grad_enabled() else states.add_(mapped)
        if linear.bias is not None:
            states = states + linear.bias
        weight = linear.weight.t()
        return states.addmm(inner, weight) if torch.is_grad_enabled() else states.addmm_(inner, weight)

    def added_norm(
        self, states: torch.Tensor, inner: torch.Tensor, linear: Affine, norm: Affine
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The result of `added`, and its LayerNorm in the dtype of the matrices."""
        states = self.added(states, inner, linear)
        return states, self.norm(states, norm).to(self.dtype)

    def rotated(self, mapped: torch.Tensor, local: bool) -> tuple[torch.Tensor, ...]:
        """Query and key after the rotary embedding, and value, in tensors [T, n, H, D], from all [T, 3 · H · D]."""
        query_key, value = mapped.view(len(mapped), 3, self.heads, -1).split_with_sizes((2, 1), dim=1)
        return _Rotation.apply(query_key, *self._rotations[:, int(local)].unbind(1)), value  # type: ignore[no-untyped-call]

    def gated(self, mapped: torch.Tensor) -> torch.Tensor:
        """The activation of the first half of `mapped`, [T, 2 · I], times the second half."""
        value, gate = mapped.chunk(2, dim=-1)
        found: torch.Tensor = ACT2FN[self.activation](value) * gate
        return found

    @cached_property
    def _rotations(self) -> torch.Tensor:
        """The rows of the table for each token, [T, 2, 2, 1, 1, D]."""
        return self._rotary.index_select(0, self._positions)


class _Rotation(torch.autograd.Function):
    """Rotary embedding of [T, 2, H, D] by cosines and signed sines [T, 1, 1, D]: three kernels, as its gradient.

    From the same operators, autograd makes a gradient of twice as many kernels.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cosines, sines)
        rotated, half = states * cosines, states.shape[-1] // 2
        rotated[..., :half].addcmul_(states[..., half:], sines[..., :half])
        rotated[..., half:].addcmul_(states[..., :half], sines[..., half:])
        return rotated

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,), (cosines, sines) = given, ctx.saved_tensors
        found, half = gradient * cosines, gradient.shape[-1] // 2
        found[..., :half].addcmul_(gradient[..., half:], sines[..., half:])
        found[..., half:].addcmul_(gradient[..., :half], sines[..., :half])
        return found, None, None
