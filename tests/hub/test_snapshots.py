"""Tests of mrpcbench.hub: what is downloaded, and each way in which the hub can fail becomes one line with a remedy."""

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from localhub import LocalHub

from mrpcbench.errors import InterruptedRunError, MrpcbenchError, UsageError
from mrpcbench.hub import client
from mrpcbench.hub.snapshots import find
from mrpcbench.models.downloads import Part, download_model

NAME = "me/model"
WEIGHTS = bytes(range(256)) * 2000
FILES = {
    "README.md": b"# model",
    "config.json": b'{"model_type": "modernbert"}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b'{"added_tokens_decoder": {}}',
    "special_tokens_map.json": b"{}",
    "mrpcbench-train.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "old/model.safetensors": b"of another checkpoint",
    "old/config.json": b"{}",
    "onnx/model.onnx": b"graph",
    "onnx/config.json": b'{"model_type": "modernbert"}',
    "onnx/tokenizer.json": b"{}",
    "onnx/model_q4.onnx": b"another graph",
}
READ = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def hub(local_hub: LocalHub) -> Iterator[LocalHub]:
    """A hub with one model."""
    local_hub.put("models", NAME, FILES)
    return local_hub


def get(name: str = NAME, *parts: Part) -> Path:
    return download_model(find(name, "model"), frozenset(parts or ("weights",)))


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refused(kind: type[MrpcbenchError] = MrpcbenchError, name: str = NAME, *parts: Part) -> str:
    """The line of the error that a download ends with."""
    with pytest.raises(kind) as caught:
        get(name, *parts)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"--model {name}: ")
    return line


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nobody listens at the hub's address."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


# What is downloaded


def test_only_what_is_read_is_downloaded_with_two_requests_a_file(hub: LocalHub) -> None:
    assert files_in(get()) == READ
    assert len(hub.requests) == 1 + 2 * len(READ)
    hub.forget()
    assert files_in(get()) == READ
    assert len(hub.requests) == 1


def test_a_graph_is_downloaded_without_weights_and_random_weights_without_either(hub: LocalHub) -> None:
    small = ["config.json", "tokenizer.json", "tokenizer_config.json"]
    assert files_in(get(NAME, "configuration")) == small
    assert set(files_in(get(NAME, "graph"))) - set(small) == {
        "onnx/config.json",
        "onnx/model.onnx",
        "onnx/tokenizer.json",
    }


def test_a_revision_is_a_tag_or_a_commit_and_files_of_two_commits_never_mix(hub: LocalHub) -> None:
    old = hub.repos["models", NAME].refs["main"]
    hub.put("models", NAME, FILES | {"config.json": b'{"model_type": "bert"}'}, tag="v2")
    snapshot = find(NAME, "model")
    newest = hub.put("models", NAME, FILES | {"config.json": b'{"model_type": "xlnet"}'})
    assert b'"bert"' in (download_model(snapshot, frozenset(["weights"])) / "config.json").read_bytes()
    for name, text in {f"{NAME}@{old}": "modernbert", f"{NAME}@v2": "bert", NAME: "xlnet"}.items():
        assert json.loads((get(name) / "config.json").read_text())["model_type"] == text
    assert find(NAME, "model").commit == newest


def test_sharded_weights_are_those_that_the_index_names(hub: LocalHub) -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": b"%d" % n for n in (1, 2)}
    index = json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()
    rest = {name: data for name, data in FILES.items() if name != "model.safetensors"}
    hub.put("models", NAME, rest | shards | {"model.safetensors.index.json": index, "extra.safetensors": b"no"})
    assert set(shards) <= set(files_in(get()))
    assert "extra.safetensors" not in files_in(get())


REPOSITORIES = {
    "only pickled weights": {"model.safetensors": None},
    "ONNX graphs but no model.safetensors; use --backend onnx": {"model.safetensors": None, "pytorch_model.bin": None},
    "not an architecture of transformers but code of its own": {
        "config.json": b'{"model_type": "x", "auto_map": {"A": "b"}}'
    },
    "no config.json": {"config.json": None},
}


@pytest.mark.parametrize("words", REPOSITORIES)
def test_what_cannot_be_loaded_is_refused_before_anything_large_is_downloaded(words: str, hub: LocalHub) -> None:
    changed = {name: data for name, data in (FILES | REPOSITORIES[words]).items() if data is not None}
    hub.put("models", NAME, changed)
    assert words in refused(UsageError)
    assert not [line for line in hub.requests if "/cdn/" in line]


def test_without_a_graph_nothing_is_downloaded_for_it(hub: LocalHub) -> None:
    hub.put("models", NAME, {name: data for name, data in FILES.items() if not name.startswith("onnx/")})
    get(NAME, "graph", "weights")
    assert len(hub.requests) == 1


# Refusals and failures


def test_a_rejected_token_is_named_with_and_without_a_cached_copy(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "the hub rejects the token in HF_TOKEN (401)" in refused(UsageError)
    monkeypatch.delenv("HF_TOKEN")
    get()
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "rejects the token in HF_TOKEN" in (line := refused(UsageError))
    assert line.endswith("HF_HUB_OFFLINE=1 uses the cached copy")


def test_the_token_goes_to_the_hub_and_not_to_the_server_of_large_files(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    get()
    assert hub.users == {"me", None}


@pytest.mark.parametrize(
    ("token", "words"), [(None, "sign in with `hf auth login`"), ("hf_other", "your token has no access; request it")]
)
def test_a_gated_repository_asks_for_a_login_or_for_access(
    token: str | None, words: str, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put("models", NAME, FILES, gated=True)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert "gated on the hub" in (line := refused(UsageError))
    assert words in line


def test_an_unknown_repository_or_revision_is_a_usage_error(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no local folder and no public model on the hub has this name" in refused(UsageError, "me/nothing")
    assert "has no revision v9" in refused(UsageError, f"{NAME}@v9")
    assert "not a revision after @" in refused(UsageError, f"{NAME}@../x")
    assert "neither a local folder nor a hub id" in refused(UsageError, "a--b/c")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    assert "that your token can read has this name" in refused(UsageError, "me/nothing")


def test_a_limit_of_requests_and_a_failing_hub_are_waited_out(hub: LocalHub) -> None:
    hub.fail("revision", "status", 503, times=client.ATTEMPTS - 1)
    hub.fail("resolve/.*config.json", "status", 500, times=client.ATTEMPTS - 1)
    assert files_in(get()) == READ


def test_retry_after_is_honoured(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    hub.fail("revision", "status", 429, times=6)
    assert "limits requests (429, 3 requests in 2 s); try again in 1 s, or sign in" in refused()
    monkeypatch.setattr(client, "LONGEST_WAIT_S", 0.5)
    assert "limits requests (429); try again in 1 s" in refused()


def test_a_failing_hub_is_named_and_a_cached_copy_is_used_with_a_warning(
    hub: LocalHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fail("revision", "status", 503)
    assert "the hub fails (503, 3 requests in 0 s); try again later" in refused()
    hub.forget()
    get()
    hub.fail("revision", "status", 503)
    assert files_in(get()) == READ
    assert re.fullmatch(
        rf"--model {NAME}: the hub fails \(503, .*\); using the cached commit [0-9a-f]{{8}}", caplog.messages[-1]
    )


def test_no_network_is_named_and_a_cached_copy_is_used_with_a_warning(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = constants.ENDPOINT
    offline(monkeypatch)
    line = refused()
    assert "not in the cache, and the hub (127.0.0.1:9) cannot be reached (connection refused)" in line
    assert "--model DIR" in line
    monkeypatch.setattr(constants, "ENDPOINT", address)
    get()
    offline(monkeypatch)
    assert files_in(get()) == READ
    assert "cannot be reached (connection refused); using the cached commit" in caplog.text


def test_offline_mode_asks_nobody(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "not in the cache, and HF_HUB_OFFLINE is set; unset it" in refused()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    get()
    hub.forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert files_in(get()) == READ
    assert hub.requests == []


@pytest.mark.parametrize("match", ["revision", "resolve", "/cdn/"])
def test_no_request_waits_for_ever(match: str, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LOOKUP_S", 0.2)
    monkeypatch.setattr(client, "READ_S", 0.2)
    hub.fail(match, "hang", 5)
    begin = time.monotonic()
    assert "did not answer within 0.2 s" in refused()
    assert time.monotonic() - begin < 2


# Downloads


def test_a_cut_download_continues_where_it_stopped(hub: LocalHub) -> None:
    hub.fail("/cdn/", "truncate", 0.5, times=2)
    assert (get() / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent < 1.1 * len(WEIGHTS)


def test_a_download_that_is_always_cut_says_so_and_the_next_run_continues_it(hub: LocalHub) -> None:
    hub.fail("/cdn/", "truncate", 0.5, times=1)
    hub.fail("/cdn/", "truncate", 0)
    line = refused()
    assert "model.safetensors: the connection was cut after" in line
    assert line.endswith("try again: the download continues where it stopped")
    hub.forget()
    assert (get() / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.sent < 0.7 * len(WEIGHTS)


def test_an_interrupt_ends_a_download_within_a_second_and_the_next_run_continues_it(hub: LocalHub) -> None:
    interrupted: list[float] = []

    def interrupt(*_: object) -> None:
        parts = Path(constants.HF_HUB_CACHE).rglob("*.incomplete")
        if not any(part.stat().st_size for part in parts):  # nothing has arrived yet
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            return
        interrupted.append(time.monotonic())
        raise KeyboardInterrupt

    hub.fail("/cdn/", "slow", len(WEIGHTS) // 20)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(InterruptedRunError, match="interrupted while downloading model"):
            get()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - interrupted[0] < 1
    hub.forget()
    assert (get() / "model.safetensors").read_bytes() == WEIGHTS
    assert [re.fullmatch(r"bytes=[1-9]\d*-", found) is not None for found in hub.ranges] == [True]


def test_a_damaged_download_is_repeated_once_and_then_named(hub: LocalHub) -> None:
    hub.fail("/cdn/", "corrupt", times=1)
    assert (get() / "model.safetensors").read_bytes() == WEIGHTS
    hub.put("models", NAME, FILES | {"model.safetensors": WEIGHTS[::-1]})
    hub.fail("/cdn/", "corrupt")
    assert "model.safetensors arrived damaged twice" in refused()


def test_an_answer_without_a_hash_is_refused_unless_the_list_has_one(hub: LocalHub) -> None:
    hub.fail("resolve", "noetag")
    get(NAME, "configuration")
    snapshot = find(NAME, "model")
    snapshot.listed.update({"README.md": type(snapshot.listed["README.md"])(7, None)})
    with pytest.raises(MrpcbenchError, match="the answer for README"):
        snapshot.fetch(["README.md"])


# The cache


def test_an_interrupted_download_leaves_a_cache_that_is_called_incomplete(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fail("/cdn/", "truncate", 0)
    refused()
    offline(monkeypatch)
    line = refused()
    assert re.search(r"the cached copy \(commit [0-9a-f]{8}\) is incomplete: no model.safetensors", line)
    assert "run again with the hub: an interrupted download continues" in line
    assert "no onnx/model.onnx" not in line
    assert "is incomplete: no model.onnx or onnx/model.onnx" in refused(MrpcbenchError, NAME, "graph")


def test_an_interrupted_update_leaves_the_earlier_commit_in_use(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    old = get()
    hub.put("models", NAME, FILES | {"model.safetensors": WEIGHTS[::-1]})
    hub.fail("/cdn/", "truncate", 0)
    refused()
    offline(monkeypatch)
    assert get() == old


def test_a_damaged_file_of_the_cache_is_downloaded_again_or_named(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = (get() / "model.safetensors").resolve()
    for name in ("model.safetensors", "config.json"):
        broken = (get() / name).resolve()
        broken.write_bytes(bytes(broken.stat().st_size))
        assert (get() / name).read_bytes() == FILES[name]
        assert (
            f"the cached {name} is damaged (its content does not match its hash); downloading it again" in caplog.text
        )
    path.write_bytes(bytes(len(WEIGHTS)))
    offline(monkeypatch)
    line = refused()
    assert f"delete {path}, and run again with the hub" in line


def test_a_disk_error_is_not_a_failure_of_the_hub(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"):
        get()
