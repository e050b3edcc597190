"""Diagnoses files that should hold a model: error messages from the bytes of the file."""

import os
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from mrpcbench.environment.staging import is_staged
from mrpcbench.errors import UsageError
from mrpcbench.records.documents import parse_json, read_json

# The first bytes, in lower case, of files that are often found in place of a model, with a message.
KINDS = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the file itself; run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself; run `git annex get`"),
    (b"<!doctype", "an HTML page, such as an error of a server; download the file again"),
    (b"<html", "an HTML page, such as an error of a server; download the file again"),
    (b"<?xml", "an XML document, such as an error of a server; download the file again"),
    (b"pk\x03\x04", "a zip archive or a checkpoint pickled by torch"),
    (b"\x80\x02", "a pickle, which is never read"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
)
# Longer than any beginning above, with room for the blank lines before an HTML page.
BEGINNING = 200
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
# The files of a configuration and a tokenizer, as transformers saves them.
SMALL_FILES = (
    "config.json generation_config.json tokenizer.json tokenizer_config.json special_tokens_map.json "
    "added_tokens.json chat_template.jinja vocab.* merges.txt *.model bpe.codes"
).split()
# A header of safetensors starts with its own length.
LENGTH_BYTES = 8


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a shell pattern in `patterns` matches the file name `name`."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def foreign(folder: Path, patterns: Iterable[str]) -> Path | None:
    """The first entry of `folder` that is not a file with a name in `patterns`, such as a folder or a link; or None.

    What a killed run has left of a file is not counted.
    """
    known = tuple(patterns)

    def is_known(item: Path) -> bool:
        return is_staged(item.name) or (item.is_file() and not item.is_symlink() and matches(item.name, known))

    return next((item for item in sorted(folder.iterdir()) if not is_known(item)), None)


def what_is(path: Path) -> str | None:
    """A description of the file `path` if it clearly is not a model; None if only its reader can tell."""
    if not path.is_file():
        return "a folder" if path.is_dir() else "a pipe or device, not a file" if path.exists() else "missing"
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
    if not beginning:
        return "empty"
    text = beginning.lstrip().lower()
    found = next(
        (words for start, words in KINDS if beginning.lower().startswith(start) or text.startswith(start)), None
    )
    if not found and not beginning.strip(b"\0") and path.stat().st_size > BEGINNING:
        found = "all zeros at its beginning, as an interrupted copy leaves it; copy the file again"
    if not found and path.suffix != ".json" and text[:1] in (b"{", b"["):
        found = "a JSON document"
    return found


def unreadable(option: str, path: Path, otherwise: str) -> UsageError:
    """The error for the file `path` of `option`: what it is, or `otherwise` if its bytes do not show that."""
    return UsageError(f"{option}: {path.name} is {what_is(path) or otherwise}")


def inside(folder: Path, name: str, beside: Path) -> bool:
    """Whether the relative file name `name`, found in the file `beside`, stays within `folder`.

    In the hub's cache every file is a link to another folder. So the target may also be in the folder of the target of
    `beside`.
    """
    if os.path.isabs(name) or ".." in Path(name).parts or "\\" in name:  # noqa: PTH117  # of the text, not of a path
        return False
    found = (folder / name).resolve()
    return found.is_relative_to(folder.resolve()) or found.is_relative_to(beside.resolve().parent)


def weight_files(folder: Path, option: str) -> list[Path]:
    """The weight files of the model in `folder`; empty if it has no weights in safetensors.

    Raises `UsageError` if an index names files that are missing or outside of the folder.
    """
    if (folder / WEIGHTS).is_file() or (folder / WEIGHTS).is_symlink():
        return [folder / WEIGHTS]
    index = folder / WEIGHTS_INDEX
    if not index.exists():
        return []
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        if not all(isinstance(name, str) for name in names):
            raise TypeError
    except (UsageError, KeyError, TypeError, AttributeError):
        raise unreadable(option, index, "no index of weights; save the model again") from None
    for name in names:
        if not inside(folder, name, index):
            raise UsageError(f"{option}: {index.name} names {name}, which lies outside of the folder")
        if not (folder / name).exists():
            raise UsageError(f"{option}: {index.name} names {name}, which is missing; copy the whole model")
    return [folder / name for name in names]


def check_safetensors(path: Path, option: str) -> None:
    """Raise `UsageError` if `path` is not a complete safetensors file. Only its header is read."""
    if problem := _safetensors_problem(path):
        raise unreadable(option, path, problem)


def _safetensors_problem(path: Path) -> str | None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if size < LENGTH_BYTES or length > size - LENGTH_BYTES:
                return f"no safetensors, or truncated to {size} bytes; copy it again"
            header = parse_json(file.read(length))
        ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
        whole = LENGTH_BYTES + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "no safetensors, or damaged; save or copy it again"
    return None if size >= whole else f"truncated: {size} of {whole} bytes; copy it again"
