"""The terminal as an `Observer`: results on stdout, everything else on stderr, bars only where a person watches."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from mrpcbench import render, render_verdict, store
from mrpcbench.plans import BenchView
from mrpcbench.schema import EnvironmentReport, KeptBaseline, PairAnswer, Record, RunRecord
from mrpcbench.verdicts import Comparison

# Without a terminal a line of progress appears this often: enough to see life in a CI log, too rare to fill it.
QUIET_LINE_EVERY_S = 10
# A pipe or a file has no width; tables are laid out for this many columns.
PIPE_WIDTH = 110


def _pipe_width() -> int:
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else PIPE_WIDTH


class Terminal:
    """Speaks for one command; `view` is how it shows a benchmark, a finished and an interrupted one."""

    def __init__(self) -> None:
        self.view = BenchView()
        width = None if sys.stdout.isatty() else _pipe_width()
        # A name may hold brackets or colons; what it says is text, not markup.
        self._out = Console(width=width, markup=False, emoji=False, highlight=False)
        width = None if sys.stderr.isatty() else _pipe_width()
        self._err = Console(stderr=True, width=width, markup=False, emoji=False, highlight=False)
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_progress()

    # --- an Observer ---

    def began(self, record: RunRecord) -> None:
        """Show what is about to run."""
        self._err.print(render.opening(record))

    def say(self, text: str) -> None:
        """One line on stderr."""
        (self._progress.console if self._progress else self._err).print(text)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """A bar on a terminal; elsewhere a line now and then, and one at the end."""
        if self._err.is_terminal:
            self._bar(task, done, total, detail)
            return
        now = time.monotonic()
        if done == total or (detail and now - self._last_line >= QUIET_LINE_EVERY_S):
            self._last_line = now
            self._err.print(f"{task} {done}/{total}  {detail}".rstrip(), soft_wrap=True)

    def _bar(self, task: str, done: int, total: int, detail: str) -> None:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"),
                console=self._err,
                transient=False,
            )
            self._progress.start()
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total, detail=detail)
        self._progress.update(self._tasks[task], completed=done, total=total)
        if detail:
            self._progress.update(self._tasks[task], detail=detail)

    def _stop_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._tasks = None, {}

    # --- results and errors ---

    def tables(self, record: Record) -> None:
        """The record's tables."""
        self._stop_progress()
        self._out.print(render.render(record, self.view))

    def show(self, record: Record, path: Path) -> None:
        """The record's tables, and where the record is."""
        self.tables(record)
        self._out.print(f"record: {path}\n", soft_wrap=True)

    def comparison(self, found: Comparison) -> None:
        """What a comparison found, and its verdict."""
        self._stop_progress()
        self._out.print(render_verdict.comparison(found))

    def annotate(self, lines: Sequence[str]) -> None:
        """Commands to a CI runner, each on one line of stderr however long it is."""
        self._stop_progress()
        for line in lines:
            self._err.print(line, soft_wrap=True)

    def print_json(self, record: RunRecord | Comparison | Sequence[RunRecord]) -> None:
        """One JSON document: a record, a comparison, or a list of records."""
        self._stop_progress()
        if isinstance(record, RunRecord | Comparison):
            sys.stdout.write(store.dumps(record))
        else:
            sys.stdout.write("[" + ",".join(store.dumps(item) for item in record) + "]\n")

    def heading(self, text: str) -> None:
        """A line on stdout that says what the next results are."""
        self._stop_progress()
        self._out.print(Text(text, "bold"), soft_wrap=True)

    def answer(self, found: PairAnswer, *, as_json: bool) -> None:
        """What a model says of one pair."""
        if as_json:
            sys.stdout.write(store.to_json(found) + "\n")
        else:
            self._out.print(render.pair_answer(found), soft_wrap=True)

    def environment(self, found: EnvironmentReport, *, as_json: bool) -> None:
        """What would run here."""
        if as_json:
            sys.stdout.write(store.to_json(found) + "\n")
        else:
            self._out.print(render.environment(found))

    def baseline(self, found: KeptBaseline, *, as_json: bool) -> None:
        """What a baseline holds now."""
        if as_json:
            sys.stdout.write(store.to_json(found) + "\n")
        else:
            self._out.print(render.baseline(found), soft_wrap=True)

    def error(self, message: str) -> None:
        """One line on stderr."""
        self._stop_progress()
        line = Text.assemble(("error:", "bold red"), " ", " ".join(message.split()))
        self._err.print(line, soft_wrap=True)
