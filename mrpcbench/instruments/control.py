"""The control of a benchmark: a fixed task, timed before each round, which shows the state of the machine.

A hypervisor may place the cores of a virtual machine near each other or far apart, and move them every minute. Threads
can then take twice as long to start and join, and so can engines that run small operations on several threads. No
counter inside the machine shows it, and the rounds look steady. The control runs many small multi-threaded operations,
so its time changes by the same factor.
"""

from collections.abc import Iterator
from functools import partial
from statistics import median

import torch

from mrpcbench.instruments.clock import WallClock, timed

# The smallest number of elements that torch gives a thread (at::internal::GRAIN_SIZE in ATen/Parallel.h).
GRAIN = 32768
CALLS_PER_BLOCK = 10
# 400 blocks normally take 20 ms. If other programs hold the cores, a call takes as long as a time slice, 8 ms, and the
# time limit ends the control.
MOST_BLOCKS = 400
MOST_S = 0.05


def control_us(threads: int) -> float:
    """Time in microseconds of a float32 addition that is just large enough to run on `threads` CPU threads.

    It is the median of at most 400 blocks of 10 calls, so interruptions of a few blocks do not matter.
    """
    torch.set_num_threads(threads)
    values = torch.zeros(GRAIN * (threads - 1) + 1)
    add = partial(torch.add, values, 1.0, out=torch.empty_like(values))
    _block(add)  # wakes the threads
    return median(_blocks(add))


def _blocks(add: partial[torch.Tensor]) -> Iterator[float]:
    """Microseconds per call of each block, until one of the limits is reached."""
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
