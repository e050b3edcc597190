"""A command looks a hub model up once, however many engines read it, and reads one revision of it throughout."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome

from mrpcbench import hub
from mrpcbench.errors import ExitStatus, UsageError
from mrpcbench.models.sources import find_sources

HUB_ID = "owner/name"
QUICK_AB = ("--process-pairs", "5", "--calls", "50", "--warmup", "0", "--a-threads", "1")
COMMANDS = {
    "train": ("train", "--model", HUB_ID, "--max-steps", "1"),
    "evaluate": ("evaluate", "--model", HUB_ID),
    "export": ("export", "--model", HUB_ID),
    "bench": (
        *("bench", "--model", HUB_ID, "--backend", "torch", "--backend", "torch-packed", "--backend", "onnx"),
        *("--pairs", "8", "--batch-size", "8", "--rounds", "1", "--max-seconds", "0"),
    ),
    # Processes of a graph on a CPU load no torch, so they start soon.
    "ab": ("ab", "--a-model", HUB_ID, "--a-backend", "onnx", *QUICK_AB),
}


@pytest.fixture
def lookups(exported_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The patterns of each request for a snapshot; the hub's only model is the exported one."""
    asked: list[list[str]] = []

    def snapshot(repo_id: str, *, patterns: list[str], **_: Any) -> Path:
        assert repo_id == HUB_ID
        asked.append(patterns)
        return exported_model

    monkeypatch.setattr(hub, "snapshot", snapshot)
    return asked


def test_each_command_resolves_its_model_once(
    mrpcbench: Callable[..., Outcome], lookups: list[list[str]], small_data: Path
) -> None:
    wrong = {}
    for name, arguments in COMMANDS.items():
        lookups.clear()
        outcome = mrpcbench(*arguments, "--data", small_data)
        if len(lookups) != 1 or outcome.status not in (0, 5, 6):
            wrong[name] = (len(lookups), outcome.status, outcome.err[-300:])
    assert not wrong


def test_weights_and_graph_of_a_hub_model_are_resolved_once(
    mrpcbench: Callable[..., Outcome], lookups: list[list[str]], small_data: Path
) -> None:
    mrpcbench(*COMMANDS["bench"], "--data", small_data)
    (patterns,) = lookups
    assert "*.safetensors" in patterns
    assert "onnx/model.onnx*" in patterns


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_repeated_key_in_a_models_file_is_rejected_with_its_line(
    name: str, mrpcbench: Callable[..., Outcome], checkpoint_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint_dir, folder)
    text = (folder / name).read_text(encoding="utf-8")
    (folder / name).write_text(text.replace("{", '{"mrpc": 1,\n"mrpc": 2,', 1), encoding="utf-8")
    outcome = mrpcbench("evaluate", "--model", folder, "--random-init", "--data", "quickstart", "--device", "cpu")
    assert outcome.status == ExitStatus.USAGE
    assert outcome.err == f"error: {folder / name} line 2: key 'mrpc' is given twice; remove one\n"


def test_a_missing_graph_of_the_bundled_model_is_looked_for_where_export_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"run `mrpcbench export --model quickstart` first, then use --model quickstart-onnx$"
    ):
        find_sources([("quickstart", True)])
    for graph in ("quickstart-onnx-cpu", "quickstart-onnx"):
        (tmp_path / graph).mkdir()
        (tmp_path / graph / "model.onnx").touch()
        with pytest.raises(UsageError, match=f"; use --model {graph}$"):
            find_sources([("quickstart", True)])
