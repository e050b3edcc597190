"""The one clock: never early, and a wait that ends on time."""

import itertools

import pytest

from mrpcbench.instruments import clock
from mrpcbench.instruments.clock import WallClock, timed


def test_the_real_clock_never_wakes_early_and_spins_only_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    readings, slept = itertools.count(0, 50_000), []
    monkeypatch.setattr(clock.time, "perf_counter_ns", lambda: next(readings))
    monkeypatch.setattr(clock.time, "sleep", slept.append)
    wall = WallClock()
    wall.sleep_until(0.001)
    assert slept == [pytest.approx(0.001 - 2e-4)]
    assert wall.now() >= 0.001
    wall.sleep_until(0.0005)
    assert len(slept) == 1


def test_a_timed_call_gives_its_result_and_its_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([1_000_000, 3_500_000])
    monkeypatch.setattr(clock.time, "perf_counter_ns", lambda: next(readings))
    assert timed(lambda: "done") == ("done", 2.5)
