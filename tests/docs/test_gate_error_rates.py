"""docs/benchmarks/gate_error_rates.py: its measurement, known slowdowns and counts, and the results in docs/ci.md."""

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import REPOSITORY

from mrpcbench.gates.policy import Policy
from mrpcbench.instruments.fake_engine import FakeSession
from mrpcbench.paired.processes import Process, Side
from mrpcbench.schema.requests import BackendSpec

sys.path.append(str(REPOSITORY / "docs" / "benchmarks"))

from gate_error_rates import FORMAT, SLOWDOWNS, Comparison, Measurement, Settings, measure, rates, slowed, table


def log_ratios(*slowdowns: float) -> tuple[float, ...]:
    return tuple(math.log1p(slowdown) for slowdown in slowdowns)


def test_each_run_is_confirmed_by_the_run_after_it() -> None:
    four_runs = log_ratios(*[0.05] * 5, *[0.0] * 5, *[0.05] * 10)
    consecutive, overlapping = rates(Comparison(slowdown=0.05, log_ratios=four_runs), 5, Policy())
    # Slow, not slow, slow, slow: the first is not confirmed, the second is not flagged, the fourth confirms the third.
    assert (consecutive.windows, consecutive.runs) == ("consecutive", 3)
    assert (consecutive.flagged, consecutive.regressions) == (2, 1)
    assert (overlapping.windows, overlapping.runs) == ("overlapping", 11)
    assert consecutive.rate_low < 1 / 3 < consecutive.rate_high
    assert consecutive.median_slowdown == pytest.approx(0.05)


def test_a_run_without_a_confirmation_is_not_counted() -> None:
    assert list(rates(Comparison(slowdown=0.0, log_ratios=log_ratios(*[0.01] * 19)), 10, Policy())) == []
    found, _ = rates(Comparison(slowdown=0.0, log_ratios=log_ratios(*[0.01] * 20)), 10, Policy())
    assert (found.runs, found.regressions) == (1, 0)


def test_a_slowdown_repeats_whole_pairs_and_waits_otherwise() -> None:
    side = Side(spec=BackendSpec())
    found = [slowed(side, slowdown, 20) for slowdown in SLOWDOWNS]
    assert [(one.repeat, one.wait_share) for one in found] == [(0, 0.0), (0, 0.03), (1, 0.0), (2, 0.0)]


@pytest.mark.parametrize("name", ["error-rates", "error-rates-mrpc"])
def test_the_committed_rates_are_those_of_their_rounds(name: str) -> None:
    document = json.loads((REPOSITORY / "results" / "gate" / f"{name}.json").read_text(encoding="utf-8"))
    assert document["format"] == FORMAT
    size = document["settings"]["process_pairs"]
    again = [rate for item in document["comparisons"] for rate in rates(Comparison(**item), size, Policy())]
    assert list(table({"rates": map(asdict, again)})) == list(table(document))


def test_the_table_in_the_docs_is_made_from_the_committed_rates() -> None:
    document = json.loads((REPOSITORY / "results" / "gate" / "error-rates.json").read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")
    rows = [row for row in table(document) if row.startswith("| real, consecutive ")]
    assert len(rows) == len(SLOWDOWNS)
    assert [row for row in rows if row not in page] == []


def test_a_measurement_without_rounds_writes_what_it_is_of(small_data: Path, tmp_path: Path) -> None:
    """Everything but the processes: one run of the gate takes 20, and tests/paired runs them."""
    settings = Settings(model="quickstart", backend="fake", device="cpu", data=str(small_data), runs=0, slowdown_runs=0)
    measure(settings, tmp_path / "rates.json")
    document = json.loads((tmp_path / "rates.json").read_text(encoding="utf-8"))
    assert document["complete"]
    assert document["model"] == asdict(FakeSession.model)
    assert document["placement"] == asdict(FakeSession.placement)
    assert (document["data"]["pairs"], document["settings"]["data"]) == (40, small_data.name)
    assert list(table(document)) == document["comparisons"] == []


def test_a_round_counts_unless_the_sensors_saw_a_disturbance() -> None:
    found = Measurement()
    process = Process(
        samples_ms=(1.0, 2.0, 4.0), placement=FakeSession.placement, python="3.11", packages={}, disturbances=()
    )
    found.add(0.05, process, replace(process, samples_ms=(2.0, 4.0, 8.0)))
    found.add(0.05, process, replace(process, disturbances=("the GPU throttled",)))
    assert found.discarded_rounds == 1
    comparison = found.comparisons[0.05]
    assert (comparison.reference_times_ms, comparison.times_ms) == ((2.0,), (4.0,))
    assert comparison.log_ratios == pytest.approx((math.log(2),))
