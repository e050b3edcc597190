"""Paraphrase pairs from the hub, a folder or the bundled files, as one `DatasetDict`.

Every source gives the same structure: some of the splits train, validation and test, with the features
`sentence1: string`, `sentence2: string` and `label: ClassLabel` with two names. Label 1 is the positive class. A split
with withheld labels has only -1, as in GLUE. A bad row is an error with its place; no row is dropped or repaired.
"""

import hashlib
import json
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from mrpcbench import hub
from mrpcbench.data.folders import COLUMNS, ORIGINAL_TEST, SPLITS, WITHHELD, layout_of
from mrpcbench.data.parts import Part, Record, agree
from mrpcbench.environment.redaction import public_name
from mrpcbench.errors import UsageError
from mrpcbench.progress import Observer, Silent
from mrpcbench.quickstart import DATA_DIR
from mrpcbench.schema.identity import DataIdentity
from mrpcbench.schema.requests import QUICKSTART

SILENT = Silent()
HUB = "hub"
HUB_DATASET, HUB_CONFIG = "nyu-mll/glue", "mrpc"
LABEL_OF_TEXT = {"0": 0, "1": 1, "-1": WITHHELD}


# Checks, the same for every source


def _sentence(record: Record, column: str) -> str:
    value = record.fields[column]
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{record.place}: {column} is {value!r:.40}; every pair needs two non-empty sentences")
    return value


def _label(record: Record) -> int:
    value = record.fields["label"]
    label = LABEL_OF_TEXT.get(value) if isinstance(value, str) else value
    if type(label) is not int or label not in LABEL_OF_TEXT.values():  # True == 1, but a bool is not a label
        raise UsageError(f"{record.place}: label is {value!r:.40}; write 1 (equivalent) or 0 (not equivalent)")
    return label


def _checked(split: str, part: Part, names: tuple[str, ...]) -> Dataset:
    if not part.records:
        raise UsageError(f"{part.place}: no pairs for {split}; add rows, or remove the file")
    sentences = {column: [_sentence(record, column) for record in part.records] for column in COLUMNS[:2]}
    labels = [_label(record) for record in part.records]
    if WITHHELD in labels and set(labels) != {WITHHELD}:
        place = part.records[labels.index(WITHHELD)].place
        raise UsageError(f"{place}: label is -1 (withheld), but other rows have labels; give all labels, or none")
    features = Features(
        {"sentence1": Value("string"), "sentence2": Value("string"), "label": ClassLabel(names=list(names))}
    )
    return Dataset.from_dict({**sentences, "label": labels}, features=features, split=split)


def _parts(source: str) -> dict[str, Part]:
    if source == QUICKSTART:
        folder = DATA_DIR
    elif source == HUB:
        folder = hub.snapshot(HUB_DATASET, kind="dataset", patterns=[f"{HUB_CONFIG}/*.parquet"]) / HUB_CONFIG
    else:
        folder = Path(source)
    if not folder.is_dir():
        what = "is a file; pass its folder" if folder.is_file() else "no such folder"
        raise UsageError(f"--data {source}: {what}; --data takes {HUB}, {QUICKSTART} or a folder")
    return layout_of(source, folder).read(folder)


# The public interface


def load(source: str, observer: Observer = SILENT) -> DatasetDict:
    """Load `source`: "hub" (GLUE's MRPC), "quickstart" (the bundled pairs), or the path of a folder.

    Returns the available splits of train, validation and test, each with `sentence1`, `sentence2` and `label`, in the
    source's row order. Class names that the source declares are kept; the default is GLUE's. Label 1 is the positive
    class: if a source declares it first, the labels are exchanged, and `observer` gets a message. For a folder called
    hub or quickstart, write ./hub or ./quickstart.

    Raises `UsageError` for an invalid source or row, and `MrpcbenchError` if the hub cannot be reached.
    """
    parts = _parts(source)
    if reversed_names := next((part.names for part in parts.values() if part.is_reversed), None):
        negative, positive = reversed_names
        observer.say(
            f"--data {source}: declares {positive}, {negative}; read as 0 = {negative}, 1 = {positive} (positive class)"
        )
    names = agree(f"--data {source}", parts.values())
    return DatasetDict({split: _checked(split, parts[split], names) for split in SPLITS if split in parts})


def split_of(dataset: DatasetDict, source: str, split: str, *, labelled: bool = True) -> Dataset:
    """One split of the result of `load(source)`. With `labelled`, its labels are required.

    Raises `UsageError` if its labels are withheld, or if it is missing; the message names the file that provides it.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: no such split; use {', '.join(SPLITS)}")
    if split not in dataset:
        message = f"--data {source}: no {split} split, only {', '.join(dataset)}"
        if source not in (HUB, QUICKSTART):
            layout = layout_of(source, Path(source))
            message += f"; the folder is read as {layout.name}, and the split would come from {layout.files[split]}"
        raise UsageError(message)
    found = dataset[split]
    if labelled and WITHHELD in found["label"]:
        raise UsageError(
            f"--data {source}: the labels of {split} are withheld (-1); choose another split, or add labels "
            f"({ORIGINAL_TEST} next to GLUE's test.tsv)"
        )
    return found


def label_names(split: Dataset) -> tuple[str, str]:
    """The names of labels 0 and 1."""
    negative, positive = split.features["label"].names
    return negative, positive


def identity(split: Dataset, source: str, name: str) -> DataIdentity:
    """The identity of the split `name` of `load(source)`. With withheld labels, it has 0 positives.

    `data_sha256` covers the pairs in order. Each pair is one line of UTF-8, ended by LF: a JSON array of sentence1,
    sentence2 and label without spaces, in which only `"`, `\\` and control characters below U+0020 are escaped. So the
    same pairs have the same hash in any layout. `source` is redacted: a folder is cut to its last name.
    """
    digest, labels = hashlib.sha256(), list(split["label"])
    for pair in zip(split["sentence1"], split["sentence2"], labels, strict=True):
        digest.update(json.dumps(pair, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n")
    if source == HUB:
        public = f"hub:{HUB_DATASET}/{HUB_CONFIG}"
    else:
        public = source if source == QUICKSTART else f"folder:{public_name(str(Path(source).resolve()))}"
    return DataIdentity(
        source=public,
        split=name,
        pairs=len(labels),
        positives=labels.count(1),
        label_names=label_names(split),
        data_sha256=digest.hexdigest(),
    )
