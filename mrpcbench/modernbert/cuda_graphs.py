"""CUDA graphs of a function of packed sequences, one graph per shape. A replay is one launch instead of many."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch

from mrpcbench.modernbert.packing import Packed, Shape

Forward = Callable[[Packed], torch.Tensor]
# Records a function for the shape of a `Packed`; the result replays it for any `Packed` of that shape.
Record = Callable[[Forward, Packed], Forward]

T = TypeVar("T")

# The largest number of graphs. One graph of ModernBERT-base has a few hundred launches, all graphs share their memory,
# and MRPC needs about thirty.
MOST = 128
# The first run selects algorithms and allocates memory, which a recording must not do.
WARM_UPS = 2


class Recordings(Generic[T]):
    """A cache of recordings by shape. Beyond `most`, it drops the least recently used one."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[Shape, T] = {}  # least recently used first

    def get(self, shape: Shape, record: Callable[[], T]) -> T:
        """The recording of `shape`; calls `record` if there is none."""
        if shape not in self._kept:
            while len(self._kept) >= self._most:  # drop before recording, so that not both take memory
                del self._kept[next(iter(self._kept))]
            self._kept[shape] = record()
        self._kept[shape] = found = self._kept.pop(shape)
        return found


class Graphs:
    """Runs `forward` from recordings; `record` makes one at the first call of each shape."""

    def __init__(self, forward: Forward, record: Record, most: int = MOST) -> None:
        self._forward, self._record = forward, record
        self._replays = Recordings[Forward](most)

    def __call__(self, packed: Packed) -> torch.Tensor:
        """The result of `forward(packed)`; later calls do not overwrite it."""
        return self._replays.get(packed.shape, partial(self._record, self._forward, packed))(packed)


def cuda_graphs() -> Record:
    """A `Record` that makes CUDA graphs. They share one memory pool, as large as the largest graph needs."""
    pool = torch.cuda.graph_pool_handle()

    def record(forward: Forward, packed: Packed) -> Forward:
        # Every segment counts as real, because the number of real ones is not part of the shape.
        inputs = replace(packed, pairs=packed.shape.segments, storage=packed.storage.clone())
        run, found = _recorded(partial(forward, inputs), pool, WARM_UPS)

        def replay(given: Packed) -> torch.Tensor:
            inputs.storage.copy_(given.storage)
            run()
            # Another graph of the pool may overwrite the result.
            return found[: given.pairs].clone()

        return replay

    return record


class RecordWork(Protocol):
    """Records `work` and returns a function that replays it."""

    def __call__(self, work: Callable[[], None], *, warm_ups: int = WARM_UPS) -> Callable[[], None]:
        """Run `work` `warm_ups` times, record it, and return the replay."""


class Recorder:
    """Records functions without arguments and results as CUDA graphs. They read and write tensors at fixed addresses.

    All graphs share one pool for intermediate memory, so two of them must not run at the same time.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None], *, warm_ups: int = WARM_UPS) -> Callable[[], None]:
        """Run `work` `warm_ups` times, record it, and return the replay."""
        return _recorded(work, self._pool, warm_ups)[0]


def _recorded(work: Callable[[], T], pool: Any, warm_ups: int) -> tuple[Callable[[], None], T]:
    """The replay of `work`, and the result of `work`, which each replay overwrites."""
    side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(warm_ups):
            work()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        found = work()
    return graph.replay, found
