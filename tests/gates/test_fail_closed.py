"""Tests that the gates fail closed: tampered records and wrong answers, each with its expected outcome."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mrpcbench.backends.reading import resolve
from mrpcbench.backends.registry import open_session
from mrpcbench.backends.session import Session
from mrpcbench.commands.compare import compare
from mrpcbench.commands.evaluate import evaluate, prediction_rows
from mrpcbench.data import loading
from mrpcbench.data.batches import Batch, EncodedPairs, in_order
from mrpcbench.errors import UsageError
from mrpcbench.onnx_export.joined import joined_pairs
from mrpcbench.onnx_export.verification import Reference, verify
from mrpcbench.progress import Silent
from mrpcbench.records import store
from mrpcbench.records.scores import score
from mrpcbench.schema.gate_requests import ComparePlan
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan

# The outcome of a file that cannot be judged at all: `UsageError`, exit code 2.
REFUSED = "refused"


class Evaluated:
    """Two evaluate records of one model, and a copy of the second to tamper with."""

    def __init__(self, model: Path, pairs: Path, folder: Path) -> None:
        self.folder = folder
        self.baseline = folder / "baseline" / "evaluate.json"
        self.second = folder / "second" / "evaluate.json"
        spec, plan = BackendSpec(model=str(model), device="cpu"), EvaluatePlan(data=str(pairs))
        evaluate(spec, plan, self.baseline, Silent())
        self.record = evaluate(spec, plan, self.second, Silent())
        self.section = self.record.evaluate
        answers = store.load_jsonl(self.second.with_name(self.section.predictions_file), self.predictions_sha256)
        self.logits = np.array([row["logits"] for row in answers], np.float32)
        self.labels = np.array([row["label"] for row in answers])

    @property
    def predictions_sha256(self) -> str:
        return self.section.predictions_sha256

    def copied(self) -> Path:
        """A fresh copy of the second record and its predictions."""
        folder = self.folder / "current"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.second.parent, folder)
        return folder / "evaluate.json"

    def changed(self, **changes: Any) -> Path:
        """The record with other fields."""
        path = self.copied()
        store.save(replace(self.record, **changes), path)
        return path

    def edited(self, edit: Callable[[str], str], *, predictions: bool = False) -> Path:
        """The record, or its predictions, with other text."""
        path = self.copied()
        file = path.with_name(self.section.predictions_file) if predictions else path
        file.write_text(edit(file.read_text(encoding="utf-8")), encoding="utf-8")
        return path

    def with_wrong_answers(self, count: int) -> Path:
        """The record of a model that gets `count` of the correct answers wrong, and is otherwise the same."""
        logits = self.logits.copy()
        correct = np.flatnonzero(logits.argmax(axis=1) == self.labels)[:count]
        assert len(correct) == count
        logits[correct] = logits[correct, ::-1]
        path = self.copied()
        digest = store.write_jsonl(path.with_name(self.section.predictions_file), prediction_rows(logits, self.labels))
        section = replace(self.section, predictions_sha256=digest, score=score(logits, self.labels))
        store.save(replace(self.record, evaluate=section), path)
        return path


@pytest.fixture(scope="module")
def evaluated(tuned_model: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    return Evaluated(tuned_model, small_data, tmp_path_factory.mktemp("evaluated"))


def outcome(baseline: Path, current: Path, plan: ComparePlan) -> str:
    try:
        return compare([baseline], [current], plan).verdict.outcome
    except UsageError:
        return REFUSED


def with_nan(text: str) -> str:
    head, tail = text.split('"accuracy":', 1)
    return f'{head}"accuracy": NaN,{tail.split(",", 1)[1]}'


def tampered(made: Evaluated) -> Iterator[tuple[str, str, Path]]:
    """Each way to tamper with the current record: a name, the expected outcome, and the record."""
    other_pairs = replace(made.record.data[0], data_sha256="0" * 64)
    yield "nothing", "PASS", made.copied()
    yield "it is the baseline itself", "INCOMPARABLE", made.baseline
    yield "5 correct answers flipped", "REGRESSION", made.with_wrong_answers(5)
    yield "emptied", REFUSED, made.edited(lambda text: "")
    yield "cut in half", REFUSED, made.edited(lambda text: text[: len(text) // 2])
    yield "accuracy renamed", REFUSED, made.edited(lambda text: text.replace('"accuracy":', '"acc":', 1))
    yield "accuracy replaced by NaN", REFUSED, made.edited(with_nan)
    yield "marked as unfinished", REFUSED, made.changed(complete=False)
    yield (
        "a prediction added",
        REFUSED,
        made.edited(lambda text: text + text.splitlines(keepends=True)[-1], predictions=True),
    )
    yield "predictions emptied", REFUSED, made.edited(lambda text: "", predictions=True)
    yield "other pairs", "INCOMPARABLE", made.changed(data=(other_pairs,))


def test_compare_passes_an_unchanged_record_and_no_tampered_one(evaluated: Evaluated) -> None:
    found = [
        (name, expected, outcome(evaluated.baseline, path, ComparePlan()))
        for name, expected, path in tampered(evaluated)
    ]
    assert len(found) == 11
    assert [case for case in found if case[1] != case[2]] == []
    assert [name for name, _, said in found if said == "PASS"] == ["nothing"]


def test_a_baseline_that_does_not_exist_is_refused(evaluated: Evaluated) -> None:
    assert outcome(evaluated.baseline.with_name("none.json"), evaluated.copied(), ComparePlan()) == REFUSED


def test_a_policy_with_an_unknown_metric_is_refused(evaluated: Evaluated, tmp_path: Path) -> None:
    policy = tmp_path / "gate.toml"
    policy.write_text("[acuracy]\ngate = true\n", encoding="utf-8")
    assert outcome(evaluated.baseline, evaluated.copied(), ComparePlan(policy=str(policy))) == REFUSED


class Tampered:
    """A session that changes its logits of the pair `row`."""

    def __init__(self, inner: Any, row: int, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        self.inner, self.row, self.change = inner, row, change
        self.placement, self.model = inner.placement, inner.model

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        logits = np.array(self.inner.infer(batch))
        for line in np.flatnonzero(batch.rows == self.row):
            logits[line] = self.change(logits[line])
        return logits

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        return map(self.infer, batches)


def answers(session: Session, tokens: EncodedPairs) -> Reference:
    cut = tokens.batches(1)
    return Reference(tokens, in_order(list(session.infer_many(cut)), cut))


def test_the_export_gate_passes_equal_answers_but_neither_a_flip_nor_a_nan(tuned_model: Path, small_data: Path) -> None:
    spec = BackendSpec(model=str(tuned_model), device="cpu")
    pairs = loading.split_of(loading.load(str(small_data)), str(small_data), "validation")
    reader, session = resolve(spec).reader, open_session(spec)
    tokens = reader.encode(pairs)
    split, long = (answers(session, encoded) for encoded in (tokens, joined_pairs(reader, pairs, tokens)))
    verdicts = {
        name: verify(Tampered(session, len(pairs) // 2, change), split, long, "fp32", Silent()).verdict.outcome  # type: ignore[arg-type]
        for name, change in (
            ("equal", lambda logits: logits),
            ("one label flips", lambda logits: logits[::-1]),
            ("one logit is NaN", lambda logits: logits * np.float32("nan")),
        )
    }
    session.close()
    assert verdicts == {"equal": "PASS", "one label flips": "REGRESSION", "one logit is NaN": "REGRESSION"}
