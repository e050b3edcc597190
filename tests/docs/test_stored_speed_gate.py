"""docs/benchmarks/stored_speed_gate.py: its known slowdowns, its order of runs, how it counts, and docs/ci.md."""

import json
import sys
import time

import pytest
from conftest import REPOSITORY

sys.path.append(str(REPOSITORY / "docs" / "benchmarks"))

from stored_speed_gate import (
    FORMAT,
    IN_EVERY_CYCLE,
    IN_SOME_CYCLES,
    Judged,
    Slowed,
    order_of,
    rates,
    record_name,
    table,
)

RESULTS = REPOSITORY / "results" / "gate" / "stored-speed.json"


class Engine:
    """An engine that takes 10 ms."""

    name = "slow"

    def infer(self, batch: int) -> int:
        time.sleep(0.01)
        return -batch


def test_a_slowed_engine_gives_the_same_answers_later() -> None:
    slowed = Slowed(Engine(), 1.0)
    began_s = time.perf_counter()
    assert list(slowed.infer_many([1, 2])) == [-1, -2]
    assert time.perf_counter() - began_s >= 0.04
    assert slowed.name == "slow"


def test_a_cycle_has_its_runs_in_an_order_of_its_own_which_a_resumed_measurement_keeps() -> None:
    assert set(order_of(0, 2)) == {None, *IN_EVERY_CYCLE, *IN_SOME_CYCLES}
    assert set(order_of(1, 2)) == {None, *IN_EVERY_CYCLE}
    assert order_of(0, 2) == order_of(0, 2)
    assert len({order_of(cycle, 2) for cycle in range(0, 20, 2)}) > 5
    assert len({record_name(0, run) for run in order_of(0, 2)}) == len(order_of(0, 2))


def judged(
    outcome: str, slowdown: float = 0.0, measured: float = 0.01, undecided: dict[str, str] | None = None
) -> Judged:
    measures = {"torch single-stream": measured}
    return Judged(
        baseline="folder", slowdown=slowdown, outcome=outcome, measured=measures, limits={}, undecided=undecided or {}
    )


def test_rates_are_of_the_comparisons_that_were_decided() -> None:
    outcomes = ["PASS"] * 18 + ["REGRESSION"] + ["INCONCLUSIVE"] * 3
    (rate,) = rates([judged(outcome) for outcome in outcomes])
    assert (rate.comparisons, rate.passes, rate.regressions, rate.inconclusive) == (22, 18, 1, 3)
    assert rate.regression_low is not None
    assert rate.regression_high is not None
    assert rate.regression_low < 1 / 19 < rate.regression_high
    assert rate.median_slowdown == pytest.approx(0.01)


def test_a_change_of_the_machine_is_counted_where_it_alone_leaves_a_comparison_undecided() -> None:
    changed, invalid = "baseline: the machine itself changed: ...", "current record: the row is INVALID"
    undecided = [{"a": changed, "b": changed}, {"a": changed, "b": invalid}, {"a": invalid}]
    (rate,) = rates([judged("PASS"), *(judged("INCONCLUSIVE", undecided=item) for item in undecided)])
    assert (rate.inconclusive, rate.machine_changed) == (3, 1)


def test_without_a_decision_there_is_no_rate() -> None:
    (rate,) = rates([judged("INCONCLUSIVE")])
    assert (rate.regression_low, rate.median_slowdown) == (None, None)


def test_the_results_are_those_in_the_docs() -> None:
    document = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert document["format"] == FORMAT
    docs = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")
    for line in table(document):
        assert line in docs
