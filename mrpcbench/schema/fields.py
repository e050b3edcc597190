"""Declares the fields of requests and records: description, default, bounds. Standard library only."""

import math
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, TypeVar, dataclass_transform

from mrpcbench.errors import UsageError

# The panels of the help.
Group = Literal["Model and data", "Recipe", "Trials", "Timing", "Limits", "Output", "Advanced"]
# What the value of an option names: a file; a folder; a hub id, a plain name or a path; a hub repository.
Location = Literal["file", "folder", "name or path", "repository"]

T = TypeVar("T")

# Beyond these, libraries fail: they keep integers in 32 bits, and numbers in float32, which ends at 3.4e38.
LARGEST: dict[type, float] = {int: 2**31 - 1, float: 1e30}

# pydantic's configuration: an unknown field is an error, and the string "3" is not the number 3.
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


def about(
    text: str,
    *,
    default: Any = MISSING,
    flags: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    engine: bool = False,
    group: Group | None = None,
    location: Location | None = None,
    metavar: str | None = None,
) -> Any:
    """A dataclass field with `text` as the help of its option, or as the description of a record field.

    `flags` are the names of the option; by default, the field's name with dashes. `minimum` and `maximum` bound its
    value. `engine` is true if the value names an engine. `group` is the panel of the option in the help. `location` is
    what the value names; records store such a value without folders and user names. `metavar` is how the help shows the
    value; by default, it follows from the location or the type.
    """
    metadata = {"about": text, "flags": flags, "minimum": minimum, "maximum": maximum, "engine": engine}
    return field(default=default, metadata={**metadata, "group": group, "location": location, "metavar": metavar})


# With this decorator, type checkers take a field without `default=` as required.
@dataclass_transform(field_specifiers=(about,), kw_only_default=True, frozen_default=True)
def described(kind: type[T]) -> type[T]:
    """Make a class whose fields are declared with `about` a frozen keyword-only dataclass.

    pydantic validates it strictly, but is needed only to read or write one.
    """
    kind.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(kind)


def flags_of(item: Field[Any]) -> tuple[str, ...]:
    """The option names of a request field."""
    return item.metadata["flags"] or (f"--{item.name.replace('_', '-')}",)


def check(*requests: Any) -> None:
    """Raise `UsageError` for a number that is not finite, or out of bounds: those of its field, or `LARGEST`."""
    for request in requests:
        for item in fields(request):
            minimum, maximum = item.metadata["minimum"], item.metadata["maximum"]
            value = getattr(request, item.name)
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, float) and not math.isfinite(one):
                    raise UsageError(f"{flags_of(item)[0]} {one:g}: not a finite number")
                if (largest := LARGEST.get(type(one))) is not None and abs(one) > largest:
                    raise UsageError(f"{flags_of(item)[0]} {str(one)[:20]}: beyond {largest:g}; use a smaller number")
                if minimum is not None and one is not None and not one >= minimum:
                    raise UsageError(f"{flags_of(item)[0]} {one:g}: at least {minimum:g}")
                if maximum is not None and one is not None and not one <= maximum:
                    raise UsageError(f"{flags_of(item)[0]} {one:g}: at most {maximum:g}")
