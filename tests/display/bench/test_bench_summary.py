"""Tests of the summary of a benchmark: a sentence for each other case, and one line that names the fastest."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from records import make_bench, make_row

from mrpcbench.display.bench.summary import comparisons, fastest_line
from mrpcbench.records.figures import relative_speed
from mrpcbench.records.ranking import fastest, reference, standings
from mrpcbench.schema.bench_results import BenchRow, LoadPoint, ServerResult

STEADY = (10.0, 11.0, 10.0, 11.0, 10.0)


def row(case: str, *samples_ms: float, **changes: Any) -> BenchRow:
    return make_row(case=case, samples_ms=samples_ms, **changes)


def times(factor: float, spread: float = 0.0) -> tuple[float, ...]:
    """The rounds of a row that takes `factor` times as long as `STEADY`; the ratios vary by a factor of e^`spread`."""
    return tuple(ms * factor * math.exp(spread * (index - 2) / 2) for index, ms in enumerate(STEADY))


def single(case: str, *samples_ms: float, **changes: Any) -> BenchRow:
    return row(case, *samples_ms, scenario="single-stream", batch_size=1, pairs=1, order=None, **changes)


def server(case: str, best: float | None, missed: float | None = None) -> BenchRow:
    rates = [(rate, meets) for rate, meets in ((best, True), (missed, False)) if rate is not None]
    curve = tuple(
        LoadPoint(
            rate_per_s=rate, sent=1, failed=0, latencies_ms=(1.0,), batch_sizes=(1,), duration_s=1.0, meets_slo=meets
        )
        for rate, meets in rates
    )
    found = ServerResult(slo_ms=20, window_ms=2, max_batch=8, seed=0, curve=curve, best_rate_per_s=best)
    return row(case, scenario="server", batch_size=8, server=found)


def sentences(*rows: BenchRow, relative_to: Sequence[str] = ()) -> list[str]:
    return list(comparisons(make_bench(rows=rows), relative_to))


def last(*rows: BenchRow) -> str:
    return fastest_line(make_bench(rows=rows))


TORCH, ONNX = row("torch", *times(1)), row("onnx", *times(0.25, 0.2))


def test_each_other_case_has_a_sentence_with_its_interval_and_the_fastest_is_first() -> None:
    slow = row("packed", *times(2, 0.2))
    assert sentences(TORCH, slow, ONNX) == [
        "onnx:32 is 4.00x faster than torch:32 (95% CI 3.27 to 4.89)",
        "packed:32 is 2.00x slower than torch:32 (95% CI 1.64 to 2.44)",
    ]


def test_an_interval_that_contains_1_cannot_tell() -> None:
    close = row("close", *times(0.98, 0.2))
    assert sentences(TORCH, close) == ["close:32 or torch:32: cannot tell (1.02x, 95% CI 0.84 to 1.25)"]
    assert last(TORCH, close) == "Fastest: close:32 or torch:32 offline, cannot tell"


def test_a_case_is_represented_by_its_fastest_row() -> None:
    rows = [TORCH, row("torch", *times(0.9), batch_size=8), ONNX, row("onnx", *times(0.5), batch_size=8)]
    assert sentences(*rows) == ["onnx:32 is 3.60x faster than torch:8 (95% CI 2.95 to 4.40)"]
    assert sentences(*rows, relative_to=["torch:32"])[0].startswith("onnx:32 is 4.00x faster than torch:32")
    assert sentences(*rows, relative_to=["onnx"]) == ["torch:8 is 3.60x slower than onnx:32 (95% CI 2.95 to 4.40)"]


def test_sentences_name_the_scenario_if_there_are_several() -> None:
    found = sentences(single("torch", *times(1)), single("onnx", *times(0.5)), TORCH, ONNX)
    assert found == [
        "onnx is 2.00x faster than torch (95% CI 2.00 to 2.00), single-stream",
        "onnx:32 is 4.00x faster than torch:32 (95% CI 3.27 to 4.89), offline",
    ]


def test_too_few_rounds_give_no_interval_and_say_so() -> None:
    assert sentences(row("torch", 4.0, 4.0), row("onnx", 2.0, 2.0)) == [
        "onnx:32 is 2.00x faster than torch:32 (no interval: 2 rounds)"
    ]


def test_servers_are_compared_by_the_range_that_their_searches_leave_open() -> None:
    torch, onnx = server("torch", 100, 110), server("onnx", 200, 220)
    assert sentences(torch, onnx) == ["onnx:8 is 2.00x faster than torch:8 (range 1.82 to 2.20)"]
    assert sentences(torch, server("onnx", 105, 110)) == ["onnx:8 or torch:8: cannot tell (1.05x, range 0.95 to 1.10)"]
    assert sentences(torch, server("onnx", 50)) == [
        "onnx:8 is 2.00x slower than torch:8 (no range: no load missed the target)"
    ]
    assert sentences(torch, server("onnx", None, 5)) == ["onnx:8: no load meets the target"]
    assert sentences(server("torch", None, 5), onnx) == ["torch:8: no load meets the target"]
    assert relative_speed(torch, server("onnx", None, 5)) is None


def test_one_line_names_the_fastest_row_of_each_scenario_with_its_figure() -> None:
    rows = [single("torch", *times(1)), single("onnx", *times(0.5)), TORCH, ONNX, server("onnx", 200, 220)]
    assert last(*rows) == (
        "Fastest: onnx single-stream, p50 5.00 ms; onnx:32 offline, 163200.0 pairs/s; onnx:8 server, 200.0 requests/s"
    )


def test_an_invalid_row_is_marked_where_it_is_the_fastest() -> None:
    rules = row("onnx", *times(0.25), broken_rules=("unsteady: x",))
    assert last(TORCH, rules) == "Fastest: onnx:32 (INVALID) offline, 163200.0 pairs/s"


def test_a_single_row_is_not_called_the_fastest() -> None:
    assert last(single("torch", *times(1))) == "Result: torch single-stream, p50 10.00 ms"
    assert last(TORCH) == "Result: torch:32 offline, 40800.0 pairs/s"


def test_a_benchmark_without_any_result_says_so() -> None:
    assert last() == "No row has a result."
    assert last(server("torch", None, 5)) == "No row has a result."
    assert sentences() == []


def test_the_fastest_row_by_rate_is_tied_with_a_row_that_is_faster_in_most_rounds() -> None:
    # Two fast rounds make the rate of the first the highest, although it is slower in the other three.
    first = row("first", 9.0, 1.0, 9.0, 1.0, 5.0)
    other = row("other", *(6.0,) * 5)
    assert [item.case for item in fastest([other, first])] == ["first", "other"]


@pytest.mark.parametrize(("names", "expected"), [((), "torch"), (("onnx",), "onnx"), (("absent", "onnx"), "onnx")])
def test_the_reference_is_the_first_that_is_named_or_the_first_case(names: Sequence[str], expected: str) -> None:
    assert reference([TORCH, ONNX], names).case == expected


def test_standings_leave_out_the_case_of_the_reference() -> None:
    assert [one.row.case for one in standings([TORCH, row("torch", 1.0, batch_size=8), ONNX], TORCH)] == ["onnx"]
