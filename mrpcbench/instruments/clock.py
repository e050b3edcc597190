"""The clock of every benchmark: `time.perf_counter_ns`, read only here."""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")
SPIN_S = 2e-4  # Linux wakes a sleeping process about 60 us late, so the end of a sleep is spent spinning


class Clock(Protocol):
    """A monotonic clock, in seconds from an arbitrary origin."""

    def now(self) -> float:
        """The current time in seconds."""

    def sleep_until(self, moment: float) -> None:
        """Return when `now()` is at least `moment`; immediately if that time has passed."""


class WallClock:
    """The real clock. It spins at the end of a sleep, so a late wake-up does not add to a latency.

    Spinning costs no engine a core, because the only worker is waiting.
    """

    def now(self) -> float:
        """Seconds of the counter that also times the other scenarios."""
        return time.perf_counter_ns() / 1e9

    def sleep_until(self, moment: float) -> None:
        """Sleep until shortly before `moment`, then spin."""
        coarse = moment - self.now() - SPIN_S
        if coarse > 0:
            time.sleep(coarse)
        while self.now() < moment:
            pass


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result of `work` and its duration in ms.

    If `work` returns host arrays, the duration includes all work of the device.
    """
    start = time.perf_counter_ns()
    result = work()
    return result, (time.perf_counter_ns() - start) / 1e6
