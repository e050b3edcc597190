"""Tests of `mrpcbench report`: what it reads, and what it says."""

import csv
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Listener, Outcome
from records import (
    COMMANDS,
    MODEL,
    TORCH,
    make_bench,
    make_evaluate,
    make_export,
    make_gate,
    make_record,
    make_row,
    make_train,
)

from mrpcbench.commands.report import report
from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.schema.gate_requests import ReportPlan
from mrpcbench.schema.identity import Command
from mrpcbench.schema.records import BenchRecord
from mrpcbench.schema.verdicts import Verdict

Run = Callable[..., Outcome]
PLAN = ReportPlan()


def test_every_kind_of_record_is_shown(mrpcbench: Run, tmp_path: Path) -> None:
    for command in COMMANDS:
        store.save(make_record(command), tmp_path / "runs" / f"{command}.json")
    done = mrpcbench("report", "runs")
    assert done.status == 0, done.err
    for command in COMMANDS:
        assert f"{command}.json: {command}, 2025-01-02 03:04 UTC" in done.out
    for text in ("F1 0.8877", "F1 0.8988 (0.8700 to 0.9241)", "PASS: 0 of 408 labels flip", "2 rows, 0 VALID"):
        assert text in done.out


def test_a_benchmark_without_a_valid_row_says_what_may_help(mrpcbench: Run, tmp_path: Path) -> None:
    record = make_record("bench")
    noisy = ("unsteady: the time is known to ±9.0%, at most ±5% is allowed",)
    rows = tuple(replace(row, broken_rules=noisy) for row in record.bench.rows)
    store.save(replace(record, bench=replace(record.bench, rows=rows)), tmp_path / "bench.json")
    shown = " ".join(mrpcbench("report", "bench.json").out.split())
    assert "2 of 2 rows are INVALID: times varied by more than 5% (2)" in shown
    assert "close other programs or allow more time with `bench --max-seconds`" in shown
    assert "deploy no case: every case is INVALID" in shown


def test_the_lines_of_a_record_are_indented_where_they_wrap(
    mrpcbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    store.save(make_record("bench"), tmp_path / "bench.json")
    title, *rest = mrpcbench("report", "bench.json").out.partition("\n\n")[0].splitlines()
    assert title.startswith("bench.json: bench")
    assert len(rest) > 4
    assert all(line.startswith("  ") for line in rest)


def test_a_folder_is_read_recursively_and_its_other_json_files_are_named(tmp_path: Path, listener: Listener) -> None:
    store.save(make_record("bench"), tmp_path / "deep" / "down" / "bench.json")
    store.save(make_record("train"), tmp_path / ".cache" / "train.json")
    (tmp_path / "config.json").write_text('{"command": "bench"}')
    found = report([tmp_path, tmp_path / "deep"], PLAN, listener)
    assert [name for name, _ in found.records] == ["bench.json"]
    assert listener.lines == [f"{tmp_path}: skipped, because they are no records: config.json"]


def test_of_many_files_that_are_no_records_the_first_are_named(tmp_path: Path, listener: Listener) -> None:
    store.save(make_record("bench"), tmp_path / "bench.json")
    for number in range(5):
        (tmp_path / f"model-{number}.json").write_text("{}")
    report([tmp_path], PLAN, listener)
    (line,) = listener.lines
    assert line.endswith("no records: model-0.json, model-1.json, model-2.json and 2 more")


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


# --- recommendation ---------------------------------------------------------------------------------------------------

PEERS = REPOSITORY / "results" / "peers-cpu" / "bench.json"
QUICK = REPOSITORY / "results" / "quickstart" / "bench.json"


def test_the_case_to_deploy_is_named_with_the_reason_for_each_other_case(mrpcbench: Run) -> None:
    done = mrpcbench("report", PEERS, "--max-f1-drop", "0.5", "--price-per-hour", "2.99")
    assert done.status == 0
    record = store.load_as(BenchRecord, PEERS)
    lines = dict(re.findall(r"^  (deploy|not \S+|Pareto front) +(.*)$", done.out, re.MULTILINE))
    assert lines["deploy"].startswith("onnx-int8: 38.5 pairs/s (offline batch 32); F1 0.7416, as hf-autocast;")
    assert "costs 21.56 per million pairs" in " ".join(done.out.split())
    others = {row.case for row in record.rows} - {"onnx-int8"}
    assert {name.removeprefix("not ") for name in lines} == {"deploy", "Pareto front"} | others
    assert lines["not hf-autocast"].startswith(
        "17.1 pairs/s (offline batch 32); onnx-int8 is 2.27x faster (95% CI 2.12"
    )
    assert lines["not torch-packed"].startswith("offline batch 32 is INVALID: unsteady")
    assert "random-init: speed, memory and numerics" in done.out


def test_the_exit_code_tells_whether_a_case_meets_the_limits(mrpcbench: Run) -> None:
    """0 with a case; 5 if every case misses a limit; 6 if one could meet it, because its row is INVALID."""
    statuses = {limit: mrpcbench("report", PEERS, "--max-p99-ms", limit).status for limit in ("120", "20")}
    assert statuses == {"120": 0, "20": 6}
    done = mrpcbench("report", QUICK, "--max-p99-ms", "0.1")
    assert done.status == 5
    assert "no case: every case misses a limit" in done.out
    assert mrpcbench("report", QUICK, "--max-p99-ms", "1").status == 0


def test_an_unfinished_benchmark_cannot_meet_a_limit(mrpcbench: Run, tmp_path: Path) -> None:
    store.save(make_record("bench", complete=False), tmp_path / "bench.json")
    assert mrpcbench("report", "bench.json").status == 0
    for limit in ("--max-p99-ms", "--max-f1-drop"):
        assert mrpcbench("report", "bench.json", limit, "100").status == 6


def test_the_knee_on_a_gpu_is_named_with_its_memory(mrpcbench: Run) -> None:
    done = mrpcbench("report", REPOSITORY / "results" / "h200" / "bench-torch-offline.json")
    text = "128 has 90% of the pairs/s of 512 and takes at most 3364 MiB of GPU memory"
    assert text in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--price-per-hour", "0"), "--price-per-hour 0: must be above 0"),
        (("--price-per-hour", "-1"), "Invalid value for '--price-per-hour'"),
        (("--price-per-hour", "nan"), "--price-per-hour nan: not a finite number"),
        (("--max-p99-ms", "0"), "--max-p99-ms 0: must be above 0"),
        (("--max-f1-drop", "101"), "Invalid value for '--max-f1-drop'"),
        (("--max-f1-drop", "half"), "Invalid value for '--max-f1-drop'"),
        (("--csv", "."), "--csv .: a folder"),
        (("--csv", "bench.json/rows.csv"), "bench.json is a file"),
        (
            ("--csv", "./bench.json"),
            "--csv ./bench.json: exists, and is not a table of `report`; remove it, or name another file",
        ),
        (("--best",), "No such option: --best"),
    ],
)
def test_a_bad_option_is_one_line_and_leaves_everything_as_it_was(
    options: tuple[str, ...], message: str, mrpcbench: Run, tmp_path: Path
) -> None:
    store.save(make_record("bench"), tmp_path / "bench.json")
    before = (tmp_path / "bench.json").read_bytes()
    done = mrpcbench("report", "bench.json", *options)
    assert done.status == 2
    assert message in done.err
    assert (len(done.err.splitlines()), done.out) == (1, "")
    assert {path.name for path in tmp_path.iterdir()} == {"bench.json"}
    assert (tmp_path / "bench.json").read_bytes() == before


def test_quiet_shows_one_line_for_each_record(mrpcbench: Run, tmp_path: Path) -> None:
    store.save(make_record("evaluate"), tmp_path / "evaluate.json")
    done = mrpcbench("-q", "report", "evaluate.json", PEERS)
    first, second = done.out.splitlines()
    assert first.startswith("evaluate.json: accuracy 0.8603 (0.8233 to 0.8906), F1")
    assert second.startswith("bench.json: Deploy onnx-int8: 38.5 pairs/s (offline batch 32)")


def test_a_file_that_the_system_refuses_is_a_usage_error(mrpcbench: Run, tmp_path: Path) -> None:
    store.save(make_record("bench"), tmp_path / "bench.json")
    long = "x" * 300 + ".csv"
    done = mrpcbench("report", "bench.json", "--csv", long)
    assert done.status == 2
    assert done.err == f"error: --csv {long}: cannot be written (File name too long); name another path\n"


def test_an_option_for_benchmarks_needs_one(mrpcbench: Run, tmp_path: Path) -> None:
    store.save(make_record("evaluate"), tmp_path / "evaluate.json")
    for options in (("--max-f1-drop", "1"), ("--csv", "rows.csv")):
        done = mrpcbench("report", "evaluate.json", *options)
        assert done.status == 2
        assert f"{options[0]}: needs a record of bench" in done.err
    assert not (tmp_path / "rows.csv").exists()


def test_json_is_one_document(mrpcbench: Run, tmp_path: Path) -> None:
    for command in COMMANDS:
        store.save(make_record(command), tmp_path / "runs" / f"{command}.json")
    found = {one["command"]: one for one in json.loads(mrpcbench("report", "runs", "--json").out)["records"]}
    assert set(found) == set(COMMANDS)
    assert found["evaluate"]["figures"]["f1"] == pytest.approx(2 * 253 / (2 * 253 + 31 + 26))
    assert found["ab"]["verdict"]["outcome"] == "PASS"
    assert found["bench"]["recommendation"]["chosen"] is None
    assert [row["row"] for row in found["bench"]["rows"]] == ["torch single-stream", "torch offline batch 32"]


def test_the_csv_has_a_line_for_each_row(mrpcbench: Run, tmp_path: Path) -> None:
    assert mrpcbench("report", PEERS, QUICK, "--csv", "out/rows.csv").status == 0
    with (tmp_path / "out" / "rows.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    records = [store.load_as(BenchRecord, path) for path in (PEERS, QUICK)]
    rows = [row for record in records for row in record.rows]
    assert [line["row"] for line in lines] == [str(row.id) for row in rows]
    first = rows[0].summary
    assert first is not None
    assert float(lines[0]["pairs_per_s"]) == first.pairs_per_s
    assert (lines[0]["p99_ms"], lines[0]["reference"], lines[0]["validity"]) == ("", "", "VALID")
    assert (lines[1]["validity"], lines[1]["broken_rules"]) == ("INVALID", "unsteady: the rounds vary by 11%")
    assert {line["record"] for line in lines} == {"peers-cpu/bench.json", "quickstart/bench.json"}
    assert lines[0]["model_sha256"] == records[0].model.model_sha256
    assert lines[0]["machine_sha256"] == records[0].environment.machine_sha256


def test_a_text_that_a_spreadsheet_would_run_gets_a_quote(mrpcbench: Run, tmp_path: Path) -> None:
    names = ["=cmd()", "+1+1", "-2", "@SUM(A1)", "plain"]
    rows = [make_row("offline", case=str(at), model=replace(MODEL, name=name)) for at, name in enumerate(names)]
    store.save(make_record("bench", bench=make_bench(rows=tuple(rows))), tmp_path / "bench.json")
    assert mrpcbench("report", "bench.json", "--csv", "rows.csv").status == 0
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        shown = [line["model"] for line in csv.DictReader(file)]
    assert shown == ["'=cmd()", "'+1+1", "-2", "'@SUM(A1)", "plain"]


def test_control_characters_of_a_record_are_not_printed(mrpcbench: Run, tmp_path: Path) -> None:
    model = replace(MODEL, name="\x1b[31mred\x07")
    place = replace(TORCH, provider="\x1b[32mgreen")
    row = make_row("offline", broken_rules=("\x1b]0;title\x07",), model=replace(model, proven=False), placement=place)
    gate = make_gate(verdict=Verdict(outcome="PASS", reason="\x1b[33myellow"))
    changes: dict[Command, Any] = {
        "bench": make_bench(rows=(row,)),
        "evaluate": make_evaluate(placement=place),
        "train": make_train(placement=place),
        "export": make_export(gate=gate, dtype="\x1b[34mblue"),
    }
    for command, section in changes.items():
        named = replace(model, proven=True if command == "export" else None)
        store.save(make_record(command, model=named, **{command: section}), tmp_path / "runs" / f"{command}.json")
    shown = mrpcbench("report", "runs").out
    for text in ("[31mred", "[32mgreen", "[33myellow", "[34mblue", "UNVERIFIED"):
        assert text in shown
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", shown)


def test_the_trials_of_a_study_are_not_reported_again_beside_it(mrpcbench: Run) -> None:
    folder = REPOSITORY / "results" / "study-quickstart"
    assert len(mrpcbench("-q", "report", folder).out.splitlines()) == 1
    assert len(mrpcbench("-q", "report", folder / "default").out.splitlines()) == 6
