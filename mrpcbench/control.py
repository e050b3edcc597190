"""The control of a benchmark: a fixed task, timed before each round, that shows how fast the machine itself is then.

The host of a virtual machine can take half of its speed for seconds, for example by running two virtual cores on one
physical core. No counter inside the machine shows it, and the rounds stay steady. The control slows down with them.
"""

from functools import cache, partial

import torch

from mrpcbench.clock import timed

# A product of about a millisecond on a core, so that all threads have work.
SIDE = 512
CALLS = 9


def control_ms(threads: int) -> float:
    """Milliseconds of a float32 product [512, 512] x [512, 512] on `threads` CPU threads: the fastest of 9 calls.

    Other programs interrupt single calls; a slow host slows them all.
    """
    torch.set_num_threads(threads)
    product = partial(torch.mm, *_matrices())
    product()  # wakes the threads
    return min(timed(product)[1] for _ in range(CALLS))


@cache
def _matrices() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIDE, SIDE, generator=generator) for _ in range(2))
    return left, right
