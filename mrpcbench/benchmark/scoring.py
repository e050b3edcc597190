"""Scores of the answers that were timed. Pure functions; a pair without a finite answer counts as a wrong one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrpcbench.records.scores import accuracy_of, confusion, f1_of

UNANSWERED = "-"
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """Logits float32 [N, 2] of timed calls, and the pair, int64 [N], that each is of: a server may ask a pair again."""

    logits: NDArray[np.float32]
    rows: Labels

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Which answers are finite, bool [N]."""
        return np.asarray(np.isfinite(self.logits).all(axis=1))

    @property
    def labels(self) -> Labels:
        """The label of each answer, int64 [N], whether it is finite or not."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)


def accuracy_and_f1(answers: Answers, truth: Labels) -> tuple[float, float] | None:
    """Accuracy and F1 by the labels `truth` [pairs]; None without an answer."""
    if not len(answers.rows):
        return None
    expected = truth[answers.rows]
    counts = confusion(np.where(answers.finite, answers.labels, 1 - expected), expected)
    return accuracy_of(counts), f1_of(counts)


def agreement(answers: Answers, reference: Labels) -> float | None:
    """Share of the answers with the label in `reference` [pairs], which is -1 where it is not known.

    None where no pair with a known label was asked.
    """
    expected = reference[answers.rows]
    known = expected >= 0
    same = answers.finite & (answers.labels == expected)
    return float(same[known].mean()) if known.any() else None


def label_text(answers: Answers, pairs: int) -> str:
    """The label of each of `pairs` pairs as a character: 0, 1, or - without a finite answer."""
    found = [UNANSWERED] * pairs
    for row, label, finite in zip(answers.rows, answers.labels, answers.finite, strict=True):
        found[row] = str(label) if finite else UNANSWERED
    return "".join(found)


def labels_in(text: str) -> Labels:
    """Labels [pairs] of a `label_text`; -1 for -."""
    return np.array([-1 if label == UNANSWERED else int(label) for label in text], dtype=np.int64)
