"""Every layout of a data folder, every guard, and the real corpus if it is there."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from localhub import LocalHub

import mrpcbench
from mrpcbench.data import folders, loading
from mrpcbench.errors import UsageError

GLUE_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
WITHHELD_HEADER = "index\t#1 ID\t#2 ID\t#1 String\t#2 String"
NAMES = ("not_equivalent", "equivalent")
# A quote that opens nothing, characters that str.splitlines would cut at, and text beyond ASCII.
PAIRS = [
    ('"It rains, said Ann.', "Ann said: it rains.", 1),
    ("One\u2028two\x85three\x0cfour.", "Ein Café \u2013 für zwei.", 0),
    ("The cat sat.", 'The "cat" stood.', 1),
]

Rows = list[tuple[str, str, int]]


def tsv(rows: Rows = PAIRS, header: str = GLUE_HEADER, first_id: int = 100) -> str:
    withheld = header == WITHHELD_HEADER
    lines = [
        f"{i if withheld else label}\t{first_id + i}\t{first_id + i + 50}\t{one}\t{two}"
        for i, (one, two, label) in enumerate(rows)
    ]
    return "\n".join([header, *lines]) + "\n"


def csv_text(rows: Rows = PAIRS) -> str:
    quoted = [[text.replace('"', '""') for text in pair] for *pair, _ in rows]
    lines = [f'{n},"{one}","{two}",{rows[n][2]}' for n, (one, two) in enumerate(quoted)]
    return "\n".join(["idx,sentence1,sentence2,label", *lines]) + "\n"


def jsonl(rows: Rows = PAIRS) -> str:
    return "".join(json.dumps(dict(zip(folders.COLUMNS, row, strict=True))) + "\n" for row in rows)


def columns(rows: Rows = PAIRS) -> dict[str, list[object]]:
    return {name: list(values) for name, values in zip(folders.COLUMNS, zip(*rows, strict=True), strict=True)}


def dataset(rows: Rows = PAIRS, names: tuple[str, ...] | None = None, split: str | None = None) -> Dataset:
    label = ClassLabel(names=list(names)) if names else Value("int64")
    features = Features({"sentence1": Value("string"), "sentence2": Value("string"), "label": label})
    return Dataset.from_dict(columns(rows), features=features, split=split)


def write_tsv(folder: Path) -> None:
    for name in ("train", "dev", "test"):
        (folder / f"{name}.tsv").write_text(tsv(), encoding="utf-8")


def write_original(folder: Path) -> None:
    train = [*PAIRS, *PAIRS]
    (folder / "msr_paraphrase_train.txt").write_text(tsv(train), encoding="utf-8")
    (folder / "msr_paraphrase_test.txt").write_text(tsv(), encoding="utf-8")
    # Ids are given in another order than the training file's, whose order counts.
    (folder / "dev_ids.tsv").write_text("105\t155\n103\t153\n104\t154\n", encoding="utf-8")


def write_csv(folder: Path) -> None:
    for name in ("train", "dev", "test"):
        (folder / f"{name}.csv").write_text(csv_text(), encoding="utf-8")


def write_jsonl(folder: Path) -> None:
    for name in ("train", "validation", "test"):
        (folder / f"{name}.jsonl").write_text(jsonl(), encoding="utf-8")


def write_parquet(folder: Path) -> None:
    dataset(PAIRS[:2], NAMES).to_parquet(str(folder / "train-00000-of-00002.parquet"))
    dataset(PAIRS[2:], NAMES).to_parquet(str(folder / "train-00001-of-00002.parquet"))
    pq.write_table(pa.table({**columns(), "idx": [0, 1, 2]}), folder / "validation.parquet")
    dataset(PAIRS, NAMES).to_parquet(str(folder / "test.parquet"))


def write_saved(folder: Path) -> None:
    splits = {split: dataset(PAIRS, NAMES).with_format("numpy") for split in folders.SPLITS}
    DatasetDict(splits).save_to_disk(str(folder))


LAYOUTS = [write_saved, write_tsv, write_original, write_parquet, write_jsonl, write_csv]


def rows_of(split: Dataset) -> Rows:
    return list(zip(*(list(split[column]) for column in folders.COLUMNS), strict=True))


def message(source: Path | str) -> str:
    """The one-line error of loading `source`."""
    with pytest.raises(UsageError) as caught:
        loading.load(str(source))
    text = str(caught.value)
    assert "\n" not in text
    return text


# The real corpus


def test_the_glue_files_hold_the_pairs_and_positives_that_their_release_states(mrpc_dir: Path) -> None:
    loaded = loading.load(str(mrpc_dir))
    found = {split: (len(loaded[split]), sum(loaded[split]["label"])) for split in loaded}
    assert found == {"train": (3668, 2474), "validation": (408, 279), "test": (1725, 1147)}
    texts = loaded["train"]["sentence1"]
    assert sum(text.count('"') % 2 for text in texts) > 0, "a stray quote is text"
    assert not any("\t" in text or "\n" in text for text in texts)


def test_the_original_release_without_glue_gives_the_same_pairs_in_the_same_order(
    mrpc_dir: Path, tmp_path: Path
) -> None:
    for name in (folders.ORIGINAL_TRAIN, folders.ORIGINAL_TEST, folders.DEV_IDS):
        shutil.copyfile(mrpc_dir / name, tmp_path / name)
    glue, original = loading.load(str(mrpc_dir)), loading.load(str(tmp_path))
    for split in folders.SPLITS:
        assert rows_of(original[split]) == rows_of(glue[split])


def test_glue_without_the_original_release_withholds_the_test_labels(mrpc_dir: Path, tmp_path: Path) -> None:
    shutil.copyfile(mrpc_dir / "test.tsv", tmp_path / "test.tsv")
    loaded = loading.load(str(tmp_path))
    assert len(loaded["test"]) == 1725
    assert set(loaded["test"]["label"]) == {-1}


# Layouts and sources


def test_every_layout_gives_the_same_dataset_and_hash_and_is_not_modified(tmp_path: Path) -> None:
    expected = Features(
        {"sentence1": Value("string"), "sentence2": Value("string"), "label": ClassLabel(names=list(NAMES))}
    )
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in PAIRS]
    assert lines[2] == '["The cat sat.","The \\"cat\\" stood.",1]\n'  # the documented bytes
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    for write in LAYOUTS:
        folder = tmp_path / write.__name__
        folder.mkdir()
        write(folder)
        before = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
        loaded = loading.load(str(folder))
        assert list(loaded) == ["train", "validation", "test"], folder.name
        for name, split in loaded.items():
            assert split.features == expected, folder.name
            assert rows_of(split) == PAIRS, folder.name
            found = loading.identity(split, str(folder), name)
            assert (found.split, found.pairs, found.positives, found.label_names) == (name, 3, 2, NAMES), folder.name
            assert found.data_sha256 == digest, folder.name
        loaded["train"].map(lambda row: {"n": len(row["sentence1"])})
        assert {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]} == before, folder.name


def test_each_layout_has_its_writer_here_in_the_same_order(tmp_path: Path) -> None:
    found = []
    for write in LAYOUTS:
        folder = tmp_path / write.__name__
        folder.mkdir()
        write(folder)
        found.append(folders.layout_of(str(folder), folder).name)
    assert found == [layout.name for layout in folders.LAYOUTS], "add a writer of each layout to LAYOUTS of this file"


def test_loading_needs_no_cache_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    code = "import sys; from mrpcbench.data import loading; print(len(loading.load(sys.argv[1])['train']))"
    environment = {**os.environ, "HF_HOME": "/dev/null/no-such-folder", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_the_first_layout_in_the_documented_order_is_read(tmp_path: Path) -> None:
    writers: dict[str, Callable[[Rows], object]] = {
        "CSV": lambda rows: (tmp_path / "train.csv").write_text(csv_text(rows)),
        "JSON lines": lambda rows: (tmp_path / "train.jsonl").write_text(jsonl(rows)),
        "Parquet": lambda rows: dataset(rows).to_parquet(str(tmp_path / "train.parquet")),
        "the original": lambda rows: (tmp_path / "msr_paraphrase_train.txt").write_text(tsv(rows)),
        "GLUE": lambda rows: (tmp_path / "train.tsv").write_text(tsv(rows)),
        "saved": lambda rows: DatasetDict({"train": dataset(rows)}).save_to_disk(str(tmp_path)),
    }
    for name, write in writers.items():
        write([(name, "b", 1)])
        assert loading.load(str(tmp_path))["train"]["sentence1"][0] == name


@pytest.mark.parametrize(("name", "text"), [("train.tsv", tsv()), ("train.csv", csv_text()), ("train.jsonl", jsonl())])
def test_a_byte_order_mark_crlf_and_a_missing_last_line_end_change_nothing(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.rstrip("\n").replace("\n", "\r\n").encode())
    assert rows_of(loading.load(str(tmp_path))["train"]) == PAIRS


def test_a_quoted_csv_field_may_span_lines_and_later_errors_count_them(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('sentence1,sentence2,label\n"a\nb",c,1\nd,e,7\n')
    assert "train.csv line 4: label is '7'" in message(tmp_path)
    (tmp_path / "train.csv").write_text('sentence1,sentence2,label\n"a\nb",c,1\n')
    assert rows_of(loading.load(str(tmp_path))["train"]) == [("a\nb", "c", 1)]


def test_a_single_saved_dataset_uses_its_split_name(tmp_path: Path) -> None:
    dataset(split="validation").save_to_disk(str(tmp_path / "named"))
    assert list(loading.load(str(tmp_path / "named"))) == ["validation"]
    dataset().save_to_disk(str(tmp_path / "nameless"))
    assert "save a DatasetDict of train, validation, test" in message(tmp_path / "nameless")


def test_declared_class_names_apply_to_all_splits_and_default_to_glues(tmp_path: Path) -> None:
    dataset(names=("a", "b", "c")).to_parquet(str(tmp_path / "train.parquet"))
    assert "train.parquet: declares 3 classes (a, b, c); paraphrase has two" in message(tmp_path)
    (tmp_path / "train.parquet").unlink()
    dataset().to_parquet(str(tmp_path / "train-00000-of-00002.parquet"))
    dataset(names=("different", "same")).to_parquet(str(tmp_path / "train-00001-of-00002.parquet"))
    dataset().to_parquet(str(tmp_path / "test.parquet"))
    loaded = loading.load(str(tmp_path))
    assert {loading.label_names(split) for split in loaded.values()} == {("different", "same")}


def test_hub_downloads_the_parquet_files_of_the_splits_alone(tmp_path: Path, local_hub: LocalHub) -> None:
    write_parquet(tmp_path)
    files = {f"mrpc/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}
    old = local_hub.put("datasets", "nyu-mll/glue", files, tag="v1")
    new = local_hub.put("datasets", "nyu-mll/glue", files | {"README.md": b"newer"})
    loaded = loading.load("hub@v1", splits=["train"])
    assert rows_of(loaded["train"]) == PAIRS
    assert list(loaded) == ["train"]
    assert loading.identity(loaded["train"].select([0]), "hub@v1", "train").revision == old
    assert loading.identity(loading.load("hub")["validation"], "hub", "validation").revision == new


# The test labels that GLUE withholds


def test_withheld_labels_come_from_the_original_release_by_ids_not_by_position(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text(tsv(header=WITHHELD_HEADER), encoding="utf-8")
    header, *rows = tsv().rstrip("\n").split("\n")
    (tmp_path / "msr_paraphrase_test.txt").write_text("\n".join([header, *rows[1:], rows[0]]), encoding="utf-8")
    assert rows_of(loading.load(str(tmp_path))["test"]) == PAIRS


@pytest.mark.parametrize("original", [tsv(first_id=900), tsv([("x", "y", 1), *PAIRS[1:]])], ids=["ids", "sentences"])
def test_an_original_release_that_does_not_match_is_rejected(original: str, tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text(tsv(header=WITHHELD_HEADER), encoding="utf-8")
    (tmp_path / "msr_paraphrase_test.txt").write_text(original, encoding="utf-8")
    text = message(tmp_path)
    assert "test.tsv line 2: msr_paraphrase_test.txt has no row with these ids and sentences" in text


def test_an_original_release_that_contradicts_itself_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text(tsv(header=WITHHELD_HEADER), encoding="utf-8")
    original = tsv() + tsv([(*PAIRS[0][:2], 0)]).split("\n")[1]
    (tmp_path / "msr_paraphrase_test.txt").write_text(original, encoding="utf-8")
    assert "msr_paraphrase_test.txt line 5: an earlier row gives this pair another label" in message(tmp_path)


def test_a_split_with_withheld_labels_is_refused_only_if_labels_are_needed(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text(tsv(header=WITHHELD_HEADER), encoding="utf-8")
    loaded = loading.load(str(tmp_path))
    assert loading.split_of(loaded, str(tmp_path), "test", labelled=False)["label"][:] == [-1, -1, -1]
    assert loading.identity(loaded["test"], str(tmp_path), "test").positives == 0
    with pytest.raises(UsageError, match=r"labels of test are withheld .*msr_paraphrase_test\.txt next to"):
        loading.split_of(loaded, str(tmp_path), "test")


def test_partly_withheld_labels_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(jsonl([PAIRS[0], (*PAIRS[1][:2], -1)]))
    assert "test.jsonl line 2: label is -1 (withheld), but other rows have labels" in message(tmp_path)


# Splits


def test_a_folder_with_one_split_serves_it_and_an_error_explains_how_to_get_the_others(tmp_path: Path) -> None:
    (tmp_path / "validation.csv").write_text(csv_text(), encoding="utf-8")
    loaded = loading.load(str(tmp_path))
    assert rows_of(loading.split_of(loaded, str(tmp_path), "validation")) == PAIRS
    with pytest.raises(
        UsageError, match=r"no train split, only validation; the folder is read as CSV, .* from train\.csv"
    ):
        loading.split_of(loaded, str(tmp_path), "train")


def test_the_original_release_without_dev_ids_is_an_error_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "msr_paraphrase_train.txt").write_text(tsv(), encoding="utf-8")
    loaded = loading.load(str(tmp_path))
    assert rows_of(loaded["train"]) == PAIRS
    with pytest.raises(UsageError, match=r"no validation split.* dev_ids\.tsv beside msr_paraphrase_train\.txt"):
        loading.split_of(loaded, str(tmp_path), "validation")


def test_an_unknown_split_is_rejected() -> None:
    with pytest.raises(UsageError, match="--split dev: no such split; use train, validation, test"):
        loading.split_of(DatasetDict(), "quickstart", "dev")


def test_a_bundled_source_without_the_split_is_an_error_that_names_its_splits() -> None:
    with pytest.raises(UsageError, match=r"--data hub: no test split, only train$"):
        loading.split_of(DatasetDict(train=dataset()), "hub", "test")


# Guards: each names the file, the row and the remedy


BAD_ROWS = {
    "a label that is not 0 or 1": ("train.tsv", tsv().replace("\n0\t", "\n2\t"), "line 3: label is '2'; write 1"),
    "a fractional label": ("train.jsonl", jsonl().replace(": 0}", ": 0.0}"), "line 2: label is 0.0"),
    "a boolean label": ("train.jsonl", jsonl().replace(": 0}", ": true}"), "line 2: label is True"),
    "an absent label": ("train.jsonl", jsonl().replace(": 0}", ": null}"), "line 2: label is None"),
    "an empty sentence": ("train.tsv", tsv([PAIRS[0], ("a", " ", 1)]), "line 3: sentence2 is ' '; every pair"),
    "a sentence that is no text": ("train.jsonl", jsonl().replace('"The cat sat."', "5"), "line 3: sentence1 is 5"),
    "too few fields": ("train.tsv", tsv() + "1\t2\t3\tx\n", "line 5: 4 field(s), but line 1 names 5; fix"),
    "too many fields": ("train.csv", csv_text() + "3,a, b,c,1\n", "line 5: 5 field(s), but line 1 names 4; fix"),
    "a blank line amid rows": ("train.tsv", tsv().replace("\n0", "\n\n0"), "line 3: 1 field(s)"),
    "a blank CSV line": ("train.csv", csv_text().replace("\n1,", "\n\n1,"), "line 3: 0 field(s)"),
    "a missing column": ("train.csv", "sentence1,label\na,1\n", "line 1: no column sentence2; the columns must be"),
    "a file of another GLUE task": ("train.tsv", "index\tsentence1\tlabel\n0\ta\t1\n", "line 1: no column #1 ID"),
    "a missing JSON key": ("train.jsonl", jsonl() + '{"sentence1": "a"}', "line 4: no column sentence2, label"),
    "text that is no JSON": ("train.jsonl", jsonl() + "oops\n", "line 4: not a JSON object; write one"),
    "JSON that is no object": ("train.jsonl", jsonl() + '[["sentence1", "a"]]\n', "line 4: not a JSON object"),
    "JSON without end": ("train.jsonl", "[" * 100_000, "line 1: not a JSON object"),
    "half a surrogate pair": ("train.jsonl", jsonl().replace("The", "\\ud800"), "line 3: not a JSON object"),
    "a quote that is not closed": ("train.csv", csv_text() + '3,"a,b,1\n', "line 5: not CSV (unexpected end"),
    "a quote that is not doubled": ("train.csv", csv_text() + '3,"a" b,c,1\n', "line 5: not CSV ('"),
    "a header alone": ("train.tsv", GLUE_HEADER + "\n", ": no pairs for train; add rows, or remove"),
    "a CSV header alone": ("train.csv", "sentence1,sentence2,label\n", ": no pairs for train"),
    "an empty file": ("train.csv", "", "line 1: no column sentence1, sentence2, label"),
    "an empty JSON file": ("train.jsonl", "", "line 1: an empty line"),
    "bytes that are not UTF-8": ("train.tsv", tsv().encode("cp1252", "replace"), "line 3: bytes that are not UTF-8"),
    "a UTF-16 file": ("train.csv", csv_text().encode("utf-16"), "line 1: bytes that are not UTF-8; convert"),
    "a CSV column twice": (
        "train.csv",
        "label,sentence1,sentence2,label\n0,a,b,1\n",
        "line 1: column 'label' is given 2 times; keep one label",
    ),
    "a CSV column twice, in other letters": (
        "train.csv",
        "label,sentence1,sentence2, Label\n0,a,b,1\n",
        "line 1: column 'label' and ' Label' is given 2 times; keep one label",
    ),
    "a TSV column twice": (
        "train.tsv",
        f"{GLUE_HEADER}\tQuality\n1\t2\t3\ta\tb\t0\n",
        "line 1: column 'Quality' is given 2 times",
    ),
    "GLUE's column and ours": (
        "train.tsv",
        f"{GLUE_HEADER}\tlabel\n1\t2\t3\ta\tb\t0\n",
        "line 1: Quality and label are the same column; keep Quality",
    ),
    "a JSON key twice": (
        "train.jsonl",
        jsonl() + '{"label": 0, "sentence1": "a", "sentence2": "b", "l\\u0061bel": 1}\n',
        "line 4: key 'label' is given twice; keep one",
    ),
    "a key twice in a saved dataset": (
        "dataset_dict.json",
        '{"splits": ["train"],\n "splits": ["test"]}',
        "dataset_dict.json line 2: key 'splits' is given twice",
    ),
    "a broken Parquet file": ("train.parquet", "PAR1", ": cannot be read as Parquet; download or write"),
    "a broken saved dataset": ("dataset_dict.json", "{}", "cannot be read as a saved dataset; save it again"),
    "a truncated saved dataset": ("dataset_dict.json", "{", "dataset_dict.json: not JSON at line 1"),
}


def test_the_error_for_a_bad_file_names_the_row_and_a_fix(tmp_path: Path) -> None:
    wrong = []
    for number, (what, (name, content, expected)) in enumerate(BAD_ROWS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        text = message(folder)
        if expected not in text or (name if name != "dataset_dict.json" else str(folder)) not in text:
            wrong.append((what, expected, text))
    assert not wrong


def test_the_error_for_a_bad_parquet_or_saved_row_has_its_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({**columns(), "label": [1, 0, 2]}), tmp_path / "train.parquet")
    assert "train.parquet row 3: label is 2" in message(tmp_path)
    pq.write_table(pa.table({**columns(), "sentence2": ["a", None, "c"]}), tmp_path / "train.parquet")
    assert "train.parquet row 2: sentence2 is None" in message(tmp_path)
    pq.write_table(pa.table({"sentence1": ["a"], "label": [1]}), tmp_path / "train.parquet")
    assert "train.parquet: no column sentence2" in message(tmp_path)
    pq.write_table(pa.table({"sentence1": [], "sentence2": [], "label": []}), tmp_path / "train.parquet")
    assert "train.parquet: no pairs for train" in message(tmp_path)
    DatasetDict(train=dataset([("a", "b", 3)])).save_to_disk(str(tmp_path))
    assert "split train row 1: label is 3" in message(tmp_path)
    DatasetDict(train=dataset().remove_columns("label")).save_to_disk(str(tmp_path / "saved"))
    assert "split train: no column label" in message(tmp_path / "saved")


def test_a_parquet_or_saved_column_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    names = ["sentence1", "sentence2", "label", "label"]
    twice = pa.table([pa.array(["a"]), pa.array(["b"]), pa.array([0]), pa.array([1])], names=names)
    pq.write_table(twice, tmp_path / "train.parquet")
    assert "train.parquet: column 'label' is given 2 times; keep one label" in message(tmp_path)
    saved = tmp_path / "saved"
    DatasetDict(train=dataset()).save_to_disk(str(saved))
    with pa.ipc.new_stream(saved / "train" / "data-00000-of-00001.arrow", twice.schema) as stream:
        stream.write_table(twice)
    assert str(saved) in message(saved)


def test_columns_without_a_name_may_repeat(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("label,sentence1,sentence2,,\n0,a,b,,\n", encoding="utf-8")
    assert rows_of(loading.load(str(tmp_path))["train"]) == [("a", "b", 0)]


def test_dev_ids_of_another_release_are_rejected(tmp_path: Path) -> None:
    write_original(tmp_path)
    (tmp_path / "dev_ids.tsv").write_text("103\t153\n7\t8\n")
    assert "dev_ids.tsv line 2: not the two ids of a row of msr_paraphrase_train.txt" in message(tmp_path)
    (tmp_path / "dev_ids.tsv").write_text("".join(f"{n}\t{n + 50}\n" for n in range(100, 106)))
    assert "msr_paraphrase_train.txt: no pairs for train" in message(tmp_path)


def test_files_that_are_not_one_complete_split_are_rejected(tmp_path: Path) -> None:
    cases = [
        ["dev.csv", "validation.csv"],
        ["train.csv", "train-00000-of-00001.csv"],
        ["train-00000-of-00002.csv"],
        ["train-00001-of-00002.csv"],
        ["train-00000-of-00001.csv", "train-00000-of-00002.csv"],
        ["train-00000-of-00000.csv"],
        ["train-00000-of-00001-0a1b.csv", "train-00000-of-00001-2c3d.csv"],
    ]
    for number, names in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in names:
            (folder / name).write_text(csv_text(), encoding="utf-8")
        text = message(folder)
        assert all(name in text for name in (*names, "or every shard of one series")), text


def test_shards_of_the_hub_may_end_in_a_hash(tmp_path: Path) -> None:
    for number, rows in enumerate((PAIRS[:2], PAIRS[2:])):
        dataset(rows).to_parquet(str(tmp_path / f"train-0000{number}-of-00002-{9 - number}f3a28cc0c1d9b7e.parquet"))
    assert rows_of(loading.load(str(tmp_path))["train"]) == PAIRS


def test_data_one_level_below_is_an_error_that_names_that_folder(tmp_path: Path) -> None:
    (tmp_path / "repository" / "data").mkdir(parents=True)
    dataset().to_parquet(str(tmp_path / "repository" / "data" / "train-00000-of-00001.parquet"))
    folder = tmp_path / "repository"
    assert message(folder) == f"--data {folder}: no data in the folder itself; name --data {folder / 'data'}"


@pytest.mark.parametrize("files", [["train", "test"], ["train-00000-of-00002", "train-00001-of-00002"]])
def test_files_with_different_class_names_are_rejected(files: list[str], tmp_path: Path) -> None:
    for name, names in zip(files, (("no", "yes"), ("yes", "no")), strict=True):
        dataset(names=names).to_parquet(str(tmp_path / f"{name}.parquet"))
    assert "the files disagree on the class names" in message(tmp_path)


def test_a_source_that_is_not_a_folder_is_an_error_that_names_the_valid_values(tmp_path: Path) -> None:
    assert "no such folder; --data takes hub, quickstart or a folder" in message(tmp_path / "nowhere")
    (tmp_path / "train.csv").write_text(csv_text(), encoding="utf-8")
    assert "is a file; pass its folder" in message(tmp_path / "train.csv")


def test_a_folder_without_data_lists_the_layouts_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no data")
    text = message(tmp_path)
    assert all(layout.name in text for layout in folders.LAYOUTS)
    assert "dev.tsv" in text and "msr_paraphrase_train.txt" in text


def test_an_unreadable_file_is_a_one_line_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.tsv").mkdir()
    assert "train.tsv: cannot be read" in message(tmp_path)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "the folder cannot be listed" in message(tmp_path)


# Identity


def test_the_hash_changes_with_the_content() -> None:
    variants = {
        "as they are": PAIRS,
        "order": PAIRS[::-1],
        "a pair less": PAIRS[:2],
        "a label": [(*PAIRS[0][:2], 0), *PAIRS[1:]],
        "sides": [(PAIRS[0][1], PAIRS[0][0], 1), *PAIRS[1:]],
        "a space": [(PAIRS[0][0] + " ", PAIRS[0][1], 1), *PAIRS[1:]],
    }
    digests = {
        what: loading.identity(dataset(rows, NAMES), "hub", "train").data_sha256 for what, rows in variants.items()
    }
    assert len(set(digests.values())) == len(variants), digests


def test_the_public_source_never_shows_the_path_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my-pairs"
    folder.mkdir()
    monkeypatch.chdir(folder)
    split = dataset(names=NAMES)
    sources = [str(folder), f"{folder}/", ".", "../my-pairs"]
    assert {loading.identity(split, source, "train").source for source in sources} == {"folder:my-pairs"}
    assert loading.identity(split, "hub", "train").source == "hub:nyu-mll/glue/mrpc"
    assert loading.identity(split, "quickstart", "train").source == "quickstart"


def test_a_column_is_read_at_once_and_not_row_by_row(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of MRPC, read one by one for each column, would take longer than a short training."""

    def row_by_row(self: Dataset) -> None:
        raise AssertionError("read row by row")

    monkeypatch.setattr(Dataset, "__iter__", row_by_row)
    common = {"model": "quickstart", "data": small_data, "device": "cpu"}
    mrpcbench.train(**common, output_dir=str(tmp_path / "out"), max_steps=1, engine="packed", precision="fp32")
    assert mrpcbench.evaluate(**common).score.pairs == 40
