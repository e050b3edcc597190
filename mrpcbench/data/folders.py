"""Reads folders of paraphrase pairs, in every layout in which MRPC is distributed, into unchecked rows.

If a folder has several layouts, the first of `LAYOUTS` is read and the others are ignored. There is one exception:
`msr_paraphrase_test.txt` supplies the labels that GLUE's `test.tsv` withholds. Rows are kept in memory, so nothing is
written to the data folder and no cache is needed.
"""

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, load_from_disk

from mrpcbench.data.parts import Part, Record, agree, named_part
from mrpcbench.errors import UsageError
from mrpcbench.records.documents import RepeatedKeyError, check_json, check_no_pipe, parse_json

SPLITS = ("train", "validation", "test")
WITHHELD = -1
COLUMNS = ("sentence1", "sentence2", "label")

IDS = ("#1 ID", "#2 ID")
COLUMN_OF_TSV = {"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"}
ORIGINAL_TRAIN, ORIGINAL_TEST, DEV_IDS = "msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "dev_ids.tsv"
SPLIT_OF_STEM = {"train": "train", "validation": "validation", "dev": "validation", "test": "test"}
# The names of the hub's older shards end in a hash.
FILE_NAME = r"(?P<stem>train|validation|dev|test)(-(?P<shard>\d{5})-of-(?P<shards>\d{5})(-[0-9a-f]+)?)?\."
# The JSON files that `datasets` reads from a saved dataset.
SAVED_JSON = ("dataset_dict.json", "dataset_info.json", "state.json")
UNREADABLE = (OSError, ValueError, KeyError, TypeError, pa.ArrowException)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A folder layout: a pattern of its file names (`mark`), the file of each split, and its reader."""

    name: str
    mark: str
    files: Mapping[str, str]
    read: Callable[[Path], dict[str, Part]]


# Text files: bytes -> lines -> rows of fields -> records


def _lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without byte-order mark, line ends and trailing blank lines.

    Lines end only at LF or CRLF. `str.splitlines` would also split sentences at U+2028, U+0085 and similar characters.
    """
    check_no_pipe(path)
    try:
        text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the file and its permissions") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path} line {line}: bytes that are not UTF-8; convert the file to UTF-8") from error
    return [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line. MRPC's files have no quoting, so `"` is an ordinary character."""
    for number, line in enumerate(_lines(path), 1):
        yield number, line.split("\t")


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """First line number and fields of each row. A quoted field may span several lines."""
    reader = csv.reader((line + "\n" for line in _lines(path)), strict=True)
    start = 1
    try:
        for row in reader:
            yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise UsageError(
            f'{path} line {start}: not CSV ({error}); quote fields with "…" and double every quote inside'
        ) from error


def _named(path: Path, rows: Iterable[tuple[int, list[str]]], required: Collection[str]) -> Iterator[Record]:
    """Pair each row with the header, which must name `required` and fit every row."""
    numbered = iter(rows)
    _, header = next(numbered)
    _require_columns(f"{path} line 1", header, required)
    for number, row in numbered:
        if len(row) != len(header):
            raise UsageError(
                f"{path} line {number}: {len(row)} field(s), but line 1 names {len(header)}; "
                "fix the row: it may be blank, or have a separator or line break inside a sentence"
            )
        yield Record(f"{path} line {number}", dict(zip(header, row, strict=True)))


def _require_columns(place: str, found: Sequence[str], required: Collection[str]) -> None:
    """Raise `UsageError` unless each of `required` is in `found` and no name occurs twice.

    A name that differs from a required one only in case or spaces counts as the same. Nameless columns may repeat.
    """
    if missing := [column for column in required if column not in found]:
        raise UsageError(f"{place}: no column {', '.join(missing)}; the columns must be {', '.join(required)}")
    known = {column.casefold(): column for column in required}
    counted = Counter(known.get(name.strip().casefold(), name) for name in found if name)
    for name in (name for name, count in counted.items() if count > 1):
        spelled = [other for other in dict.fromkeys(found) if known.get(other.strip().casefold(), other) == name]
        raise UsageError(
            f"{place}: column {' and '.join(map(repr, spelled))} is given {counted[name]} times; keep one {name}"
        )


# Readers: a file or a folder -> its splits


def _tsv_records(path: Path) -> list[Record]:
    """Rows of a GLUE or original file. If it has `index` instead of `Quality`, the labels are withheld."""
    rows = list(_tsv_rows(path))
    header = rows[0][1]
    label = "index" if "index" in header and "Quality" not in header else "Quality"
    named = list(_named(path, rows, (label, *IDS, "#1 String", "#2 String")))
    # A column that already has this project's name would overwrite GLUE's.
    if both := [f"{theirs} and {ours}" for theirs, ours in COLUMN_OF_TSV.items() if ours in header]:
        raise UsageError(f"{path} line 1: {both[0]} are the same column; keep {both[0].split(' and ')[0]}")
    return [
        Record(
            place, {"label": WITHHELD} | {COLUMN_OF_TSV.get(column, column): text for column, text in fields.items()}
        )
        for place, fields in named
    ]


def _read_glue(folder: Path) -> dict[str, Part]:
    paths = {split: folder / name for split, name in GLUE.files.items() if (folder / name).exists()}
    splits = {split: Part(str(path), _tsv_records(path)) for split, path in paths.items()}
    original = folder / ORIGINAL_TEST
    test = splits.get("test")
    if test and original.exists() and WITHHELD in (record.fields["label"] for record in test.records):
        splits["test"] = Part(test.place, _labelled_by(original, test.records))
    return splits


def _labelled_by(original: Path, test: list[Record]) -> list[Record]:
    """Label each test row from the original row with the same ids and sentences, regardless of position."""
    columns = (*IDS, "sentence1", "sentence2")
    labels: dict[tuple[object, ...], object] = {}
    for record in _tsv_records(original):
        label = record.fields["label"]
        if labels.setdefault(record.key(columns), label) != label:
            raise UsageError(f"{record.place}: an earlier row gives this pair another label; remove the wrong one")
    for record in test:
        if record.key(columns) not in labels:
            raise UsageError(
                f"{record.place}: {original.name} has no row with these ids and sentences; "
                f"use both files of one release, or remove {original.name} to leave the labels withheld"
            )
    return [Record(record.place, {**record.fields, "label": labels[record.key(columns)]}) for record in test]


def _read_original(folder: Path) -> dict[str, Part]:
    """The original release. The pairs listed in `dev_ids.tsv` are validation, in the order of the training file."""
    train, test, dev_ids = folder / ORIGINAL_TRAIN, folder / ORIGINAL_TEST, folder / DEV_IDS
    splits = {"test": Part(str(test), _tsv_records(test))} if test.exists() else {}
    if train.exists():
        records = _tsv_records(train)
        known = {record.key(IDS) for record in records}
        listed = list(_tsv_rows(dev_ids)) if dev_ids.exists() else []
        for number, row in listed:
            if tuple(row) not in known:
                raise UsageError(
                    f"{dev_ids} line {number}: not the two ids of a row of {train.name}; use both files of one release"
                )
        dev = {tuple(row) for _, row in listed}
        splits["train"] = Part(str(train), [record for record in records if record.key(IDS) not in dev])
        if dev:
            splits["validation"] = Part(str(dev_ids), [record for record in records if record.key(IDS) in dev])
    return splits


def _read_files(folder: Path, suffix: str, read: Callable[[Path], Part]) -> dict[str, Part]:
    """Splits in files named after them. Each split is one file or a complete series of shards."""
    found: dict[str, list[re.Match[str]]] = {}
    for name in sorted(path.name for path in folder.iterdir()):
        if match := re.fullmatch(FILE_NAME + suffix, name):
            found.setdefault(SPLIT_OF_STEM[match["stem"]], []).append(match)
    splits = {}
    for split, matches in found.items():
        names = [match.string for match in matches]
        series = [(matches[0]["stem"], shard, matches[0]["shards"]) for shard in _shards(matches[0])]
        if [(match["stem"], match["shard"], match["shards"]) for match in matches] != series:
            raise UsageError(
                f"{folder}: {', '.join(names)} are not one {split} split; "
                f"keep {split}.{suffix} alone, or every shard of one series"
            )
        parts = [read(folder / name) for name in names]
        agree(str(folder), parts)
        declared = next((part for part in parts if part.names), parts[0])
        records = [record for part in parts for record in part.records]
        splits[split] = Part(parts[0].place, records, declared.names, declared.is_reversed)
    return splits


def _shards(match: re.Match[str]) -> list[str | None]:
    """The numbers of all shards of the series of a file; None for a file with the complete split."""
    return [f"{shard:05}" for shard in range(int(match["shards"]))] if match["shards"] else [None]


def _read_csv(path: Path) -> Part:
    return Part(str(path), list(_named(path, _csv_rows(path), COLUMNS)))


def _read_jsonl(path: Path) -> Part:
    part = Part(str(path), [])
    for number, line in enumerate(_lines(path), 1):
        place = f"{path} line {number}"
        if not line.strip():
            raise UsageError(f"{place}: an empty line; remove it")
        try:
            if not isinstance(fields := parse_json(line), dict):
                raise TypeError("not an object")
            json.dumps(fields, ensure_ascii=False).encode("utf-8")  # an escape can spell half a surrogate pair
        except RepeatedKeyError as error:
            raise UsageError(f"{place}: key {error.key!r} is given twice; keep one") from None
        except (ValueError, TypeError) as error:
            raise UsageError(f"{place}: not a JSON object; write one of {', '.join(COLUMNS)} per line") from error
        _require_columns(place, list(fields), COLUMNS)
        part.records.append(Record(place, fields))
    return part


def _read_parquet(path: Path) -> Part:
    check_no_pipe(path)
    try:
        with pq.ParquetFile(path) as file:
            _require_columns(str(path), file.schema_arrow.names, COLUMNS)
            table = file.read(columns=list(COLUMNS))
        return _from_columns(str(path), table.to_pydict(), Features.from_arrow_schema(table.schema))
    except UNREADABLE as error:
        raise UsageError(f"{path}: cannot be read as Parquet; download or write the file again") from error


def _read_saved(folder: Path) -> dict[str, Part]:
    for path in (path for name in SAVED_JSON for path in (*folder.glob(name), *folder.glob(f"*/{name}"))):
        check_json(path)
    try:
        saved = load_from_disk(str(folder))
    except UNREADABLE as error:
        raise UsageError(f"{folder}: cannot be read as a saved dataset; save it again with save_to_disk") from error
    parts = {str(saved.split): saved} if isinstance(saved, Dataset) else saved
    splits = {}
    for split in (split for split in SPLITS if split in parts):
        place = f"{folder} split {split}"
        _require_columns(place, parts[split].column_names, COLUMNS)
        # A saved format (torch, numpy) would convert the labels to that library's types.
        columns = parts[split].with_format(None).select_columns(list(COLUMNS))[:]
        splits[split] = _from_columns(place, columns, parts[split].features)
    if not splits:
        raise UsageError(f"{folder}: saved with split {', '.join(parts)}; save a DatasetDict of {', '.join(SPLITS)}")
    return splits


def _from_columns(place: str, columns: Mapping[str, list[object]], features: Features) -> Part:
    rows = zip(*(columns[column] for column in COLUMNS), strict=True)
    records = [Record(f"{place} row {n}", dict(zip(COLUMNS, row, strict=True))) for n, row in enumerate(rows, 1)]
    names = getattr(features["label"], "names", None)  # only a ClassLabel has them
    return Part(place, records) if names is None else named_part(place, records, names)


def _files_layout(name: str, suffix: str, read: Callable[[Path], Part]) -> Layout:
    files = {split: f"{split}.{suffix}" for split in SPLITS}
    return Layout(name=name, mark=FILE_NAME + suffix, files=files, read=partial(_read_files, suffix=suffix, read=read))


GLUE = Layout(
    name="GLUE's TSV files",
    mark=r"(train|dev|test)\.tsv",
    files={"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"},
    read=_read_glue,
)
#: In order of precedence.
LAYOUTS = (
    Layout(
        name="a dataset saved by save_to_disk",
        mark=r"dataset_dict\.json|state\.json",
        files={split: f'a DatasetDict saved with "{split}"' for split in SPLITS},
        read=_read_saved,
    ),
    GLUE,
    Layout(
        name="the original release",
        mark=r"msr_paraphrase_(train|test)\.txt",
        files={"train": ORIGINAL_TRAIN, "validation": f"{DEV_IDS} beside {ORIGINAL_TRAIN}", "test": ORIGINAL_TEST},
        read=_read_original,
    ),
    _files_layout("Parquet", "parquet", _read_parquet),
    _files_layout("JSON lines", "jsonl", _read_jsonl),
    _files_layout("CSV", "csv", _read_csv),
)


def layout_of(source: str, folder: Path) -> Layout:
    """The first of `LAYOUTS` of which `folder` has a file; raises `UsageError`, with a list of layouts, if none."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise UsageError(f"--data {source}: the folder cannot be listed; check its permissions") from error
    for layout in LAYOUTS:
        if any(re.fullmatch(layout.mark, name) for name in names):
            return layout
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if any(re.fullmatch(layout.mark, path.name) for layout in LAYOUTS for path in inner.iterdir()):
            raise UsageError(f"--data {source}: no data in the folder itself; name --data {Path(source, inner.name)}")
    known = "; ".join(f"{layout.name} ({', '.join(layout.files.values())})" for layout in LAYOUTS)
    raise UsageError(f"--data {source}: no data in the folder; supported layouts: {known}")
