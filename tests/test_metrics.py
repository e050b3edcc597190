"""Tests of mrpcbench.metrics against scikit-learn, torch and a naive bootstrap."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from mrpcbench.metrics import (
    confusion,
    cross_entropy,
    f1_difference_interval,
    f1_interval,
    finite_or_none,
    paraphrase_metric,
    score,
)
from mrpcbench.schema import Confusion

Labels = NDArray[np.int64]

DEGENERATE = {
    "all one class and right": ([1, 1, 1], [1, 1, 1]),
    "all the other class and right": ([0, 0, 0], [0, 0, 0]),
    "no positive predicted": ([0, 0, 0, 0], [1, 0, 1, 1]),
    "no positive there": ([1, 1, 0], [0, 0, 0]),
    "all wrong": ([1, 0, 1], [0, 1, 0]),
    "one pair, right": ([1], [1]),
    "one pair, wrong": ([1], [0]),
}


def random_case(seed: int) -> tuple[Labels, Labels]:
    draw = np.random.default_rng(seed)
    pairs = int(draw.integers(1, 500))
    references = (draw.random(pairs) < draw.random()).astype(np.int64)
    predictions = np.where(draw.random(pairs) < draw.random(), references, 1 - references)
    return predictions, references


def random_logits(labels: Labels, seed: int = 0) -> NDArray[np.float32]:
    """Logits that lean towards the label."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(len(labels), 2)) * 2
    logits[np.arange(len(labels)), labels] += 1.5
    return logits.astype(np.float32)


def mrpc_labels() -> Labels:
    """As many equivalent pairs as the validation split of MRPC has."""
    return np.array([1] * 279 + [0] * 129, dtype=np.int64)


# --- the metric -------------------------------------------------------------------------------------------------------


def agrees_with_scikit_learn(predictions: Labels, references: Labels) -> None:
    found = paraphrase_metric().compute(predictions=predictions, references=references)
    assert found == {
        "accuracy": accuracy_score(references, predictions),
        "f1": f1_score(references, predictions, zero_division=0),
    }


@pytest.mark.parametrize("seed", range(20))
def test_the_metric_is_scikit_learns_to_the_last_digit(seed: int) -> None:
    agrees_with_scikit_learn(*random_case(seed))


@pytest.mark.parametrize("case", DEGENERATE)
def test_the_metric_is_scikit_learns_on_degenerate_input(case: str) -> None:
    predictions, references = DEGENERATE[case]
    agrees_with_scikit_learn(np.array(predictions), np.array(references))


def test_the_metric_takes_lists_and_adds_up_batches_as_any_evaluate_metric() -> None:
    predictions, references = random_case(3)
    metric = paraphrase_metric()
    for start in range(0, len(references), 7):
        metric.add_batch(
            predictions=predictions[start : start + 7].tolist(), references=references[start : start + 7].tolist()
        )
    assert metric.compute() == paraphrase_metric().compute(predictions=predictions, references=references)


def test_the_metric_starts_afresh_each_time() -> None:
    metric = paraphrase_metric()
    assert metric.compute(predictions=[1, 0], references=[1, 0]) == {"accuracy": 1.0, "f1": 1.0}
    assert metric.compute(predictions=[0, 1], references=[1, 0]) == {"accuracy": 0.0, "f1": 0.0}


def test_the_metric_writes_no_cache_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "metrics"))
    metric = paraphrase_metric()
    metric.add_batch(predictions=[1, 0], references=[1, 1])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert metric.compute() == {"accuracy": 0.5, "f1": 2 / 3}


def test_the_metric_needs_no_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("no folder, as a home that cannot be written to")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "home" / "metrics"))
    assert paraphrase_metric().compute(predictions=[1], references=[1]) == {"accuracy": 1.0, "f1": 1.0}


@pytest.mark.parametrize(("predictions", "references"), [([1, 0], [1]), ([], [])])
def test_counts_of_nothing_or_of_unequal_lengths_are_refused(predictions: list[int], references: list[int]) -> None:
    with pytest.raises(ValueError, match=f"{len(predictions)} predictions of {len(references)} labels"):
        confusion(np.array(predictions), np.array(references))


# --- the score --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_number_of_a_score_is_that_of_scikit_learn(seed: int) -> None:
    _, labels = random_case(seed)
    logits = random_logits(labels, seed)
    predictions = logits.argmax(axis=1)
    found = score(logits, labels)
    assert found.pairs == len(labels)
    assert found.accuracy == accuracy_score(labels, predictions)
    assert found.f1 == f1_score(labels, predictions, zero_division=0)
    assert found.precision == precision_score(labels, predictions, zero_division=0)
    assert found.recall == recall_score(labels, predictions, zero_division=0)
    (tn, fp), (fn, tp) = confusion_matrix(labels, predictions, labels=[0, 1]).tolist()
    assert found.confusion == Confusion(true_positive=tp, false_positive=fp, false_negative=fn, true_negative=tn)


@pytest.mark.parametrize("seed", range(12))
def test_the_intervals_hold_the_values_that_they_are_of(seed: int) -> None:
    _, labels = random_case(seed)
    found = score(random_logits(labels, seed), labels)
    assert found.accuracy_interval.low <= found.accuracy <= found.accuracy_interval.high
    assert found.f1_interval.low <= found.f1 <= found.f1_interval.high
    assert found.accuracy_interval.level == found.f1_interval.level == 0.95


def test_the_majority_baseline_of_mrpc_is_the_published_one() -> None:
    found = score(random_logits(mrpc_labels()), mrpc_labels())
    assert (f"{found.majority_accuracy:.4f}", f"{found.majority_f1:.4f}") == ("0.6838", "0.8122")


@pytest.mark.parametrize("positives", [0, 1, 5, 6, 9, 10])
def test_the_majority_baseline_is_the_score_of_always_answering_the_larger_class(positives: int) -> None:
    labels = np.array([1] * positives + [0] * (10 - positives), dtype=np.int64)
    always = np.full(10, int(positives >= 5))
    found = score(random_logits(labels), labels)
    assert found.majority_accuracy == accuracy_score(labels, always)
    assert found.majority_f1 == f1_score(labels, always, zero_division=0)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_the_loss_is_torchs_cross_entropy(scale: float) -> None:
    labels = mrpc_labels()
    logits = random_logits(labels) * np.float32(scale)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels)).item()
    assert cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-12)
    assert score(logits, labels).loss == cross_entropy(logits, labels)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_is_null_and_the_rest_of_the_score_stands(broken: float) -> None:
    labels = np.array([1, 0, 1], dtype=np.int64)
    found = score(np.array([[0.0, 1.0], [1.0, 0.0], [broken, broken]], dtype=np.float32), labels)
    assert found.loss is None
    assert found.accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("value", "kept"), [(0.5, 0.5), (0.0, 0.0), (None, None), (np.nan, None), (np.inf, None), (-np.inf, None)]
)
def test_only_a_finite_number_is_a_number_in_a_record(value: float | None, kept: float | None) -> None:
    assert finite_or_none(value) == kept


# --- the interval of F1 -----------------------------------------------------------------------------------------------

COUNTS = Confusion(true_positive=253, false_positive=31, false_negative=26, true_negative=98)


def test_the_interval_of_f1_is_that_of_resampling_the_pairs() -> None:
    references = np.repeat([1, 0, 1, 0], [253, 31, 26, 98])
    predictions = np.repeat([1, 1, 0, 0], [253, 31, 26, 98])
    draw = np.random.default_rng(1)
    resampled = []
    for _ in range(4000):
        rows = draw.integers(0, len(references), len(references))
        is_so, said = references[rows], predictions[rows]
        resampled.append(2 * (is_so & said).sum() / (is_so.sum() + said.sum()))
    low, high = np.quantile(resampled, [0.025, 0.975])
    found = f1_interval(COUNTS)
    # Both ends carry the noise of their own resamples: 0.0006 at 4000 resamples of a spread of 0.013.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.002)


def test_the_interval_of_f1_is_the_same_each_time_and_another_with_another_seed() -> None:
    assert f1_interval(COUNTS) == f1_interval(COUNTS)
    assert f1_interval(COUNTS, seed=1) != f1_interval(COUNTS)


def test_a_higher_level_gives_a_wider_interval_of_f1() -> None:
    narrow, wide = f1_interval(COUNTS, level=0.8), f1_interval(COUNTS, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.8, 0.99)


def test_the_interval_of_an_f1_without_positives_is_0_to_0() -> None:
    found = f1_interval(Confusion(true_positive=0, false_positive=0, false_negative=0, true_negative=5))
    assert (found.low, found.high) == (0.0, 0.0)


# --- the interval of a difference of F1 -------------------------------------------------------------------------------


def two_models(pairs: int, seed: int) -> tuple[Labels, Labels, Labels]:
    """Predictions of a baseline and of a current model, and the labels; a tenth of the pairs flip."""
    draw = np.random.default_rng(seed)
    labels = (draw.random(pairs) < 0.68).astype(np.int64)
    baseline = np.where(draw.random(pairs) < 0.86, labels, 1 - labels)
    return baseline, np.where(draw.random(pairs) < 0.9, baseline, 1 - baseline), labels


@pytest.mark.parametrize("seed", range(10))
def test_the_difference_of_f1_is_that_of_scikit_learn(seed: int) -> None:
    baseline, current, labels = two_models(50 + seed, seed)
    difference, interval = f1_difference_interval(baseline, current, labels)
    expected = f1_score(labels, current, zero_division=0) - f1_score(labels, baseline, zero_division=0)
    assert difference == pytest.approx(expected, abs=1e-15)
    assert interval.low <= difference <= interval.high


def test_the_difference_of_f1_has_its_worked_values() -> None:
    labels = np.array([1, 1, 1, 0, 0])
    baseline = np.array([1, 1, 0, 0, 0])  # 2 TP, 1 FN: 4/5
    current = np.array([1, 0, 0, 1, 0])  # 1 TP, 2 FN, 1 FP: 2/5
    assert f1_difference_interval(baseline, current, labels)[0] == pytest.approx(-2 / 5)
    assert f1_difference_interval(current, baseline, labels)[0] == pytest.approx(2 / 5)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_a_difference_of_f1_is_that_of_resampling_the_pairs(seed: int) -> None:
    baseline, current, labels = two_models(408, seed)
    draw = np.random.default_rng(1)

    def f1(is_so: Labels, said: Labels) -> float:
        return float(2 * (is_so & said).sum() / (is_so.sum() + said.sum()))

    resampled = []
    for _ in range(4000):
        rows = draw.integers(0, len(labels), len(labels))
        resampled.append(f1(labels[rows], current[rows]) - f1(labels[rows], baseline[rows]))
    low, high = np.quantile(resampled, [0.025, 0.975])
    _, found = f1_difference_interval(baseline, current, labels)
    # Both ends carry the noise of their own resamples: 0.0005 at 4000 resamples of a spread of 0.011.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.002)


@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.float32])
def test_predictions_of_any_type_have_the_same_difference_of_f1(kind: type) -> None:
    case = two_models(408, 0)
    assert f1_difference_interval(*(column.astype(kind) for column in case)) == f1_difference_interval(*case)


def test_where_nothing_flips_the_interval_of_a_difference_of_f1_is_0_to_0() -> None:
    baseline, _, labels = two_models(408, 0)
    difference, interval = f1_difference_interval(baseline, baseline.copy(), labels)
    assert (difference, interval.low, interval.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("baseline", "current", "labels", "difference"),
    [
        ([1], [1], [1], 0.0),
        ([1], [0], [1], -1.0),
        ([0], [1], [1], 1.0),
        ([1], [0], [0], 0.0),
        ([0, 0, 0], [0, 0, 0], [0, 0, 0], 0.0),
        ([1, 0, 1], [0, 1, 0], [0, 0, 0], 0.0),
        ([1, 1, 1], [0, 0, 0], [1, 1, 1], -1.0),
    ],
)
@pytest.mark.filterwarnings("error")
def test_one_pair_or_one_class_has_a_difference_of_f1_and_an_interval_of_no_width(
    baseline: list[int], current: list[int], labels: list[int], difference: float
) -> None:
    found, interval = f1_difference_interval(np.array(baseline), np.array(current), np.array(labels))
    assert (found, interval.low, interval.high) == (difference, difference, difference)


def test_the_interval_of_a_difference_of_f1_is_the_same_each_time_and_another_with_another_seed() -> None:
    case = two_models(408, 0)
    assert f1_difference_interval(*case) == f1_difference_interval(*case)
    assert f1_difference_interval(*case)[1] != f1_difference_interval(*case, seed=1)[1]


def test_a_higher_level_gives_a_wider_interval_of_a_difference_of_f1() -> None:
    case = two_models(408, 0)
    narrow, wide = (f1_difference_interval(*case, level=level)[1] for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.8, 0.99)
    assert narrow.method == "percentile bootstrap, 10000 resamples"


@pytest.mark.parametrize(
    ("baseline", "current", "labels"),
    [([1, 0], [1], [1]), ([1], [1, 0], [1]), ([1], [1], [1, 0]), ([], [], []), ([[1]], [[1]], [[1]])],
)
def test_a_difference_of_f1_of_nothing_or_of_unequal_lengths_is_refused(
    baseline: list[int], current: list[int], labels: list[int]
) -> None:
    shown = f"{len(baseline)} and {len(current)} predictions of {len(labels)} labels"
    with pytest.raises(ValueError, match=shown):
        f1_difference_interval(np.array(baseline), np.array(current), np.array(labels))


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("broken", [2, -1, 0.5, np.nan])
def test_a_difference_of_f1_of_what_is_neither_0_nor_1_is_refused(place: int, broken: float) -> None:
    columns = [np.array([1.0, 0.0]) for _ in range(3)]
    columns[place][1] = broken
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        f1_difference_interval(*columns)
