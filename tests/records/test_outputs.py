"""What cannot be written is known before the work."""

import os
from pathlib import Path

import pytest

from mrpcbench.errors import UsageError
from mrpcbench.records.outputs import check_space, check_writable


def test_a_path_that_can_be_made_is_fine_and_is_not_made(tmp_path: Path) -> None:
    check_writable("--results", None)
    check_writable("--results", tmp_path / "a" / "b.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=r"--results .*no permission to write"):
        check_writable("--results", tmp_path / "r.json")
    tmp_path.chmod(0o700)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is a file"):
        check_writable("--results", tmp_path / "file" / "deep" / "r.json")


def test_too_little_space_is_refused_with_both_figures(tmp_path: Path) -> None:
    check_space("--output-dir", tmp_path / "new", 1)
    with pytest.raises(UsageError, match=r"--output-dir .*needs about 1000000000\.0 GB, and \d+\.\d GB are free"):
        check_space("--output-dir", tmp_path / "new", 10**18)
