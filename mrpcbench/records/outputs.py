"""Checks before the work that its results can be written at the end."""

import os
import shutil
from pathlib import Path

from mrpcbench.errors import UsageError
from mrpcbench.records.store import write_text


def check_writable(option: str, path: str | Path | None) -> None:
    """Raise `UsageError` unless a file or folder `path` can be made or replaced; None needs nothing. Writes nothing."""
    if path is None:
        return
    wanted = Path(path)
    above = wanted if wanted.is_dir() else _existing(wanted.absolute().parent)
    if not above.is_dir():
        raise UsageError(f"{option} {wanted}: {above} is a file; name another path")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {wanted}: no permission to write in {above}; name another path")


def check_file(option: str, path: str | Path | None) -> None:
    """Raise `UsageError` unless a file `path` can be made or replaced; None needs nothing. Writes nothing."""
    check_no_folder(option, path)
    check_writable(option, path)


def check_no_folder(option: str, path: str | Path | None) -> None:
    """Raise `UsageError` if `path`, which is to be a file, is a folder."""
    if path is not None and Path(path).is_dir():
        raise UsageError(f"{option} {path}: a folder; name a file in it")


def write_output(option: str, path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically, as `store.write_text`; raises `UsageError` if the system refuses."""
    try:
        write_text(Path(path), text)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written ({error.strerror}); name another path") from None


def check_space(option: str, folder: Path, needed: int) -> None:
    """Raise `UsageError` if the disk of `folder` has less than `needed` bytes left."""
    free = shutil.disk_usage(_existing(folder.absolute())).free
    if free < needed:
        raise UsageError(
            f"{option} {folder}: needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; free some space, "
            "or name a folder on another disk"
        )


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(part for part in (path, *path.parents) if part.exists())
