"""Tests of the table of speedups: paired by round, with an interval if there are enough rounds."""

import math
from typing import Any

import pytest
from records import make_row

from mrpcbench.display.bench.ratio import ratio_table
from mrpcbench.display.tables import PlainTable
from mrpcbench.records.figures import ROUNDS_FOR_INTERVAL, relative_speed, round_ms
from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.statistics import median_interval


def row(name: str, *samples_ms: float, **changes: Any) -> BenchRow:
    return make_row(case=name, samples_ms=samples_ms, **changes)


def cells(table: PlainTable) -> list[list[str]]:
    return [[str(cell) for cell in column.cells] for column in table.columns]


def headers(table: PlainTable) -> list[str]:
    return [" ".join(str(column.header).split()) for column in table.columns]


# A machine that is twice as slow in every other round, for both.
BASE = row("base", 20.0, 40.0, 20.0, 40.0, 20.0)
FAST = row("fast", 10.0, 20.0, 10.0, 21.0, 9.0)


def test_rows_are_compared_within_the_same_round() -> None:
    found = relative_speed(FAST, BASE)
    assert found is not None
    assert found.times == pytest.approx(2.0)
    assert found.rounds == 5
    # Each round gives 1.90 to 2.22; the unpaired rounds of either row vary twofold.
    assert found.interval is not None
    assert 40 / 21 - 1e-9 <= found.interval.low < found.times < found.interval.high <= 20 / 9 + 1e-9


def test_the_interval_is_that_of_the_median_of_the_logarithms() -> None:
    found = relative_speed(FAST, BASE)
    logs = [math.log(2.0)] * 3 + [math.log(40 / 21), math.log(20 / 9)]
    expected = median_interval(logs)
    assert found is not None
    assert found.interval is not None
    assert found.interval.low == pytest.approx(math.exp(expected.low))
    assert found.interval.high == pytest.approx(math.exp(expected.high))
    assert (found.interval.level, found.interval.method) == (0.95, "percentile bootstrap, 10000 resamples")


def test_the_reverse_ratio_is_the_reciprocal() -> None:
    there, back = relative_speed(FAST, BASE), relative_speed(BASE, FAST)
    assert there is not None
    assert back is not None
    assert there.times * back.times == pytest.approx(1.0)


def test_too_few_rounds_have_a_ratio_and_no_interval() -> None:
    few = row("few", *FAST.samples_ms[: ROUNDS_FOR_INTERVAL - 1])
    found = relative_speed(few, BASE)
    assert found is not None
    assert (found.interval, found.rounds) == (None, 4)
    assert relative_speed(row("none"), BASE) is None


def test_a_round_of_single_pairs_is_the_sum_of_its_calls() -> None:
    singles = row("one", 1.0, 2.0, 3.0, 4.0, 5.0, scenario="single-stream", pairs=2)
    assert round_ms(singles) == [3.0, 7.0]  # the fifth is from an unfinished round
    found = relative_speed(singles, row("two", 2.0, 4.0, 7.0, 7.0, scenario="single-stream", pairs=2))
    assert found is not None
    assert found.rounds == 2
    assert found.times == pytest.approx(2.0)


def test_a_table_has_a_ratio_and_its_interval_for_each_reference() -> None:
    table = ratio_table([FAST, BASE], [BASE, FAST])
    assert str(table.title) == "offline: speedup"
    assert headers(table) == ["case", "batch", "x base offline batch 32", "95%", "x fast offline batch 32", "95%"]
    _, _, times, ends, others, _ = cells(table)
    assert times == ["2.00x", "1.00x"]
    assert ends == ["1.90 to 2.22", ""]  # a row compared with itself has no interval
    assert others == ["1.00x", "0.50x"]
    assert "n = 5 rounds" in table.below
    assert "bootstrap" in table.below
    assert "too few" not in table.below


def test_a_table_with_too_few_rounds_shows_that_instead_of_intervals() -> None:
    table = ratio_table([row("fast", 1.0, 1.0), row("base", 2.0, 3.0)], [row("base", 2.0, 3.0)])
    assert cells(table)[3] == ["n<5", "n<5"]
    assert "n = 2 rounds" in table.below
    assert "n<5: too few rounds for an interval, use more --rounds" in table.below
    assert "bootstrap" not in table.below


def test_rows_of_an_interrupted_run_are_compared_over_the_rounds_that_both_have() -> None:
    table = ratio_table([row("ahead", *([1.0] * 6)), BASE], [BASE])
    assert "n = 5 rounds" in table.below


def test_a_single_stream_table_has_no_batch_column() -> None:
    rows = [row("a-b", 2.0, scenario="single-stream", pairs=1), row("c", 4.0, scenario="single-stream", pairs=1)]
    assert headers(ratio_table(rows, [rows[0]])) == ["case", "x a- b single-stream", "95%"]
