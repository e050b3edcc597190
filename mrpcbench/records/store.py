"""Records and lineages as JSON files: strict reading, atomic writing. `documents` reads the JSON.

In a checkout, `python -m mrpcbench.records.store` generates two files from `mrpcbench/schema/`: the JSON Schema
(`mrpcbench/records/results.schema.json`, package data) and its documentation (`docs/results-format.md`).
"""

import dataclasses
import hashlib
import inspect
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from mrpcbench.environment.staging import put_folder, staged_file, staged_folder
from mrpcbench.errors import UsageError
from mrpcbench.records.documents import parse_json, read_bytes, read_json
from mrpcbench.records.scores import contradiction
from mrpcbench.records.summary import summarised
from mrpcbench.records.upgrade import is_newer, upgrade
from mrpcbench.schema.identity import Lineage
from mrpcbench.schema.records import RECORDS, BenchRecord, Record, RunRecord
from mrpcbench.schema.verdicts import Comparison
from mrpcbench.schema.version import MAJOR, SCHEMA_VERSION

LINEAGE_FILE = "mrpcbench.json"
SCHEMA_FILE = "results.schema.json"

Extra = Literal["ignore", "forbid"]
T = TypeVar("T")

R = TypeVar("R", bound=RunRecord)


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """The pydantic adapter of `kind`, built on first use because that takes time."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def dumps(value: RunRecord | Lineage | Comparison) -> str:
    """`value` as indented JSON, validated by the rules for reading, so that what is written can be read."""
    adapter = _adapter(type(value))
    text = adapter.dump_json(value, indent=2).decode() + "\n"
    adapter.validate_json(text)
    return text


def save(record: RunRecord, path: Path | None) -> None:
    """Write `record` to `path` atomically: a reader sees either the old file or the new one.

    Without a path, the record is only validated.
    """
    text = dumps(record)
    if path is not None:
        write_text(path, text)


def checked(kind: type[T], values: dict[str, Any]) -> T:
    """A request of the class `kind`. Raises `UsageError` for a value of the wrong type or an unknown choice."""
    try:
        return _adapter(kind).validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}={first['input']!r}: {first['msg']}") from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"an argument has the wrong type: {error}") from None


def load(path: Path) -> Record:
    """The record in `path`; raises `UsageError` if it is absent, truncated, of an unknown version or not a record."""
    document, extra = _read(path)
    command = document.get("command")
    kind = RECORDS.get(command) if isinstance(command, str) else None
    if kind is None:
        raise UsageError(f"{path}: not a valid record: command {command!r} is none of {', '.join(RECORDS)}")
    record = _validated(kind, document, extra, path)
    if problem := contradiction(record):
        raise UsageError(f"{path}: {problem}; it was edited or damaged, so run the command again")
    # A stored summary is for other programs. It is not trusted, because it may contradict the samples.
    try:
        return replace(record, bench=summarised(record.bench)) if isinstance(record, BenchRecord) else record
    except ArithmeticError:
        raise UsageError(f"{path}: its samples are too large or too small for times in ms") from None


def load_as(kind: type[R], path: Path) -> R:
    """The record in `path`; raises `UsageError` like `load`, and if the record is not of the class `kind`."""
    record = load(path)
    if not isinstance(record, kind):
        raise UsageError(f"{path}: a record of {record.command}; name one of {kind.command}")
    return record


def save_lineage(lineage: Lineage, folder: Path, name: str = LINEAGE_FILE) -> None:
    """Write `lineage` next to the model in `folder`."""
    write_text(folder / name, dumps(lineage))


def load_lineage(folder: Path, name: str = LINEAGE_FILE) -> Lineage | None:
    """The lineage next to the model in `folder`, or None if no command of this project wrote one."""
    path = folder / name
    return _validated(Lineage, *_read(path), path) if path.exists() else None


def _read(path: Path) -> tuple[dict[str, Any], Extra]:
    """The JSON object in `path`, upgraded to the current version, and how to treat its unknown fields."""
    document = read_json(path)
    try:
        # A newer minor version only adds fields, so unknown fields can be ignored.
        return upgrade(document), "ignore" if is_newer(document) else "forbid"
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def _validated(kind: type[T], document: dict[str, Any], extra: Extra, path: Path) -> T:
    try:
        # From JSON, pydantic accepts a list for a tuple in strict mode; from Python objects it does not.
        return _adapter(kind).validate_json(json.dumps(document), extra=extra)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        others = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UsageError(f"{path}: not a valid {kind.__name__}: {where}: {first['msg']}{others}") from None


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, through a temporary file in the same folder.

    What is no file, such as /dev/null or a pipe, is written to and never replaced; nor is a link, but its target.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged_file(path) as (handle, staged):
        with open(handle, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        make_public(staged)
        staged.replace(path)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then move its files into `folder`, which is unchanged until then."""
    folder.mkdir(parents=True, exist_ok=True)
    with staged_folder(folder, "files") as staged:
        write(staged)
        for file in sorted(staged.rglob("*")):
            if file.is_file():
                target = folder / file.relative_to(staged)
                target.parent.mkdir(parents=True, exist_ok=True)
                make_public(file)
                file.replace(target)


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then replace `folder` with it in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with staged_folder(folder.parent, folder.name) as staged:
        staged.chmod(0o777 & ~_umask())
        write(staged)
        put_folder(staged, folder)


def make_public(path: Path) -> None:
    """Give a temporary file, which is private, the permissions of any new file."""
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def to_jsonl(rows: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """`rows` as JSON lines, and the sha256 of their file; raises `ValueError` for NaN or infinity."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    return text, hashlib.sha256(text.encode()).hexdigest()


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """Write `rows` as JSON lines atomically, and return the file's sha256."""
    text, sha256 = to_jsonl(rows)
    write_text(path, text)
    return sha256


def load_jsonl(path: Path, sha256: str) -> list[Any]:
    """The rows of a JSON lines file; raises `UsageError` if it is absent or its hash is not `sha256`.

    NaN and infinity are errors, because JSON has neither.
    """
    content = read_bytes(path)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UsageError(f"{path}: sha256 is {found[:12]}, but the record was made with {sha256[:12]}")
    try:
        return [parse_json(line, _reject_constant) for line in content.splitlines()]
    except ValueError as error:
        raise UsageError(f"{path}: not JSON lines ({error})") from None


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def canonical_sha256(document: str, *, without: Collection[str] = ()) -> str:
    """Hash of the JSON object `document`, independent of layout and key order; it leaves out the keys in `without`."""
    content = {name: value for name, value in json.loads(document).items() if name not in without}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def default_path(command: str) -> Path:
    """`results/<time>-<command>-<random>.json` in the working folder, so that no two commands write the same file."""
    return Path("results", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}-{secrets.token_hex(3)}.json")


def save_json(path: Path, document: Any) -> None:
    """Write `document`, which is not a record, to `path` atomically, on one line; infinity and NaN are errors."""
    write_text(path, json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n")


def load_json(path: Path) -> Any:
    """The JSON document in `path`, written by any program; raises `ValueError` if it is not JSON or repeats a key."""
    return parse_json(path.read_bytes())


def to_line(document: Any) -> str:
    """A JSON document on one line; raises `ValueError` for NaN or infinity."""
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


def from_line(line: str) -> Any:
    """The document in a line from `to_line`; raises `ValueError` if it is not JSON."""
    return parse_json(line)


def to_json(value: Any) -> str:
    """A small result that is not a record, as one JSON document."""
    return json.dumps(dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value, indent=2)  # type: ignore[arg-type]


# --- the published format ---------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """The JSON Schema of all records, with `command` as discriminator and a description of every field."""
    schema = TypeAdapter(Annotated[Record, Field(discriminator="command")]).json_schema()
    for kind in _record_kinds():
        body = schema["$defs"][kind.__name__]
        if issubclass(kind, RunRecord):  # both have a default in code, but are required in a file
            body["required"] = ["schema_version", "command", *body["required"]]
        body["description"] = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
        for item in dataclasses.fields(kind):
            body["properties"][item.name]["description"] = item.metadata["about"]
        if version := body["properties"].get("schema_version"):
            version["pattern"] = rf"^{MAJOR}\.[0-9]+$"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _record_kinds() -> list[type]:
    """The record classes and every dataclass in their fields, each once, in the order found."""
    kinds: list[type] = list(RECORDS.values())
    for item in kinds:
        kinds += [found for found in _dataclasses_in(*get_type_hints(item).values()) if found not in kinds]
    return list(dict.fromkeys(kinds))


def _dataclasses_in(*types: Any) -> Iterator[type]:
    for item in types:
        if isinstance(item, type) and dataclasses.is_dataclass(item):
            yield item
        yield from _dataclasses_in(*get_args(item))


def format_page() -> str:
    """The text of docs/results-format.md: a table of fields for each class of the format."""
    lines = [
        "# The results format",
        "",
        f"Generated by `python -m mrpcbench.records.store` from `mrpcbench/schema/`; schema version {SCHEMA_VERSION}. "
        "The JSON Schema itself is `mrpcbench/records/results.schema.json`, installed with the package.",
        "",
        "A record is one JSON document. It is written atomically, with `complete: false` until the command ends. A "
        "truncated file, a missing field, an unknown field or another major version is an error that names the file "
        "and the place. Each command has a record class, which the field `command` identifies: it has the fields of "
        "RunRecord, and one for the command's result. A minor version only adds fields: a reader ignores unknown "
        "fields in a record with a newer minor version, and fills in defaults for an older one. Version 1 is read as "
        "well (`mrpcbench/records/upgrade.py`). Raw samples are stored. The `summary` of a benchmark row is for other "
        "programs: this one computes it again when it reads a record, and ignores the stored one. No field holds an "
        "absolute path, a user's name or a host's name.",
    ]
    shared = dataclasses.fields(RunRecord)
    for kind in (RunRecord, *_record_kinds()):
        lines += [
            "",
            f"## {kind.__name__}",
            "",
            inspect.cleandoc(kind.__doc__ or ""),
            "",
            "| field | type | meaning |",
            "|---|---|---|",
        ]
        for item in dataclasses.fields(kind):
            if kind is not RunRecord and item in shared:
                continue
            shown = item.type.__name__ if isinstance(item.type, type) and not get_args(item.type) else str(item.type)
            named = re.sub(r"\b(typing|mrpcbench\.\w+)\.", "", shown)
            cells = [cell.replace("|", r"\|") for cell in (f"`{item.name}`", named, item.metadata["about"])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    here = Path(__file__)
    write_text(here.with_name(SCHEMA_FILE), json.dumps(json_schema(), indent=2) + "\n")
    write_text(here.parents[2] / "docs" / "results-format.md", format_page())
