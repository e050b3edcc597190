"""Compare records with a baseline or with limits: `mrpcbench compare [BASELINE] RECORD`.

It fails closed. An unreadable, unfinished or contradictory record is a `UsageError`. A forbidden difference makes the
comparison INCOMPARABLE. A metric that cannot be judged is INCONCLUSIVE.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrpcbench.environment.redaction import distinct_name
from mrpcbench.errors import UsageError
from mrpcbench.gates import policy as policies
from mrpcbench.gates.accuracy import ScoredPredictions, judge_evaluate
from mrpcbench.gates.comparability import COMPARED, SEVERAL, comparability
from mrpcbench.gates.export import judge_export
from mrpcbench.gates.limits import judge_limits
from mrpcbench.gates.metrics import METRICS, names_of
from mrpcbench.gates.policy import Policy
from mrpcbench.gates.seeds import judge_train
from mrpcbench.gates.stored_speed import judge_bench
from mrpcbench.records import store
from mrpcbench.records.figures import best_epoch
from mrpcbench.records.scores import confusion
from mrpcbench.schema.gate_requests import ComparePlan
from mrpcbench.schema.identity import Command, Placement
from mrpcbench.schema.records import AbRecord, BenchRecord, EvaluateRecord, ExportRecord, Record, TrainRecord
from mrpcbench.schema.verdicts import Compared, Comparison, MetricResult, overall


@dataclass(frozen=True)
class _Loaded:
    """A record and the file that it came from."""

    path: Path
    record: Record


def compare(baseline: Sequence[Path] | None, current: Sequence[Path], plan: ComparePlan) -> Comparison:
    """Compare the records of `current` with those of `baseline` and with the limits; a folder means all records in it.

    If `baseline` is None, only the limits are checked. A side is one record. For `train` either side may have several
    seeds; for `bench` the baseline may have several runs. Raises `UsageError` if a side or the policy is invalid, or
    if there is neither a baseline nor a limit. A regression is a verdict, not an error.
    """
    policy = policies.policy_of(plan)
    before = _side("baseline", baseline, several=SEVERAL) if baseline is not None else []
    after = _side("current side", current, several=("train",))
    command = (before or after)[0].record.command
    _check_options(plan, command, has_baseline=bool(before))
    limits = [limit for limit in (*policy.limits.min, *policy.limits.max) if METRICS[limit.metric].is_of(command)]
    if not before and not limits:
        raise UsageError(
            f"nothing to compare the record of {command} with: name a baseline before it, or set --min or --max"
        )
    paths = [item.path for item in (*before, *after)]
    names = {path: distinct_name(path, paths) for path in paths}
    named = [[(names[item.path], item.record) for item in side] for side in (before, after)]
    differences, warnings = comparability(*named) if before else ((), ())
    metrics: tuple[MetricResult, ...] = ()
    if not differences:
        metrics = (*(_judged(before, after, policy) if before else ()), *judge_limits(named[1], limits))
    return Comparison(
        kind=command,
        baseline=tuple(_compared(item, names) for item in before),
        current=tuple(_compared(item, names) for item in after),
        differences=differences,
        warnings=warnings,
        metrics=tuple(sorted(metrics, key=lambda metric: not metric.gated)),
        verdict=overall(differences, metrics),
    )


def _check_options(plan: ComparePlan, command: Command, *, has_baseline: bool) -> None:
    """Raise `UsageError` for an option that cannot apply to records of `command`."""
    for option, value, kind in (("--margin", plan.margin, "evaluate"), ("--max-slowdown", plan.max_slowdown, "bench")):
        if value is not None and command != kind:
            raise UsageError(f"{option}: only for records of {kind}; these are of {command}")
        if value is not None and not has_baseline:
            raise UsageError(f"{option}: needs a baseline; name it before the record")
    given = policies.option_limits(plan)
    for limit in (*given.min, *given.max):
        if limit.row is not None and command != "bench":
            raise UsageError(f"--{limit.side} {limit.row}: a record of {command} has no rows; name the metric alone")
        if not METRICS[limit.metric].is_of(command):
            known = ", ".join(names_of(command))
            raise UsageError(f"--{limit.side} {limit.metric}: a record of {command} has only {known}")


def _judged(before: Sequence[_Loaded], after: Sequence[_Loaded], policy: Policy) -> tuple[MetricResult, ...]:
    """The metrics of two comparable sides."""
    was, now = before[0].record, after[0].record
    if isinstance(now, BenchRecord):
        baseline = [item.record.bench for item in before if isinstance(item.record, BenchRecord)]
        return judge_bench(baseline, now.bench, policy)
    if isinstance(was, ExportRecord) and isinstance(now, ExportRecord):
        return judge_export(was.export, now.export)
    if isinstance(was, EvaluateRecord) and isinstance(now, EvaluateRecord):
        old, new = _with_predictions(before[0].path, was), _with_predictions(after[0].path, now)
        if old.labels != new.labels:
            raise UsageError(
                f"{after[0].path}: its labels differ from the baseline's, although data_sha256 is the same"
            )
        return judge_evaluate(old, new, policy)
    runs = [[item.record.train for item in side if isinstance(item.record, TrainRecord)] for side in (before, after)]
    return judge_train(runs[0], runs[1], policy)


def _compared(item: _Loaded, names: Mapping[Path, str]) -> Compared:
    record = item.record
    return Compared(
        name=names[item.path],
        started_at=record.environment.started_at,
        git_commit=record.environment.git_commit,
        model=f"{record.model.name} ({record.model.label})",
        model_sha256=record.model.model_sha256,
        engine=placement.description if (placement := _placement(record)) else None,
    )


def _placement(record: Record) -> Placement | None:
    """The placement of a record's model; None if each row or side has its own."""
    match record:
        case TrainRecord():
            return record.train.placement
        case EvaluateRecord():
            return record.evaluate.placement
        case ExportRecord():
            return record.export.placement
        case BenchRecord() | AbRecord():
            return None


# --- reading ----------------------------------------------------------------------------------------------------------


def _side(side: str, paths: Sequence[Path], *, several: Sequence[Command]) -> list[_Loaded]:
    """The records of one side: finished, of one command, and only one unless that command is among `several`."""
    found = [_Loaded(file, store.load(file)) for path in paths for file in _files(path)]
    if not found:
        raise UsageError(f"no record on the {side}; name a file, or a folder with records")
    kinds = sorted({item.record.command for item in found})
    named = ", ".join(str(path) for path in paths)
    if len(kinds) > 1:
        raise UsageError(f"{named}: records of {' and '.join(kinds)}; name records of one kind")
    if kinds[0] not in COMPARED:
        raise UsageError(
            f"{named}: a record of {kinds[0]} already has a verdict; name records of {', '.join(COMPARED)}"
        )
    if len(found) > 1 and kinds[0] not in several:
        raise UsageError(f"{named}: {len(found)} records of {kinds[0]} on the {side}; name one")
    for item in found:
        if problem := _problem(item.record):
            raise UsageError(f"{item.path}: {problem}")
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json"))
    if not files:
        raise UsageError(f"{path}: no records in this folder")
    return files


def _problem(record: Record) -> str | None:
    """Why `record` cannot be compared with any record; None if it can."""
    if not record.complete:
        advice = "finish it, or run it again" if isinstance(record, TrainRecord) else "run it again"
        return f"the run was not finished (complete: false); {advice}"
    if not record.data or any(item.pairs < 1 for item in record.data):
        return "it has no pairs"
    if isinstance(record, BenchRecord) and not record.bench.rows:
        return "it has no rows"
    if isinstance(record, BenchRecord) and len({row.id for row in record.bench.rows}) < len(record.bench.rows):
        return "it has two rows with the same name"
    if isinstance(record, TrainRecord) and best_epoch(record.train) is None:
        return f"no epoch ends at its best step, {record.train.best_step}"
    return None


def _with_predictions(file: Path, record: EvaluateRecord) -> ScoredPredictions:
    """The score and the predictions of the record in `file`; `UsageError` if the predictions are of another run."""
    section = record.evaluate
    path = file.parent / Path(section.predictions_file).name
    try:
        rows = store.load_jsonl(path, section.predictions_sha256)
    except UsageError as error:
        advice = "put the file next to the record, or run `mrpcbench evaluate` again"
        raise UsageError(f"{file} needs its predictions: {error}; {advice}") from None
    for index, row in enumerate(rows):
        if not _is_prediction(row, index):
            raise UsageError(f"{path}: line {index + 1} is not a valid prediction")
    labels, predictions = (tuple(row[name] for row in rows) for name in ("label", "prediction"))
    counted = {section.score.pairs, record.data[0].pairs, len(rows)}
    if len(counted) > 1 or confusion(np.asarray(predictions), np.asarray(labels)) != section.score.confusion:
        raise UsageError(f"{path}: its {len(rows)} predictions do not give the score in {file}")
    return ScoredPredictions(score=section.score, labels=labels, predictions=predictions)


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
