"""The one clock: every time of a benchmark is read from `time.perf_counter_ns`, and here."""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")
SPIN_S = 2e-4  # a sleeping process wakes some 60 us late on Linux; the last stretch is therefore spun


class Clock(Protocol):
    """Time in seconds from any origin, never going back."""

    def now(self) -> float:
        """The moment, in seconds."""

    def sleep_until(self, moment: float) -> None:
        """Return once `now()` is at least `moment`: never earlier, and at once where that has passed."""


class WallClock:
    """The real clock. It spins at the end of a sleep, so that a wake-up is not itself a latency.

    The core that it spins on would be idle: the one worker has nothing to do until the moment comes.
    """

    def now(self) -> float:
        """Seconds of the same counter that times every other scenario."""
        return time.perf_counter_ns() / 1e9

    def sleep_until(self, moment: float) -> None:
        """Sleep until shortly before `moment`, and spin from there."""
        coarse = moment - self.now() - SPIN_S
        if coarse > 0:
            time.sleep(coarse)
        while self.now() < moment:
            pass


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns and how many milliseconds it took.

    Where `work` returns host arrays, it cannot end before the device is done.
    """
    start = time.perf_counter_ns()
    result = work()
    return result, (time.perf_counter_ns() - start) / 1e6
