"""Reads JSON from people and other programs. Every error is one line that names the file and, if known, the line.

A repeated key is an error, because Python's parser would silently use its last value. Standard library only.
"""

import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrpcbench.errors import UsageError

# A string, with the colon that makes it a key, or a brace.
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(\s*:)?|[{}]')


class RepeatedKeyError(ValueError):
    """An object has the key `key` twice, the second time on line `line` of the document."""

    def __init__(self, key: str, line: int) -> None:
        super().__init__(f"line {line}: key {key!r} is given twice")
        self.key = key
        self.line = line


def parse_json(content: str | bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The document in `content`. Bytes may be UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    `parse_constant` is called for NaN and infinity. Raises `RepeatedKeyError` for a repeated key, and `ValueError` for
    content that is not JSON or is nested too deeply.
    """
    text = content if isinstance(content, str) else content.decode(json.detect_encoding(content))
    try:
        return json.loads(
            text.removeprefix("\ufeff"), object_pairs_hook=_without_repeats, parse_constant=parse_constant
        )
    except _RepeatError:
        raise _repeated_key(text) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """The JSON document in the file `path`; raises `UsageError`, with the line if known, for any other content."""
    return parsed(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """The content of the file `path`; raises `UsageError` if it cannot be read."""
    check_no_pipe(path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None


def check_no_pipe(path: Path) -> None:
    """Raise `UsageError` if `path` is a named pipe, which may wait forever for a writer.

    A pipe of the shell, as /dev/stdin or `compare <(command)`, has a writer.
    """
    if path.is_fifo() and path.absolute().parts[1] not in ("dev", "proc"):
        raise UsageError(f"{path}: a pipe, not a file")


def parsed(path: Path, content: bytes) -> Any:
    """The document in `content`, which was read from `path`; raises `UsageError` like `read_json`."""
    try:
        return parse_json(content)
    except RepeatedKeyError as error:
        raise UsageError(f"{path} line {error.line}: key {error.key!r} is given twice; remove one") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: not JSON at line {error.lineno} ({error.msg}); is the file truncated?") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})") from None


def check_json(path: Path) -> Any:
    """The document in `path`; raises `UsageError` if a library could misread it: a repeated key, a byte-order mark.

    A missing file is not an error, and gives None.
    """
    if not path.exists():
        return None
    content = read_bytes(path)
    if content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"{path}: begins with a byte-order mark; save it as UTF-8 without one")
    return parsed(path, content)


class _RepeatError(Exception):
    """A repeated key, before its line is known."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RepeatError
    return found


def _repeated_key(text: str) -> RepeatedKeyError:
    """The first repeated key in `text`, with its line."""
    objects: list[set[str]] = []
    for match in TOKEN.finditer(text):
        if match[0] == "{":
            objects.append(set())
        elif match[0] == "}":
            objects.pop()
        elif match[1]:
            key = json.loads(match[0].removesuffix(match[1]), strict=False)
            if key in objects[-1]:
                return RepeatedKeyError(key, text.count("\n", 0, match.start()) + 1)
            objects[-1].add(key)
    raise AssertionError("no key is given twice")
