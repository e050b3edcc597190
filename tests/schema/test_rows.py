"""Tests of mrpcbench.schema.rows: one text form of a row, and one parser that reads it."""

from typing import Any, get_args

import pytest
from records import make_row

from mrpcbench.schema.requests import Scenario
from mrpcbench.schema.rows import RowId, RowSelector


def test_every_row_can_be_parsed_from_its_text() -> None:
    for case in ("onnx", "torch-packed", "hf-autocast", "ort_1.23", "A", "batch", "offline"):
        for scenario in get_args(Scenario):
            for size in (1,) if scenario == "single-stream" else (1, 8, 128):
                row = make_row(scenario, case=case, batch_size=size)
                assert RowId.parse(str(row.id)) == row.id
                assert RowSelector.parse(str(row.id)).matches(row.id)


def test_the_text_of_a_row_of_single_pairs_omits_its_batch_size() -> None:
    assert str(make_row("single-stream").id) == "torch single-stream"
    assert str(make_row("offline", case="hf-autocast").id) == "hf-autocast offline batch 32"
    assert str(make_row("server", batch_size=8).id) == "torch server batch 8"
    assert RowId.parse("onnx single-stream batch 1") == RowId.parse("onnx single-stream")


def test_a_text_that_is_not_a_row_is_refused_by_name() -> None:
    for text in (
        *("", "onnx", "onnx:32", "onnx offline", "onnx offline batch 0", "onnx offline batch 08", "onnx offline 32"),
        *("onnx single-stream batch 2", "onnx tea-time batch 2", " onnx single-stream", "onnx single-stream\n"),
        *("onnx  offline batch 32", "on nx offline batch 32", "onnx offline batch ٣", "ønnx single-stream"),
    ):
        with pytest.raises(ValueError, match="is not a row; write it as 'onnx offline batch 32'"):
            RowId.parse(text)


def test_a_row_without_a_text_form_cannot_be_made() -> None:
    broken: list[tuple[str, Any]] = [
        ("offline", {"case": "two words"}),
        ("offline", {"case": ""}),
        ("offline", {"batch_size": 0}),
        ("single-stream", {"batch_size": 2}),
    ]
    for scenario, changes in broken:
        with pytest.raises(ValueError, match=r"letters, digits|no batch size"):
            make_row(scenario, **changes)


def test_a_case_selects_all_its_rows_and_with_a_batch_size_those_of_that_size() -> None:
    rows = [
        RowId.parse(text) for text in ("a single-stream", "a offline batch 1", "a offline batch 8", "b server batch 8")
    ]
    for text, expected in (
        ("a", rows[:3]),
        ("a:1", rows[:2]),
        ("a:8", rows[2:3]),
        ("b", rows[3:]),
        ("c", []),
        ("a offline batch 8", rows[2:3]),
        ("a single-stream batch 1", rows[:1]),
    ):
        assert [row for row in rows if RowSelector.parse(text).matches(row)] == expected
    for text in ("", "a:", "a:0", "a:x", "a offline", ":8"):
        with pytest.raises(ValueError, match="is not a row"):
            RowSelector.parse(text)
