"""Contenders as lanes: sessions that are shared, orders, and whose answers the others' are held against."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Listener
from datasets import Dataset

from mrpcbench import data, lineup
from mrpcbench.backends import BACKENDS, Engine, fake
from mrpcbench.contenders import Contender, Field
from mrpcbench.errors import MissingError
from mrpcbench.lanes import Lane
from mrpcbench.lineup import label_array, open_lanes, reference_of
from mrpcbench.plans import BackendSpec, BenchPlan, Order, Scenario
from mrpcbench.reading import resolve_all
from mrpcbench.schema import ReferenceAnswers
from mrpcbench.sources import ModelSource

FAKE = BackendSpec(backend="fake", model="quickstart", device="cpu")
PLAN = BenchPlan()


@pytest.fixture
def pairs(small_data: Path) -> Dataset:
    return data.split_of(data.load(str(small_data)), str(small_data), "validation").select(range(10))


def contender(
    name: str,
    spec: BackendSpec = FAKE,
    order: Order = "length",
    scenarios: tuple[Scenario, ...] = ("offline",),
    **changes: Any,
) -> Contender:
    return Contender(name=name, spec=spec, order=order, scenarios=scenarios, batch_sizes=(4,), **changes)


def opened(pairs: Dataset, *contenders: Contender, plan: BenchPlan = PLAN) -> list[Lane]:
    sources = resolve_all(item.spec for item in contenders)
    return open_lanes(Field(contenders=contenders), sources, plan, pairs, Listener())


def answered(lane: Lane, *labels: int | None) -> Lane:
    """`lane` with these answers, None one that is not finite."""
    sure = {None: (np.nan, np.nan), 0: (1.0, 0.0), 1: (0.0, 1.0)}
    lane.logits = np.array([sure[label] for label in labels], dtype=np.float32)
    return lane


def test_contenders_that_ask_the_same_of_an_engine_share_its_session(
    pairs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[BackendSpec] = []

    def open_session(spec: BackendSpec, source: ModelSource) -> fake.FakeSession:
        made.append(spec)
        return fake.FakeSession()

    monkeypatch.setattr(lineup, "open_session", open_session)
    other = replace(FAKE, threads=1)
    one, two, three = opened(pairs, contender("a"), contender("b", order="given"), contender("c", other))
    assert made == [FAKE, other]
    assert one.session is two.session is not three.session
    assert one.open_ms == two.open_ms


def test_each_contender_has_the_pairs_in_its_own_order(pairs: Dataset) -> None:
    both: tuple[Scenario, ...] = ("single-stream", "offline", "server")
    by_length = opened(pairs, contender("a", scenarios=both))
    given = opened(pairs, contender("b", order="given", scenarios=both))
    rows = {
        (lane.contender.name, lane.scenario): np.concatenate([batch.rows for batch in lane.batches]).tolist()
        for lane in (*by_length, *given)
    }
    lengths = by_length[0].tokens.lengths
    assert [lengths[row] for row in rows["a", "offline"]] == sorted(lengths) != lengths
    del rows["a", "offline"]
    assert list(rows.values()) == [list(range(10))] * 5


def test_an_engine_that_is_not_available_ends_the_run(pairs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "torch-compile", Engine("mrpcbench.backends.rocket:open_rocket"))
    absent = BackendSpec(backend="torch-compile", model="quickstart", device="cpu")
    with pytest.raises(MissingError, match="--backend torch-compile: No module named"):
        opened(pairs, contender("r", absent))


# --- the reference ----------------------------------------------------------------------------------------------------


def test_the_reference_is_the_first_row_that_runs_and_none_of_one_contender_alone(pairs: Dataset) -> None:
    server, steady = opened(pairs, contender("a", scenarios=("server", "offline")))
    (other,) = opened(pairs, contender("b"))
    assert reference_of([server, steady, other], 10) is None
    answered(steady, 0, 1, 1, None, 0, 0, 0, 0, 0, 1)
    found = reference_of([server, steady, other], 10)
    assert found == ReferenceAnswers(row="a offline batch 4", labels="011-000001")
    assert label_array(found.labels).tolist() == [0, 1, 1, -1, 0, 0, 0, 0, 0, 1]
    assert reference_of([server, steady], 10) is None


@pytest.mark.parametrize(
    ("answers", "reference", "share"),
    [
        ([0, 1, 1, 0, 0, 0, 0, 0, 0, 1], "0110000001", 1.0),
        ([1, 1, 1, 0, 0, 0, 0, 0, 0, 1], "0110000001", 0.9),
        ([None, 1, 1, 0, 0, 0, 0, 0, 0, 1], "0110000001", 0.9),  # a failed pair agrees with nothing
        ([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], "-11000000-", 1.0),  # and the reference's says nothing of ours
        ([0] * 10, "-" * 10, None),
    ],
)
def test_agreement_is_the_share_of_labels_that_are_the_references(
    pairs: Dataset, answers: list[int | None], reference: str, share: float | None
) -> None:
    (lane,) = opened(pairs, contender("a"))
    row = answered(lane, *answers).row(
        np.zeros(10, dtype=np.int64), fixed_shape=False, reference=label_array(reference)
    )
    assert row.agreement == share


def test_a_server_agrees_by_the_pairs_that_its_requests_were_of(pairs: Dataset) -> None:
    (lane,) = opened(pairs, contender("a", scenarios=("server",)))
    answered(lane, 1, 0, 1).answered_rows = np.array([2, 0, 2])
    assert lane.predicted(4) is not None
    assert lane.predicted(4).tolist() == [0, -1, 1, -1]  # type: ignore[union-attr]
    row = lane.row(np.zeros(10, dtype=np.int64), fixed_shape=False, reference=label_array("0000000000"))
    assert row.agreement == pytest.approx(1 / 3)


def test_a_fixed_shape_has_no_agreement(pairs: Dataset) -> None:
    (lane,) = opened(pairs, contender("a"))
    assert answered(lane, *[0] * 10).row(np.zeros(10, dtype=np.int64), fixed_shape=True).agreement is None
