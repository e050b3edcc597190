"""Files and folders that are written under another name beside their place, and then put there in one step; locks.

A staged name is `.NAME.XXXXXXXX.writing`. Its writer holds a lock (flock) on it, which the system drops when the
process ends. So whoever writes NAME next can tell what a killed run has left, and removes it.
"""

import ctypes
import errno
import fcntl
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

END = ".writing"
# The old copy of a folder, while the new one takes its place where the system cannot exchange them.
REPLACED = ".replaced"
# Arguments of Linux's renameat2(2).
AT_FDCWD, RENAME_EXCHANGE = -100, 2
# What renameat2 answers on a file system that cannot exchange two names.
UNABLE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


@contextmanager
def staged_file(target: Path) -> Iterator[tuple[int, Path]]:
    """The descriptor and the path of a new file beside `target`, removed at the end unless it was moved."""
    remove_leftovers(target.parent, target.name)
    while True:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=END)
        if _locked(descriptor, Path(name)):
            break
        os.close(descriptor)
    try:
        yield descriptor, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def staged_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder in `parent` for what is to be called `name`, removed at the end unless it was moved."""
    remove_leftovers(parent, name)
    while True:
        staged = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}.", suffix=END))
        descriptor = os.open(staged, os.O_RDONLY)
        if _locked(descriptor, staged):
            break
        os.close(descriptor)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the existing `folder` for the body. The system drops the lock when the process ends.

    Raises `BlockingIOError` if another process has locked it. On a file system without locks, nothing is locked.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)


def put_folder(staged: Path, folder: Path) -> None:
    """Move `staged` to `folder`. What is there is exchanged with it in one step, and is then at `staged`.

    Where the system cannot exchange, `folder` is absent for a moment, and `restore` brings back the old one.
    """
    if not folder.exists():
        staged.rename(folder)
    elif not _exchanged(staged, folder):
        old = staged.with_suffix(REPLACED)
        folder.rename(old)
        try:
            staged.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path) -> None:
    """Bring back the old copy of `folder` if a run was killed while it replaced that; else remove such copies."""
    for old in _named(folder.parent, folder.name, REPLACED):
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)


def remove_leftovers(parent: Path, name: str) -> None:
    """Remove the staged files and folders for `name` in `parent` whose writers have ended."""
    for path in _named(parent, name, END):
        with suppress(OSError):  # another process removes it too, or it belongs to another user
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


def is_staged(name: str) -> bool:
    """Whether `name` is one that a file or folder has while it is written, or that a killed run has left."""
    return _pattern(".+", END).fullmatch(name) is not None


def _pattern(name: str, end: str) -> re.Pattern[str]:
    """Matches the names for what is to be called `name`, a regular expression."""
    return re.compile(rf"\.{name}\.[a-z0-9_]{{8}}{re.escape(end)}")


def _named(parent: Path, name: str, end: str) -> list[Path]:
    pattern = _pattern(re.escape(name), end)
    with suppress(OSError):
        return sorted(path for path in parent.iterdir() if pattern.fullmatch(path.name))
    return []


def _locked(descriptor: int, path: Path) -> bool:
    """Lock a new file or folder; false if `remove_leftovers` of another process has just removed it.

    A file system without locks has no `remove_leftovers` either, because that locks too.
    """
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return path.exists()


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step; false if the system cannot. Raises `OSError` if it refuses."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in UNABLE:
        return False
    raise OSError(number, os.strerror(number), str(other))
