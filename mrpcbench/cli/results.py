"""What the commands share at their end: the file of a record, and how it is shown."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mrpcbench.errors import UsageError
from mrpcbench.schema.records import AbRecord, ExportRecord, Record
from mrpcbench.schema.requests import Output
from mrpcbench.schema.verdicts import EXIT_STATUS, Verdict

if TYPE_CHECKING:
    from mrpcbench.cli.terminal import Terminal


def record_path(output: Output, command: str) -> Path:
    """The file for the record; raises `UsageError` for a folder."""
    from mrpcbench.records.store import default_path

    path = Path(output.results) if output.results else default_path(command)
    if path.is_dir():
        raise UsageError(f"--results {path}: a folder; name a file in it, such as {path / command}.json")
    return path


def show_and_exit(record: Record, path: Path, output: Output, terminal: "Terminal") -> None:
    """Show a finished record, and exit with the code of its verdict."""
    verdict = verdict_of(record)
    if output.json:
        terminal.print_json(record)
    else:
        terminal.show(record, path)
    if verdict and verdict.outcome != "PASS":
        raise typer.Exit(EXIT_STATUS[verdict.outcome])


def verdict_of(record: Record) -> Verdict | None:
    """The verdict in `record`; None for a command that gives none."""
    return record.verdict if isinstance(record, ExportRecord | AbRecord) else None
