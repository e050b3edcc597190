"""Paraphrase pairs from the hub, a folder or the bundled files, as one `DatasetDict`.

Every source gives the same structure: some of the splits train, validation and test, with the features
`sentence1: string`, `sentence2: string` and `label: ClassLabel` with two names. Label 1 is the positive class. A split
with withheld labels has only -1, as in GLUE. A bad row is an error with its place; no row is dropped or repaired.
"""

import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, DatasetInfo, Features, Value

from mrpcbench.data.folders import COLUMNS, FILE_NAME, ORIGINAL_TEST, SPLIT_OF_STEM, SPLITS, WITHHELD, layout_of
from mrpcbench.data.parts import Part, Record, agree
from mrpcbench.data.places import check_folder, is_hub, local_folder
from mrpcbench.environment.redaction import public_name
from mrpcbench.errors import UsageError
from mrpcbench.hub.repository import split_revision
from mrpcbench.hub.snapshots import Snapshot, find
from mrpcbench.progress import Observer, Silent
from mrpcbench.schema.identity import DataIdentity
from mrpcbench.schema.requests import QUICKSTART

SILENT = Silent()
HUB_DATASET, HUB_CONFIG = "nyu-mll/glue", "mrpc"
HUB_FILE = re.compile(rf"{HUB_CONFIG}/{FILE_NAME}parquet")
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


def _checked(split: str, part: Part, names: tuple[str, ...], dataset: str | None) -> Dataset:
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
    info = DatasetInfo(features=features, dataset_name=dataset)
    return Dataset.from_dict({**sentences, "label": labels}, features=features, info=info, split=split)


def _from_hub(source: str, splits: Collection[str]) -> tuple[Path, str]:
    """The folder with the files of `splits`, and the name of the dataset with its commit."""
    revision = split_revision(source)[1]
    snapshot = find(HUB_DATASET if revision is None else f"{HUB_DATASET}@{revision}", "dataset")
    snapshot.fetch(_files_of(snapshot, splits))
    return snapshot.done() / HUB_CONFIG, f"{HUB_DATASET}@{snapshot.commit}"


def _files_of(snapshot: Snapshot, splits: Collection[str]) -> list[str]:
    """The files of `splits` in `snapshot`; raises `MrpcbenchError` if the cache lacks those of one."""
    found = {name: SPLIT_OF_STEM[match["stem"]] for name in snapshot.names if (match := HUB_FILE.fullmatch(name))}
    if snapshot.offline and (missing := [split for split in splits if split not in found.values()]):
        raise snapshot.incomplete(f"{HUB_CONFIG}/{missing[0]}-*.parquet")
    return sorted(name for name, split in found.items() if split in splits)


def _parts(source: str, splits: Collection[str]) -> tuple[dict[str, Part], str | None]:
    """The rows of `source`, and, of the hub, the name of the dataset with its commit."""
    folder, dataset = local_folder(source), None
    if folder is None:
        folder, dataset = _from_hub(source, splits)
        check_folder(source, folder)
    return layout_of(source, folder).read(folder), dataset


# The public interface


def load(source: str, observer: Observer = SILENT, splits: Collection[str] = SPLITS) -> DatasetDict:
    """Load `source`: "hub" or "hub@REVISION" (GLUE's MRPC), "quickstart" (the bundled pairs), or the path of a folder.

    Returns the available splits of train, validation and test, each with `sentence1`, `sentence2` and `label`, in the
    source's row order. Class names that the source declares are kept; the default is GLUE's. Label 1 is the positive
    class: if a source declares it first, the labels are exchanged, and `observer` gets a message. Of the hub, only the
    files of `splits` are downloaded. For a folder called hub or quickstart, write ./hub or ./quickstart.

    Raises `UsageError` for an invalid source or row, and `MrpcbenchError` if the hub cannot be reached.
    """
    parts, dataset = _parts(source, splits)
    if reversed_names := next((part.names for part in parts.values() if part.is_reversed), None):
        negative, positive = reversed_names
        observer.say(
            f"--data {source}: declares {positive}, {negative}; read as 0 = {negative}, 1 = {positive} (positive class)"
        )
    names = agree(f"--data {source}", parts.values())
    return DatasetDict({split: _checked(split, parts[split], names, dataset) for split in SPLITS if split in parts})


def split_of(dataset: DatasetDict, source: str, split: str, *, labelled: bool = True) -> Dataset:
    """One split of the result of `load(source)`. With `labelled`, its labels are required.

    Raises `UsageError` if its labels are withheld, or if it is missing; the message names the file that provides it.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: no such split; use {', '.join(SPLITS)}")
    if split not in dataset:
        message = f"--data {source}: no {split} split, only {', '.join(dataset)}"
        if not is_hub(source) and source != QUICKSTART:
            layout = layout_of(source, Path(source))
            message += f"; the folder is read as {layout.name}, and the split would come from {layout.files[split]}"
        raise UsageError(message)
    found = dataset[split]
    if labelled and WITHHELD in found["label"][:]:  # [:] reads a column at once, an iteration row by row
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
    digest, labels = hashlib.sha256(), split["label"][:]
    for pair in zip(split["sentence1"][:], split["sentence2"][:], labels, strict=True):
        digest.update(json.dumps(pair, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n")
    if is_hub(source):
        public = f"hub:{HUB_DATASET}/{HUB_CONFIG}"
    else:
        public = source if source == QUICKSTART else f"folder:{public_name(str(Path(source).resolve()))}"
    return DataIdentity(
        source=public,
        revision=split_revision(split.info.dataset_name or "")[1],
        split=name,
        pairs=len(labels),
        positives=labels.count(1),
        label_names=label_names(split),
        data_sha256=digest.hexdigest(),
    )
