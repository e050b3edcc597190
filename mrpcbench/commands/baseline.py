"""Reference records, kept as plain files: `mrpcbench baseline set`.

A baseline is a folder with one record, or several of train or bench, and their predictions. It holds nothing else, so
that `mrpcbench compare` reads it as it reads any folder.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrpcbench.errors import UsageError
from mrpcbench.gates.comparability import COMPARED, SEVERAL, comparability
from mrpcbench.gates.seeds import best_epoch
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.records.figures import best_load
from mrpcbench.schema.gate_requests import BaselineFolder, BaselineRequest
from mrpcbench.schema.identity import SavedBaseline
from mrpcbench.schema.records import BenchRecord, EvaluateRecord, ExportRecord, Record, TrainRecord
from mrpcbench.schema.results import EvaluateSection

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
PREDICTIONS = ".predictions.jsonl"


@dataclass(frozen=True)
class _Chosen:
    """A record that may be kept: its file and that file's bytes, and those of its predictions."""

    path: Path
    content: bytes
    record: Record
    predictions: bytes | None


def set_baseline(
    name: str, paths: Sequence[Path], kept_in: BaselineFolder, request: BaselineRequest, observer: Observer
) -> SavedBaseline:
    """Copy the records in `paths`, with their predictions, to the baseline `name`, all or none of them.

    Raises `UsageError` for an invalid name, a baseline that exists already, and a record that cannot be a reference:
    not complete, of a graph that failed its own gate, without a result, or without its predictions.
    """
    folder = _folder(name, kept_in)
    if not paths:
        raise UsageError("no record given; name the files that the baseline is to hold")
    _check_place(folder, request)
    chosen = [_choose(path, observer) for path in paths]
    _check_together(chosen)
    store.replace_folder(folder, lambda staged: _write(chosen, staged))
    files = tuple(sorted(path.name for path in folder.glob("*.json")))
    return SavedBaseline(name=name, command=chosen[0].record.command, files=files)


# --- names and places -------------------------------------------------------------------------------------------------


def _folder(name: str, kept_in: BaselineFolder) -> Path:
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r}: not a name for a baseline; take a-z, 0-9, '.', '_' and '-', first a letter or digit"
        )
    return Path(kept_in.folder, name)


def _check_place(folder: Path, request: BaselineRequest) -> None:
    """Refuse a folder that is there, and even with --overwrite one that holds what no baseline does."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not request.overwrite:
        raise UsageError(f"{folder} exists; take another name, or replace it with --overwrite")
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"{folder}: not a folder of its own, and so no baseline; --overwrite does not remove it")
    strange = [path.name for path in sorted(folder.iterdir()) if not _belongs(path)]
    if strange:
        raise UsageError(f"{folder} holds {strange[0]}, and so is no baseline; --overwrite does not remove it")


def _belongs(path: Path) -> bool:
    """Whether a file is what a baseline holds: predictions, or a record, be it of another version."""
    if not path.is_file() or path.is_symlink():
        return False
    if path.name.endswith(PREDICTIONS):
        return True
    try:
        document = store.load_json(path) if path.suffix == ".json" else None
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and {"schema_version", "command", "environment"} <= set(document)


# --- choosing ---------------------------------------------------------------------------------------------------------


def _choose(path: Path, observer: Observer) -> _Chosen:
    record = store.load(path)
    if record.command not in COMPARED:
        raise UsageError(f"{path}: a record of {record.command}; a baseline takes those of {', '.join(COMPARED)}")
    if not record.complete:
        raise UsageError(f"{path}: not complete; run the command again")
    gate = record.export.gate if isinstance(record, ExportRecord) else None
    if isinstance(record, ExportRecord) and (gate is None or gate.verdict.outcome != "PASS"):
        why = gate.verdict.reason if gate else "it was not judged"
        raise UsageError(f"{path}: this export did not pass its own gate ({why}); export a graph that does")
    if not _has_result(record):
        raise UsageError(f"{path}: holds no figure to compare with; run the command again")
    for warning in _warnings(record):
        observer.warn(f"{path}: {warning}")
    predictions = None
    if isinstance(record, EvaluateRecord):
        predictions = _predictions(path, record.evaluate).read_bytes()
    return _Chosen(path, path.read_bytes(), record, predictions)


def _has_result(record: Record) -> bool:
    """Whether a complete record has anything to compare: a best epoch of train, a timed row of bench."""
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
        yield f"{len(invalid)} of {len(rows)} rows INVALID, the first: {broken}"
    if record.model.proven is False or any(row.model.proven is False for row in rows):
        yield "a graph in it is UNPROVEN"


def _predictions(path: Path, section: EvaluateSection) -> Path:
    """The predictions of the record in `path`; `UsageError` where they are absent or those of another run."""
    name = section.predictions_file
    if Path(name).name != name or not name.endswith(PREDICTIONS):
        raise UsageError(f"{path}: names its predictions {name!r}, and not *{PREDICTIONS} in its own folder")
    predictions = path.parent / name
    if not predictions.is_file():
        raise UsageError(f"{predictions}: no such file, and {path.name} needs it; copy it next to the record")
    store.load_jsonl(predictions, section.predictions_sha256)
    return predictions


def _check_together(chosen: Sequence[_Chosen]) -> None:
    """Refuse what `compare` would: records of several commands, several of a kind that has one, and one run twice."""
    commands = sorted({item.record.command for item in chosen})
    if len(commands) > 1:
        raise UsageError(f"records of {' and '.join(commands)}; a baseline holds those of one command")
    if len(chosen) > 1 and commands[0] not in SEVERAL:
        raise UsageError(f"{len(chosen)} records of {commands[0]}; a baseline holds one, so give each its own name")
    seen: dict[str, Path] = {}
    for item in chosen:
        content = hashlib.sha256(item.content).hexdigest()
        if content in seen:
            raise UsageError(f"{item.path}: the same record as {seen[content]}; give each once")
        seen[content] = item.path
    named = [(str(item.path), item.record) for item in chosen]
    if commands == ["bench"] and len(named) > 1 and (differences := comparability(named[:-1], named[-1:])[0]):
        raise UsageError(f"the records cannot be compared with one another: {'; '.join(differences)}")


# --- files ------------------------------------------------------------------------------------------------------------


def _write(chosen: Sequence[_Chosen], staged: Path) -> None:
    """Write each record byte for byte; of two files with one name, from two folders, the later gets a number."""
    for item in chosen:
        path, count = staged / item.path.name, 1
        while path.exists():
            count += 1
            path = staged / f"{item.path.stem}-{count}.json"
        path.write_bytes(item.content)
        if isinstance(item.record, EvaluateRecord) and item.predictions is not None:
            (staged / item.record.evaluate.predictions_file).write_bytes(item.predictions)
