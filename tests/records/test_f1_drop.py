"""Tests of mrpcbench.records.f1_drop: a paired interval from the counts of a record."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from records import make_row

from mrpcbench.records.f1_drop import f1_drop
from mrpcbench.records.scores import accuracy_of, confusion, f1_difference_interval, f1_of
from mrpcbench.schema.bench_results import BenchRow

Labels = NDArray[np.int64]


def row(answers: Labels, reference: Labels, truth: Labels, **changes: Any) -> BenchRow:
    """A row with these answers, of which a record keeps accuracy, F1 and label agreement."""
    counts = confusion(answers, truth)
    scores = {"accuracy": accuracy_of(counts), "f1": f1_of(counts), "agreement": float((answers == reference).mean())}
    return make_row("offline", **{"pairs": len(truth), **scores, **changes})


def draws(seed: int) -> tuple[Labels, Labels, Labels]:
    """The truth, the answers of a reference, and those of another row that differ in a few pairs."""
    random = np.random.default_rng(seed)
    pairs = int(random.integers(30, 400))
    truth = (random.random(pairs) < 0.7).astype(np.int64)
    reference = np.where(random.random(pairs) < 0.15, 1 - truth, truth)
    return truth, reference, np.where(random.random(pairs) < 0.02, 1 - reference, reference)


@pytest.mark.parametrize("seed", range(6))
def test_the_interval_is_that_of_the_predictions_or_more_cautious(seed: int) -> None:
    truth, reference, answers = draws(seed)
    found = f1_drop(row(answers, reference, truth), row(reference, reference, truth))
    change, interval = f1_difference_interval(reference, answers, truth)
    assert found is not None
    assert found.points == pytest.approx(-100 * change)
    assert found.bound >= -100 * interval.low - 0.1  # two bootstraps of the same counts differ a little
    assert found.bound <= -100 * interval.low + 1


def test_equal_answers_lose_nothing() -> None:
    truth, reference, _ = draws(0)
    found = f1_drop(row(reference, reference, truth), row(reference, reference, truth))
    assert found is not None
    assert (found.points, found.bound) == (0, 0)


def test_a_row_without_a_wrong_answer_can_only_gain() -> None:
    truth, reference, _ = draws(1)
    found = f1_drop(row(truth, reference, truth), row(reference, reference, truth))
    assert found is not None
    assert found.points < 0
    assert found.bound == 0


def test_a_reference_without_a_wrong_answer_can_only_be_lost_against() -> None:
    truth, _, answers = draws(2)
    found = f1_drop(row(answers, truth, truth), row(truth, truth, truth))
    change, interval = f1_difference_interval(truth, answers, truth)
    assert found is not None
    assert found.points == pytest.approx(-100 * change)
    assert found.bound >= -100 * interval.low - 0.1


def test_labels_of_one_class_have_an_f1_of_zero() -> None:
    truth = np.zeros(20, dtype=np.int64)
    answers = truth.copy()
    answers[3] = 1
    found = f1_drop(row(answers, truth, truth), row(truth, truth, truth))
    assert found is not None
    assert (found.points, found.bound) == (0, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"agreement": None},
        {"f1": None},
        {"accuracy": None},
        {"pairs": 7},
        {"failed": 1},
        {"accuracy": 0.123456},  # not a share of these pairs
        {"agreement": 1.0},  # contradicts the other scores
    ],
)
def test_counts_that_are_unknown_or_contradict_each_other_give_no_drop(changes: dict[str, Any]) -> None:
    truth, reference, answers = draws(3)
    assert (answers != reference).any()
    assert f1_drop(row(answers, reference, truth, **changes), row(reference, reference, truth)) is None
