"""What a record may show of paths and command lines: nothing that names a person or a folder. Standard library only."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

# Options whose value is never a public name, whatever it looks like.
ALWAYS_CUT = {"--output-dir", "--results", "--profile", "--push-to-hub"}


def public_name(text: str) -> str:
    """A model, data source or path as a record may show it: a hub id or a bare name as it is, a path's last part."""
    looks_like_hub_id = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text) and not text.startswith((".", "~"))
    if looks_like_hub_id and not Path(text).exists():
        return text
    path = Path(text).resolve()
    return "home folder" if is_a_home(path) else path.name or "root folder"


def is_a_home(folder: Path) -> bool:
    """Whether `folder`, an absolute path, is named after a user."""
    return folder == Path.home() or folder.parent in (Path.home().parent, Path("/home"), Path("/Users"))


def public_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """The command line with each path cut to its last part, also behind `--option=`, and each owner of a repository."""
    shown: list[str] = []
    for index, part in enumerate(argv):
        option, equals, value = part.partition("=") if part.startswith("--") else ("", "", part)
        previous = argv[index - 1] if index else ""
        if index == 0 or (option or previous) in ALWAYS_CUT:
            value = Path(value).name or value
        elif _names_a_path(value):
            value = public_name(value)
        shown.append(option + equals + value)
    return tuple(shown)


def _names_a_path(value: str) -> bool:
    # OWNER/NAME may be a hub id; anything deeper is a path, be it there or yet to be made.
    named_as_path = value.count(os.sep) > 1 or value.startswith((os.sep, ".", "~"))
    return os.sep in value and (named_as_path or Path(value).exists())
