"""Accuracy, F1, their intervals, and the full score of a split."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrpcbench.records.figures import best_epoch
from mrpcbench.records.seeds import other_summary, validation_of
from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.schema.identity import DataIdentity
from mrpcbench.schema.records import BenchRecord, EvaluateRecord, ExportRecord, Record, StudyRecord, TrainRecord
from mrpcbench.schema.results import Confusion, EpochMetrics, EvalScore, TrainSection
from mrpcbench.schema.verdicts import Interval
from mrpcbench.statistics import BOOTSTRAP, RESAMPLES, wilson_interval

# How far a stored score may be from that of its counts: the rounding of a float in JSON, and no edited digit.
ROUNDING = 1e-9
# How far the end of a stored interval may be from that of the same counts: another numpy may draw other resamples.
RESAMPLING = 0.02
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
    """What in a record contradicts the rest of it, or cannot be: None if nothing does.

    A score is a share. One of `evaluate` is what its four counts give. One of `train` is what some answers to the pairs
    give, and its best step is the best. The summary of a study is that of its trials. A graph whose gate has passed is
    proven. Values that were changed together, so that they agree, are not found.
    """
    match record:
        case EvaluateRecord():
            return _other_score(record)
        case TrainRecord():
            return _impossible_training(record.train, validation_of(record.data))
        case ExportRecord() if record.complete and record.verdict and record.verdict.outcome == "PASS":
            return None if record.model.proven else "its gate passed, and its graph is not proven"
        case StudyRecord():
            trials = (trial.record for setting in record.study.settings for trial in setting.trials if trial.record)
            return next(filter(None, map(contradiction, trials)), None) or other_summary(record)
        case BenchRecord():
            return next(filter(None, (_impossible_row(row, record.data) for row in record.rows)), None)
    return None


def _other_score(record: EvaluateRecord) -> str | None:
    found = record.score
    counts = found.confusion
    cells = counts.true_positive, counts.false_positive, counts.false_negative, counts.true_negative
    if min(cells) < 0 or sum(cells) != found.pairs or found.pairs < 1:
        return f"its confusion counts are not those of {found.pairs} pairs"
    positives = counts.true_positive + counts.false_negative
    for data in record.data:
        if (data.pairs, data.positives) != (found.pairs, positives):
            return (
                f"its confusion counts have {positives} positives in {found.pairs} pairs, and its data "
                f"{data.positives} in {data.pairs}"
            )
    if found.loss is not None and not 0 <= found.loss <= LARGEST_LOSS:
        return f"its loss is {found.loss}"
    for name, value in _shares_of(counts).items():
        if not abs(getattr(found, name) - value) <= ROUNDING:
            return f"its {name} is {getattr(found, name)}, and its confusion counts give {value:.6f}"
    for name, interval in (("accuracy", found.accuracy_interval), ("f1", found.f1_interval)):
        if not 0 <= interval.low <= interval.high <= 1:
            return f"its interval of {name} is no interval of a share"
    return None


def _impossible_training(section: TrainSection, validation: DataIdentity | None) -> str | None:
    """What no training logs: scores that no answers to the pairs of `validation` give, or a best step that is not."""
    if section.epochs and validation is None:
        return "it has scores, and no validation pairs"
    for epoch in section.epochs:
        if validation and (problem := _impossible_epoch(epoch, validation)):
            return problem
    best, metric = best_epoch(section), section.recipe.metric_for_best_model
    better = [epoch.step for epoch in section.epochs if best and _rank(epoch, metric) > _rank(best, metric)]
    return f"its best step is {section.best_step}, and the {metric} of step {better[0]} is better" if better else None


def _rank(epoch: EpochMetrics, metric: str) -> float:
    """A number that is larger for a better epoch; a loss that is not finite is the worst."""
    if metric == "loss":
        return -math.inf if epoch.eval_loss is None else -epoch.eval_loss
    return epoch.eval_accuracy_score if metric == "accuracy" else epoch.eval_f1_score


def _impossible_epoch(epoch: EpochMetrics, validation: DataIdentity) -> str | None:
    accuracy, f1 = epoch.eval_accuracy_score, epoch.eval_f1_score
    for name, value in (("eval_accuracy_score", accuracy), ("eval_f1_score", f1)):
        if not _is_share(value):
            return f"{name} of step {epoch.step} is {value}, not a share"
    if epoch.eval_loss is not None and not 0 <= epoch.eval_loss <= LARGEST_LOSS:
        return f"eval_loss of step {epoch.step} is {epoch.eval_loss}"
    if not _is_possible(validation.pairs, validation.positives, accuracy, f1):
        return _no_answers(validation, accuracy, f1, f"step {epoch.step}")
    return None


def _is_possible(pairs: int, positives: int, accuracy: float, f1: float) -> bool:
    """Whether some answers to `pairs` with `positives` of class 1 have exactly this `accuracy` and `f1`."""
    if round((1 - accuracy) * pairs) and f1 == 1:
        return False
    counts = confusion_of(pairs, positives, accuracy, f1)
    cells = counts.true_positive, counts.false_positive, counts.false_negative, counts.true_negative
    is_near = abs(accuracy_of(counts) - accuracy) <= ROUNDING and abs(f1_of(counts) - f1) <= ROUNDING
    return min(cells) >= 0 and is_near


def _impossible_row(row: BenchRow, data: Sequence[DataIdentity]) -> str | None:
    """Which scores of a row cannot be. Those of a server load count a pair as often as it was sent."""
    for name in ("accuracy", "f1"):
        if not _is_share(value := getattr(row, name)):
            return f"{name} of {row.id} is {value}, not a share"
    if row.accuracy is None or row.f1 is None or row.scenario == "server":
        return None
    for pairs in data:
        if not _is_possible(pairs.pairs, pairs.positives, row.accuracy, row.f1):
            return _no_answers(pairs, row.accuracy, row.f1, str(row.id))
    return None


def _no_answers(data: DataIdentity, accuracy: float, f1: float, place: str) -> str:
    return (
        f"no answers to {data.pairs} pairs with {data.positives} positives have the accuracy {accuracy} and the F1 "
        f"{f1} of {place}"
    )


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


# --- predictions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predictions:
    """What the lines of a predictions file say: labels and predictions, 0 or 1, in the order of the pairs."""

    labels: tuple[int, ...]
    predictions: tuple[int, ...]


def predictions_in(rows: Sequence[Any], record: EvaluateRecord, file: Path) -> Predictions:
    """The predictions of `record`, which was read from `file`, in the `rows` of their own file.

    Raises `ValueError`, with a one-line reason, for a row that `evaluate` does not write, and unless the rows give the
    score of the record: its counts, loss and intervals.
    """
    for index, row in enumerate(rows):
        if not _is_prediction(row, index):
            raise ValueError(f"line {index + 1} is not a valid prediction")
    stored, contrary = record.evaluate.score, f"its {len(rows)} predictions do not give the score in {file}"
    if len({stored.pairs, len(rows), *(data.pairs for data in record.data)}) > 1:
        raise ValueError(f"{contrary}, which is of {stored.pairs} pairs")
    logits = np.array([row["logits"] for row in rows], dtype=np.float32)
    found = score(logits, np.array([row["label"] for row in rows], dtype=np.int64))
    if name := _difference(found, stored):
        raise ValueError(f"{contrary}: {name} is {getattr(found, name)}, not {getattr(stored, name)}")
    return Predictions(*(tuple(row[name] for row in rows) for name in ("label", "prediction")))


def _difference(found: EvalScore, stored: EvalScore) -> str | None:
    """The first field in which two scores differ by more than rounding and resampling; None if there is none."""
    if found.confusion != stored.confusion:
        return "confusion"
    if (found.loss is None) != (stored.loss is None) or abs((found.loss or 0) - (stored.loss or 0)) > ROUNDING:
        return "loss"
    for name in ("accuracy_interval", "f1_interval"):
        mine, other = getattr(found, name), getattr(stored, name)
        if max(abs(mine.low - other.low), abs(mine.high - other.high)) > RESAMPLING or mine.level != other.level:
            return name
    return None


def _is_prediction(row: Any, index: int) -> bool:
    """Whether `row` is a line that `evaluate` could write for the pair `index`."""
    match row:
        case {
            "index": int(place),
            "label": 0 | 1 as label,
            "logits": [float(no), float(yes)],
            "prediction": 0 | 1 as prediction,
        }:
            # A bool is an int for a pattern; neither JSON's true nor 1.0 is what `evaluate` writes.
            integers = all(type(value) is int for value in (place, label, prediction))
            finite = math.isfinite(no) and math.isfinite(yes)
            return integers and place == index and finite and prediction == int(yes > no)
    return False


# --- formulas ---------------------------------------------------------------------------------------------------------


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
