"""A command looks a hub model up once, however many engines read it, and reads one revision of it throughout."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from localhub import LocalHub

from mrpcbench.backends.reading import resolve
from mrpcbench.errors import ExitStatus, UsageError
from mrpcbench.models.sources import export_command, find_sources
from mrpcbench.schema.requests import BackendSpec

HUB_ID = "owner/name"
# tests/commands/test_ab.py does the same for `ab`.
COMMANDS = {
    "train": ("train", "--model", HUB_ID, "--max-steps", "1"),
    "evaluate": ("evaluate", "--model", HUB_ID),
    "export": ("export", "--model", HUB_ID),
    "bench": (
        *("bench", "--model", HUB_ID, "--backend", "torch", "--backend", "torch-packed", "--backend", "onnx"),
        *("--pairs", "8", "--batch-size", "8", "--rounds", "1", "--max-seconds", "0"),
    ),
}


def test_each_command_resolves_its_model_once(
    mrpcbench: Callable[..., Outcome], local_hub: LocalHub, exported_model: Path, small_data: Path
) -> None:
    local_hub.put("models", HUB_ID, exported_model)
    wrong = {}
    for name, arguments in COMMANDS.items():
        local_hub.forget()
        outcome = mrpcbench(*arguments, "--data", small_data)
        lookups = [line for line in local_hub.requests if "/revision/" in line]
        if len(lookups) != 1 or outcome.status != 0:
            wrong[name] = (len(lookups), outcome.status, outcome.err[-300:])
    assert not wrong


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
    assert outcome.err.splitlines()[-1] == f"error: {folder / name} line 2: key 'mrpc' is given twice; remove one"


def test_a_missing_graph_of_the_bundled_model_is_looked_for_where_export_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"run `mrpcbench export --model quickstart` first, then use --model quickstart-onnx$"
    ):
        find_sources([("quickstart", "graph")])
    for graph in ("quickstart-onnx-cpu", "quickstart-onnx"):
        (tmp_path / graph).mkdir()
        (tmp_path / graph / "model.onnx").touch()
        with pytest.raises(UsageError, match=f"; use --model {graph}$"):
            find_sources([("quickstart", "graph")])


def test_a_graph_that_an_engine_cannot_read_is_not_suggested(tmp_path: Path) -> None:
    for graph in ("onnx-int8", "onnx-cpu"):
        (tmp_path / graph).mkdir()
        (tmp_path / graph / "model.onnx").touch()
    with pytest.raises(UsageError, match=r"; use --model .*onnx-cpu$"):
        find_sources([(str(tmp_path), "graph")])
    with pytest.raises(UsageError, match=f"; run `mrpcbench export --model {tmp_path}` first$"):
        resolve(BackendSpec(backend="openvino", model=str(tmp_path)))


def test_the_command_that_verifies_a_graph_names_its_model_and_its_folder(tmp_path: Path) -> None:
    model = tmp_path / "my model"
    model.mkdir()
    (model / "model.safetensors").touch()
    assert export_command(model / "onnx", "quickstart", None) == (
        f"mrpcbench export --model '{model}' --data quickstart"
    )
    assert export_command(model / "onnx-cpu", "hub", "cpu") == (
        f"mrpcbench export --model '{model}' --data hub --optimize cpu"
    )
    elsewhere = tmp_path / "graph"
    assert (
        export_command(elsewhere, "hub", "none")
        == f"mrpcbench export --model MODEL --data hub --output-dir {elsewhere}"
    )
