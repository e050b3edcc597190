"""Tests of mrpcbench.records.summary: the main figures of a row, from its samples alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from records import make_bench, make_record, make_row

from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.records.summary import summarised
from mrpcbench.schema.bench_results import BenchRow, LoadPoint, RowSummary, ServerResult
from mrpcbench.schema.records import BenchRecord
from mrpcbench.schema.requests import BackendSpec

ONNX = BackendSpec(model="tuned", backend="onnx")


def summary_of(row: BenchRow, *others: BenchRow) -> RowSummary:
    """The summary of `row`, measured after `others`."""
    found = summarised(make_bench(rows=(*others, row))).rows[-1].summary
    assert found is not None
    return found


def served(*rates: float, best: float | None, **changes: object) -> BenchRow:
    loads = [
        LoadPoint(
            rate_per_s=rate,
            sent=3,
            failed=0,
            latencies_ms=(1.0, 2.0, 3.0),
            batch_sizes=(1, 1, 1),
            duration_s=1.0,
            meets_slo=rate == best,
        )
        for rate in rates
    ]
    result = ServerResult(slo_ms=50, window_ms=5, max_batch=8, seed=0, curve=tuple(loads), best_rate_per_s=best)
    return make_row("server", 0, server=result, **changes)


def test_single_stream_has_rate_and_latency_of_one_pair() -> None:
    found = summary_of(make_row("single-stream", samples_ms=(2.0,) * 700))
    assert found == RowSummary(pairs_per_s=500.0, p50_ms=2.0, p90_ms=2.0, p99_ms=2.0)


@pytest.mark.parametrize(
    ("samples", "known"), [(63, (True, False, False)), (64, (True, True, False)), (662, (True,) * 3)]
)
def test_a_percentile_is_null_with_too_few_samples(samples: int, known: tuple[bool, ...]) -> None:
    found = summary_of(make_row("single-stream", samples))
    assert tuple(value is not None for value in (found.p50_ms, found.p90_ms, found.p99_ms)) == known


def test_offline_has_no_latency_because_a_sample_is_a_whole_pass() -> None:
    found = summary_of(make_row("offline", samples_ms=(100.0, 200.0, 300.0), pairs=400))
    assert found == RowSummary(pairs_per_s=2000.0)


def test_server_has_the_rate_and_the_latency_of_its_best_load() -> None:
    found = summary_of(served(100.0, 200.0, best=100.0))
    assert (found.pairs_per_s, found.p50_ms) == (100.0, 2.0)
    assert summary_of(served(100.0, best=None)) == RowSummary()


def test_a_row_without_usable_samples_has_an_empty_summary() -> None:
    for samples in ((), (0.0, 1.0), (-1.0, 1.0)):
        for scenario in ("single-stream", "offline"):
            assert summary_of(make_row(scenario, samples_ms=samples)) == RowSummary()


def test_the_speedup_is_over_the_fastest_row_of_the_first_case_of_the_scenario() -> None:
    slow, fast = (make_row(batch_size=size, samples_ms=(time,) * 5) for size, time in ((8, 30.0), (32, 20.0)))
    alone = make_row("single-stream", 5, case="onnx", spec=ONNX)
    row = make_row(case="onnx", spec=ONNX, samples_ms=(10.0,) * 5)
    found = summary_of(row, alone, slow, fast)
    assert found.speedup == pytest.approx(2.0)
    assert found.reference == "torch offline batch 32"
    assert summary_of(fast, slow).speedup is None
    assert summary_of(slow, fast).speedup == pytest.approx(2 / 3)
    assert summary_of(alone, slow, fast).reference is None


def test_the_speedup_of_server_is_the_ratio_of_the_best_rates() -> None:
    base = served(100.0, 150.0, best=100.0)
    found = summary_of(served(300.0, best=300.0, case="onnx", spec=ONNX), base)
    assert (found.speedup, found.reference) == (3.0, "torch server batch 32")
    assert summary_of(served(300.0, best=300.0, case="onnx", spec=ONNX), served(9.0, best=None)).speedup is None


def test_a_stored_summary_is_computed_again_from_the_samples(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    store.save(make_record("bench"), path)
    honest, document = store.load(path), json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(honest, BenchRecord)
    for row in document["bench"]["rows"]:
        row["summary"] = {**row["summary"], "p99_ms": 0.001, "pairs_per_s": 1e9}
    path.write_text(json.dumps(document), encoding="utf-8")
    assert store.load(path) == honest
    for row in document["bench"]["rows"]:
        del row["summary"]
    path.write_text(json.dumps(document), encoding="utf-8")
    assert store.load(path) == honest
    assert all(row.summary and row.summary.pairs_per_s for row in honest.rows)


def test_samples_out_of_range_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    record = make_record("bench")
    assert isinstance(record, BenchRecord)
    row = replace(record.rows[0], samples_ms=(1e308,) * 3, pairs=3)
    store.save(replace(record, bench=replace(record.bench, rows=(row, replace(row, case="other")))), path)
    with pytest.raises(UsageError, match="its samples are too large or too small"):
        store.load(path)
