"""What ModernBERT computes between its matrix products and its attention, as Triton kernels with gradients.

Each of rotation, gate, and addition with LayerNorm is one kernel forward and one backward, plus one that sums the
gradients of a norm's weights over the tokens.
"""

from typing import Any

import torch
import triton
from torch.nn import functional

from mrpcbench.modernbert import triton_kernels as kernels
from mrpcbench.modernbert.operators import Affine, Operators

GATE_BLOCK = 1024  # elements per program of the gate: eight per thread, which are 16 bytes in half precision
MOST_PARTS = 1024  # programs of a norm's gradient: each has a partial sum of the weights' gradients

Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class FusedOperators(Operators):
    """The operators of a forward as Triton kernels; activations other than GELU are torch's."""

    def norm(self, states: torch.Tensor, given: Affine) -> torch.Tensor:
        """LayerNorm of states [T, hidden], in their dtype.

        With gradients, or for a float32 residual stream beside half-precision matrices, it is torch's: it occurs twice
        in a forward, not in each layer, and compiling a kernel for it would take longer than it saves.
        """
        if torch.is_grad_enabled() or states.dtype != self.dtype:
            return super().norm(states, given)
        normed = torch.empty_like(states)
        _launch_norm(states, None, states, normed, given, None, self.epsilon)
        return normed

    def added_norm(
        self, states: torch.Tensor, inner: torch.Tensor, linear: Affine, norm: Affine
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States [T, hidden] plus the linear map of `inner`, and its LayerNorm in the dtype of the matrices."""
        if torch.is_grad_enabled():
            mapped = functional.linear(inner, *linear)
            found: tuple[torch.Tensor, torch.Tensor] = _AddedNorm.apply(states, mapped, *norm, self.epsilon)  # type: ignore[no-untyped-call]
            return found
        if states.dtype == inner.dtype:  # the matrix product adds
            states = self.added(states, inner, linear)
            return states, self.norm(states, norm)
        mapped = functional.linear(inner, *linear)
        normed = torch.empty_like(mapped)
        _launch_norm(states, mapped, states, normed, norm, _statistics(states), self.epsilon)
        return states, normed

    def rotated(self, mapped: torch.Tensor, local: bool) -> Three:
        """Query and key after the rotary embedding, and value, [T, 1, H, D] each, from all three, [T, 3 · H · D].

        Attention returns three gradients, and concatenating them would be one more kernel.
        """
        table = self._rotary[:, int(local)]
        found: Three = _Rotated.apply(mapped, self._positions, table, self.heads)  # type: ignore[no-untyped-call]
        return found

    def gated(self, mapped: torch.Tensor) -> torch.Tensor:
        """The activation of the first half of `mapped`, [T, 2 · I], times the second half."""
        if self.activation != "gelu":
            return super().gated(mapped)
        found: torch.Tensor = _Gated.apply(mapped)  # type: ignore[no-untyped-call]
        return found


def probe(device: torch.device) -> None:
    """Compile a kernel and check its result; raises whatever Triton, its compilers or the driver raise."""
    given = torch.ones(1, 32, device=device)
    found = _Gated.apply(given)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, functional.gelu(given[:, :16]), rtol=0, atol=1e-5)


class _Rotated(torch.autograd.Function):
    """Rotated query and key, and value, [T, 1, H, D] each, from [T, 3 · H · D] and a table [P, 2, 1, 1, D]."""

    @staticmethod
    def forward(ctx: Any, mapped: torch.Tensor, positions: torch.Tensor, table: torch.Tensor, heads: int) -> Three:
        ctx.save_for_backward(positions, table)
        given = mapped.view(len(mapped), 3, heads, -1).split_with_sizes((1, 1, 1), dim=1)
        rotated = mapped.new_empty((len(mapped), 2, *given[0].shape[2:]))
        _launch_rotation(given, rotated, positions, table)
        return rotated[:, :1], rotated[:, 1:], given[2]

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        query, key, value = (gradient.contiguous() for gradient in given)
        found = query.new_empty((len(query), 3, *query.shape[2:]))
        _launch_rotation((query, key, value), found, *ctx.saved_tensors)
        return found.flatten(1), None, None, None


def _launch_rotation(
    given: tuple[torch.Tensor, ...], target: torch.Tensor, positions: torch.Tensor, table: torch.Tensor
) -> None:
    """Rotate the first two of query, key and value into `target` [T, 2, H, D], or all gradients into [T, 3, H, D]."""
    tokens, parts, heads, size = target.shape
    kernels.rotate[(tokens,)](
        *(*given, target, positions, table, given[0].stride(0), table.stride(0), heads, size, parts == len(given)),
        block_heads=triton.next_power_of_2(heads),
        block_half=triton.next_power_of_2(size // 2),
        num_warps=1,
    )


class _Gated(torch.autograd.Function):
    """GELU of the first half of [T, 2 · I], times the second half: [T, I]."""

    @staticmethod
    def forward(ctx: Any, mapped: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(mapped)
        rows, width = len(mapped), mapped.shape[1] // 2
        found = mapped.new_empty((rows, width))
        grid = (triton.cdiv(rows * width, GATE_BLOCK),)
        kernels.gate[grid](mapped, found, rows, width, GATE_BLOCK, num_warps=4)
        return found

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> torch.Tensor:
        gradient, (mapped,) = given[0].contiguous(), ctx.saved_tensors
        rows, width = gradient.shape
        found = torch.empty_like(mapped)
        grid = (triton.cdiv(rows * width, GATE_BLOCK),)
        kernels.gate_backward[grid](gradient, mapped, found, rows, width, GATE_BLOCK, num_warps=4)
        return found


class _AddedNorm(torch.autograd.Function):
    """States [T, hidden] plus `mapped`, in the dtype of the states, and its LayerNorm in the dtype of `mapped`."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        mapped: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        epsilon: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total, normed, statistics = torch.empty_like(states), torch.empty_like(mapped), _statistics(states)
        _launch_norm(states, mapped, total, normed, Affine(weight, bias), statistics, epsilon)
        ctx.save_for_backward(total, statistics, weight)
        ctx.biased = bias is not None
        return total, normed

    @staticmethod
    def backward(
        ctx: Any, *given: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, None]:
        to_total, to_normed = (gradient.contiguous() for gradient in given)
        total, statistics, weight = ctx.saved_tensors
        (rows, hidden), kinds = total.shape, 2 if ctx.biased else 1
        to_states, to_mapped = torch.empty_like(to_total), torch.empty_like(to_normed)
        # As many rows per program as possible are equal.
        parts = triton.cdiv(rows, triton.cdiv(rows, MOST_PARTS))
        partial = torch.empty((kinds, parts, hidden), device=total.device)
        block = triton.next_power_of_2(hidden)
        kernels.norm_backward[(parts,)](
            *(to_total, to_normed, total, statistics, weight, to_states, to_mapped, partial, rows),
            *(hidden, block, ctx.biased),
            num_warps=_warps(block),
        )
        sums = torch.empty((kinds, hidden), device=total.device)
        kernels.sum_parts[(triton.cdiv(hidden, 16), kinds)](partial, sums, parts, hidden, MOST_PARTS, 16, num_warps=8)
        sums = sums.to(weight.dtype)
        return to_states, to_mapped, sums[0], sums[1] if ctx.biased else None, None


def _launch_norm(
    states: torch.Tensor,
    mapped: torch.Tensor | None,
    total: torch.Tensor,
    normed: torch.Tensor,
    given: Affine,
    statistics: torch.Tensor | None,
    epsilon: float,
) -> None:
    """Write `states` plus `mapped` into `total`, which may be `states`, and its LayerNorm into `normed`."""
    rows, hidden = states.shape
    block = triton.next_power_of_2(hidden)
    kernels.norm[(rows,)](
        *(states, mapped, total, normed, given.weight, given.bias, statistics, epsilon),
        *(hidden, block, mapped is not None, given.bias is not None),
        num_warps=_warps(block),
    )


def _statistics(states: torch.Tensor) -> torch.Tensor:
    """Room for the mean and the inverse standard deviation of each row, float32 [T, 2]."""
    return torch.empty((len(states), 2), device=states.device)


def _warps(block: int) -> int:
    """Warps of a program that handles rows of `block` elements: a thread holds at most 32 of them."""
    return max(1, block // 1024)
