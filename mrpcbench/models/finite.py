"""Whether weights are finite numbers."""

from collections.abc import Iterable

import torch


def first_not_finite(named: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first of the weights that holds NaN or infinity; None if all are finite.

    Each weight is read once, and nothing is copied: the extremes of a tensor with NaN are NaN.
    """
    with torch.no_grad():
        found = [(name, torch.stack(torch.aminmax(weight.float()))) for name, weight in named if weight.numel()]
    if not found:
        return None
    finite = torch.stack([extremes for _, extremes in found]).isfinite().all(dim=1).tolist()
    return next((name for (name, _), is_finite in zip(found, finite, strict=True) if not is_finite), None)
