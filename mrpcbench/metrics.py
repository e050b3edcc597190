"""Accuracy and F1 as an `evaluate.Metric` of our own, which needs no hub, and the full score with its intervals."""

from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrpcbench.schema import Confusion, EvalScore, Interval
from mrpcbench.stats import wilson_interval

BOOTSTRAP_RESAMPLES = 10_000


class ParaphraseMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
    """GLUE's metric for MRPC: accuracy, and F1 of the class 1 ("equivalent").

    `compute(predictions=[N], references=[N])`, both 0 or 1, gives `{"accuracy": ..., "f1": ...}`, as
    `evaluate.load("glue", "mrpc")` does (definition: Wang et al. 2019, GLUE, section 3).
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy and F1 of paraphrase predictions.",
            citation="Wang et al. 2019, GLUE: A Multi-Task Benchmark and Analysis Platform",
            inputs_description="predictions and references: lists of 0 and 1 of the same length.",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _build_data_dir(self) -> str:
        # The library would make a cache folder in the home directory, which may be read-only; this metric needs none.
        return ""

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
        counts = confusion(np.asarray(predictions), np.asarray(references))
        return {"accuracy": accuracy_of(counts), "f1": f1_of(counts)}


def paraphrase_metric() -> ParaphraseMetric:
    """A fresh metric that keeps its inputs in memory and writes no cache files."""
    return ParaphraseMetric(keep_in_memory=True)


def confusion(predictions: NDArray[Any], references: NDArray[Any]) -> Confusion:
    """The four counts of `predictions` [N] against `references` [N], both 0 or 1."""
    if len(predictions) != len(references) or len(references) == 0:
        raise ValueError(f"{len(predictions)} predictions of {len(references)} labels")
    said, is_so = predictions == 1, references == 1
    return Confusion(
        true_positive=int((said & is_so).sum()),
        false_positive=int((said & ~is_so).sum()),
        false_negative=int((~said & is_so).sum()),
        true_negative=int((~said & ~is_so).sum()),
    )


def accuracy_of(counts: Confusion) -> float:
    """Share predicted correctly."""
    right = counts.true_positive + counts.true_negative
    return right / (right + counts.false_positive + counts.false_negative)


def f1_of(counts: Confusion) -> float:
    """2 TP / (2 TP + FP + FN); 0 where that is 0 / 0, as scikit-learn has it."""
    return _ratio(2 * counts.true_positive, 2 * counts.true_positive + counts.false_positive + counts.false_negative)


def score(logits: NDArray[np.float32], labels: NDArray[np.int64], *, seed: int = 0) -> EvalScore:
    """The full score of `logits` [N, 2] against `labels` [N]; the prediction is the larger logit."""
    counts = confusion(logits.argmax(axis=1), labels)
    positives = counts.true_positive + counts.false_negative
    always_one = positives * 2 >= len(labels)
    return EvalScore(
        pairs=len(labels),
        accuracy=accuracy_of(counts),
        accuracy_interval=wilson_interval(counts.true_positive + counts.true_negative, len(labels)),
        f1=f1_of(counts),
        f1_interval=f1_interval(counts, seed=seed),
        precision=_ratio(counts.true_positive, counts.true_positive + counts.false_positive),
        recall=_ratio(counts.true_positive, positives),
        loss=finite_or_none(cross_entropy(logits, labels)),
        confusion=counts,
        majority_accuracy=max(positives, len(labels) - positives) / len(labels),
        majority_f1=_ratio(2 * positives, positives + len(labels)) if always_one else 0.0,
    )


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean of -log softmax(logits)[label] in nats, in float64; `logits` [N, 2], `labels` [N]."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(wide - top).sum(axis=1))
    return float((log_sum - wide[np.arange(len(labels)), labels]).mean())


def f1_interval(counts: Confusion, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of F1 (Efron & Tibshirani 1993, chapter 13).

    F1 is a function of the four counts alone, so resampling the pairs is one multinomial draw of the counts a resample.
    """
    cells = np.array([counts.true_positive, counts.false_positive, counts.false_negative, counts.true_negative])
    draws = np.random.default_rng(seed).multinomial(cells.sum(), cells / cells.sum(), size=BOOTSTRAP_RESAMPLES)
    doubled = 2 * draws[:, 0]
    below = doubled + draws[:, 1] + draws[:, 2]
    f1s = np.divide(doubled, below, out=np.zeros(len(draws)), where=below > 0)
    low, high = np.quantile(f1s, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        low=float(low), high=float(high), level=level, method=f"percentile bootstrap, {BOOTSTRAP_RESAMPLES} resamples"
    )


def finite_or_none(value: float | None) -> float | None:
    """`value`, or None where it is NaN or infinite: a record says null and never a number that JSON lacks."""
    return value if value is not None and np.isfinite(value) else None


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
