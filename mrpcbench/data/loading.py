"""Paraphrase pairs from the hub, a folder or the bundled files, as one `DatasetDict`.

Every source ends in the same shape: splits among train, validation and test, with the features `sentence1: string`,
`sentence2: string` and `label: ClassLabel` of two names. Label 1 is the positive class; a split whose labels are
withheld has -1 throughout, as GLUE writes it. A row is either read or named in an error: none is dropped or repaired.
"""

import hashlib
import json
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from mrpcbench import hub
from mrpcbench.data.folders import COLUMNS, ORIGINAL_TEST, SPLITS, WITHHELD, Part, Record, agree, layout_of
from mrpcbench.environment.redaction import public_name
from mrpcbench.errors import UsageError
from mrpcbench.quickstart import DATA_DIR
from mrpcbench.schema.identity import DataIdentity
from mrpcbench.schema.requests import QUICKSTART

HUB = "hub"
HUB_DATASET, HUB_CONFIG = "nyu-mll/glue", "mrpc"
LABEL_OF_TEXT = {"0": 0, "1": 1, "-1": WITHHELD}


# Checks, the same for every source


def _sentence(record: Record, column: str) -> str:
    value = record.fields[column]
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{record.place}: {column} is {value!r:.40}; every pair needs two sentences of text")
    return value


def _label(record: Record) -> int:
    value = record.fields["label"]
    label = LABEL_OF_TEXT.get(value) if isinstance(value, str) else value
    if type(label) is not int or label not in LABEL_OF_TEXT.values():  # True == 1, yet it is no label
        raise UsageError(f"{record.place}: label is {value!r:.40}; write 1 (equivalent) or 0 (not equivalent)")
    return label


def _checked(split: str, part: Part, names: tuple[str, ...]) -> Dataset:
    if not part.records:
        raise UsageError(f"{part.place}: no pairs for {split}; add rows, or remove the file")
    sentences = {column: [_sentence(record, column) for record in part.records] for column in COLUMNS[:2]}
    labels = [_label(record) for record in part.records]
    if WITHHELD in labels and set(labels) != {WITHHELD}:
        place = part.records[labels.index(WITHHELD)].place
        raise UsageError(f"{place}: label is -1 (withheld) where other rows have theirs; give all labels, or none")
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
        what = "is a file; give the folder that holds it" if folder.is_file() else "no such folder"
        raise UsageError(f"--data {source}: {what}; --data takes {HUB}, {QUICKSTART} or a folder")
    return layout_of(source, folder).read(folder)


# The public interface


def load(source: str) -> DatasetDict:
    """Load `source`: "hub" (GLUE's MRPC), "quickstart" (the bundled pairs), or the path of a folder.

    Returns those of train, validation and test that the source has, each with `sentence1`, `sentence2` and `label`
    in the source's row order. Class names that the source declares are kept; others are `LABEL_NAMES`. A folder that
    happens to be called hub or quickstart is ./hub or ./quickstart.

    Raises `UsageError` for a source or a row that cannot be meant, `MrpcbenchError` where the hub is out of reach.
    """
    parts = _parts(source)
    names = agree(f"--data {source}", parts.values())
    return DatasetDict({split: _checked(split, parts[split], names) for split in SPLITS if split in parts})


def split_of(dataset: DatasetDict, source: str, split: str, *, labelled: bool = True) -> Dataset:
    """Get one split of what `load(source)` returned; `labelled` says that its labels are needed.

    Raises `UsageError` where the split is absent, naming the file that would provide it, or its labels are withheld.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: no such split; use {', '.join(SPLITS)}")
    if split not in dataset:
        message = f"--data {source}: no {split} split, only {', '.join(dataset)}"
        if source not in (HUB, QUICKSTART):
            layout = layout_of(source, Path(source))
            message += f"; it is read as {layout.name}, where the split comes from {layout.files[split]}"
        raise UsageError(message)
    found = dataset[split]
    if labelled and WITHHELD in found["label"]:
        raise UsageError(
            f"--data {source}: the labels of {split} are withheld (-1); choose another split, or give labels: "
            f"{ORIGINAL_TEST} beside GLUE's test.tsv does"
        )
    return found


def label_names(split: Dataset) -> tuple[str, str]:
    """The names of labels 0 and 1."""
    negative, positive = split.features["label"].names
    return negative, positive


def identity(split: Dataset, source: str, name: str) -> DataIdentity:
    """Say what data a figure rests on, for the split `name` of `load(source)`; withheld labels count no positives.

    `data_sha256` is over the pairs in order, each as one line of UTF-8: the JSON array of sentence1, sentence2 and
    label without spaces, where only `"`, `\\` and control characters below U+0020 are escaped, and then LF. It
    depends on nothing else: the same pairs have the same hash from any layout. `source` is made public: a folder
    keeps only its last name.
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
