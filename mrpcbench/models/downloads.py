"""Downloads those files of a hub repository that a command reads: the small ones first, weights last."""

import json
from pathlib import Path
from typing import Any, Literal

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from mrpcbench.errors import UsageError
from mrpcbench.hub.snapshots import Snapshot
from mrpcbench.models.files import WEIGHTS, WEIGHTS_INDEX
from mrpcbench.records.store import LINEAGE_FILE

# What a command reads of a model besides its configuration and its tokenizer.
Part = Literal["weights", "graph", "configuration", "card"]
CONFIG, GRAPH, CARD = "config.json", "model.onnx", "README.md"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
# Read only if tokenizer_config.json lists no added tokens (transformers, PreTrainedTokenizerBase._from_pretrained).
LEGACY_TOKENS = ("special_tokens_map.json", "added_tokens.json")
# The vocabulary of a tokenizer without tokenizer.json.
VOCABULARY = (
    "vocab.json merges.txt vocab.txt spiece.model tokenizer.model sentencepiece.bpe.model spm.model bpe.codes"
).split()


def download_model(snapshot: Snapshot, parts: frozenset[Part]) -> Path:
    """Download what `parts` need of the model in `snapshot`, and return its folder.

    Files in folders are left out, except for a graph in onnx/. Nothing is downloaded if there is no graph where one is
    wanted. Raises `UsageError`, before anything large is downloaded, if the repository has no such weights, or needs
    code of its own.
    """
    graph_at = _graph_folder(snapshot) if "graph" in parts else None
    if "graph" in parts and graph_at is None:
        return snapshot.folder
    small = [graph_at] if graph_at is not None else []
    if parts != {"graph"} and "" not in small:
        small.insert(0, "")
    for prefix in small:
        _download_small(snapshot, prefix)
    if "card" in parts:
        snapshot.fetch({CARD} & snapshot.names)
    if "weights" in parts:
        snapshot.fetch(_weights(snapshot))
    if graph_at is not None:
        snapshot.fetch(sorted(name for name in snapshot.names if name.startswith(f"{graph_at}{GRAPH}")))
    return snapshot.done()


def _download_small(snapshot: Snapshot, prefix: str) -> None:
    """Download configuration, tokenizer and lineage from the folder `prefix` of the repository ("" or "onnx/")."""
    option, names = snapshot.repository.option, snapshot.names
    if prefix + CONFIG not in names:
        if snapshot.offline:
            raise snapshot.incomplete(prefix + CONFIG)
        raise UsageError(f"{option}: the repository has no {prefix}{CONFIG}; choose a model that transformers can load")
    folder = snapshot.folder / prefix

    def fetch(*files: str) -> None:
        snapshot.fetch(prefix + file for file in files if prefix + file in names)

    fetch(CONFIG)
    check_architecture(folder, option)
    fetch(TOKENIZER_CONFIG)
    settings = _json(folder / TOKENIZER_CONFIG)
    tokens = () if "added_tokens_decoder" in settings else LEGACY_TOKENS
    vocabulary = (TOKENIZER,) if prefix + TOKENIZER in names else tuple(VOCABULARY)
    if snapshot.offline and not any(prefix + file in names for file in vocabulary):
        raise snapshot.incomplete(prefix + TOKENIZER)
    fetch(*tokens, *vocabulary, LINEAGE_FILE)


def check_architecture(folder: Path, option: str) -> None:
    """Raise `UsageError` if the model in `folder` needs code of its own, which is never run."""
    config = _json(folder / CONFIG)
    if config.get("auto_map") and (kind := config.get("model_type")) not in CONFIG_MAPPING_NAMES:
        raise UsageError(
            f"{option}: {kind} is not an architecture of transformers but code of its own (auto_map in {CONFIG}), "
            "which is never run; choose another model"
        )


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty if there is none, which the reader of the file reports."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _weights(snapshot: Snapshot) -> list[str]:
    """The weight files. Raises `UsageError` if the repository has none in safetensors."""
    option, names = snapshot.repository.option, snapshot.names
    if WEIGHTS in names:
        return [WEIGHTS]
    if WEIGHTS_INDEX in names:
        snapshot.fetch([WEIGHTS_INDEX])
        shards = sorted(set(map(str, _json(snapshot.folder / WEIGHTS_INDEX).get("weight_map", {}).values())))
        if missing := [name for name in shards if name not in names]:
            if snapshot.offline:
                raise snapshot.incomplete(missing[0])
            raise UsageError(f"{option}: {WEIGHTS_INDEX} names {missing[0]}, which the repository lacks")
        return shards
    if snapshot.offline:
        raise snapshot.incomplete(WEIGHTS)
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        raise UsageError(
            f"{option}: the repository has only pickled weights (*.bin), which can run code; ask its owner for "
            f"{WEIGHTS}, or convert them and pass the folder"
        )
    if any(name.endswith(".onnx") for name in names):
        raise UsageError(f"{option}: the repository has ONNX graphs but no {WEIGHTS}; use --backend onnx")
    raise UsageError(f"{option}: the repository has no weights ({WEIGHTS}); choose another model")


def _graph_folder(snapshot: Snapshot) -> str | None:
    """The folder of the graph in the repository: "" or "onnx/"; None if the repository has none."""
    for prefix in ("", "onnx/"):
        if prefix + GRAPH in snapshot.names:
            return prefix
    if snapshot.offline:
        raise snapshot.incomplete(f"{GRAPH} or onnx/{GRAPH}")
    return None
