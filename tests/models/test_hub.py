"""Tests of mrpcbench.hub: each way in which the hub can fail becomes one line that says what helps."""

import errno
import socket
from functools import partial
from pathlib import Path
from typing import Any, Literal

import huggingface_hub.constants
import pytest
import requests
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mrpcbench import hub
from mrpcbench.errors import MrpcbenchError, UsageError

Kind = Literal["model", "dataset"]
OPTIONS: dict[Kind, str] = {"model": "--model", "dataset": "--data"}


def http(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    """An error of the hub's own, with the answer that it carries."""
    response = requests.Response()
    response.status_code = status
    response.request = requests.Request("GET", "https://huggingface.co/api").prepare()
    return kind("first line\nsecond line", response=response)


def refusal(error: BaseException, monkeypatch: pytest.MonkeyPatch, kind: Kind = "model") -> MrpcbenchError:
    """What `snapshot` raises where the hub's own function raises `error`."""

    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(MrpcbenchError) as caught:
        hub.snapshot("owner/name", kind=kind, patterns=["*"])
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{OPTIONS[kind]} owner/name: ")
    assert caught.value.__cause__ is error
    return caught.value


def test_a_snapshot_is_a_folder_with_only_the_requested_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def answer(*positional: Any, **named: Any) -> str:
        asked.append((positional, named))
        return "/cache/snapshot"

    monkeypatch.setattr(hub, "snapshot_download", answer)
    monkeypatch.setattr(hub, "_answers", lambda repo_id, kind: True)
    assert hub.snapshot("owner/name", kind="dataset", patterns=["mrpc/*"]) == Path("/cache/snapshot")
    ((positional, named),) = asked
    assert positional == ("owner/name",)
    assert named["repo_type"] == "dataset"
    assert named["allow_patterns"] == ["mrpc/*"]
    assert named["local_files_only"] is False


def test_a_hub_that_never_answers_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a time limit of its own this test would not end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(hub, "HfApi", partial(hub.HfApi, endpoint=endpoint))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "TIMEOUT_S", 0.2)
        with pytest.raises(MrpcbenchError, match="cannot be reached"):
            hub.snapshot("owner/name", kind="model", patterns=["*"])


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("cannot find the requested files in the disk cache"),
        OfflineModeIsEnabled("offline mode is enabled"),
        requests.exceptions.ConnectionError("Max retries exceeded"),
        requests.exceptions.ReadTimeout("timed out"),
        requests.exceptions.ProxyError("no proxy"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError(errno.ETIMEDOUT, "timed out"),
        http(HfHubHTTPError, 500),
        http(HfHubHTTPError, 429),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_unreachable_hub_is_an_error_that_names_the_alternatives(
    error: BaseException, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = refusal(error, monkeypatch, kind)
    assert type(found) is MrpcbenchError
    for remedy in ("cannot be reached", "--model DIR", "--data DIR", "mrpcbench quickstart"):
        assert remedy in str(found)


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_missing_repository_is_a_usage_error(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    found = refusal(http(RepositoryNotFoundError, 404), monkeypatch, kind)
    assert type(found) is UsageError
    assert f"no {kind} on the hub has this name" in str(found)


def test_a_gated_repository_requires_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    found = refusal(http(GatedRepoError, 403), monkeypatch)
    assert type(found) is UsageError
    assert "requires a login" in str(found)
    assert "huggingface-cli login" in str(found)


def test_a_name_that_is_not_a_hub_id_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found = refusal(HFValidationError("Repo id must be in the form ..."), monkeypatch)
    assert type(found) is UsageError
    assert "OWNER/NAME" in str(found)


def test_an_id_that_the_hub_library_rejects_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^--model a/b/c: neither a local folder nor a hub id \(OWNER/NAME\)$"):
        hub.snapshot("a/b/c", kind="model", patterns=["*"])


@pytest.mark.parametrize("kind", [RevisionNotFoundError, EntryNotFoundError])
def test_a_repository_without_the_needed_files_is_one_line(
    kind: type[HfHubHTTPError], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(refusal(http(kind, 404), monkeypatch), MrpcbenchError)


def test_offline_the_hubs_own_function_fails_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = hub.snapshot_download

    def in_an_empty_cache(*positional: Any, **named: Any) -> str:
        return real(*positional, **named | {"cache_dir": tmp_path, "local_files_only": True})

    monkeypatch.setattr(hub, "snapshot_download", in_an_empty_cache)
    with pytest.raises(MrpcbenchError, match=r"cannot be reached; use --model DIR"):
        hub.snapshot("owner/name", kind="model", patterns=["*"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_error_is_not_reported_as_an_unreachable_hub(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(number, "the disk's own words", "blob")

    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises((OSError, MrpcbenchError)) as caught:
        hub.snapshot("owner/name", kind="model", patterns=["*"])
    assert "cannot be reached" not in str(caught.value)
    assert "the disk's own words" in str(caught.value)
