"""The positive class is found by its name, in data and in models."""

from pathlib import Path

import pytest
from conftest import Listener
from datasets import ClassLabel, Dataset, Features, Value

from mrpcbench.data import loading
from mrpcbench.data.labels import in_order, parsed_map
from mrpcbench.errors import UsageError

GLUE = ("not_equivalent", "equivalent")


@pytest.mark.parametrize(
    ("declared", "ordered", "is_reversed"),
    [
        (GLUE, GLUE, False),
        (("equivalent", "not_equivalent"), GLUE, True),
        (("Equivalent", "Not equivalent"), GLUE, True),
        (("NOT-EQUIVALENT", "EQUIVALENT"), GLUE, False),
        (("paraphrase", "not paraphrase"), ("not paraphrase", "paraphrase"), True),
        (("no", "yes"), ("no", "yes"), False),
        (("yes", "no"), ("yes", "no"), False),
        (("0", "1"), GLUE, False),
        (("LABEL_0", "LABEL_1"), GLUE, False),
        (("1", "0"), GLUE, True),
    ],
)
def test_the_negative_class_is_the_one_that_is_not_the_other(
    declared: tuple[str, str], ordered: tuple[str, str], is_reversed: bool
) -> None:
    assert in_order(declared, "here") == (ordered, is_reversed)


def test_one_name_for_both_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="both classes are called Equivalent"):
        in_order(("Equivalent", "equivalent"), "here")


@pytest.mark.parametrize("text", ["", "0=a", "0=a,1=", "0=a,2=b", "0=a,1=b,1=c", "a,b", "1=a,1=b"])
def test_a_label_map_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--label-map .*0=not_equivalent,1=equivalent"):
        parsed_map(text)


def test_a_label_map_may_have_any_order() -> None:
    assert parsed_map("1=no, 0=yes") == ("yes", "no")


def saved(path: Path, labels: list[int], names: tuple[str, ...] | None = None) -> None:
    kind = ClassLabel(names=list(names)) if names else Value("int64")
    features = Features({"sentence1": Value("string"), "sentence2": Value("string"), "label": kind})
    texts = [f"sentence {index}" for index in range(len(labels))]
    Dataset.from_dict({"sentence1": texts, "sentence2": texts, "label": labels}, features=features).to_parquet(
        str(path)
    )


def test_data_that_declares_its_classes_the_other_way_round_has_the_labels_and_the_hash_of_glue(tmp_path: Path) -> None:
    for name in ("glue", "reversed"):
        (tmp_path / name).mkdir()
    saved(tmp_path / "glue" / "validation.parquet", [1, 0, 1])
    saved(tmp_path / "reversed" / "validation.parquet", [0, 1, 0], GLUE[::-1])
    listener, found = Listener(), []
    for name in ("glue", "reversed"):
        source = str(tmp_path / name)
        split = loading.load(source, listener)["validation"]
        assert split["label"][:] == [1, 0, 1]
        identity = loading.identity(split, source, "validation")
        found.append((identity.data_sha256, identity.positives, identity.label_names))
    assert found[0] == found[1]
    (line,) = listener.lines
    assert line.endswith(
        "declares equivalent, not_equivalent; read as 0 = not_equivalent, 1 = equivalent (positive class)"
    )


def test_withheld_labels_stay_withheld(tmp_path: Path) -> None:
    saved(tmp_path / "test.parquet", [-1, -1], GLUE[::-1])
    assert loading.load(str(tmp_path))["test"]["label"][:] == [-1, -1]


def test_files_in_both_orders_agree_and_a_file_without_names_beside_the_other_order_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "train.parquet", [0, 1], GLUE[::-1])
    saved(tmp_path / "validation.parquet", [1, 0], GLUE)
    loaded = loading.load(str(tmp_path))
    assert [split["label"][:] for split in loaded.values()] == [[1, 0], [1, 0]]
    saved(tmp_path / "validation.parquet", [1, 0])
    with pytest.raises(UsageError, match=r"validation.parquet declares no names"):
        loading.load(str(tmp_path))
