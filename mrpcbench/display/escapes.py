"""Text from files and options, without what a terminal would obey: control characters become visible escapes.

A name may hold an escape sequence, which a terminal obeys, or a line break, after which a CI runner reads a command.
"""

import dataclasses
import re
from typing import Any, TypeVar

T = TypeVar("T")

# C0 and C1 without tab and line feed, DEL, line separators, and characters that reorder text (Unicode, annex 9).
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# What a CI runner takes for a command anywhere in a line: `##[` of GitHub, `##vso[` of Azure DevOps.
INNER_COMMAND = re.compile(r"##(?=\w*\[)")


def escaped(text: str) -> str:
    r"""`text` with control characters as escapes, such as \x1b, and `##[` as `#\#[`; tabs and line feeds stay."""
    return CONTROL.sub(_escape, INNER_COMMAND.sub(r"#\\#", text))


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """`text` on one line, with control characters as escapes; white space becomes single spaces."""
    return escaped(" ".join(text.split()))


def cleaned(value: T) -> T:
    """`value` with every string in it on one line; dataclasses, tuples and dicts are searched."""
    made: Any = value
    if isinstance(value, str):
        made = one_line(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = {item.name: cleaned(getattr(value, item.name)) for item in dataclasses.fields(value)}
        made = dataclasses.replace(value, **own)
    elif isinstance(value, dict):
        made = {cleaned(name): cleaned(item) for name, item in value.items()}
    elif isinstance(value, tuple) and value and not isinstance(value[0], int | float):  # not the samples of a row
        made = tuple(map(cleaned, value))
    return value if made == value else made  # what is clean stays the same object
