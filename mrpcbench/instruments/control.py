"""The control of a benchmark: a fixed task, timed before each round, that shows the state of the machine itself.

The host of a virtual machine may place its cores near each other or far apart, and change that every minute. Threads
then take up to twice as long to start and join, and so does every engine that shares small operations between threads.
No counter inside the machine shows it, and the rounds stay steady. The control changes by the same factor: it starts
and joins the threads of many small operations.
"""

from collections.abc import Iterator
from functools import partial
from statistics import median

import torch

from mrpcbench.instruments.clock import WallClock, timed

# Elements that torch gives a thread at least (at::internal::GRAIN_SIZE in ATen/Parallel.h).
GRAIN = 32768
CALLS_PER_BLOCK = 10
# 400 blocks take 20 ms on the CPU that this was written on. Where other programs hold the cores, a call takes as long
# as the time slice of a program, 8 ms, and the limit ends it.
MOST_BLOCKS = 400
MOST_S = 0.05


def control_us(threads: int) -> float:
    """Microseconds of a float32 addition that is just large enough to be shared between `threads` CPU threads.

    The median of at most 400 blocks of 10 calls, so other programs that interrupt some blocks do not count.
    """
    torch.set_num_threads(threads)
    values = torch.zeros(GRAIN * (threads - 1) + 1)
    add = partial(torch.add, values, 1.0, out=torch.empty_like(values))
    _block(add)  # wakes the threads
    return median(_blocks(add))


def _blocks(add: partial[torch.Tensor]) -> Iterator[float]:
    """Microseconds per call of each block, until there are enough or time is up."""
    clock = WallClock()
    end_s = clock.now() + MOST_S
    for _ in range(MOST_BLOCKS):
        yield _block(add)
        if clock.now() > end_s:
            return


def _block(add: partial[torch.Tensor]) -> float:
    """Microseconds per call."""

    def calls() -> None:
        for _ in range(CALLS_PER_BLOCK):
            add()

    return timed(calls)[1] * 1e3 / CALLS_PER_BLOCK
