"""One commit of a repository, found once a command, and those of its files that the command reads."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from mrpcbench.errors import MrpcbenchError, UsageError
from mrpcbench.hub import client
from mrpcbench.hub.cache import Cache
from mrpcbench.hub.downloads import Listed, download
from mrpcbench.hub.failures import OFFLINE_REMEDY, UnavailableError
from mrpcbench.hub.repository import Kind, Repository

REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*")
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """The files of one commit.

    `names` are its files: all that the hub lists, or, if the hub was not asked, those in the cache; `offline` then says
    why it was not.
    """

    repository: Repository
    commit: str
    listed: dict[str, Listed] = field(repr=False)
    offline: str | None

    @property
    def names(self) -> frozenset[str]:
        """The names of its files, with folders."""
        return frozenset(self.listed)

    @property
    def folder(self) -> Path:
        """The folder with the downloaded files."""
        return Cache(self.repository).folder(self.commit)

    def fetch(self, names: Iterable[str]) -> None:
        """Download those of the files `names` that the cache lacks, in this order.

        A file that is there is checked against its hash. Raises `MrpcbenchError` for a file that neither the cache nor
        the hub can give.
        """
        cache = Cache(self.repository)
        there = cache.names(self.commit)
        for name in names:
            if name in there and cache.is_damaged(self.commit, name):
                self._discard(cache, name)
                there -= {name}
            if name not in there:
                download(self.repository, cache, self.commit, name, self.listed[name])

    def done(self) -> Path:
        """Note that the cache has all that a command reads of this commit, and return its folder."""
        if self.offline is None:
            Cache(self.repository).remember(self.commit)
        return self.folder

    def _discard(self, cache: Cache, name: str) -> None:
        """Remove the damaged file `name`, to be downloaded again."""
        path = (cache.folder(self.commit) / name).resolve()
        what = f"{self.repository.option}: the cached {name} is damaged (its content does not match its hash)"
        if self.offline is not None:
            raise MrpcbenchError(f"{what}, and {self.offline}; delete {path}, and run again with the hub")
        LOG.warning("%s; downloading it again", what)
        cache.remove(self.commit, name)

    def incomplete(self, lacks: str) -> MrpcbenchError:
        """The error for a cached commit without `lacks`, which may be on the hub."""
        return MrpcbenchError(
            f"{self.repository.option}: the cached copy (commit {self.commit[:8]}) is incomplete: no {lacks}; "
            f"{self.offline}; run again with the hub: an interrupted download continues"
        )


def find(name: str, kind: Kind) -> Snapshot:
    """The commit that `name` (OWNER/NAME or OWNER/NAME@REVISION) stands for now. It takes one request.

    If the hub does not answer, it is the commit in the cache, with a warning. Raises `UsageError` if the hub refuses,
    also where a cached copy exists, and `UnavailableError` without a cached copy.
    """
    repository = Repository.named(name, kind)
    try:
        validate_repo_id(repository.repo_id)
    except HFValidationError as error:
        text = "neither a local folder nor a hub id (OWNER/NAME, or OWNER/NAME@REVISION)"
        raise UsageError(f"{repository.option}: {text}") from error
    if not REVISION.fullmatch(repository.revision) or ".." in repository.revision:
        raise UsageError(f"{repository.option}: not a revision after @; name a branch, a tag or a commit")
    cache = Cache(repository)
    if constants.HF_HUB_OFFLINE:
        unavailable = UnavailableError(repository.option, "HF_HUB_OFFLINE is set", f"unset it, or {OFFLINE_REMEDY}")
        return _cached(repository, cache, unavailable)
    path = f"api/{kind}s/{repository.repo_id}/revision/{quote(repository.revision, safe='')}?blobs=true"
    try:
        answer = client.lookup(repository, path)
    except UnavailableError as error:
        found = _cached(repository, cache, error)
        LOG.warning("%s: %s; using the cached commit %s", repository.option, error.what, found.commit[:8])
        return found
    except UsageError as error:
        if cache.known_commit and cache.names(cache.known_commit):
            raise UsageError(f"{error}; HF_HUB_OFFLINE=1 uses the cached copy") from error
        raise
    snapshot = _listed(repository, answer.json())
    if cache.known_commit is None:  # otherwise the earlier commit counts until this one is complete
        cache.remember(snapshot.commit)
    return snapshot


def _listed(repository: Repository, answer: dict[str, Any]) -> Snapshot:
    files = {}
    for item in answer.get("siblings") or ():
        name, large = str(item["rfilename"]), item.get("lfs") or {}
        if not (PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts):
            files[name] = Listed(size=item.get("size"), blob=large.get("sha256") or item.get("blobId"))
    return Snapshot(repository, str(answer["sha"]), files, None)


def _cached(repository: Repository, cache: Cache, unavailable: UnavailableError) -> Snapshot:
    """The commit in the cache; raises `unavailable` if there is none."""
    commit = cache.known_commit
    if commit is None:
        raise UnavailableError(
            repository.option, f"not in the cache, and {unavailable.what}", unavailable.remedy
        ) from unavailable
    files = {name: Listed(None, None) for name in cache.names(commit)}
    return Snapshot(repository, commit, files, unavailable.what)
