"""A lineage is believed only where the bytes that it names are those that are there."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from conftest import Outcome
from safetensors.torch import load_file, save_file

from mrpcbench.backends.registry import open_session
from mrpcbench.errors import UsageError
from mrpcbench.models import hashes
from mrpcbench.models.classifier import folder_sha256
from mrpcbench.models.sources import ModelSource
from mrpcbench.records import store
from mrpcbench.schema.identity import ModelIdentity
from mrpcbench.schema.requests import BackendSpec


@pytest.fixture
def copied(exported_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_model, tmp_path / "copied"))


def turn_head(folder: Path) -> None:
    """Replace the weights by ones that say the opposite; every other file stays."""
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def opened(folder: Path) -> ModelIdentity:
    session = open_session(BackendSpec(backend="onnx", model=str(folder), device="cpu"))
    session.close()
    return session.model


def test_a_graph_is_proven_while_all_its_bytes_are_those_that_were_verified(copied: Path) -> None:
    assert opened(copied).proven is True
    assert opened(copied / "onnx").proven is True


def test_a_graph_of_other_weights_than_the_folder_has_is_rejected(
    copied: Path, mrpcbench: Callable[..., Outcome], small_data: Path
) -> None:
    turn_head(copied)
    runs = {
        "evaluate": ("--model", copied, "--backend", "onnx"),
        "bench": ("--model", copied, "--backend", "torch", "--backend", "onnx"),
        "ab": ("--a-model", copied, "--a-backend", "onnx", "--process-pairs", "5"),
    }
    for command, arguments in runs.items():
        outcome = mrpcbench(command, *arguments, "--data", small_data)
        assert outcome.status == 2, command
        assert "its ONNX graph was exported from other weights than the model has now" in outcome.err, command
    with pytest.raises(UsageError, match="other weights"):
        opened(copied / "onnx")


def test_a_lineage_that_claims_the_new_weights_is_not_trusted(copied: Path) -> None:
    turn_head(copied)
    lineage = store.load_lineage(copied)
    assert lineage is not None
    now = folder_sha256(ModelSource("m", copied))
    for folder in (copied, copied / "onnx"):
        found = store.load_lineage(folder)
        assert found is not None
        assert found.model.model_sha256 != now
    (copied / store.LINEAGE_FILE).unlink()
    with pytest.raises(UsageError, match="other weights"):
        opened(copied)


def test_a_graph_changed_after_verification_has_its_own_hash(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    was = opened(copied)
    graph = onnx.load(copied / "onnx" / "model.onnx")
    graph.doc_string = "changed"
    onnx.save(graph, copied / "onnx" / "model.onnx")
    with caplog.at_level(logging.WARNING):
        found = opened(copied)
    assert found.proven is False
    assert found.model_sha256 == found.graph_sha256 != was.graph_sha256
    assert found.origin == "unknown"
    assert "model.onnx was changed since `mrpcbench export` wrote it; its graph counts as unverified" in caplog.text


def test_a_graph_in_the_folder_of_its_model_is_unverified(copied: Path) -> None:
    shutil.copy(copied / "onnx" / "model.onnx", copied)
    found = opened(copied)
    assert found.proven is False
    assert found.model_sha256 == found.graph_sha256


def test_a_graph_without_lineage_has_its_own_hash_and_is_not_verified(copied: Path) -> None:
    (copied / "onnx" / store.LINEAGE_FILE).unlink()
    found = opened(copied)
    assert found.proven is False
    assert found.model_sha256 == found.graph_sha256
    assert found.origin == "unknown"


def test_with_another_tokenizer_a_graph_is_not_verified(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    was = opened(copied)
    path = copied / "onnx" / "tokenizer.json"
    document = store.load_json(path)
    one, two, *_ = document["model"]["vocab"]
    vocabulary = document["model"]["vocab"]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    store.save_json(path, document)
    with caplog.at_level(logging.WARNING):
        found = opened(copied)
    assert found.proven is False
    assert found.tokenizer_sha256 != was.tokenizer_sha256
    assert "the tokenizer was changed since the graph was exported" in caplog.text


def test_a_graph_of_a_model_with_unreadable_weights_is_unverified(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copied / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    with caplog.at_level(logging.WARNING):
        assert opened(copied).proven is False
    assert "model.safetensors is a Git LFS pointer" in caplog.text


def test_a_graph_without_its_models_weights_stays_verified(copied: Path, tmp_path: Path) -> None:
    moved = (copied / "onnx").rename(tmp_path / "graph")
    assert opened(moved).proven is True


# --- the hash of a folder's weights, remembered -----------------------------------------------------------------------


def test_the_hash_of_large_weights_is_cached_until_a_file_changes(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "CACHED_FROM", 0)
    source = ModelSource("m", copied)
    before = folder_sha256(source)
    assert hashes.remembered(copied) == before
    turn_head(copied)
    assert hashes.remembered(copied) is None
    assert folder_sha256(ModelSource("m", copied)) == hashes.remembered(copied) != before


def test_a_reset_modification_time_is_detected(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(hashes, "CACHED_FROM", 0)
    path = copied / "model.safetensors"
    folder_sha256(ModelSource("m", copied))
    was = path.stat()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert hashes.remembered(copied) is None


def test_a_damaged_cache_is_ignored(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "CACHED_FROM", 0)
    before = folder_sha256(ModelSource("m", copied))
    (copied / hashes.CACHE_FILE).write_text("[]")
    assert folder_sha256(ModelSource("m", copied)) == before


def test_hashes_of_small_weights_are_not_cached(copied: Path) -> None:
    folder_sha256(ModelSource("m", copied))
    assert not (copied / hashes.CACHE_FILE).exists()
