"""Tests of commands.preflight: usage errors before the slow imports, and the heading of a command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mrpcbench.commands.preflight import check_early, heading
from mrpcbench.errors import UsageError
from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan, ExportPlan, TrainRecipe, TrainRequest

PROBE = """
import json, sys
from mrpcbench.cli.app import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments, prog_name="mrpcbench")
    except SystemExit as status:
        assert status.code == 2, (arguments, status.code)
print(json.dumps(sorted({"torch", "transformers", "datasets", "onnxruntime"} & set(sys.modules))))
"""


def test_usage_errors_come_before_the_slow_imports(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    quick = ["--model", "quickstart", "--data", "quickstart"]
    asked = [
        ["train", *quick, "--max-steps", "0"],
        ["train", "--model", "./none", "--data", "quickstart"],
        ["evaluate", "--model", "./none", "--data", "quickstart"],
        ["evaluate", "--model", "quickstart", "--data", "./none"],
        ["evaluate", *quick, "--backend", "onnx", "--dtype", "bf16-autocast"],
        ["evaluate", *quick, "--results", str(tmp_path)],
        ["evaluate", "--model", "./none", "--pair", "It rains.", "Rain falls."],
        ["export", "--model", "./none", "--data", "quickstart"],
        ["bench", *quick, "--backend", "torch", "--backend", "onnx"],
        ["bench", "--model", "model", "--data", "quickstart", "--backend", "openvino"],
    ]
    command = [sys.executable, "-c", PROBE, json.dumps(asked)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(asked), done.stderr
    assert all(line.startswith("error: ") for line in lines)
    assert json.loads(done.stdout) == []


def test_what_is_on_the_hub_is_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_early("train", TrainRequest(), TrainRecipe())
    check_early("evaluate", BackendSpec(model="owner/name", backend="onnx"), EvaluatePlan())
    check_early("bench", BenchPlan(preset="peers"), BackendSpec(model="owner/name"))
    with pytest.raises(UsageError, match="run `mrpcbench train` first"):
        check_early("export", ExportPlan())


def test_the_heading_names_the_model_the_engines_and_the_data() -> None:
    spec, bench = BackendSpec(model="m"), BenchPlan(backend=("torch", "onnx"), data="d", split="test")
    assert heading("train", TrainRequest(model="m", data="d"), TrainRecipe()) == "train: m on d"
    assert heading("evaluate", spec, EvaluatePlan(data="d")) == "evaluate: m with torch on d validation"
    assert heading("evaluate", spec) == "evaluate: m with torch"
    assert heading("bench", bench, spec) == "bench: m with torch, onnx on d test"
    assert heading("bench", BenchPlan(preset="peers"), spec) == "bench: m with --preset peers on hub validation"
