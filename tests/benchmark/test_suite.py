"""The rows of a suite: shared sessions, the order of the pairs, and the reference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Listener
from datasets import Dataset
from engines import engine

from mrpcbench.backends.reading import resolve_all
from mrpcbench.backends.registry import BACKENDS, Engine
from mrpcbench.benchmark.row import RowMeasurement
from mrpcbench.benchmark.scoring import Answers
from mrpcbench.benchmark.suite import open_suite, reference_of
from mrpcbench.data import loading
from mrpcbench.errors import MissingError
from mrpcbench.instruments.fake_engine import FakeSession
from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.bench_results import ReferenceAnswers
from mrpcbench.schema.cases import Case, Suite
from mrpcbench.schema.requests import BackendSpec, Order, Scenario

FAKE = BackendSpec(backend="fake", model="quickstart", device="cpu")


@pytest.fixture
def pairs(small_data: Path) -> Dataset:
    return loading.split_of(loading.load(str(small_data)), str(small_data), "validation").select(range(10))


def case(
    name: str, spec: BackendSpec = FAKE, order: Order = "length", scenarios: tuple[Scenario, ...] = ("offline",)
) -> Case:
    return Case(name=name, spec=spec, order=order, scenarios=scenarios, batch_sizes=(4,))


def opened(pairs: Dataset, *cases: Case) -> list[RowMeasurement]:
    sources = resolve_all(case.spec for case in cases)
    return open_suite(Suite(cases=cases), sources, BenchPlan(), pairs, Listener()).rows


def test_cases_with_equal_specs_share_a_session(pairs: Dataset) -> None:
    made: list[FakeSession] = []

    def make() -> FakeSession:
        made.append(FakeSession())
        return made[-1]

    spec = replace(FAKE, backend=engine("counted", make))
    one, two, three = opened(
        pairs, case("a", spec), case("b", spec, order="given"), case("c", replace(spec, threads=1))
    )
    assert len(made) == 2
    assert one.session is two.session is not three.session
    assert one.open_ms == two.open_ms


def test_each_case_uses_its_own_order_of_pairs(pairs: Dataset) -> None:
    every: tuple[Scenario, ...] = ("single-stream", "offline", "server")
    by_length = opened(pairs, case("a", scenarios=every))
    given = opened(pairs, case("b", order="given", scenarios=every))
    rows = {
        str(row.id): np.concatenate([batch.rows for batch in row.workload.batches]).tolist()
        for row in (*by_length, *given)
    }
    lengths = by_length[0].workload.tokens.lengths
    assert [lengths[row] for row in rows.pop("a offline batch 4")] == sorted(lengths) != lengths
    assert list(rows.values()) == [list(range(10))] * 5


def test_an_unavailable_engine_ends_the_run(pairs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "rocket", Engine("mrpcbench.backends.registry.rocket:open_rocket"))
    with pytest.raises(MissingError, match="--backend rocket: No module named"):
        opened(pairs, case("r", replace(FAKE, backend="rocket")))


def test_the_reference_is_the_first_row_unless_there_is_only_one_case(pairs: Dataset) -> None:
    server, steady = opened(pairs, case("a", scenarios=("server", "offline")))
    (other,) = opened(pairs, case("b"))
    assert reference_of([server, steady, other], 10) is None
    steady.answers = Answers(np.array([[1.0, 0.0]] * 9 + [[0.0, 1.0]], dtype=np.float32), np.arange(10))
    found = reference_of([server, steady, other], 10)
    assert found == ReferenceAnswers(row="a offline batch 4", labels="0000000001")
    assert reference_of([server, steady], 10) is None
