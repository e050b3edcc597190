"""Save reference records as plain files: `mrpcbench baseline set`.

A baseline is a folder with one record, or several train or bench records, and their predictions. It holds nothing else,
so `mrpcbench compare` reads it like any folder.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrpcbench.environment.staging import restore
from mrpcbench.errors import UsageError
from mrpcbench.gates.comparability import BASELINE_NAME, COMPARED, SEVERAL, comparability
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.records.figures import best_epoch, best_load
from mrpcbench.records.outputs import predictions_of
from mrpcbench.records.scores import predictions_in
from mrpcbench.schema.gate_requests import BaselineFolder, BaselineRequest
from mrpcbench.schema.identity import SavedBaseline
from mrpcbench.schema.records import BenchRecord, EvaluateRecord, ExportRecord, Record, TrainRecord

PREDICTIONS = ".predictions.jsonl"


@dataclass(frozen=True)
class _Candidate:
    """A record to save: its path, the bytes of its file, and the bytes of its predictions."""

    path: Path
    content: bytes
    record: Record
    predictions: bytes | None


def set_baseline(
    name: str, paths: Sequence[Path], location: BaselineFolder, request: BaselineRequest, observer: Observer
) -> SavedBaseline:
    """Copy the records in `paths`, with their predictions, to the baseline `name`: all of them, or none.

    Raises `UsageError` for an invalid name, an existing baseline, or a record that cannot be a reference. A reference
    must be complete and have a result. An export must have passed its gate, and an evaluation needs its predictions.
    """
    folder = _folder(name, location)
    if not paths:
        raise UsageError("no record given; name the files to save in the baseline")
    restore(folder)
    _check_folder(folder, request)
    candidates = [_candidate(path, observer) for path in paths]
    _check_together(candidates)
    store.replace_folder(folder, lambda staged: _write(candidates, staged))
    files = tuple(sorted(path.name for path in folder.glob("*.json")))
    return SavedBaseline(name=name, command=candidates[0].record.command, files=files)


# --- name and folder --------------------------------------------------------------------------------------------------


def _folder(name: str, location: BaselineFolder) -> Path:
    if not BASELINE_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r}: not a valid baseline name; use a-z, 0-9, '.', '_' and '-', and begin with a letter or digit"
        )
    return Path(location.folder, name)


def _check_folder(folder: Path, request: BaselineRequest) -> None:
    """Raise `UsageError` for an existing folder; with --overwrite, only if it holds anything but a baseline."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not request.overwrite:
        raise UsageError(f"{folder} exists; use another name, or replace it with --overwrite")
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"{folder}: a link or a file, so not a baseline; --overwrite does not remove it")
    foreign = [path.name for path in sorted(folder.iterdir()) if not _is_baseline_file(path)]
    if foreign:
        raise UsageError(f"{folder} holds {foreign[0]}, so it is not a baseline; --overwrite does not remove it")


def _is_baseline_file(path: Path) -> bool:
    """Whether a file belongs in a baseline: predictions, or a record of any schema version."""
    if not path.is_file() or path.is_symlink():
        return False
    if path.name.endswith(PREDICTIONS):
        return True
    try:
        document = store.load_json(path) if path.suffix == ".json" else None
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"schema_version", "command", "environment"} <= set(document)


# --- validation -------------------------------------------------------------------------------------------------------


def _candidate(path: Path, observer: Observer) -> _Candidate:
    record = store.load(path)
    if record.command not in COMPARED:
        raise UsageError(f"{path}: a record of {record.command}; a baseline holds records of {', '.join(COMPARED)}")
    if not record.complete:
        raise UsageError(f"{path}: not complete; run the command again")
    gate = record.export.gate if isinstance(record, ExportRecord) else None
    if isinstance(record, ExportRecord) and (gate is None or gate.verdict.outcome != "PASS"):
        why = gate.verdict.reason if gate else "the gate did not run"
        raise UsageError(f"{path}: this export did not pass its gate ({why}); save one that did")
    if not _has_result(record):
        raise UsageError(f"{path}: has no result to compare; run the command again")
    for warning in _warnings(record):
        observer.warn(f"{path}: {warning}")
    predictions = None
    if isinstance(record, EvaluateRecord):
        predictions = _predictions(path, record).read_bytes()
    return _Candidate(path, path.read_bytes(), record, predictions)


def _has_result(record: Record) -> bool:
    """Whether a complete record has a result to compare: a best epoch for train, a timed row for bench."""
    if isinstance(record, TrainRecord):
        return best_epoch(record.train) is not None
    if isinstance(record, BenchRecord):
        return any(row.samples_ms or best_load(row) for row in record.bench.rows)
    return True


def _warnings(record: Record) -> Iterator[str]:
    rows = record.bench.rows if isinstance(record, BenchRecord) else ()
    invalid = [row for row in rows if row.broken_rules]
    if invalid:
        broken = (invalid[0].broken_rules or ("",))[0]
        yield f"{len(invalid)} of {len(rows)} rows INVALID; the first: {broken}"
    if record.model.proven is False or any(row.model.proven is False for row in rows):
        yield "it has an UNVERIFIED graph"


def _predictions(path: Path, record: EvaluateRecord) -> Path:
    """The predictions file of the record in `path`; raises `UsageError` if it is absent, or does not give its score."""
    section = record.evaluate
    name = section.predictions_file
    if Path(name).name != name or not name.endswith(PREDICTIONS):
        raise UsageError(f"{path}: predictions_file is {name!r}; it must be *{PREDICTIONS}, in the record's folder")
    predictions = predictions_of(record, path)
    if not predictions.is_file():
        raise UsageError(f"{predictions}: no such file; {path.name} needs it, so copy it next to the record")
    try:
        predictions_in(store.load_jsonl(predictions, section.predictions_sha256), record, path)
    except ValueError as error:
        raise UsageError(f"{predictions}: {error}") from None
    return predictions


def _check_together(candidates: Sequence[_Candidate]) -> None:
    """Raise `UsageError` for a set of records that `compare` would reject as a baseline.

    They must be of one command; only train and bench allow several; and no run may occur twice. Studies may stand
    beside records of train or evaluate, of which they show the noise.
    """
    commands = sorted({item.record.command for item in candidates})
    runs = [item for item in candidates if item.record.command != "study"]
    if runs and runs[0].record.command in ("train", "evaluate"):
        commands = [command for command in commands if command != "study"]
    if len(commands) > 1:
        raise UsageError(f"records of {' and '.join(commands)}; a baseline holds records of one command")
    if len(runs) > 1 and commands[0] not in SEVERAL:
        raise UsageError(f"{len(runs)} records of {commands[0]}; a baseline holds one, so make a baseline for each")
    seen: dict[str, Path] = {}
    for item in candidates:
        content = hashlib.sha256(item.content).hexdigest()
        if content in seen:
            raise UsageError(f"{item.path}: the same record as {seen[content]}; name it once")
        seen[content] = item.path
    named = [(str(item.path), item.record) for item in candidates]
    if commands == ["bench"] and len(named) > 1 and (differences := comparability(named[:-1], named[-1:])[0]):
        raise UsageError(f"the records cannot be compared with one another: {'; '.join(differences)}")


# --- files ------------------------------------------------------------------------------------------------------------


def _write(candidates: Sequence[_Candidate], staged: Path) -> None:
    """Write the bytes of each record; if a file name occurs twice, the later file gets a number."""
    for item in candidates:
        path, count = staged / item.path.name, 1
        while path.exists():
            count += 1
            path = staged / f"{item.path.stem}-{count}.json"
        path.write_bytes(item.content)
        if isinstance(item.record, EvaluateRecord) and item.predictions is not None:
            (staged / item.record.evaluate.predictions_file).write_bytes(item.predictions)
