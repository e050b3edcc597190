"""The names of the two labels: how they are compared, and which of them is the positive class."""

import re
from collections.abc import Sequence

from mrpcbench.errors import UsageError

# GLUE's MRPC: label 0, and label 1, which is the positive class of F1.
LABEL_NAMES = ("not_equivalent", "equivalent")


def normal(name: str) -> str:
    """`name` without case, spaces, `_` and `-`, as names are compared."""
    return re.sub(r"[\s_-]", "", name).casefold()


def are_numbers(names: Sequence[str]) -> bool:
    """Whether `names` say nothing but their index: 0 and 1, or LABEL_0 and LABEL_1."""
    return [normal(name).removeprefix("label") for name in names] == ["0", "1"]


def in_order(names: tuple[str, str], place: str) -> tuple[tuple[str, str], bool]:
    """The names of the negative and the positive class, and whether `names` had them the other way round.

    A class is negative if its name is "not" and the name of the other one. Names without such a relation keep their
    order. Names of GLUE come back in GLUE's spelling. Raises `UsageError` for twice the same name.
    """
    first, second = map(normal, names)
    if first == second:
        raise UsageError(f"{place}: both classes are called {names[0]}; write one name for each class")
    if are_numbers(names):
        return LABEL_NAMES, False
    is_reversed = second == f"not{first}" or are_numbers(names[::-1])
    found = (names[1], names[0]) if is_reversed else names
    is_glue = are_numbers(found) or tuple(map(normal, found)) == tuple(map(normal, LABEL_NAMES))
    return (LABEL_NAMES if is_glue else found), is_reversed


def parsed_map(text: str) -> tuple[str, str]:
    """The names of a model's labels 0 and 1 in a `--label-map`. Raises `UsageError` for another form."""
    names = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if text.count(",") != 1 or {key.strip() for key in names} != {"0", "1"} or not all(names.values()):
        raise UsageError(f"--label-map {text}: write the names of both labels, such as 0=not_equivalent,1=equivalent")
    by_label = {key.strip(): name.strip() for key, name in names.items()}
    return by_label["0"], by_label["1"]
