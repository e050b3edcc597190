"""Hashes of a model's weights and tokenizer, and a cache of the hash of large weights."""

import hashlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mrpcbench.models.files import weight_files
from mrpcbench.records import store

# The cached hash, next to the weights. Reading and hashing 150 M parameters takes 1 to 2 s.
CACHE_FILE = ".mrpcbench-weights.json"
# Smaller weights are not cached, because reading and hashing them takes less than 0.2 s.
CACHED_FROM = 50 << 20

# For each file: its size, and the times in ns when its content and its metadata last changed.
Stamp = dict[str, list[int]]


def weights_sha256(model: PreTrainedModel, *, without: Collection[str] = ()) -> str:
    """SHA-256 over name, dtype, shape and bytes of every weight, sorted by name. It does not depend on the files."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if name in without:
            continue
        digest.update(f"{name}\0{weight.dtype}\0{tuple(weight.shape)}\0".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the behaviour of `tokenizer`. Loading and saving change the bytes of its files, but not this hash."""
    if tokenizer.is_fast:
        # Padding and truncation are settings of a call, not of the tokenizer.
        return store.canonical_sha256(tokenizer.backend_tokenizer.to_str(), without=("padding", "truncation"))
    content = (sorted(tokenizer.get_vocab().items()), sorted(tokenizer.special_tokens_map.items()))
    return hashlib.sha256(repr(content).encode()).hexdigest()


def stamp_of(folder: Path) -> Stamp:
    """Sizes and times of the weight files in `folder` and of its configuration. They change if a file changes."""
    found = {}
    for path in (folder / "config.json", *weight_files(folder, str(folder))):
        state = path.stat()
        found[path.name] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    return found


def remembered(folder: Path) -> str | None:
    """The cached hash of the weights in `folder`; None if there is none or a file has changed since."""
    path = folder / CACHE_FILE
    if not path.exists():
        return None
    with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged cache is ignored
        known = store.load_json(path)
        if known["files"] == stamp_of(folder):
            return str(known["model_sha256"])
    return None


def remember(folder: Path, sha256: str, stamp: Stamp) -> None:
    """Cache the hash of the weights in `folder`, read when their files had `stamp`, unless they are small.

    Nothing is written to the hub's cache, whose files are links, or to a read-only folder.
    """
    is_large = sum(size for size, *_ in stamp.values()) >= CACHED_FROM
    if is_large and not any((folder / name).is_symlink() for name in stamp):
        with suppress(OSError):
            store.save_json(folder / CACHE_FILE, {"files": stamp, "model_sha256": sha256})
