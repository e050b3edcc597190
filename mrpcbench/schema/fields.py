"""How the fields of requests and records are declared: meaning, default, bounds. Standard library only."""

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, TypeVar, dataclass_transform

from mrpcbench.errors import UsageError

# Panels of the help.
Group = Literal["Model and data", "Recipe", "Timing", "Output", "Advanced"]
# What an option's value names: a file or folder; a hub id, a bare name or a path; a repository on the hub.
Location = Literal["path", "name or path", "repository"]

T = TypeVar("T")

# For pydantic: an unknown field is an error, and "3" is not 3.
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


def about(
    text: str,
    *,
    default: Any = MISSING,
    flags: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    engine: bool = False,
    group: Group | None = None,
    location: Location | None = None,
) -> Any:
    """A dataclass field with its meaning: the option's help, or the record field's description.

    `flags` replaces the option's name, which is otherwise the field's name with dashes; `least` and `most` bound its
    value. `engine` says that the value is the name of an engine. `group` is the option's panel in the help, and
    `location` says how the value may name a folder or a person, so that a record does not.
    """
    metadata = {"about": text, "flags": flags, "least": least, "most": most, "engine": engine}
    return field(default=default, metadata={**metadata, "group": group, "location": location})


# Type checkers see a default only in a keyword `default=`: a missing field is an error for them.
@dataclass_transform(field_specifiers=(about,), kw_only_default=True, frozen_default=True)
def described(kind: type[T]) -> type[T]:
    """Make a class whose fields are declared with `about` a frozen keyword-only dataclass, read strictly by pydantic.

    It stays a plain dataclass: pydantic is needed only where one is read or written.
    """
    kind.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(kind)


def flags_of(item: Field[Any]) -> tuple[str, ...]:
    """The option names of a request's field."""
    return item.metadata["flags"] or (f"--{item.name.replace('_', '-')}",)


def check(*requests: Any) -> None:
    """Raise `UsageError` for a value outside its bounds, which the command line checks while it parses."""
    for request in requests:
        for item in fields(request):
            least, most, value = item.metadata["least"], item.metadata["most"], getattr(request, item.name)
            for one in value if isinstance(value, tuple) else (value,):
                if least is not None and one is not None and not one >= least:
                    raise UsageError(f"{flags_of(item)[0]} {one:g}: at least {least:g}")
                if most is not None and one is not None and not one <= most:
                    raise UsageError(f"{flags_of(item)[0]} {one:g}: at most {most:g}")
