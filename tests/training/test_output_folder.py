"""Tests of the folder that a training writes to: nothing of others is replaced, and no two trainings share it."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from training_runs import RECIPE, run

from mrpcbench.environment.staging import locked
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.schema.requests import TrainRequest

ONE_STEP = replace(RECIPE, max_steps=1)


@pytest.fixture
def request_(training_data: Path, tmp_path: Path) -> TrainRequest:
    return TrainRequest(model="quickstart", data=str(training_data), output_dir=str(tmp_path / "model"), device="cpu")


@pytest.fixture
def begun(request_: TrainRequest) -> TrainRequest:
    """A request whose folder holds a finished run."""
    run(request_, ONE_STEP)
    return replace(request_, overwrite=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name", ["README.md", "config.json", "tokenizer.json", "metrics.csv", "model.safetensors", "checkpoint-1/notes.txt"]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_of_others_is_not_replaced(request_: TrainRequest, name: str, overwrite: bool) -> None:
    folder = Path(request_.output_dir)
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("precious")
    with pytest.raises(UsageError, match=f"holds {name.split('/', maxsplit=1)[0]}, which is of no run"):
        run(replace(request_, overwrite=overwrite), ONE_STEP)
    assert content(folder) == {name: b"precious"}


def test_other_files_stay_beside_the_model(request_: TrainRequest) -> None:
    folder = Path(request_.output_dir)
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.py").write_text("precious")
    run(request_, ONE_STEP)
    run(replace(request_, overwrite=True), ONE_STEP)
    assert (folder / "src" / "main.py").read_text() == "precious"
    assert (folder / "model.safetensors").exists()


@pytest.mark.parametrize("option", ["model", "data"])
def test_the_folder_of_an_input_is_no_output(begun: TrainRequest, option: str) -> None:
    before = content(Path(begun.output_dir))
    with pytest.raises(UsageError, match=f"the same folder as --{option}; name another folder"):
        run(replace(begun, **{option: begun.output_dir}), ONE_STEP)
    assert content(Path(begun.output_dir)) == before


def with_notes(checkpoint: Path) -> None:
    (checkpoint / "notes.txt").write_text("precious")


def as_link(checkpoint: Path) -> None:
    elsewhere = checkpoint.rename(checkpoint.parent.with_name("elsewhere"))
    checkpoint.symlink_to(elsewhere)


@pytest.mark.parametrize("change", [with_notes, as_link])
def test_overwrite_removes_no_checkpoint_with_other_content(
    begun: TrainRequest, change: Callable[[Path], None]
) -> None:
    folder = Path(begun.output_dir)
    change(folder / "checkpoint-1")
    before = content(folder.parent)
    with pytest.raises(UsageError, match=r"--overwrite: .*/checkpoint-1 is not only a checkpoint .*; move it away"):
        run(begun, ONE_STEP)
    assert content(folder.parent) == before


def test_overwrite_keeps_what_is_only_called_like_a_checkpoint(begun: TrainRequest) -> None:
    folder = Path(begun.output_dir)
    (folder / "checkpoint-best").mkdir()
    (folder / "checkpoint-best" / "notes.txt").write_text("precious")
    run(begun, replace(RECIPE, max_steps=2))
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-best"]


def test_a_second_training_is_kept_out_of_the_folder(begun: TrainRequest) -> None:
    folder = Path(begun.output_dir)
    before = content(folder)
    with locked(folder), pytest.raises(UsageError, match="another command is writing to it; wait for its end"):
        run(begun, ONE_STEP)
    assert content(folder) == before
    run(begun, ONE_STEP)  # the lock has ended with its owner


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            replace(ONE_STEP, lr_scheduler_type="cosine_with_min_lr"),
            r"--lr-scheduler-type cosine_with_min_lr: .*min_lr",
        ),
        (replace(ONE_STEP, lr_scheduler_type="warmup_stable_decay"), r"--lr-scheduler-type warmup_stable_decay: "),
        (replace(ONE_STEP, optim="grokadamw"), "--optim grokadamw: .*install"),
        (replace(ONE_STEP, optim="lomo"), "--optim lomo: .*install"),
        (replace(ONE_STEP, optim="nonsense"), "nonsense"),
    ],
)
def test_a_recipe_that_transformers_refuses_leaves_the_earlier_run(
    begun: TrainRequest, recipe: object, message: str
) -> None:
    before = content(Path(begun.output_dir))
    with pytest.raises((UsageError, MissingError), match=message) as caught:
        run(begun, recipe)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert content(Path(begun.output_dir)) == before


def test_other_late_errors_leave_the_earlier_run(begun: TrainRequest, tmp_path: Path) -> None:
    before = content(Path(begun.output_dir))
    for changed in (replace(begun, push_to_hub="not a/valid name/"), replace(begun, report_to="nonsense")):
        with pytest.raises(UsageError, match=re.escape("--")):
            run(changed, ONE_STEP)
    assert content(Path(begun.output_dir)) == before


def test_the_lock_of_a_folder_is_that_of_a_process(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(BlockingIOError), locked(tmp_path):
        pass
    with locked(tmp_path):
        assert os.listdir(tmp_path) == []  # noqa: PTH208
