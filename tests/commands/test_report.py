"""Tests of `mrpcbench report`: what it reads, and what it says."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Listener, Outcome
from records import COMMANDS, make_record

from mrpcbench.commands.report import report
from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.schema.gate_requests import ReportPlan

Run = Callable[..., Outcome]
PLAN = ReportPlan()


def test_every_kind_of_record_is_shown(mrpcbench: Run, tmp_path: Path) -> None:
    for command in COMMANDS:
        store.save(make_record(command), tmp_path / "runs" / f"{command}.json")
    done = mrpcbench("report", "runs")
    assert done.status == 0, done.err
    for command in COMMANDS:
        assert f"{command}.json: {command}, 2025-01-02 03:04 UTC" in done.out
    for text in ("F1 0.8877", "F1 0.8986 (0.8700 to 0.9241)", "PASS: 0 of 408 labels flip", "2 rows, 0 VALID"):
        assert text in done.out


def test_a_folder_is_read_recursively_and_its_other_json_files_are_named(tmp_path: Path, listener: Listener) -> None:
    store.save(make_record("bench"), tmp_path / "deep" / "down" / "bench.json")
    store.save(make_record("train"), tmp_path / ".cache" / "train.json")
    (tmp_path / "config.json").write_text('{"command": "bench"}')
    found = report([tmp_path, tmp_path / "deep"], PLAN, listener)
    assert [name for name, _ in found.records] == ["bench.json"]
    assert listener.lines == [f"{tmp_path}: skipped, because they are no records: config.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"command": "bench"}', '{"command": "dance"}'])
def test_a_file_that_is_no_record_is_a_usage_error(content: str, tmp_path: Path, listener: Listener) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"file\.json"):
        report([path], PLAN, listener)


def test_a_folder_with_a_damaged_file_or_without_a_record_is_a_usage_error(tmp_path: Path, listener: Listener) -> None:
    with pytest.raises(UsageError, match="no record in"):
        report([tmp_path], PLAN, listener)
    text = store.dumps(make_record("bench"))
    (tmp_path / "cut.json").write_text(text[:-100])
    with pytest.raises(UsageError, match=r"cut\.json: not JSON at line"):
        report([tmp_path], PLAN, listener)


def test_an_unfinished_record_says_so(mrpcbench: Run, tmp_path: Path) -> None:
    store.save(make_record("bench", complete=False), tmp_path / "bench.json")
    assert "INCOMPLETE: the run did not end" in mrpcbench("report", "bench.json").out


def test_report_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    store.save(make_record("bench"), tmp_path / "bench.json")
    program = """
        import sys
        from mrpcbench.cli.app import app
        try:
            app()
        except SystemExit as status:
            print("STATUS", status.code)
        heavy = {"torch", "transformers", "datasets", "onnx", "onnxruntime", "altair"}
        print("LOADED", sorted(heavy & {name.split(".")[0] for name in sys.modules}))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), "report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("STATUS 0\nLOADED []\n"), done.stdout + done.stderr


def test_json_is_one_document(mrpcbench: Run, tmp_path: Path) -> None:
    store.save(make_record("bench"), tmp_path / "bench.json")
    assert json.loads(mrpcbench("report", "bench.json", "--json").out)["records"][0][0] == "bench.json"
