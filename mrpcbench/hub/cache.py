"""The cache of huggingface_hub, which other programs share: blobs named by their hash, and links to them per commit."""

import hashlib
import os
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from mrpcbench.hub.repository import COMMIT, Repository

# The name of a blob: the SHA-256 of a large file, or git's hash of a small one.
SHA256, GIT = re.compile(r"[0-9a-f]{64}"), COMMIT
# Seconds to wait for another process that downloads the same file.
LOCK_S = 300.0


class Cache:
    """The part of the cache that belongs to one repository."""

    def __init__(self, repository: Repository) -> None:
        base, name = (
            Path(constants.HF_HUB_CACHE),
            repo_folder_name(repo_id=repository.repo_id, repo_type=repository.kind),
        )
        self._repository = repository
        self._folder, self._locks = base / name, base / ".locks" / name

    @property
    def known_commit(self) -> str | None:
        """The commit that the repository's revision stood for when it was last downloaded; None if it never was."""
        revision = self._repository.revision
        if COMMIT.fullmatch(revision):
            return revision if self.folder(revision).is_dir() else None
        path = self._folder / "refs" / revision
        commit = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        return commit if COMMIT.fullmatch(commit) else None

    def remember(self, commit: str) -> None:
        """Note that the repository's revision stands for `commit`, whose files are there."""
        revision = self._repository.revision
        path = self._folder / "refs" / revision
        if revision != commit and not (path.is_file() and path.read_text(encoding="utf-8") == commit):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(commit, encoding="utf-8")

    def folder(self, commit: str) -> Path:
        """The folder with the files of `commit`."""
        return self._folder / "snapshots" / commit

    def names(self, commit: str) -> frozenset[str]:
        """The files of `commit` that are there."""
        folder = self.folder(commit)
        return frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def blob(self, name: str) -> Path:
        """The file with the content whose hash is `name`; while it is downloaded, its name ends in .incomplete."""
        return self._folder / "blobs" / name

    def lock(self, blob: str) -> AbstractContextManager[object]:
        """Keeps other processes, of any program, from downloading `blob`. Raises `TimeoutError` after `LOCK_S`."""
        self._locks.mkdir(parents=True, exist_ok=True)
        return WeakFileLock(self._locks / f"{blob}.lock", timeout=LOCK_S)

    def link(self, commit: str, name: str, blob: str) -> None:
        """Make `blob` the file `name` of `commit`."""
        path = self.folder(commit) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        target = self.blob(blob)
        try:
            path.symlink_to(os.path.relpath(target, path.parent))
        except OSError:  # a file system without links
            shutil.copyfile(target, path)

    def is_damaged(self, commit: str, name: str) -> bool:
        """Whether the content of a file differs from the hash that its blob is named after."""
        path = self.folder(commit) / name
        blob = path.resolve()
        return path.is_symlink() and digest(blob, blob.name) not in (None, blob.name)

    def remove(self, commit: str, name: str) -> None:
        """Remove a file of `commit`, with its content."""
        path = self.folder(commit) / name
        path.resolve().unlink()
        path.unlink(missing_ok=True)


def digest(path: Path, expected: str = "0" * 64) -> str | None:
    """The hash of the content of `path`, of the kind of `expected`, by default SHA-256; None if that is no hash."""
    with path.open("rb") as file:
        if SHA256.fullmatch(expected):
            return hashlib.file_digest(file, "sha256").hexdigest()
        if GIT.fullmatch(expected):
            header = b"blob %d\0" % path.stat().st_size
            return hashlib.file_digest(file, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()
    return None
