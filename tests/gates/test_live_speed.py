"""Tests of the live speed gate on synthetic times: exact results, and no pass without enough data."""

import math
from dataclasses import replace
from typing import Any

import pytest
from records import MODEL, ONNX, make_record

from mrpcbench.gates.live_speed import (
    comparison_of,
    fails,
    judge,
    log_ratio,
    log_ratios,
    looks_slower,
    noise_ratios,
)
from mrpcbench.gates.policy import Policy, SpeedPolicy
from mrpcbench.schema.bench_results import AbPair, AbSection, AbSide
from mrpcbench.schema.gate_requests import AbPlan
from mrpcbench.schema.requests import BackendSpec
from mrpcbench.schema.verdicts import Comparison, MetricResult

LIMITS = Policy()
SIDE = AbSide(
    spec=BackendSpec(backend="onnx", model="tuned"),
    placement=ONNX,
    model=MODEL,
    python="3.11.7",
    packages={"torch": "2.13.0"},
)


def pair(a_ms: float, b_ms: float, *disturbances: str) -> AbPair:
    """A pair whose processes have these medians; one call in eight is an outlier."""
    return AbPair(
        first="a",
        a_samples_ms=(a_ms, a_ms, a_ms * 9, *[a_ms] * 5),
        b_samples_ms=(b_ms, b_ms * 9, *[b_ms] * 6),
        disturbances=disturbances,
    )


def slower_by(share: float, count: int = 10, spread: float = 0.01) -> list[AbPair]:
    """Pairs in which B takes `share` longer, evenly spread by +/- `spread`."""
    steps = [spread * (2 * index / (count - 1) - 1) for index in range(count)]
    return [pair(10.0, 10.0 * (1 + share) * math.exp(step)) for step in steps]


def made(pairs: list[AbPair], confirmation: list[AbPair] | None = None, **sides: AbSide) -> Comparison:
    section = AbSection(
        plan=AbPlan(process_pairs=len(pairs)),
        a=sides.get("a", SIDE),
        b=sides.get("b", SIDE),
        pairs=tuple(pairs),
        confirmation=tuple(confirmation or ()),
    )
    return comparison_of(make_record("ab", ab=section), LIMITS)


def gated(found: Comparison) -> MetricResult:
    (metric,) = (metric for metric in found.metrics if metric.gated)
    return metric


def test_a_faster_first_call_is_not_a_slowdown() -> None:
    """A B, B A, A B, ...: the first side also ran last, so it is 10% faster."""
    begins = [10.0, 11.0] * 25
    assert log_ratio(begins, [11.0, 10.0] * 25) == pytest.approx(0, abs=1e-12)
    assert log_ratio([*begins, 10.0], [*[11.0, 10.0] * 25, 99.0]) == pytest.approx(0, abs=1e-12)


def test_the_ratio_is_of_adjacent_calls() -> None:
    assert log_ratios([pair(10, 11), pair(20, 20)]) == [pytest.approx(math.log(1.1)), 0.0]


def test_a_clear_slowdown_of_all_pairs_has_the_smallest_p() -> None:
    found = judge(log_ratios(slower_by(0.05)), alpha=0.05, slowdown=0.03)
    assert found.p_value == 2**-10
    assert found.slowdown == pytest.approx(0.05, abs=1e-9)
    assert found.interval.low < 0.05 < found.interval.high
    assert found.fails


@pytest.mark.parametrize(("share", "failing"), [(0.0, False), (-0.05, False), (0.029, False), (0.031, True)])
def test_only_more_than_the_limit_fails(share: float, failing: bool) -> None:
    assert fails(log_ratios(slower_by(share, spread=0.001)), alpha=0.05, slowdown=0.03) is failing


def test_a_large_median_that_is_not_significant_does_not_fail() -> None:
    ratios = [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, -0.3, -0.3, -0.3, -0.3]
    found = judge(ratios, alpha=0.05, slowdown=0.03)
    assert found.slowdown > 0.03
    assert found.p_value > 0.05
    assert not found.fails


def test_a_slowdown_that_shows_twice_is_a_regression() -> None:
    found = made(slower_by(0.05), slower_by(0.06))
    assert found.verdict.outcome == "REGRESSION"
    assert gated(found).change == pytest.approx(5, abs=1e-6)
    assert "5.0% slower, and 6.0% in the confirming run" in gated(found).verdict.reason


def test_a_slowdown_that_does_not_show_again_is_inconclusive() -> None:
    assert made(slower_by(0.05), slower_by(0.0)).verdict.outcome == "INCONCLUSIVE"
    assert made(slower_by(0.05)).verdict.outcome == "INCONCLUSIVE"  # and so is an unconfirmed one


def test_unchanged_speed_passes() -> None:
    found = made(slower_by(0.0))
    assert found.verdict.outcome == "PASS"
    assert gated(found).baseline == 10.0
    assert gated(found).current == pytest.approx(10.0, rel=1e-4)


def test_a_median_beyond_the_limit_that_is_not_significant_does_not_pass() -> None:
    """The machine stalled in two of ten pairs, so a slowdown of 10% is neither significant nor ruled out."""
    pairs = [*slower_by(0.1, count=8), pair(10, 6), pair(10, 6.5)]
    found = gated(made(pairs))
    assert found.change == pytest.approx(10, abs=1.5)
    assert found.verdict.outcome == "INCONCLUSIVE"
    assert "may be chance" in found.verdict.reason
    assert made(pairs).verdict.outcome == "INCONCLUSIVE"


def test_disturbed_pairs_do_not_count_and_are_counted() -> None:
    slow = [replace(one, disturbances=("the GPU throttled (hw_slowdown)",)) for one in slower_by(0.5, 5)]
    found = made([*slower_by(0.0), *slow])
    assert found.verdict.outcome == "PASS"
    assert any("5 of 15 pairs of processes were disturbed" in warning for warning in found.warnings)


def test_too_few_undisturbed_pairs_do_not_pass() -> None:
    lost = [replace(one, disturbances=("another",)) for one in slower_by(0.0, 6)]
    found = made([*slower_by(0.0, 4), *lost])
    assert found.verdict.outcome == "INCONCLUSIVE"
    assert "only 4 of 10" in found.verdict.reason
    assert made(lost).verdict.outcome == "INCONCLUSIVE"


def test_a_policy_that_does_not_gate_speed_does_not_pass() -> None:
    section = AbSection(plan=AbPlan(), a=SIDE, b=SIDE, pairs=tuple(slower_by(0.0)))
    found = comparison_of(make_record("ab", ab=section), replace(LIMITS, speed=SpeedPolicy(gate=False)))
    assert found.verdict.outcome == "INCONCLUSIVE"


def test_a_compared_with_itself_is_shown_and_never_decides() -> None:
    pairs = [pair(10.0 + index % 2, 10.0) for index in range(10)]
    assert noise_ratios(pairs) == [pytest.approx(math.log(1.1))] * 5
    (floor,) = (metric for metric in made(pairs).metrics if not metric.gated)
    assert floor.metric == "A against A"
    assert floor.change == pytest.approx(10)
    assert "up to 10.0%" in floor.verdict.reason


def test_other_tokens_are_incomparable() -> None:
    other = replace(SIDE, model=replace(MODEL, tokenizer_sha256="f" * 64))
    found = made(slower_by(0.0), b=other)
    assert found.verdict.outcome == "INCOMPARABLE"
    assert "tokenizers" in found.verdict.reason
    assert found.metrics == ()


def test_allowed_differences_are_warnings() -> None:
    changes: dict[str, Any] = {"packages": {"torch": "2.14.0"}, "python": "3.12.1"}
    found = made(slower_by(0.0), b=replace(SIDE, **changes))
    assert "torch 2.13.0 and 2.14.0" in found.warnings
    assert "Python 3.11.7 and 3.12.1" in found.warnings
    unverified = replace(SIDE, model=replace(MODEL, graph_sha256="e" * 64, proven=False))
    assert any("UNVERIFIED" in warning for warning in made(slower_by(0.0), b=unverified).warnings)
    larger = replace(SIDE, model=replace(MODEL, parameters=1))
    assert any("of 1 weights" in warning for warning in made(slower_by(0.0), b=larger).warnings)


def test_no_undisturbed_pair_never_looks_slower() -> None:
    assert not looks_slower([replace(one, disturbances=("x",)) for one in slower_by(0.5)], LIMITS)
    assert looks_slower(slower_by(0.5), LIMITS)
