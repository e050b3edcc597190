"""Shared fixtures: the bundled checkpoint, a tiny ModernBERT, small data, and the command line."""

import os

# As the command line does, and before torch is imported: see cli/process.py.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What a test reports is not a result of the CI job that runs the tests.
os.environ.pop("GITHUB_ACTIONS", None)
os.environ.pop("GITHUB_STEP_SUMMARY", None)

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from mrpcbench.backends import registry
from mrpcbench.quickstart import CHECKPOINT_DIR, DATA_DIR
from mrpcbench.schema.records import RunRecord

if TYPE_CHECKING:
    from fault_server import FaultServer
    from localhub import LocalHub

registry.register("fake", "mrpcbench.instruments.fake_engine:open_fake")

REPOSITORY = Path(__file__).parent.parent


def _share_the_cores() -> None:
    """Give each of several test processes cores of its own: engines take all they may use, and would wait in turns."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    mine = cores[int(worker.removeprefix("gw")) :: workers] or cores
    os.sched_setaffinity(0, mine)


_share_the_cores()


# The files that take longest, the longest first: a process that began one last would keep the other waiting.
LONGEST = (
    *("commands/test_export.py", "commands/test_train.py", "cli/test_quickstart.py", "docs/test_examples.py"),
    *("faults/test_faults.py", "commands/test_bench.py", "cli/test_cli.py"),
    *("training/test_distributed.py", "benchmark/test_presets.py", "training/test_packed_trainer.py"),
    *("commands/test_evaluate.py", "test_imports.py", "cli/test_streams.py", "hub/test_uploads.py"),
    *("models/test_label_order.py", "training/test_warm_up.py", "models/test_sources.py", "backends/test_compiled.py"),
    *("onnx_export/test_optimum_graphs.py", "commands/test_ab.py", "quickstart/test_quickstart_files.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@dataclass
class Listener:
    """An observer that collects what it is given."""

    records: list[RunRecord] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    steps: list[tuple[str, int, int, str]] = field(default_factory=list)

    def began(self, record: RunRecord) -> None:
        self.records.append(record)

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.steps.append((task, done, total, detail))


@pytest.fixture(autouse=True)
def no_variables_of_accelerate() -> None:
    """The Trainer's arguments set some in the process; `train` would say that it ignores those of an earlier test."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def quick_measurements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench` measures the machine's limits in hundredths of a second in place of seconds, where it was imported.

    `export` times one block of single pairs. The tests of these two measure as users do.
    """
    pair_speed = sys.modules.get("mrpcbench.onnx_export.pair_speed")
    if pair_speed and request.path.name != "test_pair_speed.py":
        monkeypatch.setattr(pair_speed, "BUDGET_S", 0.0)
    roofline = sys.modules.get("mrpcbench.instruments.roofline")
    if roofline and request.path.name != "test_roofline.py":
        monkeypatch.setattr(roofline, "ENOUGH_S", 0.001)
        monkeypatch.setattr(roofline, "SPAN_S", 0.003)
        monkeypatch.setattr(roofline, "COPY_BYTES", {**roofline.COPY_BYTES, "cpu": 2**22})


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="session")
def mrpc_dir() -> Path:
    """The real MRPC; its licence keeps it out of the repository."""
    folder = Path(os.environ.get("MRPCBENCH_MRPC_DIR", REPOSITORY.parent / "shared" / "mrpc"))
    if not (folder / "dev.tsv").exists():
        pytest.skip(f"no MRPC in {folder}; set MRPCBENCH_MRPC_DIR to a folder that has it")
    return folder


@pytest.fixture(scope="session")
def modernbert_dir() -> Path:
    """ModernBERT-base's own tokenizer and architecture, without weights."""
    folder = Path(os.environ.get("MRPCBENCH_MODERNBERT_DIR", REPOSITORY.parent / "shared" / "modernbert-base"))
    if not (folder / "config.json").exists():
        pytest.skip(f"no ModernBERT-base in {folder}; set MRPCBENCH_MODERNBERT_DIR to a folder that has it")
    return folder


def save_first_pairs(folder: Path, counts: dict[str, int]) -> Path:
    """Fill `folder` with the first pairs of each split of the bundled data."""
    for name, count in counts.items():
        with (DATA_DIR / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = [{**row, "label": int(row["label"])} for row in islice(csv.DictReader(file), count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first 96 training, 40 validation and 24 test pairs of the bundled data."""
    return save_first_pairs(tmp_path_factory.mktemp("data"), {"train": 96, "validation": 40, "test": 24})


@pytest.fixture(scope="session")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first 48 training and 16 validation pairs of the bundled data."""
    return save_first_pairs(tmp_path_factory.mktemp("data"), {"train": 48, "validation": 16})


@pytest.fixture(scope="session")
def tuned_model(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    """A model folder as `train` writes it, from the shipped checkpoint in a few steps."""
    from mrpcbench.commands.train import train
    from mrpcbench.progress import Silent
    from mrpcbench.schema.requests import TrainRecipe, TrainRequest

    folder = tmp_path_factory.mktemp("tuned")
    train(
        TrainRequest(model="quickstart", data=str(small_data), output_dir=str(folder / "model"), device="cpu"),
        TrainRecipe(learning_rate=1e-3, engine="trainer", precision="fp32"),
        folder / "train.json",
        Silent(),
    )
    return folder / "model"


@pytest.fixture(scope="session")
def exported_model(tuned_model: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tuned model with its proven `onnx/`."""
    from mrpcbench.commands.export import export
    from mrpcbench.progress import Silent
    from mrpcbench.schema.requests import ExportPlan

    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(tuned_model, folder / "model", ignore=shutil.ignore_patterns("checkpoint-*"))
    plan = ExportPlan(model=str(folder / "model"), data=str(small_data), device="cpu")
    export(plan, folder / "export.json", Silent())
    return folder / "model"


@dataclass(frozen=True)
class Outcome:
    """The output and the exit code of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def mrpcbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run a command in an empty working folder: `mrpcbench("train", "--help").out`."""
    from mrpcbench.cli.app import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")  # whatever the terminal that the tests run in

    def run(*arguments: str | Path) -> Outcome:
        result = CliRunner().invoke(app, [str(item) for item in arguments], prog_name="mrpcbench")
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def local_hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> "Iterator[LocalHub]":
    """An empty hub on the loopback, an empty cache, and short waits, for the commands in this process."""
    from huggingface_hub import constants, utils
    from localhub import LocalHub

    from mrpcbench.hub import client

    server = LocalHub()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(client, "LOOKUP_S", 1.0)
    monkeypatch.setattr(client, "READ_S", 0.3)
    forget_sessions = getattr(utils, "reset_sessions", None) or utils.close_session  # of versions 0 and 1
    forget_sessions()
    yield server
    server.shutdown()
    server.server_close()
    forget_sessions()


@pytest.fixture(scope="session")
def glue_files(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> dict[str, bytes]:
    """The files of a hub dataset whose MRPC is `small_data`."""
    from datasets import load_dataset

    folder, found = tmp_path_factory.mktemp("glue"), {"README.md": b"# GLUE", "cola/train-00000-of-00001.parquet": b"?"}
    for split in ("train", "validation", "test"):
        file = folder / f"{split}-00000-of-00001.parquet"
        rows = load_dataset("json", data_files=str(small_data / f"{split}.jsonl"), split="train", cache_dir=str(folder))
        rows.to_parquet(str(file))
        found[f"mrpc/{file.name}"] = file.read_bytes()
    return found


@pytest.fixture(scope="session")
def checkpoint_dir() -> Path:
    return CHECKPOINT_DIR


# --- broken input and kills: tests/faults -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def server() -> Iterator["FaultServer"]:
    """The process that runs the commands of tests/faults."""
    from fault_server import FaultServer

    found = FaultServer()
    yield found
    found.close()


@pytest.fixture(scope="session")
def whole(server: "FaultServer", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what these tests break."""
    from fault_campaign import prepared

    return prepared(tmp_path_factory.mktemp("faults") / "whole", server)
