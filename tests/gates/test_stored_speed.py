"""Tests of the gate of stored speed: bench records compared with one or more baseline records."""

import math
import re
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import pytest
from records import ONNX, make_bench, make_row

from mrpcbench.gates.policy import Policy, StoredSpeedPolicy
from mrpcbench.gates.stored_speed import default_gated_rows, judge_bench
from mrpcbench.schema.bench_results import BenchRow, BenchSection, FailedCase, LoadPoint, ServerResult
from mrpcbench.schema.requests import BackendSpec
from mrpcbench.schema.rows import RowId
from mrpcbench.schema.verdicts import MetricResult, Verdict, overall
from mrpcbench.statistics import prediction_limit

ROW = "torch offline batch 32"
INVALID = {"broken_rules": ("unsteady: ±12%",)}


def row(ms: float = 10.0, scenario: str = "offline", backend: Any = "torch", **changes: Any) -> BenchRow:
    """A valid row whose every sample takes `ms`."""
    spec = BackendSpec(model="tuned", backend=backend)
    fields = {"spec": spec, "case": backend, "samples_ms": (ms,) * 3, "broken_rules": (), "pairs": 100, **changes}
    return make_row(scenario, **fields)


def single(ms: float, **changes: Any) -> BenchRow:
    return row(ms, "single-stream", **{"samples_ms": (ms,) * 300, **changes})


def judged(
    before: Sequence[Sequence[BenchRow]], after: Sequence[BenchRow], policy: Policy | None = None
) -> dict[str, MetricResult]:
    sections = [make_bench(rows=tuple(rows)) for rows in before]
    metrics = judge_bench(sections, make_bench(rows=tuple(after)), policy or Policy())
    return {metric.metric: metric for metric in metrics}


def outcome(before: Sequence[Sequence[BenchRow]], after: Sequence[BenchRow], policy: Policy | None = None) -> str:
    return overall([], list(judged(before, after, policy).values())).outcome


def runs(*times_ms: float) -> list[list[BenchRow]]:
    """Baseline records of one row."""
    return [[row(ms)] for ms in times_ms]


def stored(*names: str, **changes: Any) -> Policy:
    """The policy that gates the rows with these `names`."""
    return Policy(stored_speed=StoredSpeedPolicy(rows=row_ids(*names), **changes))


def row_ids(*names: str) -> tuple[RowId, ...]:
    return tuple(map(RowId.parse, names))


# --- one baseline record ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ms", "expected"), [(5.0, "PASS"), (10.0, "PASS"), (10.99, "PASS"), (11.01, "REGRESSION"), (99.0, "REGRESSION")]
)
def test_unchanged_code_passes_within_the_limit_and_is_a_regression_beyond_it(ms: float, expected: str) -> None:
    found = judged(runs(10.0), [row(ms)])[ROW]
    assert found.gated
    assert found.verdict.outcome == expected
    assert (found.unit, found.baseline, found.current) == ("µs/pair", pytest.approx(100), pytest.approx(ms * 10))
    assert found.change == pytest.approx(ms * 10 - 100)
    assert found.verdict.reason.endswith("; limit 10% (--max-slowdown)")


def test_the_reason_says_how_much_slower_or_faster() -> None:
    assert judged(runs(10.0), [row(12.0)])[ROW].verdict.reason == "20.0% slower; limit 10% (--max-slowdown)"
    assert judged(runs(10.0), [row(9.0)])[ROW].verdict.reason == "10.0% faster; limit 10% (--max-slowdown)"


def test_max_slowdown_sets_the_limit() -> None:
    assert outcome(runs(10.0), [row(12.0)], stored(max_slowdown=0.25)) == "PASS"
    found = judged(runs(10.0), [row(10.5)], stored(max_slowdown=0.02))[ROW]
    assert found.verdict.reason == "5.0% slower; limit 2% (--max-slowdown)"
    assert found.verdict.outcome == "REGRESSION"


def test_single_pairs_are_judged_by_the_median_pair_of_a_round() -> None:
    """Also where another program interrupts some of the calls."""
    interrupted = single(2.1, samples_ms=((2.1,) * 60 + (100.0,) * 40) * 3)
    found = judged([[single(2.0)]], [interrupted])["torch single-stream"]
    assert (found.baseline, found.current) == (pytest.approx(2000), pytest.approx(2100))


def test_a_few_disturbed_rounds_change_nothing() -> None:
    disturbed = row(samples_ms=(10.0, 10.0, 10.0, 10.0, 10.0, 40.0, 25.0, 30.0))
    assert judged(runs(10.0), [disturbed])[ROW].change == pytest.approx(0)


@pytest.mark.parametrize("side", ["baseline", "current record"])
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (INVALID, "the row is INVALID: unsteady: ±12%"),
        ({"broken_rules": None}, "the row's validity was not checked"),
        ({"samples_ms": ()}, "the row has no samples"),
        ({"samples_ms": (0.0, 0.0, 1.0)}, "the row has no samples"),
    ],
)
def test_a_row_that_is_not_valid_is_inconclusive_on_either_side(side: str, broken: dict[str, Any], said: str) -> None:
    for ms in (1.0, 100.0):
        rows = [[row(**broken)], [row(ms)]]
        before, after = rows if side == "baseline" else reversed(rows)
        verdict = judged([before], after)[ROW].verdict
        assert verdict.outcome == "INCONCLUSIVE"
        assert verdict.reason.startswith(f"{side}: {said}")


def test_an_invalid_row_names_the_fix() -> None:
    assert "`mrpcbench ab`" in judged(runs(10.0), [row(**INVALID)])[ROW].verdict.advice


def test_a_row_that_the_current_record_lacks_never_passes() -> None:
    found = judged([[row(), row(backend="onnx")]], [row(1.0)])
    missing = found["onnx offline batch 32"]
    assert missing.verdict.reason == "current record: it has no such row"
    assert (missing.gated, missing.current, missing.change) == (True, None, None)
    assert overall([], list(found.values())).outcome == "INCONCLUSIVE"


@pytest.mark.parametrize("side", ["baseline", "current record"])
def test_a_row_of_a_case_that_failed_is_inconclusive_with_the_reason(side: str) -> None:
    whole = make_bench(rows=(row(), row(backend="onnx")))
    failed = FailedCase(case="onnx", stage="warm-up", reason="no graph")
    part = make_bench(rows=(row(),), failed=(failed,))
    before, after = (part, whole) if side == "baseline" else (whole, part)
    found = {metric.metric: metric for metric in judge_bench([before], after, stored("onnx offline batch 32"))}
    verdict = found["onnx offline batch 32"].verdict
    assert (verdict.outcome, verdict.reason) == ("INCONCLUSIVE", f"{side}: onnx failed: no graph")


def test_a_row_that_the_policy_names_and_the_baseline_lacks_never_passes() -> None:
    policy = stored("onnx offline batch 32", ROW)
    for after in ([row(1.0), row(1.0, backend="onnx")], [row(1.0)]):
        found = judged([[row()]], after, policy)
        assert list(found) == ["onnx offline batch 32", ROW]
        assert found["onnx offline batch 32"].verdict.reason == "baseline: it has no such row"
        assert outcome([[row()]], after, policy) == "INCONCLUSIVE"


def test_one_slower_row_fails_the_comparison() -> None:
    before = [row(), single(2.0)]
    assert outcome([before], [row(), single(2.5)]) == "REGRESSION"
    assert outcome([before], before) == "PASS"


# --- several baseline records -----------------------------------------------------------------------------------------


def test_three_records_widen_the_limit_to_their_prediction_limit() -> None:
    """t(0.99, 2) = 6.965 (Student's table)."""
    times = (10.0, 10.2, 10.4)
    logs = [math.log(time) for time in times]
    limit = math.exp(6.965 * stdev(logs) * math.sqrt(4 / 3)) - 1
    base = math.exp(fmean(logs))
    slower, beyond = (judged(runs(*times), [row(base * (1 + limit + by))])[ROW] for by in (-0.002, 0.002))
    assert (slower.verdict.outcome, beyond.verdict.outcome) == ("PASS", "REGRESSION")
    assert slower.verdict.reason.endswith(f"; limit {limit:.1%} (99% prediction limit of 3 baseline records)")
    assert slower.p_value is not None
    assert beyond.p_value is not None
    assert beyond.p_value < 0.01 < slower.p_value
    assert slower.baseline == pytest.approx(base * 10)


def test_max_slowdown_is_the_limit_if_it_is_larger() -> None:
    found = judged(runs(10.0, 10.01, 10.02, 10.01), [row(10.9)])[ROW]
    assert found.verdict.outcome == "PASS"
    said = "limit 10% (--max-slowdown; the 99% prediction limit of 4 baseline records is 0.4%)"
    assert found.verdict.reason == f"8.9% slower; {said}"


def test_equal_baseline_records_have_a_prediction_limit_of_zero() -> None:
    assert outcome(runs(10.0, 10.0, 10.0), [row(10.9)]) == "PASS"
    assert outcome(runs(10.0, 10.0, 10.0), [row(11.1)]) == "REGRESSION"


def test_two_records_have_no_prediction_limit() -> None:
    found = judged(runs(8.0, 12.5), [row(11.1)])[ROW]
    assert found.verdict.reason == "11.0% slower; limit 10% (--max-slowdown)"
    assert found.baseline == pytest.approx(100)


def test_baseline_records_without_a_valid_row_are_left_out_and_counted() -> None:
    noisy = [row(50.0, **INVALID)]
    found = judged([*runs(10.0, 10.2, 10.4), noisy, noisy], [row(10.3)])[ROW]
    assert found.verdict.reason.endswith(
        "99% prediction limit of 3 baseline records; 2 of 5 baseline records left out)"
    )
    few = judged([*runs(10.0, 10.4), noisy], [row(10.3)])[ROW]
    assert few.verdict.reason == (
        "1.0% slower; limit 10% (--max-slowdown; 1 of 3 baseline records left out; a prediction limit needs 3)"
    )


def test_a_baseline_row_that_is_missing_not_judged_or_without_samples_is_not_called_invalid() -> None:
    for other in ([single(2.0)], [row(broken_rules=None)], [row(samples_ms=())]):
        found = judged([*runs(10.0), other], [row(10.3)])[ROW]
        assert found.limit == "10% (--max-slowdown; 1 of 2 baseline records left out)"


def test_a_row_that_is_invalid_in_every_baseline_record_is_inconclusive() -> None:
    verdict = judged([[row(**INVALID)]] * 3, [row()])[ROW].verdict
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reason.startswith("baseline: none of 3 records can be used; the row is INVALID: unsteady")


def test_a_prediction_limit_above_25_percent_is_inconclusive_and_names_the_fix() -> None:
    """Three records that differ by a few per cent: a slowdown of 30% is within their prediction limit."""
    for ms in (10.0, 13.0, 100.0):
        verdict = judged(runs(9.6, 10.0, 10.4), [row(ms)])[ROW].verdict
        assert verdict.outcome == "INCONCLUSIVE"
        assert re.search(
            r"limit 3[89]\.\d% \(99% prediction limit of 3 baseline records\) is above 25%: ", verdict.reason
        )
        assert "too noisy or has too few records" in verdict.reason
        assert verdict.advice == "add baseline records, or compare both versions live with `mrpcbench ab`"


def test_a_larger_max_slowdown_is_the_largest_limit_that_can_pass() -> None:
    """Of 38% and --max-slowdown; beyond it no prediction limit passes."""
    before, slower = runs(9.6, 10.0, 10.4), [row(13.0)]
    verdicts = {limit: judged(before, slower, stored(max_slowdown=limit))[ROW].verdict for limit in (0.2, 0.35, 0.45)}
    assert [verdict.outcome for verdict in verdicts.values()] == ["INCONCLUSIVE", "INCONCLUSIVE", "PASS"]
    assert "is above 25%" in verdicts[0.2].reason
    assert "is above 35%" in verdicts[0.35].reason


def test_a_slowdown_of_30_percent_never_passes_by_a_prediction_limit() -> None:
    outcomes = set()
    for spread in range(1, 13):
        for count in (3, 4, 5, 8):
            times = [10.0 * (1 + spread / 100) ** (index % 3 - 1) for index in range(count)]
            mean = math.exp(fmean(map(math.log, times)))
            outcomes.add(outcome(runs(*times), [row(mean * 1.3)]))
    assert outcomes == {"REGRESSION", "INCONCLUSIVE"}


def test_the_level_is_shared_by_the_gated_rows() -> None:
    """Of two rows the more extreme is tested at 0.5%, and the other at 1% if that one is rejected."""
    times = (10.0, 10.1, 10.2, 10.3, 10.2)
    alone = judged(runs(*times), [row(10.2)])[ROW]
    before = [[row(ms), row(ms, backend="onnx")] for ms in times]
    both = judged(before, [row(10.2), row(10.2, backend="onnx")])
    slow = judged(before, [row(10.2), row(20.0, backend="onnx")])

    def limit(found: MetricResult) -> float:
        return float(found.limit.split("is ")[1].split("%")[0])

    logs = [math.log(time) for time in times]
    one, half = (math.expm1(prediction_limit(logs, alpha) - fmean(logs)) * 100 for alpha in (0.01, 0.005))
    assert limit(alone) == pytest.approx(one, abs=0.05)
    assert limit(both[ROW]) == pytest.approx(half, abs=0.05)
    assert limit(slow[ROW]) == limit(alone)
    assert both[ROW].adjusted_p == pytest.approx(2 * (both[ROW].p_value or 0))


def test_ungated_rows_do_not_share_the_level() -> None:
    before = [[row(ms), row(ms + 5, batch_size=8)] for ms in (10.0, 10.2, 10.4)]
    found = judged(before, [row(10.2), row(15.0, batch_size=8)])
    assert found[ROW].adjusted_p == found[ROW].p_value
    assert found["torch offline batch 8"].p_value is None


# --- the rows that decide ---------------------------------------------------------------------------------------------


def test_the_fastest_offline_and_the_single_stream_row_of_each_case_are_gated_at_most_five() -> None:
    rows = [
        made
        for backend in ("torch", "onnx", "fake")
        for made in (
            row(1.0, "single-stream", backend),
            row(20.0, batch_size=8, backend=backend),
            row(10.0, batch_size=32, backend=backend),
        )
    ]
    expected = (ROW, "torch single-stream", "onnx offline batch 32", "onnx single-stream", "fake offline batch 32")
    assert default_gated_rows([make_bench(rows=tuple(rows))]) == row_ids(*expected)
    found = judged([rows], rows)
    assert [name for name, metric in found.items() if metric.gated] == list(expected)
    assert len(found) == 9


def test_the_fastest_row_is_the_fastest_over_all_baseline_records() -> None:
    sections = [
        make_bench(rows=(row(small, batch_size=8), row(large)))
        for small, large in ((9.9, 10.0), (12.0, 10.0), (12.0, 10.0))
    ]
    assert default_gated_rows(sections) == row_ids(ROW)


def test_an_invalid_row_is_gated_only_if_its_case_has_no_other() -> None:
    fast, faster = row(5.0, batch_size=8, **INVALID), row(4.0, batch_size=16, **INVALID)
    assert default_gated_rows([make_bench(rows=(fast, row(), faster))]) == row_ids(ROW)
    assert default_gated_rows([make_bench(rows=(fast, faster))]) == row_ids("torch offline batch 16")
    noisy, quiet = (
        make_bench(rows=(row(ms, batch_size=8, **rules), row())) for ms, rules in ((5.0, INVALID), (9.0, {}))
    )
    assert default_gated_rows([noisy, quiet]) == row_ids("torch offline batch 8")


def test_a_row_without_samples_is_not_the_fastest() -> None:
    assert default_gated_rows([make_bench(rows=(row(batch_size=8, samples_ms=()), row()))]) == row_ids(ROW)


def test_the_rows_in_the_policy_are_gated_instead() -> None:
    rows = [row(20.0, batch_size=8), row()]
    name = "torch offline batch 8"
    assert [item.metric for item in judged([rows], rows, stored(name)).values() if item.gated] == [name]
    assert not any(item.gated for item in judged([rows], rows, stored(name, gate=False)).values())


def test_rows_that_only_one_side_has_are_not_shown_unless_they_are_gated() -> None:
    assert list(judged([[row(), row(20.0, batch_size=8)]], [row(), row(batch_size=64)])) == [ROW]


def served(rate: float | None) -> BenchRow:
    load = LoadPoint(
        rate_per_s=rate or 1.0,
        sent=1000,
        failed=0,
        latencies_ms=(5.0,) * 1000,
        batch_sizes=(1,) * 1000,
        duration_s=10.0,
        meets_slo=rate is not None,
    )
    result = ServerResult(slo_ms=100, window_ms=2, max_batch=8, seed=0, curve=(load,), best_rate_per_s=rate)
    return row(scenario="server", batch_size=8, samples_ms=(), server=result, placement=ONNX)


def test_a_server_is_judged_by_its_best_rate_if_the_policy_names_it() -> None:
    name, policy = "torch server batch 8", stored("torch server batch 8")
    found = judged([[served(100.0)]], [served(80.0)], policy)[name]
    assert (found.unit, found.verdict.outcome, found.change) == ("µs/request", "REGRESSION", pytest.approx(25))
    assert judged([[served(100.0)]], [served(None)], policy)[name].verdict.outcome == "INCONCLUSIVE"
    assert not judged([[served(100.0)]], [served(80.0)])[name].gated


# --- the state of the machine -----------------------------------------------------------------------------------------


def with_control(ms: float, *control_us: float) -> BenchSection:
    """A record of one row of `ms`, with the time of the control before each round."""
    return make_bench(rows=(row(ms),), control_us=control_us)


def verdict(baseline: Sequence[BenchSection], current: BenchSection) -> Verdict:
    (found,) = judge_bench(baseline, current, Policy())
    return found.verdict


def test_a_changed_machine_is_inconclusive() -> None:
    baseline = [with_control(10.0, 20.0, 20.0, 20.0)]
    cases = (
        (21.8, 10.0, "PASS"),
        (18.4, 10.0, "PASS"),
        (21.8, 13.0, "REGRESSION"),
        (28.0, 14.0, "INCONCLUSIVE"),  # a change of the machine looks like a slowdown
        (14.0, 10.0, "INCONCLUSIVE"),  # a change of the machine hides a slowdown
    )
    for control, ms, expected in cases:
        found = verdict(baseline, with_control(ms, control, control, control))
        assert found.outcome == expected, control
        assert ("the machine itself changed" in found.reason) == (expected == "INCONCLUSIVE")
    assert "took 40% longer than for the baseline" in verdict(baseline, with_control(14.0, 28.0)).reason
    assert "took 30% less time than for the baseline" in verdict(baseline, with_control(10.0, 14.0)).reason


def test_baseline_records_of_another_state_of_the_machine_are_left_out() -> None:
    near, far = with_control(10.0, 20.0), with_control(14.0, 28.0)
    folder = [near, near, far]
    for ms, control, expected in ((10.5, 20.0, "PASS"), (12.0, 20.0, "REGRESSION"), (14.5, 28.0, "PASS")):
        assert verdict(folder, with_control(ms, control)).outcome == expected, ms
    assert "1 of 3 baseline records left out" in verdict(folder, with_control(10.5, 20.0)).reason
    assert "none of 3 records can be used; the machine" in verdict(folder, with_control(10.5, 40.0)).reason


def test_one_disturbed_round_does_not_change_the_state_of_the_machine() -> None:
    assert verdict([with_control(10.0, 20.0)], with_control(10.0, 20.0, 20.0, 90.0)).outcome == "PASS"


def test_records_without_a_control_are_compared_without_it() -> None:
    for before, after in (((), (30.0,)), ((20.0,), ()), ((0.0,), (30.0,))):
        assert verdict([with_control(10.0, *before)], with_control(10.0, *after)).outcome == "PASS"
