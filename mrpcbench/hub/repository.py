"""The name of a repository of the hub, as an option gives it: OWNER/NAME or OWNER/NAME@REVISION. Standard library only.

A revision is a branch, a tag, a commit hash or refs/pr/N.
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

Kind = Literal["model", "dataset"]
OPTIONS: dict[Kind, str] = {"model": "--model", "dataset": "--data"}
MAIN = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")
PINNED = re.compile(r"(?P<repo_id>\w[\w.-]*(/[\w.-]+)?)@(?P<revision>.*)")


def split_revision(name: str) -> tuple[str, str | None]:
    """The repository and the revision of `name`; `name` and None if it is no hub id with a revision."""
    found = PINNED.fullmatch(name)
    return (found["repo_id"], found["revision"]) if found else (name, None)


@dataclass(frozen=True)
class Repository:
    """A repository, and the revision that an option asks for. `option` is the option with its value, for messages."""

    kind: Kind
    repo_id: str
    revision: str
    option: str

    @classmethod
    def named(cls, name: str, kind: Kind = "model", option: str | None = None) -> "Repository":
        """The repository of `name`; `option` is the option with its value, by default that of `kind` with `name`."""
        repo_id, revision = split_revision(name)
        return cls(kind, repo_id, MAIN if revision is None else revision, option or f"{OPTIONS[kind]} {name}")

    @property
    def path(self) -> str:
        """The repository's part of an address."""
        return self.repo_id if self.kind == "model" else f"datasets/{self.repo_id}"

    def file_path(self, commit: str, name: str) -> str:
        """The part of an address that stands for the file `name` at `commit`."""
        return f"{self.path}/resolve/{commit}/{quote(name)}"
