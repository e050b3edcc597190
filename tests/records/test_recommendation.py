"""Tests of mrpcbench.records.recommendation: the case to deploy, and why the others lost."""

from dataclasses import replace
from typing import Any

import pytest
from records import MODEL, make_bench, make_record, make_row

from mrpcbench.records.recommendation import Candidate, Recommendation, knee, pareto_front, recommend
from mrpcbench.schema.bench_results import BenchRow, LoadPoint, ReferenceAnswers, ServerResult
from mrpcbench.schema.gate_requests import ReportPlan
from mrpcbench.schema.records import BenchRecord

# Of 100 pairs: 60 are of label 1. `torch` misses 10 of them, and `onnx` the same 10 and 1 more.
TORCH, ONNX = 2 * 50 / (2 * 50 + 10), 2 * 49 / (2 * 49 + 11)


def offline(case: str, ms: float, size: int = 32, **changes: Any) -> BenchRow:
    """A VALID row that takes `ms` for 100 pairs in each of 6 rounds, with the answers of `torch`."""
    fields = {"accuracy": 0.9, "f1": TORCH, "agreement": 1.0, "broken_rules": (), **changes}
    return make_row("offline", case=case, batch_size=size, pairs=100, samples_ms=(ms,) * 6, **fields)


def single(case: str, ms: float, samples: int = 700, **changes: Any) -> BenchRow:
    fields = {"accuracy": 0.9, "f1": TORCH, "agreement": 1.0, "broken_rules": (), **changes}
    return make_row("single-stream", case=case, pairs=100, samples_ms=(ms,) * samples, **fields)


def recommended(*rows: BenchRow, reference: str | None = "torch offline batch 32", **limits: Any) -> Recommendation:
    answers = ReferenceAnswers(row=reference, labels="1" * 100) if reference else None
    record = make_record("bench", bench=make_bench(rows=rows, reference=answers))
    assert isinstance(record, BenchRecord)
    found = recommend(record, ReportPlan(**limits))
    assert found is not None
    return found


def candidate(found: Recommendation, case: str) -> Candidate:
    return next(one for one in found.candidates if one.case == case)


def test_the_fastest_valid_row_is_recommended() -> None:
    found = recommended(offline("torch", 10), offline("onnx", 5), offline("onnx", 4, 8), offline("openvino", 8))
    assert found.chosen == "onnx"
    assert found.outcome == "PASS"
    best = found.best
    assert best is not None
    assert (best.row, best.batch_size, best.pairs_per_s) == ("onnx offline batch 8", 8, pytest.approx(25_000))
    assert [one.case for one in found.candidates] == ["onnx", "openvino", "torch"]
    torch = candidate(found, "torch")
    assert torch.slowdown == pytest.approx(2.5)
    assert torch.slowdown_low == torch.slowdown_high == pytest.approx(2.5)
    assert best.slowdown is None


def test_an_invalid_row_is_not_eligible_but_another_row_of_its_case_is() -> None:
    bad = ("unsteady: the rounds vary by 20%",)
    rows = [offline("torch", 10), offline("onnx", 4, 8, broken_rules=bad), offline("onnx", 5)]
    assert recommended(*rows).best == candidate(recommended(*rows), "onnx")
    assert candidate(recommended(*rows), "onnx").row == "onnx offline batch 32"
    found = recommended(*rows[:2])
    assert found.chosen == "torch"
    assert candidate(found, "onnx").outcome == "INCONCLUSIVE"
    assert candidate(found, "onnx").reason == "offline batch 8 is INVALID: unsteady: the rounds vary by 20%"


def test_a_row_whose_validity_was_not_checked_or_whose_graph_is_unverified_is_not_eligible() -> None:
    unchecked = recommended(offline("torch", 10, broken_rules=None))
    assert (unchecked.chosen, unchecked.outcome) == (None, "INCONCLUSIVE")
    assert unchecked.candidates[0].reason == "the validity of offline batch 32 was not checked"
    found = recommended(offline("torch", 10), offline("onnx", 5, model=replace(MODEL, proven=False)))
    assert found.chosen == "torch"
    assert "UNVERIFIED" in candidate(found, "onnx").reason


def test_an_unfinished_record_and_one_without_rows_have_no_recommendation() -> None:
    record = make_record("bench", bench=make_bench(rows=(offline("torch", 10),)))
    assert isinstance(record, BenchRecord)
    assert recommend(record) is not None
    assert recommend(replace(record, complete=False)) is None
    assert recommend(replace(record, bench=make_bench(rows=()))) is None


# --- F1 ---------------------------------------------------------------------------------------------------------------


def test_the_bound_of_the_interval_decides_on_the_drop_of_f1() -> None:
    """One more wrong answer of 100 costs 0.93 points, by the interval up to about 3."""
    rows = offline("torch", 10), offline("onnx", 5, accuracy=0.89, f1=ONNX, agreement=0.99)
    one = candidate(recommended(*rows), "onnx")
    assert one.f1_drop == pytest.approx(100 * (TORCH - ONNX))
    assert one.f1_drop_bound is not None
    assert 2 < one.f1_drop_bound < 4
    assert recommended(*rows, max_f1_drop=4).chosen == "onnx"
    for limit, outcome in ((1.5, "INCONCLUSIVE"), (0.5, "REGRESSION")):
        found = recommended(*rows, max_f1_drop=limit)
        assert found.chosen == "torch"
        assert candidate(found, "onnx").outcome == outcome
        assert f"at most {limit} is allowed" in candidate(found, "onnx").reason


def test_a_slower_row_of_a_case_that_keeps_f1_is_taken() -> None:
    rows = offline("torch", 10), offline("onnx", 5, 8, accuracy=0.89, f1=ONNX, agreement=0.99), offline("onnx", 6)
    assert candidate(recommended(*rows, max_f1_drop=0.5), "onnx").row == "onnx offline batch 32"


def test_a_case_with_a_row_that_cannot_be_judged_is_not_known_to_miss_the_limit() -> None:
    worse = {"accuracy": 0.89, "f1": ONNX, "agreement": 0.99}
    rows = offline("torch", 10), offline("onnx", 5, 8, **worse), offline("onnx", 6, broken_rules=("drift",))
    one = candidate(recommended(*rows, offline("onnx", 7, 64, **worse), max_f1_drop=0.5), "onnx")
    assert (one.outcome, one.reason) == ("INCONCLUSIVE", "offline batch 32 is INVALID: drift")
    rows = offline("torch", 10), offline("onnx", 5, 8, **worse), offline("onnx", 6, **worse)
    assert candidate(recommended(*rows, max_f1_drop=0.5), "onnx").outcome == "REGRESSION"


def test_a_case_without_paired_answers_is_excluded_by_a_limit_of_f1() -> None:
    rows = offline("torch", 10, agreement=None), offline("onnx", 5, agreement=None)
    assert recommended(*rows, reference=None).chosen == "onnx"
    found = recommended(*rows, reference=None, max_f1_drop=100)
    assert found.chosen == "torch"
    assert candidate(found, "onnx").reason == (
        "the F1 of offline batch 32 cannot be compared with that of torch: the record lacks answers; run `bench` again"
    )
    fixed = recommended(offline("torch", 10), offline("onnx", 5, f1=None), max_f1_drop=100)
    assert candidate(fixed, "onnx").reason == "the F1 of offline batch 32 is not in the record"


# --- latency and cost -------------------------------------------------------------------------------------------------


def test_the_p99_of_the_single_stream_row_must_meet_the_limit() -> None:
    rows = offline("torch", 10), single("torch", 3), offline("onnx", 5), single("onnx", 2)
    assert recommended(*rows, max_p99_ms=2).chosen == "onnx"
    found = recommended(*rows, max_p99_ms=1.9)
    assert (found.chosen, found.outcome) == (None, "REGRESSION")
    assert candidate(found, "onnx").reason == "p99 of one pair is 2 ms, above 1.9"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "no single-stream row, which --max-p99-ms needs"),
        (single("onnx", 2, broken_rules=("drift",)), "single-stream is INVALID: drift"),
        (single("onnx", 2, samples=661), "p99 needs 662 samples, and single-stream has 661"),
    ],
)
def test_a_case_whose_p99_is_unknown_is_excluded_by_name(row: BenchRow | None, reason: str) -> None:
    rows = [offline("torch", 10), single("torch", 3), offline("onnx", 5), *([row] if row else [])]
    found = recommended(*rows, max_p99_ms=20)
    assert found.chosen == "torch"
    assert candidate(found, "onnx").reason == reason
    assert recommended(*rows, max_p99_ms=2).outcome == "INCONCLUSIVE"


def test_the_cost_is_that_of_a_million_pairs() -> None:
    """36 an hour is a hundredth a second, in which 25,000 pairs are 40 seconds a million."""
    found = recommended(offline("torch", 4), price_per_hour=36)
    assert found.candidates[0].cost_per_million == pytest.approx(0.4)
    assert recommended(offline("torch", 4)).candidates[0].cost_per_million is None


def test_without_offline_rows_the_server_or_the_single_stream_rows_count() -> None:
    load = LoadPoint(
        rate_per_s=70.0,
        sent=3,
        failed=0,
        latencies_ms=(1.0, 2.0, 3.0),
        batch_sizes=(1, 1, 1),
        duration_s=1.0,
        meets_slo=True,
    )
    served = ServerResult(slo_ms=50, window_ms=5, max_batch=8, seed=0, curve=(load,), best_rate_per_s=70.0)
    server = make_row("server", 0, case="onnx", server=served, broken_rules=())
    found = recommended(server, single("torch", 3), reference=None)
    assert (found.scenario, found.chosen, found.candidates[0].pairs_per_s) == ("server", "onnx", 70.0)
    assert candidate(found, "torch").reason == "no server row"
    assert recommended(single("torch", 3), single("onnx", 2), reference=None).chosen == "onnx"


# --- front and knee ---------------------------------------------------------------------------------------------------


def test_the_pareto_front_has_the_cases_that_no_other_beats_in_both() -> None:
    def point(case: str, rate: float | None, p50: float | None) -> Candidate:
        return Candidate(case=case, outcome="PASS", reason="", pairs_per_s=rate, p50_ms=p50)

    points = [point("a", 10, 1), point("b", 30, 5), point("c", 20, 2), point("d", 20, 3), point("e", 9, 1)]
    assert pareto_front([*points, point("f", 99, None), point("g", None, 0.1)]) == ("b", "c", "a")
    assert pareto_front([point("a", 10, 1), point("b", 10, 1)]) == ("b", "a")


def test_the_front_leaves_out_cases_whose_rows_are_not_valid() -> None:
    rows = [offline("torch", 10), single("torch", 3), offline("onnx", 5), single("onnx", 2, broken_rules=("drift",))]
    assert recommended(*rows).front == ("torch",)
    assert recommended(*rows).front_of == 1
    assert recommended(*rows[:3], single("onnx", 2)).front == ("onnx",)
    assert recommended(*rows[:3], single("onnx", 2)).front_of == 2


def test_the_knee_is_the_smallest_batch_size_with_nine_tenths_of_the_best_throughput() -> None:
    rows = [offline("torch", ms, size, peak_reserved_bytes=size) for size, ms in ((8, 20.0), (32, 11.0), (128, 10.0))]
    found = knee(rows)
    assert found is not None
    assert (found.batch_size, found.best_batch_size, found.memory_bytes) == (32, 128, 32)
    assert found.share == pytest.approx(10 / 11)
    assert knee(rows[:1]) is None
    invalid = replace(rows[1], broken_rules=("drift",))
    assert knee([rows[0], invalid, rows[2]]) == replace(
        found, batch_size=128, share=1.0, memory_bytes=128, pairs_per_s=pytest.approx(10_000)
    )
