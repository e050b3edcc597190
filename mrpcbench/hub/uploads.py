"""Uploads to a model repository of the hub: the check before the work, and one commit after it.

Files go over plain HTTP with a time limit for each wait, as downloads do.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import requests
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from requests.adapters import HTTPAdapter

from mrpcbench.errors import InterruptedRunError, MrpcbenchError, UsageError, first_line
from mrpcbench.hub import client
from mrpcbench.hub.cache import digest
from mrpcbench.hub.failures import has_token
from mrpcbench.hub.repository import MAIN, Repository

# Seconds to wait for the hub's answer to a part of an upload, which it stores before it answers.
UPLOAD_S = 60.0
EXISTS, FORBIDDEN, UNKNOWN = 409, 403, 404


@dataclass(frozen=True)
class Target:
    """A repository that the signed-in user can write to."""

    repository: Repository

    @property
    def repo_id(self) -> str:
        """OWNER/NAME."""
        return self.repository.repo_id

    def listing(self) -> tuple[str, frozenset[str], bool]:
        """The newest commit, the names of its files, and whether the repository is private."""
        found = client.lookup(self.repository, f"api/models/{self.repo_id}").json()
        return str(found["sha"]), frozenset(item["rfilename"] for item in found["siblings"]), bool(found["private"])

    def other_file(self, commit: str, files: Iterable[Path]) -> Path | None:
        """The first of the large `files` that `commit` does not have at its root, byte by byte; None if it has all."""
        items = client.lookup(self.repository, f"api/models/{self.repo_id}/tree/{commit}").json()
        hashes = {item["path"]: item["lfs"]["oid"] for item in items if item.get("lfs")}
        return next((path for path in files if hashes.get(path.name) != digest(path)), None)

    def text(self, commit: str, name: str) -> str:
        """The text of the small file `name` at `commit`."""
        url = client.address(self.repository.file_path(commit, name))
        return client.request(self.repository, url, headers=client.headers()).content.decode("utf-8", "replace")


def target(name: str, *, private: bool = False, create: bool = True) -> Target:
    """The repository `name` (NAME of the signed-in user, or OWNER/NAME), which exists from now on unless not `create`.

    Raises `UsageError` without a valid token, for an invalid name, a repository that the user cannot write to, and a
    public one if it is to be `private`.
    """
    option = f"--push-to-hub {name}"
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"{option}: not a repository name (NAME or OWNER/NAME)") from error
    if constants.HF_HUB_OFFLINE:
        raise UsageError(f"{option}: HF_HUB_OFFLINE is set; unset it, or leave the option out")
    if not has_token():
        raise UsageError(f"{option}: not signed in; run `hf auth login`, or set HF_TOKEN to a token that can write")
    user = client.lookup(Repository("model", name, MAIN, option), "api/whoami-v2").json()
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UsageError(
            f"{option}: the token can only read; make one that can write at {constants.ENDPOINT}/settings/tokens"
        )
    found = Target(Repository("model", name if "/" in name else f"{user['name']}/{name}", MAIN, option))
    is_new = create and _create(found, private=private)
    if not is_new:
        _check_write_access(found, str(user["name"]))
        if private and not found.listing()[2]:
            raise UsageError(
                f"{option}: {found.repo_id} exists and is public; make it private in its settings, or omit --private"
            )
    return found


def _create(wanted: Target, *, private: bool) -> bool:
    """Make the repository; False if it exists, or if the user cannot make it."""
    owner, name = wanted.repo_id.split("/")
    asked: dict[str, Any] = {"type": "model", "name": name, "organization": owner, "private": private}
    answer = client.lookup(
        wanted.repository, "api/repos/create", method="POST", json=asked, accepted=(EXISTS, FORBIDDEN)
    )
    return answer.status_code not in (EXISTS, FORBIDDEN)


def _check_write_access(wanted: Target, user: str) -> None:
    """Ask how a file would be uploaded, which the hub answers only to those who can write. Nothing is uploaded."""
    asked = {"files": [{"path": "README.md", "size": 1, "sample": "IA=="}]}
    path = f"api/models/{wanted.repo_id}/preupload/{MAIN}"
    answer = client.lookup(wanted.repository, path, method="POST", json=asked, accepted=(FORBIDDEN, UNKNOWN))
    if answer.status_code == UNKNOWN and wanted.repo_id.split("/")[0] == user:
        raise UsageError(f"{wanted.repository.option}: {user} has no such repository; `train --push-to-hub` makes it")
    if answer.status_code in (FORBIDDEN, UNKNOWN):
        raise UsageError(
            f"{wanted.repository.option}: {user} cannot write to {wanted.repo_id}; name a repository of {user}, or use "
            "a token that can write to it"
        )


def commit(
    to: Target, files: Mapping[str, Path | bytes], is_stale: Callable[[str], bool], message: str, kept: str
) -> str:
    """Upload `files` (name in the repository: content), remove others that are stale, and return the commit's address.

    It is one commit, on top of the newest one. Raises `MrpcbenchError` if the upload fails; `kept` says where the files
    are, and how to upload them later.
    """
    option = to.repository.option
    newest, names, _ = to.listing()
    stale = sorted(name for name in names if name not in files and is_stale(name))
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(name, content) for name, content in files.items()),
        *(CommitOperationDelete(name, is_folder=False) for name in stale),
    ]
    _bound_waits()
    try:
        made = HfApi().create_commit(to.repo_id, operations, commit_message=message, parent_commit=newest)
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted while uploading to {to.repo_id}; {kept}") from None
    except Exception as error:  # of the client's libraries, which share no base
        raise MrpcbenchError(f"{option}: the upload failed ({first_line(error)}); {kept}") from error
    return str(made.commit_url)


def _bound_waits() -> None:
    """Give the requests of `HfApi` a time limit. From version 1 on, it has one itself."""
    constants.HF_HUB_DISABLE_XET = True
    if configure := getattr(huggingface_hub, "configure_http_backend", None):
        configure(_session)


def _session() -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Bounded())
    return session


class _Bounded(HTTPAdapter):
    """Sends a request with a time limit, if it has none."""

    def send(self, *arguments: Any, **options: Any) -> requests.Response:
        """The answer; raises `requests.Timeout` if the server is silent for too long."""
        if options.get("timeout") is None:
            options["timeout"] = (client.CONNECT_S, UPLOAD_S)
        return super().send(*arguments, **options)
