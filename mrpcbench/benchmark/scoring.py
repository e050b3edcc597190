"""Scores of the timed answers. Pure functions; a pair without a finite answer counts as wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrpcbench.records.scores import accuracy_of, confusion, f1_of

UNANSWERED = "-"
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """Logits float32 [N, 2] of timed calls, and their pairs `rows`, int64 [N]. A server load may repeat a pair."""

    logits: NDArray[np.float32]
    rows: Labels

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Which answers are finite, bool [N]."""
        return np.asarray(np.isfinite(self.logits).all(axis=1))

    @property
    def labels(self) -> Labels:
        """The label of each answer, int64 [N], even if it is not finite."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)


def accuracy_and_f1(answers: Answers, truth: Labels) -> tuple[float, float] | None:
    """Accuracy and F1 against the labels `truth` [pairs]; None without an answer."""
    if not len(answers.rows):
        return None
    expected = truth[answers.rows]
    counts = confusion(np.where(answers.finite, answers.labels, 1 - expected), expected)
    return accuracy_of(counts), f1_of(counts)


def agreement(answers: Answers, reference: Labels) -> float | None:
    """Share of the answers whose label equals `reference` [pairs], where -1 means unknown.

    None if no answered pair has a known label.
    """
    expected = reference[answers.rows]
    known = expected >= 0
    same = answers.finite & (answers.labels == expected)
    return float(same[known].mean()) if known.any() else None


def label_text(answers: Answers, pairs: int) -> str:
    """The labels of `pairs` pairs as one string: 0, 1, or - without a finite answer."""
    found = [UNANSWERED] * pairs
    for row, label, finite in zip(answers.rows, answers.labels, answers.finite, strict=True):
        found[row] = str(label) if finite else UNANSWERED
    return "".join(found)


def labels_in(text: str) -> Labels:
    """Parse a `label_text` into labels [pairs]; - becomes -1."""
    return np.array([-1 if label == UNANSWERED else int(label) for label in text], dtype=np.int64)
