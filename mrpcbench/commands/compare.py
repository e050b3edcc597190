"""Compare records with a baseline or with limits: `mrpcbench compare [BASELINE] RECORD`.

It fails closed. An unreadable, unfinished or contradictory record is a `UsageError`. A forbidden difference makes the
comparison INCOMPARABLE. A metric that cannot be judged is INCONCLUSIVE.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mrpcbench.environment.redaction import distinct_name
from mrpcbench.errors import UsageError
from mrpcbench.gates import policy as policies
from mrpcbench.gates.accuracy import ScoredPredictions, judge_evaluate
from mrpcbench.gates.comparability import BASELINE_NAME, COMPARED, SEVERAL, comparability, compared_of
from mrpcbench.gates.export import judge_export
from mrpcbench.gates.limits import judge_limits
from mrpcbench.gates.metrics import METRICS, names_of
from mrpcbench.gates.policy import Policy
from mrpcbench.gates.seeds import judge_train, noise_notes
from mrpcbench.gates.stored_speed import judge_bench
from mrpcbench.records import store
from mrpcbench.records.figures import best_epoch
from mrpcbench.records.outputs import predictions_of
from mrpcbench.records.scores import predictions_in
from mrpcbench.schema.gate_requests import BaselineFolder, ComparePlan
from mrpcbench.schema.identity import Command
from mrpcbench.schema.records import BenchRecord, EvaluateRecord, ExportRecord, Record, StudyRecord, TrainRecord
from mrpcbench.schema.verdicts import Comparison, MetricResult, Verdict, overall

# The record of a trial, in its folder of a study.
TRIAL_FILE = "mrpcbench-train.json"
DEFAULT_BASELINE = Path(BaselineFolder().folder, "main")


@dataclass(frozen=True)
class _Loaded:
    """A record and the file that it came from."""

    path: Path
    record: Record


def compare(baseline: Sequence[Path] | None, current: Sequence[Path], plan: ComparePlan) -> Comparison:
    """Compare the records of `current` with those of `baseline` and with the limits; a folder means all records in it.

    A baseline may be named as `baseline set` has saved it. If `baseline` is None, only the limits are checked; also if
    it does not exist and the plan allows that. A side is one record. For `train` either side may have several seeds;
    for `bench` the baseline may have several runs. Raises `UsageError` if a side or the policy is invalid, or if there
    is neither a baseline nor a limit. A regression is a verdict, not an error.
    """
    policy = policies.policy_of(plan)
    baseline = [_located(path) for path in baseline] if baseline is not None else None
    missing = baseline[0] if baseline and all(map(_is_missing, baseline)) else None
    if missing and not plan.allow_missing_baseline:
        raise UsageError(
            f"{missing}: no such baseline; --allow-missing-baseline goes on without it; to create it: "
            f"{_creation(missing, current)}"
        )
    before, studies = _side("baseline", baseline, several=SEVERAL) if baseline is not None and not missing else ([], [])
    after, _ = _side("current side", current, several=("train",))
    command = (before or after)[0].record.command
    _check_options(plan, command, has_baseline=baseline is not None)
    limits = [limit for limit in (*policy.limits.min, *policy.limits.max) if METRICS[limit.metric].is_of(command)]
    if baseline is None and not limits:
        raise UsageError(
            f"nothing to compare the record of {command} with: name a baseline before it, or set --min or --max; "
            f"{_creation(DEFAULT_BASELINE, current)} creates {DEFAULT_BASELINE}"
        )
    paths = [item.path for item in (*before, *after)]
    names = {path: distinct_name(path, paths) for path in paths}
    named = [[(names[item.path], item.record) for item in side] for side in (before, after)]
    differences, warnings = comparability(*named) if before else ((), ())
    metrics: tuple[MetricResult, ...] = ()
    if not differences:
        metrics = (*(_judged(before, after, policy) if before else ()), *judge_limits(named[1], limits))
    if missing:
        warnings = (f"{missing}: no such baseline, so nothing was compared with it",)
    return Comparison(
        kind=command,
        baseline=tuple(compared_of(item.record, names[item.path]) for item in before),
        current=tuple(compared_of(item.record, names[item.path]) for item in after),
        differences=differences,
        warnings=warnings,
        notes=_notes(studies, before, after),
        metrics=tuple(sorted(metrics, key=lambda metric: not metric.gated)),
        missing_baseline=missing is not None,
        verdict=_with_creation(missing, current, overall(differences, metrics), has_limits=bool(limits)),
    )


def _notes(studies: Sequence[_Loaded], before: Sequence[_Loaded], after: Sequence[_Loaded]) -> tuple[str, ...]:
    """What the `studies` of the baseline say about a single run."""
    run = after[0].record
    if len(after) > 1 or not isinstance(run, TrainRecord | EvaluateRecord):
        return ()
    hashes = [item.record.model.model_sha256 for item in (*before, *after)]
    return tuple(
        line
        for item in studies
        if isinstance(item.record, StudyRecord)
        for line in noise_notes(item.record, item.path.name, run, hashes)
    )


def _located(baseline: Path) -> Path:
    """`baseline` if it exists or is no name, else the folder of the baseline that is saved by that name."""
    is_name = not baseline.exists() and BASELINE_NAME.fullmatch(str(baseline)) and baseline.suffix != ".json"
    return DEFAULT_BASELINE.with_name(str(baseline)) if is_name else baseline


def _is_missing(path: Path) -> bool:
    """Whether a baseline is absent, or an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _creation(baseline: Path, current: Sequence[Path]) -> str:
    """The command that makes a baseline of the records of `current`; at `baseline`, if that can be a baseline."""
    if baseline.suffix == ".json" or not BASELINE_NAME.fullmatch(baseline.name):
        baseline = DEFAULT_BASELINE
    files = " ".join(f"{quote(str(path))}/*.json" if path.is_dir() else quote(str(path)) for path in current)
    folder = "" if baseline.parent == DEFAULT_BASELINE.parent else f" --folder {quote(str(baseline.parent))}"
    return f"`mrpcbench baseline set {baseline.name} {files}{folder}`"


def _with_creation(missing: Path | None, current: Sequence[Path], verdict: Verdict, *, has_limits: bool) -> Verdict:
    """`verdict`, whose reason ends with the command that makes the `missing` baseline; PASS if there is no limit."""
    if missing is None:
        return verdict
    outcome, reason = (verdict.outcome, verdict.reason) if has_limits else ("PASS", "nothing was compared")
    return Verdict(outcome=outcome, reason=f"{reason}; to create the baseline: {_creation(missing, current)}")


def _check_options(plan: ComparePlan, command: Command, *, has_baseline: bool) -> None:
    """Raise `UsageError` for an option that cannot apply to records of `command`."""
    if plan.allow_missing_baseline and not has_baseline:
        raise UsageError("--allow-missing-baseline: name the baseline before the record")
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


# --- reading ----------------------------------------------------------------------------------------------------------


def _side(side: str, paths: Sequence[Path], *, several: Sequence[Command]) -> tuple[list[_Loaded], list[_Loaded]]:
    """The records of one side: finished, of one command, and only one unless that command is among `several`.

    A study is its train records; beside records of a run, it only says what its seeds show, and comes second.
    """
    found = [_Loaded(file, store.load(file)) for path in paths for file in _files(path)]
    studies = [item for item in found if isinstance(item.record, StudyRecord)]
    for item in studies:
        if problem := _problem(item.record):
            raise UsageError(f"{item.path}: {problem}")
    others = [item for item in found if not isinstance(item.record, StudyRecord)]
    if not others:
        found = [trial for item in studies for trial in _trials(item)]
    elif others[0].record.command in ("train", "evaluate"):
        found = others
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
    return found, studies


def _trials(item: _Loaded) -> list[_Loaded]:
    """The train records of a study of one setting; `UsageError` for several settings."""
    assert isinstance(item.record, StudyRecord)
    settings = item.record.study.settings
    if len(settings) > 1:
        names = ", ".join(str(item.path.parent / setting.name) for setting in settings)
        raise UsageError(f"{item.path}: a study of {len(settings)} settings; name the folder of one: {names}")
    trials = [(trial.folder, trial.record) for setting in settings for trial in setting.trials]
    return [_Loaded(item.path.parent / folder / TRIAL_FILE, record) for folder, record in trials if record]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json")) or sorted(path.glob(f"seed-*/{TRIAL_FILE}"))
    if not files:
        raise UsageError(f"{path}: no records in this folder")
    return files


def _problem(record: Record) -> str | None:
    """Why `record` cannot be compared with any record; None if it can."""
    if not record.complete:
        resumable = isinstance(record, TrainRecord | StudyRecord)
        advice = "finish it, or run it again" if resumable else "run it again"
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
    path = predictions_of(record, file)
    try:
        rows = store.load_jsonl(path, section.predictions_sha256)
    except UsageError as error:
        advice = "put the file next to the record, or run `mrpcbench evaluate` again"
        raise UsageError(f"{file} needs its predictions: {error}; {advice}") from None
    try:
        found = predictions_in(rows, record, file)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    return ScoredPredictions(score=section.score, labels=found.labels, predictions=found.predictions)
