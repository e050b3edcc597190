"""Tests of mrpcbench.records.upgrade: fields that version 1 omitted or named differently."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from records import make_record

from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.records.upgrade import upgrade
from mrpcbench.schema.version import SCHEMA_VERSION


def bench_of_version_1(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"schema_version": 1, "command": "bench", "bench": {"rows": list(rows)}}


def upgraded_row(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = upgrade(bench_of_version_1(row))["bench"]["rows"][0]
    return found


def test_a_row_of_version_1_without_a_case_name_gets_that_of_its_backend() -> None:
    spec = {"backend": "onnx"}
    assert upgraded_row({"spec": spec, "contender": "ort-cpu"}) == {"spec": spec, "case": "ort-cpu"}
    assert upgraded_row({"spec": spec, "contender": None}) == {"spec": spec, "case": "onnx"}
    assert upgraded_row({"spec": spec}) == {"spec": spec, "case": "onnx"}


def test_only_an_offline_row_of_version_1_without_an_order_was_sorted_by_length() -> None:
    for order, expected in ((None, "length"), ("length", "length"), ("given", "given")):
        assert upgraded_row({"scenario": "offline", "order": order})["order"] == expected
    assert upgraded_row({"scenario": "offline"})["order"] == "length"
    for scenario in ("single-stream", "server"):
        assert upgraded_row({"scenario": scenario}).get("order") is None


def test_a_graph_of_version_1_without_a_form_is_optimums() -> None:
    torch, silent, unknown, said = (
        {"graph_sha256": None},
        {"graph_sha256": "e"},
        {"graph_sha256": "e", "optimize": None},
        {"graph_sha256": "e", "optimize": "cpu"},
    )
    for model, expected in ((torch, None), (silent, "none"), (unknown, None), (said, "cpu")):
        assert upgraded_row({"model": model})["model"].get("optimize") == expected
        assert upgrade({"schema_version": 1, "model": model})["model"].get("optimize") == expected


def test_version_1_added_no_rounds_to_those_of_its_plan() -> None:
    document = {**bench_of_version_1(), "bench": {"plan": {"rounds": 3, "order": "given"}}}
    assert upgrade(document)["bench"]["plan"] == {"rounds": 3, "order": "given", "max_s": 0.0}


def test_a_reference_row_of_version_1_is_named_like_other_rows() -> None:
    for old, new in (
        ("torch single-stream batch 1", "torch single-stream"),
        ("torch offline batch 1", "torch offline batch 1"),
        ("torch offline batch 32", "torch offline batch 32"),
    ):
        document = {**bench_of_version_1(), "bench": {"reference": {"row": old, "labels": "10"}}}
        assert upgrade(document)["bench"]["reference"] == {"row": new, "labels": "10"}


def test_a_recipe_of_version_1_without_an_engine_was_the_trainers() -> None:
    for given, expected in (({"seed": 1}, "trainer"), ({"engine": "packed"}, "packed")):
        document = {"schema_version": 1, "train": {"recipe": given}, "recipe": given}
        found = upgrade(document)
        assert found["train"]["recipe"]["engine"] == found["recipe"]["engine"] == expected


def test_a_record_of_version_1_loses_the_empty_fields_of_other_commands() -> None:
    empty = dict.fromkeys(("train", "evaluate", "export", "bench", "ab", "selftest"))
    document = {"schema_version": 1, "command": "train", **empty, "train": {}, "export": {"a": 1}}
    assert upgrade(document) == {"schema_version": "2.0", "command": "train", "train": {}, "export": {"a": 1}}


def test_every_version_becomes_the_current_one_and_the_input_is_unchanged() -> None:
    record = json.loads(store.dumps(make_record("ab")))
    for version in (1, SCHEMA_VERSION, "2.99"):
        document = copy.deepcopy(record)
        document["schema_version"] = document["ab"]["comparison"]["schema_version"] = version
        before = copy.deepcopy(document)
        assert upgrade(document) == record
        assert document == before


def test_what_is_invalid_in_version_1_is_left_for_validation() -> None:
    for broken in (None, 3, "text", [], [3], {"rows": 3}, {"rows": [3, None]}, {"rows": [{"spec": []}]}):
        document = {"schema_version": 1, "bench": broken, "model": broken}
        assert upgrade(document)["schema_version"] == SCHEMA_VERSION
    with pytest.raises(ValueError, match="schema version 4"):
        upgrade({"schema_version": 4})


def test_fields_of_removed_features_are_dropped() -> None:
    metric = {"metric": "accuracy", "detectable": 2.5}
    document = {"schema_version": 1, "selftest": None, "ab": {"comparison": {"metrics": [metric]}}}
    found = upgrade(document)
    assert "selftest" not in found
    assert found["ab"]["comparison"]["metrics"] == [{"metric": "accuracy"}]


def test_a_benchmark_of_version_1_with_tokenising_in_its_times_is_refused(tmp_path: Path) -> None:
    record = make_record("bench")
    for from_text in (True, False):
        document = json.loads(store.dumps(record))
        document["schema_version"] = 1
        document["bench"]["plan"]["from_text"] = from_text
        (tmp_path / f"{from_text}.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        store.load(tmp_path / "True.json")
    reason = "measured with --from-text, which this version does not support; measure again"
    assert str(caught.value) == f"{tmp_path / 'True.json'}: {reason}"
    assert store.load(tmp_path / "False.json") == record
