"""A stand-in for CUDA graphs on machines without a GPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Repeated(TorchDispatchMode):
    """Remembers operators with the very tensors that they ran on, as a CUDA graph does; `replay` runs them again."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._schema.is_mutable:
            for given in tree_leaves((args, kwargs)):
                if isinstance(given, torch.Tensor) and id(given) not in self.before:
                    self.before[id(given)] = given, given.clone()
        found = function(*args, **(kwargs or {}))
        self.ran.append((function, args, kwargs or {}, found))
        return found

    def undo(self) -> None:
        """Undo the writes, because CUDA computes nothing while it captures."""
        for given, value in self.before.values():
            given.data.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, found in self.ran:
            for old, new in zip(tree_leaves(found), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and not function.is_view:
                    old.data.copy_(new)


class Capturer:
    """As `cuda_graphs.Capturer`, and counts its captures: what depends on Python values is frozen in them."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, work: Callable[[], None], *, warm_ups: int = 1) -> Callable[[], None]:
        for _ in range(warm_ups):
            work()
        self.made += 1
        with Repeated() as captured:
            work()
        captured.undo()
        return captured.replay
