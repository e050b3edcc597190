"""Makes the command-line options from the request classes in `schema`, which hold every default, name and help text."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from os.path import expanduser
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from mrpcbench.backends.registry import BACKENDS
from mrpcbench.errors import UsageError
from mrpcbench.schema.fields import check, flags_of

# click's names for the sources of a value that is not a default.
GIVEN = ("COMMANDLINE", "ENVIRONMENT")
# How the help shows a value, by what it names, and else by its type. A flag has no value; a choice shows its values.
METAVARS: dict[Any, str] = {
    "file": "FILE",
    "folder": "DIR",
    "name or path": "DIR|HUB-ID",
    "repository": "HUB-ID",
    str: "NAME",
    int: "N",
    float: "NUMBER",
}


def with_options(*requests: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for every field of `requests`, the dataclasses of its first parameters.

    The command is called with one frozen instance of each class, in order, and with its other parameters unchanged. If
    two classes share a field name, only the first class gets the value; the second keeps its default.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [item.replace(kind=item.KEYWORD_ONLY) for item in list(signature.parameters.values())[len(requests) :]]
        owner: dict[str, type] = {}
        for request in requests:
            for item in dataclasses.fields(request):
                owner.setdefault(item.name, request)

        def run(**values: Any) -> None:
            built = [_built(request, values, owner) for request in requests]
            check(*built)
            command(*built, **{item.name: values[item.name] for item in own})

        options = [
            _parameter(item, get_type_hints(request)[item.name])
            for request in requests
            for item in dataclasses.fields(request)
            if owner[item.name] is request
        ]
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([*options, *own])  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in (*options, *own)}
        return run

    return decorate


def _built(request: type, values: Mapping[str, Any], owner: Mapping[str, type]) -> Any:
    """An instance of `request` with its own of `values`."""
    own = [item for item in dataclasses.fields(request) if owner.get(item.name) is request]
    return request(**{item.name: _frozen(item, values[item.name]) for item in own})


def parsed(context: typer.Context, command: str, *requests: type) -> tuple[Any, ...]:
    """The arguments that the command of `context` does not know, as options of another `command`: its `requests`.

    Raises a usage error for an argument that the other command does not know either, and for an option of it that is
    not a field of `requests`.
    """
    root = context.find_root().command
    other = root.get_command(context, command)  # type: ignore[attr-defined]
    made = other.make_context(context.info_name, list(context.args), parent=context.parent)
    fields = {item.name: request for request in requests for item in dataclasses.fields(request)}
    for name in given(made) - fields.keys():
        raise UsageError(f"--{name.replace('_', '-')}: not for {context.info_name}")
    return tuple(_built(request, made.params, fields) for request in requests)


def given(context: typer.Context) -> frozenset[str]:
    """The names of the parameters that the user set, on the command line or in the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source and source.name in GIVEN)


def _parameter(item: "dataclasses.Field[Any]", kind: Any) -> inspect.Parameter:
    default: Any = item.default
    metavar = None if item.metadata["engine"] else _metavar(item, kind)
    if item.metadata["engine"]:
        names: Any = Literal[tuple(BACKENDS)]  # type: ignore[valid-type]
        kind = {str: names, str | None: names | None, tuple[str, ...]: tuple[names, ...]}[kind]
    if get_origin(kind) is tuple and get_args(kind)[1:] == (...,):
        # Typer needs a list for a repeatable option, and an Enum for its choices; the request holds a tuple of str.
        inner: Any = get_args(kind)[0]
        if get_origin(inner) is Literal:
            inner = _choice(get_args(inner))
        kind, default = list[inner], list(default)
    bounds = {"min": item.metadata["minimum"], "max": item.metadata["maximum"]}
    option = typer.Option(
        *flags_of(item),
        help=item.metadata["about"],
        rich_help_panel=item.metadata["group"],
        metavar=metavar,
        **bounds,
    )
    return inspect.Parameter(
        item.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _metavar(item: "dataclasses.Field[Any]", kind: Any) -> str | None:
    if item.metadata["metavar"] or item.metadata["location"]:
        return item.metadata["metavar"] or METAVARS[item.metadata["location"]]
    # The type of a value may be optional, or that of the items of a tuple.
    return next((METAVARS[one] for one in (kind, *get_args(kind)) if one in METAVARS), None)


def _choice(names: tuple[str, ...]) -> Any:
    return Enum("Choice", [(name, name) for name in names], type=str)


def _frozen(item: "dataclasses.Field[Any]", value: Any) -> Any:
    if item.metadata["location"] and isinstance(value, str) and value.startswith("~"):
        # A shell expands `--data ~/x`, but not `--data=~/x`. Unlike Path.expanduser, this ignores an unknown user.
        return expanduser(value)  # noqa: PTH111
    if isinstance(value, list):
        return tuple(one.value if isinstance(one, Enum) else one for one in value)
    return value
