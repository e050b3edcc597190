"""Redacts paths and command lines for records: no names of people or folders. Standard library only."""

import inspect
import os
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from os.path import exists
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mrpcbench.schema import bench_requests, gate_requests, requests
from mrpcbench.schema.fields import flags_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

# A path in a message: from the root or the home folder, and not the part of an address after its scheme.
_ABSOLUTE = re.compile(r"(?<![\w./:~-])~?/[^\s'\"`,;:()\[\]]+")

# Options whose value is always a path or a repository, even if it looks like a public name.
ALWAYS_CUT = {
    flag
    for module in (requests, bench_requests, gate_requests)
    for _, kind in inspect.getmembers(module, is_dataclass)
    for item in fields(kind)
    if item.metadata["location"] not in (None, "name or path")
    for flag in flags_of(item)
}


def public(request: T) -> T:
    """`request` with every path redacted by `public_name`."""
    named = [item.name for item in fields(request) if item.metadata["location"]]
    shown: dict[str, Any] = {
        name: public_name(value) for name in named if (value := getattr(request, name)) is not None
    }
    return replace(request, **shown)


def public_name(text: str) -> str:
    """A redacted model, data source or path: a hub id or a bare name is unchanged; a path is cut to its last part."""
    looks_like_hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?", text) and not text.startswith((".", "~"))
    if looks_like_hub_id and not exists(text):  # noqa: PTH110 (Path's raises what this one does not)
        return text
    return _last_part(_resolved(Path(text)))


def _resolved(path: Path) -> Path:
    """`path` in full; as it is if that cannot be known, for example in a working folder that was removed."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def _absolute(path: Path) -> Path:
    """`path` from the root folder, with its links; as it is in a working folder that was removed."""
    try:
        return path.absolute()
    except OSError:
        return path


def _last_part(path: Path) -> str:
    return "home folder" if is_a_home(path) else utf8(path.name) or "root folder"


def utf8(text: str) -> str:
    """`text` as UTF-8 can hold it: bytes of a path that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_a_home(folder: Path) -> bool:
    """Whether `folder`, an absolute path, is named after a user."""
    home, shared = _home(), {Path("/home"), Path("/Users")}
    if home is not None and home.parent != Path(home.anchor):  # what lies beside /root is no home
        shared.add(home.parent)
    return folder == home or folder.parent in shared


def _home() -> Path | None:
    """The user's home folder, unless that is the root folder, or unknown: a user id without an entry and no HOME."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return None if home == Path(home.anchor) else home


def distinct_name(path: Path, paths: Sequence[Path]) -> str:
    """The name of the file, with as many folders as needed to distinguish it from the other `paths`.

    Folders that name a user are left out, so files that differ only in such a folder have the same name.
    """
    mine, others = public_parts(path), [public_parts(other) for other in paths if other != path]
    for count in range(1, len(mine) + 1):
        if all(other == mine or other[-count:] != mine[-count:] for other in others):
            return utf8("/".join(mine[-count:]))
    return utf8(path.name)


def public_parts(path: Path) -> tuple[str, ...]:
    """The parts of an absolute path, without the home folder and everything above it."""
    above = next(filter(is_a_home, path.parents), Path(path.anchor))
    return path.relative_to(above).parts


def public_text(text: str, names: Sequence[str] = ()) -> str:
    """A message with each of `names`, and each absolute path in it, cut as by `public_name`."""
    for name in sorted(names, key=len, reverse=True):
        if os.sep in name:
            text = text.replace(name, public_name(name))
    return utf8(_ABSOLUTE.sub(lambda found: public_name(found[0]), text))


def public_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line with each path, also after `--option=`, and each repository cut to its last part."""
    shown: list[str] = []
    for index, part in enumerate(argv):
        option, equals, value = part.partition("=") if part.startswith("--") else ("", "", part)
        previous = argv[index - 1] if index else ""
        if index == 0:
            value = Path(value).name or value
        elif value and (option or previous) in ALWAYS_CUT:
            value = _last_part(_absolute(Path(value)))
        elif _names_a_path(value):
            value = public_name(value)
        shown.append(utf8(option + equals + value))
    return tuple(shown)


def _names_a_path(value: str) -> bool:
    # OWNER/NAME may be a hub id. Anything deeper is a path, even if it does not exist yet.
    named_as_path = value.count(os.sep) > 1 or value.startswith((os.sep, ".", "~"))
    return os.sep in value and (named_as_path or exists(value))  # noqa: PTH110
