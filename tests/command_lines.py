"""Command lines as the program parses them, without running them."""

from typing import Any

from typer.main import get_command

from mrpcbench.cli.app import app


def parse(arguments: list[str], group: Any = None) -> None:
    """Parse `arguments`, those after `mrpcbench`. Raises `TyperException` for an unknown command, option or value."""
    group = group or get_command(app)
    name, command, rest = group.resolve_command(group.make_context("mrpcbench", []), arguments)
    if hasattr(command, "commands"):
        parse(rest, command)
    else:
        command.make_context(name, rest)
