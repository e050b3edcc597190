"""Tests of mrpcbench.environment.staging: what a killed run left is removed, and a folder is replaced in one step."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mrpcbench.environment import staging


def killed(work: Callable[[], None]) -> None:
    """Run `work`, which kills its process, in a copy of this one."""
    process = os.fork()
    if not process:
        work()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_writer_left_is_removed_by_the_next_one_of_the_same_name(tmp_path: Path) -> None:
    def file() -> None:
        with staging.staged_file(tmp_path / "a.json"):
            os.kill(os.getpid(), signal.SIGKILL)

    def folder() -> None:
        with staging.staged_folder(tmp_path, "a.json") as staged:
            (staged / "x").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    # The first one's leftover goes with the second one, of the same name.
    killed(file)
    assert len(names(tmp_path)) == 1
    killed(folder)
    assert [path.is_dir() for path in tmp_path.iterdir()] == [True]
    with staging.staged_file(tmp_path / "b.json"):
        assert len(names(tmp_path)) == 2
    with staging.staged_file(tmp_path / "a.json") as (_, staged):
        assert names(tmp_path) == [staged.name]
    assert names(tmp_path) == []


def test_what_a_running_writer_has_staged_stays(tmp_path: Path) -> None:
    with staging.staged_folder(tmp_path, "a") as first, staging.staged_folder(tmp_path, "a") as second:
        assert names(tmp_path) == sorted([first.name, second.name])


def test_only_staged_names_are_removed(tmp_path: Path) -> None:
    foreign = [
        ".a.writing",
        ".a.12345678.writing.txt",
        ".a.1234567.writing",
        "a.12345678.writing",
        ".a.ABCDEFGH.writing",
    ]
    for name in foreign:
        (tmp_path / name).touch()
    (tmp_path / ".a.12345678.writing").symlink_to("somewhere")
    staging.remove_leftovers(tmp_path, "a")
    assert names(tmp_path) == sorted([*foreign, ".a.12345678.writing"])


def folder_with(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_two_folders_are_exchanged_without_a_moment_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = folder_with(tmp_path / "a", "old"), folder_with(tmp_path / ".a.12345678.writing", "new")
    monkeypatch.delattr(Path, "rename")  # what would leave a moment
    staging.put_folder(new, old)
    assert ((old / "file").read_text(), (new / "file").read_text()) == ("new", "old")


def test_without_exchange_a_kill_between_two_moves_is_undone_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = folder_with(tmp_path / "a", "old"), folder_with(tmp_path / ".a.12345678.writing", "new")
    monkeypatch.setattr(sys, "platform", "other")
    rename = Path.rename

    def first_move(self: Path, target: Path) -> Path:
        if target == old:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", first_move)
    killed(lambda: staging.put_folder(new, old))
    monkeypatch.undo()
    assert not old.exists()
    staging.restore(old)
    assert (old / "file").read_text() == "old"
    with staging.staged_folder(tmp_path, "a"):
        pass
    assert names(tmp_path) == ["a"]
