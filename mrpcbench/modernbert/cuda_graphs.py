"""Recordings of a function of packed sequences, one for each shape: as CUDA graphs, a thousand launches become one."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch

from mrpcbench.modernbert.packing import Packed, Shape

Forward = Callable[[Packed], torch.Tensor]
# What replays `forward` for every `Packed` of the shape of the one that it is given.
Record = Callable[[Forward, Packed], Forward]

T = TypeVar("T")

# A graph of ModernBERT-base holds some hundred launches, and all graphs share their memory; MRPC needs about thirty.
MOST = 128
# The first run chooses algorithms and allocates what a recording must not.
WARM_UPS = 2


class Recordings(Generic[T]):
    """A recording for each shape, at most `most`: past that the least recently used one is dropped."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[Shape, T] = {}  # least recently used first

    def get(self, shape: Shape, record: Callable[[], T]) -> T:
        """The recording of `shape`, which `record` makes if there is none."""
        if shape not in self._kept:
            while len(self._kept) >= self._most:  # before recording: both would take memory
                del self._kept[next(iter(self._kept))]
            self._kept[shape] = record()
        self._kept[shape] = found = self._kept.pop(shape)
        return found


class Graphs:
    """`forward`, recorded by `record` at the first sight of a shape."""

    def __init__(self, forward: Forward, record: Record, most: int = MOST) -> None:
        self._forward, self._record = forward, record
        self._replays = Recordings[Forward](most)

    def __call__(self, packed: Packed) -> torch.Tensor:
        """What `forward` gives for `packed`; no later call changes it."""
        return self._replays.get(packed.shape, partial(self._record, self._forward, packed))(packed)


def cuda_graphs() -> Record:
    """Records CUDA graphs that share one pool of memory, which is that of the largest of them."""
    pool = torch.cuda.graph_pool_handle()

    def record(forward: Forward, packed: Packed) -> Forward:
        # Every segment counts as real, since how many are is no part of a shape.
        inputs = replace(packed, pairs=packed.shape.segments, storage=packed.storage.clone())
        run, found = _recorded(partial(forward, inputs), pool, WARM_UPS)

        def replay(given: Packed) -> torch.Tensor:
            inputs.storage.copy_(given.storage)
            run()
            # The next graph of the pool may write where this one's answer is.
            return found[: given.pairs].clone()

        return replay

    return record


class RecordWork(Protocol):
    """What makes of `work` something that runs it again as one launch."""

    def __call__(self, work: Callable[[], None], *, warm_ups: int = WARM_UPS) -> Callable[[], None]:
        """What replays `work`, which is run `warm_ups` times before it is recorded."""


class Recorder:
    """Records functions that take and give nothing as CUDA graphs: they find and leave tensors that never move.

    All share one pool of memory for what is between, so that two of them must not run at the same time.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None], *, warm_ups: int = WARM_UPS) -> Callable[[], None]:
        """What replays `work`, which is run `warm_ups` times before it is recorded."""
        return _recorded(work, self._pool, warm_ups)[0]


def _recorded(work: Callable[[], T], pool: Any, warm_ups: int) -> tuple[Callable[[], None], T]:
    """What replays `work`, and what it gave: each replay fills that anew."""
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(warm_ups):
            work()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        found = work()
    return graph.replay, found
