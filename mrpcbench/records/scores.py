"""Accuracy, F1, their intervals, and the full score of a split."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrpcbench.schema.records import BenchRecord, EvaluateRecord, ExportRecord, Record, StudyRecord, TrainRecord
from mrpcbench.schema.results import Confusion, EpochMetrics, EvalScore
from mrpcbench.schema.verdicts import Interval
from mrpcbench.statistics import BOOTSTRAP, RESAMPLES, wilson_interval

# How far a stored score may be from that of its counts: the rounding of a float in JSON, and no edited digit.
ROUNDING = 1e-9
# Mean cross-entropy in nats that no classifier with finite float32 logits exceeds: their largest difference.
LARGEST_LOSS = 2 * 3.4028235e38


def confusion(predictions: NDArray[Any], references: NDArray[Any]) -> Confusion:
    """The four counts of `predictions` [N] against `references` [N], both 0 or 1."""
    if len(predictions) != len(references) or len(references) == 0:
        raise ValueError(f"{len(predictions)} predictions for {len(references)} labels")
    predicted, actual = predictions == 1, references == 1
    return Confusion(
        true_positive=int((predicted & actual).sum()),
        false_positive=int((predicted & ~actual).sum()),
        false_negative=int((~predicted & actual).sum()),
        true_negative=int((~predicted & ~actual).sum()),
    )


def accuracy_of(counts: Confusion) -> float:
    """Share predicted correctly."""
    right = counts.true_positive + counts.true_negative
    return right / (right + counts.false_positive + counts.false_negative)


def f1_of(counts: Confusion) -> float:
    """2 TP / (2 TP + FP + FN); 0 for 0 / 0, like scikit-learn's `f1_score`."""
    return _ratio(2 * counts.true_positive, 2 * counts.true_positive + counts.false_positive + counts.false_negative)


def confusion_of(pairs: int, positives: int, accuracy: float, f1: float) -> Confusion:
    """The four counts that `pairs` with `positives` of class 1 have for an `accuracy` and an `f1`.

    With E wrong pairs, F1 = 2 TP / (2 TP + E), so TP = F1 E / (2 (1 - F1)). Without any, every positive is found.
    """
    wrong = round((1 - accuracy) * pairs)
    found = positives if wrong == 0 else round(f1 * wrong / (2 * (1 - f1)))
    missed = positives - found
    return Confusion(
        true_positive=found,
        false_positive=wrong - missed,
        false_negative=missed,
        true_negative=pairs - positives - (wrong - missed),
    )


def score(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> EvalScore:
    """The full score of `logits` [N, 2] against `labels` [N]; the prediction is the larger logit."""
    counts = confusion(logits.argmax(axis=1), labels)
    return EvalScore(
        pairs=len(labels),
        accuracy_interval=wilson_interval(counts.true_positive + counts.true_negative, len(labels)),
        f1_interval=f1_interval(counts),
        loss=finite_or_none(cross_entropy(logits, labels)),
        confusion=counts,
        **_shares_of(counts),
    )


def contradiction(record: Record) -> str | None:
    """What in a record contradicts its own counts, or cannot be: None if nothing does.

    A score is a share, and one of `evaluate` is what its four counts give. A graph whose gate has passed is proven.
    """
    match record:
        case EvaluateRecord():
            return _other_score(record)
        case TrainRecord():
            return next(filter(None, map(_impossible_epoch, record.train.epochs)), None)
        case ExportRecord() if record.complete and record.verdict and record.verdict.outcome == "PASS":
            return None if record.model.proven else "its gate passed, and its graph is not proven"
        case StudyRecord():
            trials = (trial.record for setting in record.study.settings for trial in setting.trials if trial.record)
            return next(filter(None, map(contradiction, trials)), None)
        case BenchRecord():
            shares = ((f"{name} of {row.id}", getattr(row, name)) for row in record.rows for name in ("accuracy", "f1"))
            return next((f"{name} is {value}, not a share" for name, value in shares if not _is_share(value)), None)
    return None


def _other_score(record: EvaluateRecord) -> str | None:
    found = record.score
    counts = found.confusion
    cells = counts.true_positive, counts.false_positive, counts.false_negative, counts.true_negative
    if min(cells) < 0 or sum(cells) != found.pairs or found.pairs < 1:
        return f"its confusion counts are not those of {found.pairs} pairs"
    if found.loss is not None and not 0 <= found.loss <= LARGEST_LOSS:
        return f"its loss is {found.loss}"
    for name, value in _shares_of(counts).items():
        if not abs(getattr(found, name) - value) <= ROUNDING:
            return f"its {name} is {getattr(found, name)}, and its confusion counts give {value:.6f}"
    for name, interval in (("accuracy", found.accuracy_interval), ("f1", found.f1_interval)):
        if not 0 <= interval.low <= interval.high <= 1:
            return f"its interval of {name} is no interval of a share"
    return None


def _impossible_epoch(epoch: EpochMetrics) -> str | None:
    for name in ("eval_accuracy_score", "eval_f1_score"):
        if not _is_share(value := getattr(epoch, name)):
            return f"{name} of step {epoch.step} is {value}, not a share"
    if epoch.eval_loss is not None and not 0 <= epoch.eval_loss <= LARGEST_LOSS:
        return f"eval_loss of step {epoch.step} is {epoch.eval_loss}"
    return None


def _is_share(value: float | None) -> bool:
    return value is None or 0 <= value <= 1


def _shares_of(counts: Confusion) -> dict[str, float]:
    """The scores that depend on the four counts alone."""
    positives = counts.true_positive + counts.false_negative
    pairs = positives + counts.false_positive + counts.true_negative
    return {
        "accuracy": accuracy_of(counts),
        "f1": f1_of(counts),
        "precision": _ratio(counts.true_positive, counts.true_positive + counts.false_positive),
        "recall": _ratio(counts.true_positive, positives),
        "majority_accuracy": max(positives, pairs - positives) / pairs,
        "majority_f1": _ratio(2 * positives, positives + pairs) if positives * 2 >= pairs else 0.0,
    }


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean of -log softmax(logits)[label] in nats, in float64; `logits` [N, 2], `labels` [N]."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(wide - top).sum(axis=1))
    return float((log_sum - wide[np.arange(len(labels)), labels]).mean())


def f1_interval(counts: Confusion, *, level: float = 0.95) -> Interval:
    """Percentile bootstrap interval of F1 (Efron & Tibshirani 1993, chapter 13).

    F1 depends on the four counts alone, so a resample of the pairs is one multinomial draw of the counts, which is
    faster than `scipy.stats.bootstrap` over the pairs. The seed is fixed.
    """
    cells = np.array([counts.true_positive, counts.false_positive, counts.false_negative, counts.true_negative])
    draws = np.random.default_rng(0).multinomial(cells.sum(), cells / cells.sum(), size=RESAMPLES)
    return _percentile_interval(_f1s(draws[:, 0], draws[:, 1] + draws[:, 2]), level)


def f1_difference_interval(
    baseline: NDArray[Any], current: NDArray[Any], labels: NDArray[Any], *, level: float = 0.95
) -> tuple[float, Interval]:
    """The difference of F1, `current` minus `baseline`, and its interval. All arrays are [N], of 0 and 1.

    Paired percentile bootstrap (Efron & Tibshirani 1993, chapter 13). A resample draws pairs, each with its label and
    both predictions. Both F1s depend only on the counts of the eight combinations, so a resample is one multinomial
    draw. The seed is fixed. An F1 of 0 / 0 is 0. Raises `ValueError` for no pairs, unequal lengths or other values.
    """
    columns = [np.asarray(column) for column in (labels, baseline, current)]
    if len({column.shape for column in columns}) > 1 or columns[0].ndim != 1 or len(columns[0]) == 0:
        raise ValueError(f"{len(columns[1])} and {len(columns[2])} predictions for {len(columns[0])} labels")
    if not all(np.isin(column, (0, 1)).all() for column in columns):
        raise ValueError("a label or a prediction is neither 0 nor 1")
    label, before, after = (column.astype(np.int64) for column in columns)
    table = np.bincount(4 * label + 2 * before + after, minlength=8)
    draws = np.random.default_rng(0).multinomial(len(label), table / len(label), size=RESAMPLES)
    differences = _f1_differences(draws)
    return float(_f1_differences(table[np.newaxis])[0]), _percentile_interval(differences, level)


def _f1_differences(tables: NDArray[np.int64]) -> NDArray[np.float64]:
    """Current F1 minus baseline F1 of each of `tables` [R, 8].

    Cell 4 l + 2 b + c counts the pairs with label l, baseline prediction b and current prediction c.
    """
    by_label = tables.reshape(-1, 2, 2, 2)  # [resample, label, baseline, current]
    f1_baseline, f1_current = (
        _f1s(counts[:, 1, 1], counts[:, 0, 1] + counts[:, 1, 0])
        for counts in (by_label.sum(axis=3), by_label.sum(axis=2))
    )
    return f1_current - f1_baseline


def _f1s(true_positives: NDArray[np.int64], wrong: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of each resample: 2 TP / (2 TP + wrong), and 0 for 0 / 0."""
    doubled = 2 * true_positives
    below = doubled + wrong
    f1s = np.zeros(len(doubled))
    np.divide(doubled, below, out=f1s, where=below > 0)
    return f1s


def _percentile_interval(values: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level, method=BOOTSTRAP)


def finite_or_none(value: float | None) -> float | None:
    """`value`, or None if it is NaN or infinite, because JSON has neither."""
    return value if value is not None and np.isfinite(value) else None


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
