"""CUDA graphs of a function of packed sequences, one graph per shape. A replay is one launch instead of many."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Generic, Protocol, TypeVar

import torch

from mrpcbench.modernbert.packing import Packed, Shape

Forward = Callable[[Packed], torch.Tensor]
# Captures a function for the shape of a `Packed`; the result replays it for any `Packed` of that shape.
CaptureForward = Callable[[Forward, Packed], Forward]

T = TypeVar("T")

# The largest number of graphs. One graph of ModernBERT-base has a few hundred launches, all graphs share their memory,
# and MRPC needs about thirty.
MOST = 128
# The first run selects algorithms, loads kernels and allocates memory, which a capture must not do.
WARM_UPS = 1


class Captures(Generic[T]):
    """A cache of captured functions by shape. Beyond `most`, it drops the least recently used one."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[Shape, T] = {}  # least recently used first

    def get(self, shape: Shape, capture: Callable[[], T]) -> T:
        """The captured function of `shape`; calls `capture` if there is none."""
        if shape not in self._kept:
            while len(self._kept) >= self._most:  # drop before capturing, so that not both take memory
                del self._kept[next(iter(self._kept))]
            self._kept[shape] = capture()
        self._kept[shape] = found = self._kept.pop(shape)
        return found


class Graphs:
    """Runs `forward` from CUDA graphs; `capture` makes one at the first call of each shape."""

    def __init__(self, forward: Forward, capture: CaptureForward, most: int = MOST) -> None:
        self._forward, self._capture = forward, capture
        self._replays = Captures[Forward](most)

    def __call__(self, packed: Packed) -> torch.Tensor:
        """The result of `forward(packed)`; later calls do not overwrite it."""
        return self._replays.get(packed.shape, partial(self._capture, self._forward, packed))(packed)


class CaptureWork(Protocol):
    """Captures `work` and returns a function that replays it."""

    def __call__(self, work: Callable[[], None], *, warm_ups: int = WARM_UPS) -> Callable[[], None]:
        """Run `work` `warm_ups` times, capture it, and return the replay."""


class Capturer:
    """Captures functions as CUDA graphs: all on one stream, with one memory pool for their intermediate results.

    The allocator gives freed memory only to the stream that used it, and cuBLAS has a workspace for each stream. On one
    stream and from one pool, a capture finds the memory of its warm-up, and later captures find it too.

    Graphs that share memory overwrite each other's intermediate results. This is safe in any order of replays, because
    all replays run on the caller's stream, and none leaves a result in the pool that is read after the next one starts:
    inputs and results of `work` are tensors that exist before the capture, and `forward` clones its result.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.MemPool()

    def __call__(self, work: Callable[[], None], *, warm_ups: int = WARM_UPS) -> Callable[[], None]:
        """Run `work` `warm_ups` times, capture it, and return the replay; it uses tensors at fixed addresses."""
        return self._captured(work, warm_ups)[0]

    def forward(self, forward: Forward, packed: Packed) -> Forward:
        """Capture `forward` for the shape of `packed`."""
        # Every segment counts as real, because the number of real ones is not part of the shape. The replay keeps
        # `inputs` alive: the graph reads them at their address.
        inputs = replace(packed, pairs=packed.shape.segments, storage=packed.storage.clone())
        run, found = self._captured(partial(forward, inputs), WARM_UPS)

        def replay(given: Packed) -> torch.Tensor:
            inputs.storage.copy_(given.storage)
            run()
            # Another graph of the pool may overwrite the result.
            return found[: given.pairs].clone()

        return replay

    def _captured(self, work: Callable[[], T], warm_ups: int) -> tuple[Callable[[], None], T]:
        """The replay of `work`, and the result of `work`, which each replay overwrites."""
        stream = self._stream
        stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        # The pool serves the calling thread only, so gradients must be computed in it.
        with torch.cuda.stream(stream), torch.autograd.set_multithreading_enabled(False):
            with torch.cuda.use_mem_pool(self._pool):
                for _ in range(warm_ups):
                    work()
            # `torch.cuda.graph` would first free all cached memory, and then nothing of it is left for the next step.
            graph.capture_begin(pool=self._pool.id)  # type: ignore[arg-type]  # its id is a pool handle
            try:
                found = work()
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        return graph.replay, found
