"""The metric and the score against scikit-learn and torch, and the intervals of F1 against resampled pairs."""

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from records import COMMANDS, balanced_data, make_data, make_epoch, make_record, make_study, make_train
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from mrpcbench.records import store
from mrpcbench.records.scores import (
    accuracy_of,
    confusion,
    confusion_of,
    contradiction,
    cross_entropy,
    f1_difference_interval,
    f1_interval,
    f1_of,
    finite_or_none,
    score,
)
from mrpcbench.schema.identity import Command
from mrpcbench.schema.records import Record
from mrpcbench.schema.requests import TrainRecipe
from mrpcbench.schema.results import Confusion
from mrpcbench.training.glue_metric import paraphrase_metric

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


def some_cases() -> Iterator[tuple[Labels, Labels]]:
    yield from (random_case(seed) for seed in range(20))
    yield from ((np.array(predictions), np.array(references)) for predictions, references in DEGENERATE.values())


# --- the metric -------------------------------------------------------------------------------------------------------


def test_the_metric_is_scikit_learns_to_the_last_digit() -> None:
    for predictions, references in some_cases():
        assert paraphrase_metric().compute(predictions=predictions, references=references) == {
            "accuracy": accuracy_score(references, predictions),
            "f1": f1_score(references, predictions, zero_division=0),
        }


def test_the_metric_takes_lists_adds_up_batches_and_starts_afresh_as_any_evaluate_metric() -> None:
    predictions, references = random_case(3)
    metric = paraphrase_metric()
    for _ in range(2):
        for start in range(0, len(references), 7):
            part = slice(start, start + 7)
            metric.add_batch(predictions=predictions[part].tolist(), references=references[part].tolist())
        assert metric.compute() == paraphrase_metric().compute(predictions=predictions, references=references)


def test_the_metric_neither_writes_nor_needs_a_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("no folder, as a home that cannot be written to")
    for cache in (tmp_path / "metrics", tmp_path / "home" / "metrics"):
        monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(cache))
        metric = paraphrase_metric()
        metric.add_batch(predictions=[1, 0], references=[1, 1])
        assert metric.compute() == {"accuracy": 0.5, "f1": 2 / 3}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["home"]


def test_empty_or_unequal_arrays_have_no_counts() -> None:
    for predictions, references in (([1, 0], [1]), ([], [])):
        with pytest.raises(ValueError, match=f"{len(predictions)} predictions for {len(references)} labels"):
            confusion(np.array(predictions), np.array(references))


# --- the score --------------------------------------------------------------------------------------------------------


def test_every_number_of_a_score_matches_scikit_learn_and_lies_in_its_interval() -> None:
    for seed in range(12):
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
        assert found.accuracy_interval.low <= found.accuracy <= found.accuracy_interval.high
        assert found.f1_interval.low <= found.f1 <= found.f1_interval.high
        assert found.accuracy_interval.level == found.f1_interval.level == 0.95


def test_the_majority_baseline_is_the_score_of_always_answering_the_larger_class() -> None:
    found = score(random_logits(mrpc_labels()), mrpc_labels())
    assert (f"{found.majority_accuracy:.4f}", f"{found.majority_f1:.4f}") == ("0.6838", "0.8122")  # as published
    for positives in (0, 1, 5, 6, 9, 10):
        labels = np.array([1] * positives + [0] * (10 - positives), dtype=np.int64)
        always = np.full(10, int(positives >= 5))
        found = score(random_logits(labels), labels)
        assert found.majority_accuracy == accuracy_score(labels, always)
        assert found.majority_f1 == f1_score(labels, always, zero_division=0)


def test_the_loss_is_torchs_cross_entropy() -> None:
    labels = mrpc_labels()
    for scale in (1.0, 30.0, 1e4):
        logits = random_logits(labels) * np.float32(scale)
        expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels)).item()
        assert cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-12)
        assert score(logits, labels).loss == cross_entropy(logits, labels)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_is_null_and_the_rest_of_the_score_is_kept() -> None:
    assert [finite_or_none(value) for value in (0.5, 0.0, None)] == [0.5, 0.0, None]
    labels = np.array([1, 0, 1], dtype=np.int64)
    for broken in (np.nan, np.inf, -np.inf):
        assert finite_or_none(broken) is None
        found = score(np.array([[0.0, 1.0], [1.0, 0.0], [broken, broken]], dtype=np.float32), labels)
        assert found.loss is None
        assert found.accuracy == pytest.approx(2 / 3)


# --- the interval of F1 -----------------------------------------------------------------------------------------------

COUNTS = Confusion(true_positive=253, false_positive=31, false_negative=26, true_negative=98)


def f1(is_so: Labels, said: Labels) -> float:
    return float(2 * (is_so & said).sum() / (is_so.sum() + said.sum()))


def test_the_interval_of_f1_is_that_of_resampling_the_pairs_and_the_same_each_time() -> None:
    references, predictions = (np.repeat(column, [253, 31, 26, 98]) for column in ([1, 0, 1, 0], [1, 1, 0, 0]))
    draws = np.random.default_rng(1).integers(0, len(references), (4000, len(references)))
    resampled = [f1(references[rows], predictions[rows]) for rows in draws]
    found = f1_interval(COUNTS)
    # Both ends have the noise of their resamples: 0.0006 for 4000 resamples with a standard deviation of 0.013.
    assert (found.low, found.high) == pytest.approx(np.quantile(resampled, [0.025, 0.975]).tolist(), abs=0.002)
    assert f1_interval(COUNTS) == found
    wide = f1_interval(COUNTS, level=0.99)
    assert wide.low < found.low < found.high < wide.high
    assert (wide.level, wide.method) == (0.99, "percentile bootstrap, 10000 resamples")


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


def test_the_difference_of_f1_is_that_of_scikit_learn() -> None:
    for seed in range(10):
        baseline, current, labels = two_models(50 + seed, seed)
        difference, interval = f1_difference_interval(baseline, current, labels)
        expected = f1_score(labels, current, zero_division=0) - f1_score(labels, baseline, zero_division=0)
        assert difference == pytest.approx(expected, abs=1e-15)
        assert interval.low <= difference <= interval.high


def test_the_interval_of_a_difference_of_f1_is_that_of_resampling_the_pairs_and_the_same_each_time() -> None:
    for seed in range(3):
        baseline, current, labels = case = two_models(408, seed)
        draws = np.random.default_rng(1).integers(0, len(labels), (4000, len(labels)))
        resampled = [f1(labels[rows], current[rows]) - f1(labels[rows], baseline[rows]) for rows in draws]
        _, found = f1_difference_interval(*case)
        # Both ends have the noise of their resamples: 0.0005 for 4000 resamples with a standard deviation of 0.011.
        assert (found.low, found.high) == pytest.approx(np.quantile(resampled, [0.025, 0.975]).tolist(), abs=0.002)
        assert f1_difference_interval(*case)[1] == found
        for kind in (np.bool_, np.uint8, np.float32):
            assert f1_difference_interval(*(column.astype(kind) for column in case))[1] == found
        wide = f1_difference_interval(*case, level=0.99)[1]
        assert wide.low < found.low < found.high < wide.high
        assert (wide.level, wide.method) == (0.99, "percentile bootstrap, 10000 resamples")


@pytest.mark.filterwarnings("error")
def test_one_pair_one_class_or_no_flip_has_an_interval_of_width_zero() -> None:
    cases = [
        ([1], [1], [1], 0.0),
        ([1], [0], [1], -1.0),
        ([0], [1], [1], 1.0),
        ([1], [0], [0], 0.0),
        ([0, 0, 0], [0, 0, 0], [0, 0, 0], 0.0),
        ([1, 0, 1], [0, 1, 0], [0, 0, 0], 0.0),
        ([1, 1, 1], [0, 0, 0], [1, 1, 1], -1.0),
        ([1, 0, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], 0.0),
    ]
    for *columns, difference in cases:
        found, interval = f1_difference_interval(*map(np.array, columns))
        assert (found, interval.low, interval.high) == (difference, difference, difference), columns


def test_a_difference_of_f1_needs_equal_non_empty_arrays_of_0_and_1() -> None:
    for columns in (([1, 0], [1], [1]), ([1], [1, 0], [1]), ([1], [1], [1, 0]), ([], [], []), ([[1]], [[1]], [[1]])):
        shown = "{} and {} predictions for {} labels".format(*map(len, columns))
        with pytest.raises(ValueError, match=shown):
            f1_difference_interval(*map(np.array, columns))
    for place, broken in product(range(3), (2, -1, 0.5, np.nan)):
        numbers = np.array([[1.0, 0.0]] * 3)
        numbers[place, 1] = broken
        with pytest.raises(ValueError, match="neither 0 nor 1"):
            f1_difference_interval(*numbers)


def test_the_counts_follow_from_accuracy_and_f1() -> None:
    for predictions, references in some_cases():
        counts = confusion(predictions, references)
        positives = counts.true_positive + counts.false_negative
        assert confusion_of(len(references), positives, accuracy_of(counts), f1_of(counts)) == counts


# --- contradictions ---------------------------------------------------------------------------------------------------


def edited(record: Record, value: Any, *path: str | int) -> Record:
    """`record` with `value` at `path`."""
    document = json.loads(store.dumps(record))
    inner = document
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    return TypeAdapter(type(record)).validate_json(json.dumps(document))


EPOCH = ("train", "epochs", 1)
TRIAL = ("study", "settings", 0, "trials", 0, "record", *EPOCH)
SUMMARY = ("study", "settings", 0, "summaries", 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_record_as_a_command_writes_it_contradicts_nothing(command: Command) -> None:
    assert contradiction(make_record(command)) is None


@pytest.mark.parametrize(
    ("command", "value", "path", "words"),
    [
        ("train", 0.9, (*EPOCH, "eval_accuracy_score"), "no answers to 408 pairs with 279 positives have the accuracy"),
        ("train", 345 / 408, (*EPOCH, "eval_accuracy_score"), "no answers to 408 pairs"),
        ("train", 0.95, (*EPOCH, "eval_f1_score"), "no answers to 408 pairs"),
        ("train", 1.0, (*EPOCH, "eval_f1_score"), "no answers to 408 pairs"),
        ("train", 1.5, (*EPOCH, "eval_f1_score"), "eval_f1_score of step 230 is 1.5, not a share"),
        ("train", 1e39, (*EPOCH, "eval_loss"), "eval_loss of step 230"),
        ("train", 0.2, ("train", "epochs", 0, "eval_loss"), "its best step is 230, and the loss of step 115 is better"),
        ("train", None, (*EPOCH, "eval_loss"), "the loss of step 115 is better"),
        ("train", "test", ("data", 1, "split"), "it has scores, and no validation pairs"),
        ("train", 409, ("data", 1, "pairs"), "no answers to 409 pairs"),
        ("evaluate", 0.9, ("evaluate", "score", "accuracy"), "its accuracy is 0.9"),
        ("evaluate", 280, ("data", 0, "positives"), "279 positives in 408 pairs, and its data 280 in 408"),
        ("evaluate", 407, ("data", 0, "pairs"), "279 positives in 408 pairs, and its data 279 in 407"),
        ("bench", 0.9, ("bench", "rows", 1, "accuracy"), "the F1 .* of torch offline batch 32"),
        ("bench", 0.9, ("bench", "rows", 0, "f1"), "the F1 0.9 of torch single-stream"),
        ("bench", -0.1, ("bench", "rows", 0, "f1"), "f1 of torch single-stream is -0.1, not a share"),
        ("study", 0.9, (*TRIAL, "eval_f1_score"), "no answers to 2000 pairs with 1000 positives"),
        ("study", 0.9, (*SUMMARY, "median"), "accuracy of default: its median is 0.9, and its trials give 0.85"),
        ("study", 0.8, (*SUMMARY, "median_interval", "low"), "its median_interval is"),
        ("study", [0.9] * 6, (*SUMMARY, "values"), "its values is"),
        ("study", [], ("study", "settings", 0, "summaries"), "default has 0 summaries, and its trials give 3"),
        ("study", [], ("data",), "no validation pairs"),
    ],
)
def test_an_edited_value_is_seen_by_the_others(command: Command, value: Any, path: Any, words: str) -> None:
    found = contradiction(edited(make_record(command), value, *path))
    assert found is not None
    assert re.search(words, found), found


def test_a_comparison_that_its_settings_do_not_give_is_seen() -> None:
    record = make_record("study", study=make_study({"a": (0.84, 0.85, 0.86), "b": (0.85, 0.86, 0.88)}))
    assert contradiction(record) is None
    for name, value in (("difference", 0.1), ("p_value", 0.001), ("adjusted_p", 0.001), ("seeds", [42])):
        found = contradiction(edited(record, value, "study", "comparisons", 0, name))
        assert found is not None
        assert found.startswith(f"accuracy of a and b: its {name} is {value if name != 'seeds' else (42,)}, ")
    assert contradiction(edited(record, [], "study", "comparisons")) == "it has 0 comparisons, and its settings give 3"


def test_any_answers_give_scores_that_are_possible() -> None:
    for predictions, references in some_cases():
        counts, data = (
            confusion(predictions, references),
            make_data(pairs=len(references), positives=int(references.sum())),
        )
        line = make_epoch(2, eval_accuracy_score=accuracy_of(counts), eval_f1_score=f1_of(counts))
        section = make_train(epochs=(line,))
        assert contradiction(make_record("train", data=(make_data("train"), data), train=section)) is None


@pytest.mark.parametrize(("metric", "best"), [("loss", 1), ("accuracy", 2), ("f1", 3)])
def test_the_best_step_is_that_of_the_metric_of_the_recipe(metric: Any, best: int) -> None:
    scores = ((0.1, 0.84, 0.84), (0.3, 0.86, 0.86), (0.2, 0.85, 2000 / 2300))  # the last finds every positive
    names = ("eval_loss", "eval_accuracy_score", "eval_f1_score")
    lines = tuple(make_epoch(at, **dict(zip(names, found, strict=True))) for at, found in enumerate(scores, 1))
    data = (make_data("train"), balanced_data())
    for step in (1, 2, 3):
        section = make_train(recipe=TrainRecipe(metric_for_best_model=metric), epochs=lines, best_step=115 * step)
        found = contradiction(make_record("train", train=section, data=data))
        assert (found is None) == (step == best), found
