"""Tests of `mrpcbench compare RECORD --min ... --max ...`: exit codes, files for CI, and what it refuses."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import REPOSITORY, Outcome
from records import make_record

import mrpcbench as package
from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.schema.identity import Command

Run = Callable[..., Outcome]
PEERS = str(REPOSITORY / "results" / "peers-cpu" / "bench.json")
QUICK = REPOSITORY / "results" / "quickstart"


def saved(folder: Path, command: Command) -> str:
    path = folder / f"{command}.json"
    store.save(make_record(command), path)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((PEERS, "--min", "onnx-cpu offline batch 32:pairs_per_s=10"), 0),
        ((PEERS, "--max", "onnx-cpu single-stream batch 1:p99_ms=100"), 5),
        ((PEERS, "--max", "onnx-int8 single-stream:p99_ms=100"), 6),
        ((PEERS, "--max", "p99_ms=100"), 5),
        ((str(QUICK / "evaluate.json"), "--min", "f1=0.9", "--max", "loss=1"), 0),
        ((str(QUICK / "evaluate.json"), "--min", "accuracy=1"), 5),
        ((str(QUICK / "bench.json"), "--max", "p99_ms=50", "--min", "f1=0.9"), 0),
        ((str(QUICK / "bench-server.json"), "--max", "p99_ms=50"), 0),
        ((str(QUICK / "train.json"), "--min", "accuracy=0.9"), 0),
        ((str(QUICK / "export.json"), "--max", "flips=0"), 0),
    ],
)
def test_the_exit_code_is_the_verdict(arguments: tuple[str, ...], status: int, mrpcbench: Run) -> None:
    done = mrpcbench("compare", *arguments)
    assert done.status == status, done.out + done.err
    assert f"(exit code {status})" in done.out


def test_the_files_for_ci_hold_the_limits(tmp_path: Path, mrpcbench: Run) -> None:
    junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
    done = mrpcbench("compare", PEERS, "--max", "p99_ms=120", "--junit", str(junit), "--markdown", str(markdown))
    assert done.status == 5
    suite = ElementTree.parse(junit).getroot()
    cases = {case.get("name"): [fault.get("type") for fault in case] for case in suite.iter("testcase")}
    assert cases == {
        "onnx-cpu single-stream: max p99_ms": [],
        "onnx-int8 single-stream: max p99_ms": ["INCONCLUSIVE"],
        "optimum-fp32 single-stream: max p99_ms": ["INCONCLUSIVE"],
        "optimum-o3 single-stream: max p99_ms": ["REGRESSION"],
    }
    text = markdown.read_text(encoding="utf-8")
    assert text.startswith("## REGRESSION (exit code 5): bench\n")
    assert "| onnx-cpu single-stream: max p99_ms | 111.1 | at most 120 | PASS |" in text


def test_annotations_name_each_limit_that_failed(mrpcbench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    done = mrpcbench("compare", str(QUICK / "evaluate.json"), "--min", "accuracy=1")
    assert "::error title=mrpcbench evaluate min accuracy%3A REGRESSION::" in done.err


def test_json_has_the_limits_and_no_baseline(tmp_path: Path, mrpcbench: Run) -> None:
    done = mrpcbench("compare", saved(tmp_path, "evaluate"), "--min", "f1=0.5", "--json")
    found = json.loads(done.out)
    assert (found["baseline"], found["verdict"]["outcome"]) == ([], "PASS")
    assert found["metrics"][0]["limit"] == "at least 0.5"


def test_a_policy_file_sets_limits_too_and_those_of_other_records_do_not_apply(tmp_path: Path, mrpcbench: Run) -> None:
    policy = tmp_path / "gate.toml"
    policy.write_text('[limits]\nmin = ["f1=0.5"]\nmax = ["p99_ms=2", "onnx single-stream:p99_ms=1"]\n', "utf-8")
    record = saved(tmp_path, "evaluate")
    assert mrpcbench("compare", record, "--policy", str(policy)).status == 0
    both = mrpcbench("compare", record, "--policy", str(policy), "--min", "accuracy=0.99")
    assert both.status == 5
    assert "min f1" in both.out
    refused = mrpcbench("compare", saved(tmp_path, "export"), "--policy", str(policy))
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)
    assert "name a baseline before it, or set --min or --max" in refused.err


def test_a_baseline_and_limits_both_apply(tmp_path: Path, mrpcbench: Run) -> None:
    old = saved(tmp_path, "export")
    record = make_record("export")
    later = replace(record.environment, started_at="2025-02-02T00:00:00+00:00")
    new = tmp_path / "new.json"
    store.save(replace(record, environment=later), new)
    assert mrpcbench("compare", old, str(new)).status == 0
    assert mrpcbench("compare", old, str(new), "--max", "flips=0").status == 0
    failed = mrpcbench("compare", old, str(new), "--max", "nodes=1")
    assert failed.status == 5
    assert "export gate" in failed.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "name a baseline before it, or set --min or --max"),
        (("--min", "f2=1"), "--min 'f2=1': unknown metric 'f2'; known are accuracy, f1, loss, agreement, pairs_per_s"),
        (("--min", "f1"), "--min 'f1' is not a limit"),
        (("--max", "loss=nan"), "--max 'loss=nan': 'nan' is not a finite number"),
        (("--max", "p99_ms=2"), "--max p99_ms: a record of evaluate has only accuracy, f1, loss"),
        (("--min", "onnx single-stream:f1=0.9"), "a record of evaluate has no rows"),
        (("--min", "f1=0.5", "--margin", "0.02"), "--margin: needs a baseline"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, mrpcbench: Run
) -> None:
    done = mrpcbench("compare", saved(tmp_path, "evaluate"), *arguments)
    assert (done.status, len(done.err.splitlines())) == (2, 1), done.err
    assert expected in done.err


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema_version": "2.0", "command": "bench"}'])
def test_what_is_not_a_record_is_one_line_and_exit_code_2(content: str, tmp_path: Path, mrpcbench: Run) -> None:
    path = tmp_path / "r.json"
    path.write_text(content, encoding="utf-8")
    done = mrpcbench("compare", str(path), "--min", "f1=0.9")
    assert (done.status, len(done.err.splitlines())) == (2, 1), done.err


def test_a_policy_with_a_bad_limit_is_one_line_and_exit_code_2(tmp_path: Path, mrpcbench: Run) -> None:
    policy, record = tmp_path / "gate.toml", saved(tmp_path, "evaluate")
    for text in ('min = ["f2=1"]', "min = [1]", 'max = ["f1=0.9"]', 'min = "f1=0.9"', 'most = ["f1=0.9"]'):
        policy.write_text(f"[limits]\n{text}\n", encoding="utf-8")
        done = mrpcbench("compare", record, "--policy", str(policy))
        assert (done.status, len(done.err.splitlines())) == (2, 1), done.err
        assert "limits.m" in done.err


def test_three_records_are_refused(tmp_path: Path, mrpcbench: Run) -> None:
    record = saved(tmp_path, "evaluate")
    done = mrpcbench("compare", record, record, record)
    assert (done.status, len(done.err.splitlines())) == (2, 1)


def test_the_python_api_judges_a_record_alone(tmp_path: Path) -> None:
    record = saved(tmp_path, "evaluate")
    assert package.compare(record, min=["f1=0.5"]).verdict.outcome == "PASS"
    with pytest.raises(UsageError, match="set --min or --max"):
        package.compare(record)
    with pytest.raises(UsageError, match="no record on the baseline"):
        package.compare([], record, min=["f1=0.5"])
    with pytest.raises(TypeError, match="not 0 arguments"):
        package.compare()
