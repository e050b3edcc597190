"""What a gate must not let pass, done to a real record and a real graph: each case with what must come of it."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrpcbench import data, store
from mrpcbench.backends import open_session
from mrpcbench.backends.base import Session
from mrpcbench.batches import Batch, EncodedPairs, in_order
from mrpcbench.compare import compare
from mrpcbench.errors import MrpcbenchError
from mrpcbench.evaluate import evaluate, prediction_rows
from mrpcbench.hypothesis import losses_that_fail
from mrpcbench.metrics import score
from mrpcbench.parity import prove
from mrpcbench.plans import BackendSpec, ComparePlan, EvaluatePlan, SelftestPlan
from mrpcbench.progress import Observer, Silent
from mrpcbench.reading import reader_for
from mrpcbench.schema import ClosedCase
from mrpcbench.verdicts import EXIT_STATUS, Outcome, Verdict

# What a usage error comes to: nothing was judged.
REFUSED = "refused"


def closed_cases(spec: BackendSpec, plan: SelftestPlan, observer: Observer) -> tuple[ClosedCase, ...]:
    """Every case, on the model of `spec` and the pairs of `plan`."""
    with tempfile.TemporaryDirectory(prefix="mrpcbench-") as name:
        return (*_comparisons(Bench(spec, plan, Path(name)), observer), *_proofs(spec, plan, observer))


# --- comparing records ------------------------------------------------------------------------------------------------


class Bench:
    """The record of a run as the baseline, and copies of that of a second run to do things to."""

    def __init__(self, spec: BackendSpec, plan: SelftestPlan, folder: Path) -> None:
        self.baseline = folder / "baseline" / "evaluate.json"
        self._second, self._current = (folder / name / "evaluate.json" for name in ("second", "current"))
        asked = EvaluatePlan(data=plan.data, split=plan.split)
        evaluate(spec, asked, self.baseline, Silent())
        self.record = evaluate(spec, asked, self._second, Silent())
        assert self.record.evaluate is not None
        section = self.record.evaluate
        answers = store.load_jsonl(self._second.with_name(section.predictions_file), section.predictions_sha256)
        self.logits = np.array([row["logits"] for row in answers])
        self.labels = np.array([row["label"] for row in answers])

    def copy(self) -> Path:
        """A fresh copy of the second record with its predictions."""
        shutil.rmtree(self._current.parent, ignore_errors=True)
        shutil.copytree(self._second.parent, self._current.parent)
        return self._current

    def with_answers(self, logits: NDArray[np.float64]) -> Path:
        """A record of a model that answers with `logits` [N, 2]."""
        path, section = self.copy(), self.record.evaluate
        assert section is not None
        written = store.write_jsonl(
            path.with_name(section.predictions_file), prediction_rows(logits.astype(np.float32), self.labels)
        )
        changed = replace(section, predictions_sha256=written, score=score(logits.astype(np.float32), self.labels))
        store.save(replace(self.record, evaluate=changed), path)
        return path

    def changed(self, **changes: object) -> Path:
        """A copy of the record with other fields."""
        path = self.copy()
        store.save(replace(self.record, **changes), path)  # type: ignore[arg-type]
        return path

    def rewritten(self, change: Callable[[str], str], *, predictions: bool = False) -> Path:
        """A copy of which one file's text has been changed, behind the back of whoever wrote it."""
        path, section = self.copy(), self.record.evaluate
        assert section is not None
        file = path.with_name(section.predictions_file) if predictions else path
        file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
        return path


def _comparisons(made: Bench, observer: Observer) -> Iterator[ClosedCase]:
    same = ComparePlan()
    for name, expected, current in _currents(made):
        case = _compared(name, expected, made.baseline, current, same)
        observer.say(f"{'holds' if case.holds else 'FAILS'}: {case.name}: {case.outcome}")
        yield case
    missing = made.baseline.with_name("none.json")
    yield _compared("a baseline that is not there", REFUSED, missing, made.copy(), same)
    policy = made.baseline.parent / "gate.toml"
    policy.write_text("[acuracy]\ngate = true\n", encoding="utf-8")
    wish = ComparePlan(policy=str(policy))
    yield _compared("a policy with a metric that nobody knows", REFUSED, made.baseline, made.copy(), wish)


def _currents(made: Bench) -> Iterator[tuple[str, str, Path]]:
    """Name, expected outcome and record of each case."""
    yield "the same answers of another run (must pass)", "PASS", made.copy()
    yield "the baseline itself", "INCOMPARABLE", made.baseline
    right = np.flatnonzero(made.logits.argmax(axis=1) == made.labels)
    losses = losses_that_fail(0, len(made.labels))
    if losses is not None and losses <= len(right):
        flipped = made.logits.copy()
        flipped[right[:losses]] = flipped[right[:losses], ::-1]
        yield f"{losses} right answers of {len(made.labels)} turned wrong", "REGRESSION", made.with_answers(flipped)
    yield "an empty record", REFUSED, made.rewritten(lambda text: "")
    yield "half a record", REFUSED, made.rewritten(lambda text: text[: len(text) // 2])
    yield (
        "a record without its accuracy",
        REFUSED,
        made.rewritten(lambda text: text.replace('"accuracy":', '"acc":', 1)),
    )
    yield "a NaN in place of the accuracy", REFUSED, made.rewritten(_nan_accuracy)
    yield "a record that was not finished", REFUSED, made.changed(complete=False)
    yield (
        "predictions that are not those of the record",
        REFUSED,
        made.rewritten(lambda text: text + text.splitlines(keepends=True)[-1], predictions=True),
    )
    yield "no predictions", REFUSED, made.rewritten(lambda text: "", predictions=True)
    other = replace(made.record.data[0], data_sha256="0" * 64)
    yield "a stale baseline, of other pairs than now", "INCOMPARABLE", made.changed(data=(other,))


def _nan_accuracy(text: str) -> str:
    head, tail = text.split('"accuracy":', 1)
    return f'{head}"accuracy": NaN,{tail.split(",", 1)[1]}'


def _compared(name: str, expected: str, baseline: Path, current: Path, plan: ComparePlan) -> ClosedCase:
    try:
        verdict = compare([baseline], [current], plan).verdict
    except MrpcbenchError as error:
        said = str(error).replace(str(baseline.parent.parent) + "/", "")
        return ClosedCase(
            name=name, expected=expected, outcome=said, exit_code=int(error.status), holds=expected == REFUSED
        )
    return _judged(name, expected, verdict)


def _judged(name: str, expected: str, verdict: Verdict) -> ClosedCase:
    return ClosedCase(
        name=name,
        expected=expected,
        outcome=f"{verdict.outcome}: {verdict.reason}",
        exit_code=int(EXIT_STATUS[verdict.outcome]),
        holds=verdict.outcome == expected,
    )


# --- proving a graph --------------------------------------------------------------------------------------------------


Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Doctored(Session):
    """A session one of whose answers is changed: that to the pair `row`, by `change`."""

    def __init__(self, inner: Session, row: int, change: Change) -> None:
        self.inner, self.row, self.change = inner, row, change
        self.placement, self.model = inner.placement, inner.model

    def copy_in(self, batch: Batch) -> tuple[Batch, object]:
        """The inputs, and whose they are."""
        return batch, self.inner.copy_in(batch)

    def compute(self, inputs: tuple[Batch, object]) -> tuple[Batch, object]:
        """As the engine does."""
        return inputs[0], self.inner.compute(inputs[1])

    def copy_out(self, outputs: tuple[Batch, object]) -> NDArray[np.float32]:
        """The logits [B, 2], with the one changed."""
        logits = self.inner.copy_out(outputs[1]).copy()
        for line in np.flatnonzero(outputs[0].rows == self.row):
            logits[line] = self.change(logits[line])
        return logits


def _proofs(spec: BackendSpec, plan: SelftestPlan, observer: Observer) -> Iterator[ClosedCase]:
    """The export gate, which holds a session's answers against those that it gave before."""
    pairs = data.split_of(data.load(plan.data), plan.data, plan.split)
    tokens = reader_for(spec).encode(pairs)
    session = open_session(spec)
    expected = _logits(session, tokens)
    changes: tuple[tuple[str, Outcome, Change], ...] = (
        ("the export gate: the same answers (must pass)", "PASS", lambda logits: logits),
        (f"the export gate: one label of {len(pairs)} flips", "REGRESSION", lambda logits: logits[::-1]),
        ("the export gate: one logit is NaN", "REGRESSION", lambda logits: logits * np.float32("nan")),
    )
    for name, outcome, change in changes:
        verdict = prove(Doctored(session, len(pairs) // 2, change), tokens, expected, "fp32", Silent()).verdict
        yield _judged(name, outcome, verdict)
    session.close()
    observer.say("the export gate was tried")


def _logits(session: Session, tokens: EncodedPairs) -> NDArray[np.float32]:
    cut = tokens.batches(32)
    return in_order(list(session.infer_many(cut)), cut)
