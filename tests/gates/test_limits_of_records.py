"""Tests of limits without a baseline: their text form, which rows they judge, and what cannot be judged."""

from dataclasses import replace
from typing import Any

import pytest
from records import (
    COMMANDS,
    make_bench,
    make_evaluate,
    make_export,
    make_gate,
    make_record,
    make_row,
    make_score,
    make_train,
)

from mrpcbench.gates.limits import judge_limits
from mrpcbench.gates.metrics import METRICS, Limit, Side, names_of
from mrpcbench.records.summary import summarised
from mrpcbench.schema.bench_results import FailedCase
from mrpcbench.schema.records import BenchRecord, Record
from mrpcbench.schema.requests import BackendSpec
from mrpcbench.schema.results import Confusion
from mrpcbench.schema.rows import RowId

ONNX: dict[str, Any] = {"case": "onnx", "spec": BackendSpec(model="tuned", backend="onnx"), "broken_rules": ()}


def benched(**changes: Any) -> Record:
    """Two cases of 700 single pairs, torch in 2 ms and onnx in 1 ms, and an offline row of torch; all VALID."""
    rows = (
        make_row("single-stream", samples_ms=(2.0,) * 700, pairs=100, broken_rules=()),
        make_row("single-stream", samples_ms=(1.0,) * 700, pairs=100, **ONNX),
        make_row("offline", samples_ms=(100.0,) * 5, broken_rules=()),
    )
    return make_record("bench", bench=make_bench(rows=changes.pop("rows", rows), **changes))


def judged(record: Record, side: Side, *texts: str) -> dict[str, str]:
    """The outcome of each limit by name."""
    found = judge_limits([("r.json", record)], [Limit.parse(text, side) for text in texts])
    assert all(metric.gated for metric in found)
    return {metric.metric: metric.verdict.outcome for metric in found}


def reason(record: Record, side: Side, text: str) -> str:
    (found,) = judge_limits([("r.json", record)], [Limit.parse(text, side)])
    assert found.verdict.outcome == "INCONCLUSIVE"
    return found.verdict.reason


# --- the text form ----------------------------------------------------------------------------------------------------


def test_a_limit_names_a_metric_and_perhaps_a_row() -> None:
    assert Limit.parse("f1=0.9", "min") == Limit(side="min", metric="f1", bound=0.9)
    row = RowId(case="onnx", scenario="single-stream", batch_size=1)
    for text in ("onnx single-stream batch 1:p99_ms=1", "onnx single-stream: p99_ms = 1"):
        assert Limit.parse(text, "max") == Limit(side="max", metric="p99_ms", bound=1.0, row=row)


@pytest.mark.parametrize(
    ("text", "side", "expected"),
    [
        ("f1", "min", "'f1' is not a limit; write it as METRIC=NUMBER or 'ROW:METRIC=NUMBER'"),
        ("", "min", "is not a limit"),
        ("f1=", "min", "is not a limit"),
        ("a:b:f1=1", "min", "is not a limit"),
        ("onnx:f1=0.9", "min", "'onnx' is not a row"),
        ("f2=0.9", "min", "unknown metric 'f2'; known are accuracy, f1, "),
        ("f1=nan", "min", "'nan' is not a finite number"),
        ("f1=inf", "min", "'inf' is not a finite number"),
        ("f1=high", "min", "'high' is not a finite number"),
        ("f1=90", "min", "f1 is a share from 0 to 1"),
        ("f1=0.9", "max", "a larger f1 is better; use min, not max"),
        ("p99_ms=2", "min", "a smaller p99_ms is better; use max, not min"),
        ("onnx single-stream:flips=0", "max", "only bench records have rows"),
    ],
)
def test_any_other_text_is_refused_in_one_line(text: str, side: Side, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        Limit.parse(text, side)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_value_equal_to_the_limit_passes() -> None:
    record = make_record("export")
    assert judged(record, "max", "nodes=1834") == {"max nodes": "PASS"}
    assert judged(record, "max", "nodes=1833") == {"max nodes": "REGRESSION"}


def test_every_row_that_has_the_metric_must_meet_the_limit() -> None:
    names = ("torch single-stream: max p99_ms", "onnx single-stream: max p99_ms")
    assert judged(benched(), "max", "p99_ms=2") == dict.fromkeys(names, "PASS")
    assert judged(benched(), "max", "p99_ms=1.5") == dict(zip(names, ("REGRESSION", "PASS"), strict=True))


def test_a_limit_on_one_row_judges_that_row_alone() -> None:
    limit = "onnx single-stream:p99_ms=1.5"
    assert judged(benched(), "max", limit) == {"onnx single-stream: max p99_ms": "PASS"}


def test_a_row_that_the_record_lacks_is_inconclusive() -> None:
    assert reason(benched(), "max", "ort single-stream:p99_ms=2") == "it has no such row"
    failed = FailedCase(case="ort", stage="opening", reason="no such graph")
    assert reason(benched(failed=(failed,)), "max", "ort single-stream:p99_ms=2") == "ort failed: no such graph"
    assert reason(benched(), "max", "torch offline batch 32:p99_ms=2") == "the row has no p99_ms"


@pytest.mark.parametrize("rules", [("drifting: 12%",), None])
def test_a_row_that_is_not_valid_is_inconclusive_even_beyond_the_limit(rules: tuple[str, ...] | None) -> None:
    row = make_row("single-stream", samples_ms=(2.0,) * 700, broken_rules=rules)
    for bound in (1, 3):
        found = reason(benched(rows=(row,)), "max", f"p99_ms={bound}")
        assert ("INVALID: drifting: 12%" in found) if rules else ("validity was not checked" in found)


def test_too_few_samples_for_a_percentile_are_inconclusive() -> None:
    row = make_row("single-stream", samples=661, broken_rules=())
    assert reason(benched(rows=(row,)), "max", "p99_ms=1e9").startswith("no p99_ms: too few samples")


def test_no_row_with_the_metric_is_inconclusive() -> None:
    row = make_row("offline", broken_rules=())
    assert reason(benched(rows=(row,)), "max", "p99_ms=2") == "no row has p99_ms"
    assert reason(benched(rows=(row,)), "min", "speedup=2") == "no row has speedup"


def test_a_speedup_over_an_invalid_row_is_inconclusive() -> None:
    assert judged(benched(), "min", "speedup=1.9") == {"onnx single-stream: min speedup": "PASS"}
    record = benched()
    assert isinstance(record, BenchRecord)
    other = make_row("offline", batch_size=8, samples_ms=(100.0,) * 5, broken_rules=())
    assert judged(benched(rows=(*record.rows, other)), "min", "speedup=1.9") == {
        "onnx single-stream: min speedup": "PASS"
    }, "a row of the reference case has no speedup to judge"
    torch, *others = record.rows
    noisy = summarised(replace(record.bench, rows=(replace(torch, broken_rules=("unsteady: 9%",)), *others)))
    found = reason(replace(record, bench=noisy), "min", "speedup=1.9")
    assert found.startswith("reference row torch single-stream: the row is INVALID: unsteady: 9%")


def test_every_record_of_several_must_meet_the_limit() -> None:
    good, bad = (make_record("train", train=make_train(best_step=step)) for step in (230, 7))
    found = judge_limits([("a.json", good), ("b.json", bad)], [Limit.parse("f1=0.8", "min")])
    assert {metric.metric: metric.verdict.outcome for metric in found} == {
        "a.json: min f1": "PASS",
        "b.json: min f1": "INCONCLUSIVE",
    }


def test_an_export_without_its_gate_has_no_flips() -> None:
    assert judged(make_record("export"), "max", "flips=0", "max_abs_delta=1e-5") == {
        "max flips": "PASS",
        "max max_abs_delta": "PASS",
    }
    trial = replace(make_gate().trials[0], flips=1, max_abs_delta=None)
    flipped = make_record("export", export=make_export(gate=make_gate(trials=(trial,))))
    assert judged(flipped, "max", "flips=0") == {"max flips": "REGRESSION"}
    assert reason(flipped, "max", "max_abs_delta=1") == "the record has no max_abs_delta"
    assert reason(make_record("export", export=make_export(gate=None)), "max", "flips=0") == "the record has no flips"


def test_scores_come_from_the_counts_and_not_from_the_stored_figure() -> None:
    record = make_record("evaluate")
    score = replace(record.score, accuracy=1.0, f1=1.0)  # type: ignore[union-attr]
    tampered = replace(record, evaluate=replace(record.evaluate, score=score))  # type: ignore[union-attr, call-arg]
    assert judged(tampered, "min", "accuracy=0.9", "f1=0.9") == {
        "min accuracy": "REGRESSION",
        "min f1": "REGRESSION",
    }


def test_counts_that_are_not_those_of_the_pairs_are_inconclusive() -> None:
    score = make_score(confusion=Confusion(true_positive=0, false_positive=0, false_negative=0, true_negative=0))
    record = make_record("evaluate", evaluate=make_evaluate(score=score))
    assert reason(record, "min", "accuracy=0") == "the record has no accuracy"
    assert reason(record, "min", "f1=0") == "the record has no f1"


def test_every_metric_is_read_from_some_kind_of_record_and_each_kind_has_some() -> None:
    kinds = [command for command in COMMANDS if command not in ("ab", "study")]
    assert all(any(metric.is_of(command) for command in kinds) for metric in METRICS.values())
    assert all(list(names_of(command)) for command in kinds)
    for command in kinds:
        record = benched() if command == "bench" else make_record(command)
        for name in names_of(command):
            assert list(METRICS[name].values(record)) or name == "agreement", name
