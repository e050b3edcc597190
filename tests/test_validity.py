"""The rules that a benchmark row must keep to be believed: rows that just keep each, and rows that break it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from records import NOTHING, make_row

from mrpcbench.schema import (
    BenchRow,
    LoadPoint,
    ServerResult,
)
from mrpcbench.validity import broken_rules, round_medians


def offline(*samples_ms: float) -> BenchRow:
    return make_row("offline", samples_ms=samples_ms)


def single(rounds: Sequence[float], pairs: int = 300) -> BenchRow:
    return make_row("single-stream", samples_ms=tuple(value for value in rounds for _ in range(pairs)))


def test_steady_rounds_are_valid() -> None:
    assert broken_rules(offline(10.0, 10.2, 9.9), 3) == ()
    assert broken_rules(single((1.0, 1.01, 0.99)), 3) == ()


def test_two_rounds_cannot_show_steadiness() -> None:
    assert "too few rounds: 2" in broken_rules(offline(10.0, 10.0), 2)[0]


@pytest.mark.parametrize(("samples", "word"), [((10.0, 10.5, 11.1), "slower"), ((11.2, 10.5, 10.0), "faster")])
def test_a_row_that_still_drifts_is_invalid_and_says_which_way(samples: tuple[float, ...], word: str) -> None:
    (rule,) = broken_rules(offline(*samples), 3)
    assert "still drifting" in rule
    assert word in rule
    assert broken_rules(offline(10.0, 10.5, 10.9), 3) == ()


def test_rounds_that_vary_without_a_trend_are_unsteady() -> None:
    (rule,) = broken_rules(offline(10.0, 14.0, 10.0, 10.0, 14.0, 10.0), 6)
    assert "unsteady" in rule


def test_p99_of_single_pairs_needs_662_samples() -> None:
    assert broken_rules(single((1.0, 1.0, 1.0), 221), 3) == ()
    (rule,) = broken_rules(single((1.0, 1.0, 1.0), 220), 3)
    assert rule == "too few samples: 660, and p99 needs 662"


def test_pairs_of_unlike_length_are_no_unsteadiness() -> None:
    lengths = tuple(1.0 + index % 7 for index in range(300)) * 3
    assert broken_rules(make_row("single-stream", samples_ms=lengths), 3) == ()


def test_a_row_that_is_not_finished_is_judged_by_its_whole_rounds() -> None:
    assert round_medians(offline(1.0, 2.0, 3.0), 3) == [1.0, 2.0, 3.0]
    assert round_medians(make_row("single-stream", samples_ms=(1.0, 1.0, 5.0, 5.0)), 2) == [1.0, 5.0]


def test_an_engine_that_fails_requests_is_invalid() -> None:
    assert "failed 3 requests" in broken_rules(replace(offline(1.0, 1.0, 1.0), failed=3), 3)[0]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"gpu_foreign_processes": 2}, "2 other processes were on the GPU"),
        ({"gpu_throttle_reasons": ("hw_thermal_slowdown",)}, "the GPU throttled (hw_thermal_slowdown)"),
    ],
)
def test_a_disturbed_gpu_is_invalid(change: dict[str, object], rule: str) -> None:
    row = replace(offline(1.0, 1.0, 1.0), resources=replace(NOTHING, **change))  # type: ignore[arg-type]
    assert broken_rules(row, 3) == (rule,)


@pytest.mark.parametrize("reasons", [(), ("sw_power_cap",), None])
def test_a_gpu_that_works_at_its_power_limit_or_says_nothing_is_not_throttled(reasons: tuple[str, ...] | None) -> None:
    row = replace(offline(1.0, 1.0, 1.0), resources=replace(NOTHING, gpu_throttle_reasons=reasons))
    assert broken_rules(row, 3) == ()


@pytest.mark.parametrize(("best", "rules"), [(100.0, 0), (None, 1)])
def test_a_server_that_keeps_its_target_at_no_load_is_invalid(best: float | None, rules: int) -> None:
    point = LoadPoint(
        rate_per_s=100.0, sent=1, failed=0, latencies_ms=(1.0,), batch_sizes=(1,), duration_s=1.0, meets_slo=True
    )
    server = ServerResult(slo_ms=10, window_ms=0, max_batch=8, seed=0, curve=(point,), best_rate_per_s=best)
    row = replace(make_row("offline", samples_ms=()), scenario="server", server=server)
    assert len(broken_rules(row, 0)) == rules
