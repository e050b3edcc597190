"""Output files: checks that they can be written and replace nothing else; a record with its predictions."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mrpcbench.environment.staging import END, locked, staged_file
from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.records.documents import read_json
from mrpcbench.records.store import write_text
from mrpcbench.schema.records import EvaluateRecord

# So many bytes tell what a file is.
HEAD = 400


@dataclass(frozen=True)
class Form:
    """A kind of file that a command writes: what an error calls it, and whether an existing file is one."""

    name: str
    is_form: Callable[[Path], bool]


def record_of(command: str) -> Form:
    """The form of a record of `command`."""
    return Form(f"a record of {command}", lambda path: _command_of(path) == command)


def _command_of(path: Path) -> object:
    try:
        document = read_json(path)
    except UsageError:
        return None
    return document.get("command") if isinstance(document, dict) and "schema_version" in document else None


def _begins(name: str, pattern: bytes) -> Form:
    return Form(name, lambda path: re.match(pattern, _head(path)) is not None)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


MARKDOWN = _begins("a verdict in Markdown", rb"## [A-Z]+ \(exit code \d+\): ")
JUNIT = _begins("a verdict in JUnit XML", rb"<\?xml [^>]*>\s*<testsuite name=\"mrpcbench ")
TRACE = _begins("a trace", rb'{"displayTimeUnit":"ms","traceEvents":')
CSV = _begins("a table of `report`", rb"record(,row,case,|\n$)")
PAGE = _begins("a page of `report`", rb"(?s)<!doctype html>.*<title>mrpcbench report: ")
PREDICTIONS = _begins("predictions of `evaluate`", rb'{"index": 0, "label": [01], "logits": \[')


def check_writable(option: str, path: str | Path | None) -> None:
    """Raise `UsageError` unless a file or folder `path` can be made or replaced; None needs nothing. Writes nothing."""
    if path is None:
        return
    wanted = Path(path)
    above = wanted if wanted.is_dir() else _existing(wanted.absolute().parent)
    if not above.is_dir():
        raise UsageError(f"{option} {wanted}: {above} is a file; name another path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {wanted}: no permission to write in {above}; name another path")


def check_file(option: str, path: str | Path | None, form: Form) -> None:
    """Raise `UsageError` unless a file `path` of `form` can be made, or replaces another of that form or an empty file.

    None needs nothing. Writes nothing.
    """
    if path is None:
        return
    wanted = Path(path)
    try:
        exists = wanted.exists()
    except OSError as error:  # such as a name that is too long
        raise UsageError(f"{option} {path}: cannot be written ({error.strerror}); name another path") from None
    if wanted.is_dir():
        raise UsageError(f"{option} {path}: a folder; name a file in it")
    if exists:
        if not wanted.is_file():
            raise UsageError(f"{option} {path}: not a regular file; name another path")
        if wanted.stat().st_size and not form.is_form(wanted):
            raise UsageError(f"{option} {path}: exists, and is not {form.name}; remove it, or name another file")
    check_writable(option, path)


@contextmanager
def only_writer(option: str, folder: Path) -> Iterator[None]:
    """Make `folder` if need be, and lock it for the body. Raises `UsageError` if another command has locked it."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except BlockingIOError:
            raise UsageError(
                f"{option} {folder}: another command is writing to it; wait for its end, or name another folder"
            ) from None
        yield


def check_distinct(files: Mapping[str, str | Path | None]) -> None:
    """Raise `UsageError` if two options name the same file; `files` are the paths of the options, None if not given."""
    seen: dict[Path, str] = {}
    for option, path in files.items():
        if path is not None and (first := seen.setdefault(Path(path).resolve(), option)) != option:
            raise UsageError(f"{option} {path}: the same file as {first}; name another")


def write_output(option: str, path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically, as `store.write_text`; raises `UsageError` if the system refuses."""
    try:
        write_text(Path(path), text)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written ({error.strerror}); name another path") from None


def save_with_predictions(record: EvaluateRecord, path: Path | None, predictions: Path | None, text: str) -> None:
    """Write `record` to `path` and its predictions, `text`, to `predictions`; None writes nothing.

    Two files cannot be replaced in one step. The predictions therefore wait under a name that their hash gives, until
    the record is replaced. From then on, `predictions_of` finds them, although a kill may keep them from their place.
    """
    if path is None or predictions is None:
        if predictions is not None:
            write_text(predictions, text)
        store.save(record, path)
        return
    with suppress(UsageError):  # the earlier record is not one of evaluate
        if path.is_file():
            _finish(predictions, store.load_as(EvaluateRecord, path).evaluate.predictions_sha256)
    predictions.parent.mkdir(parents=True, exist_ok=True)
    with staged_file(predictions) as (handle, staged):
        with open(handle, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        store.make_public(staged)
        waiting = staged.replace(_waiting(predictions, record.evaluate.predictions_sha256))
        try:
            store.save(record, path)
        except BaseException:
            waiting.unlink()
            raise
        waiting.replace(predictions)


def predictions_of(record: EvaluateRecord, path: Path) -> Path:
    """The predictions file of `record`, which was read from `path`. It may be missing."""
    predictions = path.parent / Path(record.evaluate.predictions_file).name
    waiting = _waiting(predictions, record.evaluate.predictions_sha256)
    return waiting if waiting.is_file() else predictions


def _waiting(predictions: Path, sha256: str) -> Path:
    """Where predictions with the hash `sha256` wait for their record: a name that `staging` removes as a leftover."""
    return predictions.with_name(f".{predictions.name}.{sha256[:8]}{END}")


def _finish(predictions: Path, sha256: str) -> None:
    """Put predictions in place whose record was published before a kill."""
    if (waiting := _waiting(predictions, sha256)).is_file():
        waiting.replace(predictions)


def check_space(option: str, folder: Path, needed: int) -> None:
    """Raise `UsageError` if the disk of `folder` has less than `needed` bytes left."""
    free = shutil.disk_usage(_existing(folder.absolute())).free
    if free < needed:
        raise UsageError(
            f"{option} {folder}: needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; free some space, "
            "or name a folder on another disk"
        )


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(part for part in (path, *path.parents) if part.exists())
