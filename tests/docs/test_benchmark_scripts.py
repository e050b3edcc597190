"""The scripts of docs/benchmarks: each can be imported, and reads the records and results that are committed."""

import ast
import json
import sys
import time
from collections.abc import Iterable
from importlib import import_module, util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import REPOSITORY

from mrpcbench.benchmark.presets import PRESETS
from mrpcbench.data.batches import EncodedPairs
from mrpcbench.records import store
from mrpcbench.records.figures import relative_speed
from mrpcbench.schema.records import BenchRecord

FOLDER = REPOSITORY / "docs" / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
GPU = FOLDER / "gpu.py"
CUDA_CHECKS = sorted((FOLDER / "cuda_checks").rglob("*.py"))


@pytest.fixture(autouse=True)
def script_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python puts the folder of a script on the path of imports."""
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def goals() -> ModuleType:
    return import_module("gpu_stages.goals")


def load_script(path: Path) -> ModuleType:
    """The script as a module; the test is skipped where a package of others is not installed."""
    name = f"benchmark_script_{path.stem}"
    spec = util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "mrpcbench").split(".")[0] == "mrpcbench":
            raise
        pytest.skip(f"{path.name} needs {error.name}")
    return module


def test_the_goals_on_a_gpu_in_the_docs_are_those_of_the_records(goals: ModuleType) -> None:
    records, found = goals.read(REPOSITORY / "results" / "h200")
    assert len(found) == len(list((REPOSITORY / "results" / "h200").glob("*.json")))
    page = (FOLDER.parent / "performance.md").read_text(encoding="utf-8")
    assert "\n".join(goals.lines_of(records)) in page


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_can_be_imported(path: Path) -> None:
    assert callable(load_script(path).main)


def test_the_cuda_checks_import_names_that_exist() -> None:
    imported = {
        (node.module, name.name)
        for path in CUDA_CHECKS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mrpcbench")
        for name in node.names
    }
    assert imported
    missing = {f"{module}.{name}" for module, name in imported if not _exists(module, name)}
    assert not missing


def _exists(module: str, name: str) -> bool:
    return hasattr(import_module(module), name) or util.find_spec(f"{module}.{name}") is not None


def table_of(lines: Iterable[str]) -> dict[str, str]:
    """The results of a table of goals."""
    header, _, *rows = lines
    assert header == "| goal | target | result | met |"
    return {cells[1]: cells[3] for cells in ([cell.strip() for cell in line.split("|")] for line in rows)}


def test_gpu_reads_its_goals_from_the_records(goals: ModuleType, tmp_path: Path) -> None:
    bench = REPOSITORY / "results" / "peers-cpu" / "bench.json"
    train = json.loads((REPOSITORY / "results" / "quickstart" / "train.json").read_text(encoding="utf-8"))
    (tmp_path / "bench-torch.json").write_bytes(bench.read_bytes())
    for engine in ("trainer", "packed"):
        train["train"]["recipe"]["engine"] = engine
        (tmp_path / f"train-{engine}.json").write_text(json.dumps(train), encoding="utf-8")
    records, found = goals.read(tmp_path)
    assert len(found) == 3
    shown = table_of(goals.lines_of(records))
    assert len(shown) == len(goals.GOALS)
    assert shown["training, wall clock without saves, trainer over packed"] == "1x"
    assert shown["one pair, onnx-cuda over optimum-fp32"] == "not measured"  # a CPU has no such row
    rows = store.load_as(BenchRecord, bench).bench.rows
    packed, autocast = (
        next(row for row in rows if (row.case, row.scenario) == (case, "offline"))
        for case in ("torch-packed", "hf-autocast")
    )
    speedup = relative_speed(packed, autocast)
    assert speedup is not None
    assert shown["pairs/s at the best batch, torch-packed over hf-autocast"] == f"{speedup.times:.3g}x"
    assert float(shown["MFU at the best batch, torch-packed"]) > 0


def test_gpu_shows_its_goals_before_anything_was_measured(goals: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text("{}", encoding="utf-8")
    records, found = goals.read(tmp_path)
    assert found == []
    assert set(table_of(goals.lines_of(records)).values()) == {"not measured"}
    assert list(goals.details_of(records)) == []


def test_a_job_of_gpu_that_fails_or_takes_too_long_leaves_the_others_running(tmp_path: Path) -> None:
    jobs = import_module("gpu_stages.jobs")
    runner = jobs.Runner(tmp_path, method="spawn")
    asked = [
        jobs.Job(name="good", work=print, arguments=("hello",)),
        jobs.Job(name="bad", work=sys.exit, arguments=(3,)),
        jobs.Job(name="accepted", work=sys.exit, arguments=(5,), accepts=(0, 5)),
        jobs.Job(name="slow", work=time.sleep, arguments=(600,)),
    ]
    outcomes = runner.run(asked, 5.0)
    assert [outcome.result for outcome in outcomes] == ["ok", "exit code 3", "ok", "timed out"]
    assert outcomes[0].last_lines(5) == ["hello"]


def test_every_case_of_the_preset_belongs_to_one_stage_of_gpu() -> None:
    gpu = load_script(GPU)
    for device in ("cpu", "cuda"):
        for entry in PRESETS["peers"][device].entries:
            kinds = (gpu.is_torch(entry), entry.graph is not None, entry.backend == "torch-compile")
            assert sum(kinds) == 1, entry.name


def test_cpu_graphs_reads_its_committed_results() -> None:
    script = load_script(REPOSITORY / "docs" / "benchmarks" / "cpu_graphs.py")
    rows = json.loads(script.OUTPUT.read_text(encoding="utf-8"))["rows"]
    goals = (*script.SPLIT_GOALS, *script.BATCH_GOALS, *script.DISPATCH_GOALS)
    assert [row["what"] for row in rows] == [goal.what for goal in goals]
    for row, goal in zip(rows, goals, strict=True):
        for case, found in zip((goal.over, goal.under), row["contenders"], strict=True):
            assert script.words(found).startswith(f"{case.name} ")


def test_overhead_measures_every_scenario() -> None:
    script = load_script(REPOSITORY / "docs" / "benchmarks" / "overhead.py")
    columns = {name: [np.ones(3, np.int64)] * 4 for name in ("input_ids", "attention_mask")}
    tokens = EncodedPairs(columns=columns, padding=dict.fromkeys(columns, 0))
    for scenario in ("single-stream", "offline"):
        assert set(script.steady(scenario, tokens)) == {"inside_ms", "between_ms"}
    assert set(script.served(tokens)) == {"arrays_ms", "between_ms"}
