"""Downloads a file of the hub into the cache: in byte ranges after a cut, and never as anything but what its hash says.

Every file comes over plain HTTP, also where the hub offers Xet: its client neither resumes a file nor ends at Ctrl-C.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from mrpcbench.errors import InterruptedRunError, MrpcbenchError
from mrpcbench.hub import client
from mrpcbench.hub.cache import Cache, digest
from mrpcbench.hub.failures import UnavailableError
from mrpcbench.hub.repository import Repository
from mrpcbench.records.outputs import check_space

CHUNK_BYTES = 1 << 15
# Larger files get a progress bar on a terminal.
SHOWN_FROM_BYTES = 1 << 20
AGAIN = "try again: the download continues where it stopped"


@dataclass(frozen=True)
class Listed:
    """A file in the hub's list. `blob` is its hash, or None if the list has none."""

    size: int | None
    blob: str | None


@dataclass(frozen=True)
class _Remote:
    """Where the content of a file is: its address, the headers for it, its hash and its size in bytes."""

    url: str
    headers: Mapping[str, str]
    blob: str
    size: int | None


def download(repository: Repository, cache: Cache, commit: str, name: str, listed: Listed) -> None:
    """Download the file `name` of `commit` into `cache`, and continue an earlier download of it.

    Raises `UnavailableError` if the hub does not deliver it, `UsageError` if it refuses, and `InterruptedRunError`
    after Ctrl-C.
    """
    try:
        remote = _find(repository, commit, name, listed)
        with cache.lock(remote.blob):
            if not cache.blob(remote.blob).exists():
                _fetch(repository, remote, cache.blob(remote.blob), name)
        cache.link(commit, name, remote.blob)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted while downloading {name} of {repository.repo_id}; the next run continues the download"
        ) from None
    except TimeoutError as error:
        raise MrpcbenchError(
            f"{repository.option}: another process is downloading {name}; run the command again when it is finished"
        ) from error


def _find(repository: Repository, commit: str, name: str, listed: Listed) -> _Remote:
    """Ask the hub for the file. It answers with the hash, and with the address of the content."""
    url, headers = client.address(repository.file_path(commit, name)), client.headers()
    with client.request(repository, url, headers=headers, allow_redirects=False, stream=True) as answer:
        blob = answer.headers.get("X-Linked-ETag") or answer.headers.get("ETag") or listed.blob or ""
        length = answer.headers.get("X-Linked-Size", "")
        location = urljoin(url, answer.headers.get("Location", ""))
    blob = blob.removeprefix("W/").strip('"')
    if not blob or "/" in blob:
        raise MrpcbenchError(
            f"{repository.option}: the answer for {name} has no ETag, so its content cannot be checked; does "
            "HF_ENDPOINT or a proxy name another server?"
        )
    size = int(length) if length.isdigit() else listed.size
    if urlsplit(location).netloc != urlsplit(url).netloc:  # the token is for the hub alone
        headers = {key: value for key, value in headers.items() if key.lower() != "authorization"}
    return _Remote(location, headers, blob, size)


def _fetch(repository: Repository, remote: _Remote, path: Path, name: str) -> None:
    """Download the content to `path`, which exists only when complete. A wrong content is downloaded once more."""
    part = path.with_name(f"{path.name}.incomplete")
    path.parent.mkdir(parents=True, exist_ok=True)
    if remote.size is not None:
        check_space("HF_HOME", path.parent, remote.size - (part.stat().st_size if part.exists() else 0))
    for _ in range(2):
        _transfer(repository, remote, part, name)
        if digest(part, remote.blob) in (None, remote.blob):
            part.replace(path)
            return
        part.unlink()
    raise UnavailableError(
        repository.option,
        f"{name} arrived damaged twice: its content does not have the hash {remote.blob[:12]}...",
        "try again later, or ask whether a proxy changes it",
    )


def _transfer(repository: Repository, remote: _Remote, part: Path, name: str) -> None:
    """Append to `part` until it is complete. `UnavailableError` if `ATTEMPTS` requests in a row bring nothing."""
    idle, problem = 0, ""
    while idle < client.ATTEMPTS:
        before = _size(part)
        if remote.size is not None and before > remote.size:
            part.unlink()
            before = 0
        if before and before == remote.size:
            return
        problem = _append(repository, remote, part, before, name)
        if not problem and remote.size in (None, _size(part)):
            return
        idle = 0 if _size(part) > before else idle + 1
        time.sleep(client.FIRST_WAIT_S * idle)
    raise UnavailableError(
        repository.option,
        f"{name}: {problem or 'the answer ended early'} after {_size(part)} of {remote.size or 'unknown'} bytes, "
        f"{idle} times in a row",
        AGAIN,
    )


def _append(repository: Repository, remote: _Remote, part: Path, start: int, name: str) -> str:
    """Write the content from byte `start` on to `part`. Returns what went wrong; "" if nothing."""
    headers = {**remote.headers, **({"Range": f"bytes={start}-"} if start else {})}
    try:
        answer = client.request(repository, remote.url, headers=headers, stream=True, accepted=[client.NO_SUCH_RANGE])
    except UnavailableError as error:
        raise UnavailableError(repository.option, f"{name}: {error.what}", AGAIN) from error
    with answer:
        if answer.status_code == client.NO_SUCH_RANGE:  # what is there cannot be a beginning of the file
            part.unlink()
            return "the answer was no part of the file"
        shown = {"disable": True if (remote.size or 0) < SHOWN_FROM_BYTES else None, "leave": False}
        with (
            part.open("ab" if answer.status_code == client.PARTIAL else "wb") as file,
            tqdm(  # type: ignore[no-untyped-call]
                desc=name, total=remote.size, initial=start, unit="B", unit_scale=True, **shown
            ) as bar,
        ):
            try:
                for chunk in answer.iter_content(CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
            except requests.RequestException:
                return "the connection was cut"
    return ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
