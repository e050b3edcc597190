"""Scores of the timed answers: accuracy, F1, agreement with a reference, and the labels as text."""

import numpy as np
import pytest

from mrpcbench.benchmark.scoring import Answers, accuracy_and_f1, agreement, label_text, labels_in

SURE = {None: (np.nan, np.nan), 0: (1.0, 0.0), 1: (0.0, 1.0)}


def answers(*labels: int | None, rows: tuple[int, ...] | None = None) -> Answers:
    """Answers with these `labels` (None: not finite) to the first pairs, or to those in `rows`."""
    asked = np.arange(len(labels)) if rows is None else np.array(rows, dtype=np.int64)
    return Answers(np.array([SURE[label] for label in labels], dtype=np.float32).reshape(-1, 2), asked)


@pytest.mark.parametrize(
    ("given", "reference", "share"),
    [
        ([0, 1, 1, 0, 0, 0, 0, 0, 0, 1], "0110000001", 1.0),
        ([1, 1, 1, 0, 0, 0, 0, 0, 0, 1], "0110000001", 0.9),
        ([None, 1, 1, 0, 0, 0, 0, 0, 0, 1], "0110000001", 0.9),  # a failed pair agrees with nothing
        ([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], "-11000000-", 1.0),  # pairs without a reference answer do not count
        ([0] * 10, "-" * 10, None),
    ],
)
def test_agreement_is_the_share_of_answers_equal_to_the_reference(
    given: list[int | None], reference: str, share: float | None
) -> None:
    assert agreement(answers(*given), labels_in(reference)) == share


def test_a_server_is_scored_on_the_pairs_of_its_requests() -> None:
    found = answers(1, 0, 1, rows=(2, 0, 2))
    assert label_text(found, 4) == "0-1-"
    assert agreement(found, labels_in("0000")) == pytest.approx(1 / 3)
    assert accuracy_and_f1(found, np.array([0, 0, 1, 1])) == (1.0, 1.0)


def test_an_answer_that_is_not_finite_is_always_wrong() -> None:
    assert accuracy_and_f1(answers(None, None), np.array([0, 1])) == (0.0, 0.0)
    assert label_text(answers(None, 1), 2) == "-1"


def test_without_an_answer_there_is_no_score() -> None:
    assert accuracy_and_f1(answers(), np.array([0, 1])) is None


def test_labels_survive_conversion_to_text() -> None:
    assert labels_in("01-").tolist() == [0, 1, -1]
