"""The terminal as an `Observer`: results on stdout, everything else on stderr, progress bars only on a terminal."""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from mrpcbench.cli.streams import StyledStream, printable_json, write_command
from mrpcbench.display import comparison, flat, overview, render
from mrpcbench.display.escapes import cleaned, escaped, one_line
from mrpcbench.progress import Detail
from mrpcbench.records import store
from mrpcbench.records.reports import Report
from mrpcbench.schema.bench_requests import BenchView
from mrpcbench.schema.identity import EnvironmentReport, PairAnswer, SavedBaseline
from mrpcbench.schema.records import Record, RunRecord
from mrpcbench.schema.verdicts import Comparison

# Seconds between progress lines without a terminal: a CI log shows progress, and does not fill up.
QUIET_LINE_EVERY_S = 10
# Width of tables in a pipe or a file, which have no width of their own.
PIPE_WIDTH = 110


def _pipe_width() -> int:
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else PIPE_WIDTH


class _CleanConsole(Console):
    """A console on stdout or stderr that prints plain text: no markup, and no control character of a text."""

    def __init__(self, name: str) -> None:
        stream: Any = StyledStream(name)
        width = None if stream.isatty() else _pipe_width()
        # A model name may contain brackets or colons, which rich would interpret.
        super().__init__(file=stream, stderr=name == "stderr", width=width, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of `renderable`, whose texts are clean; those of rich that move the cursor stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escaped(segment.text), segment.style)


class Terminal:
    """Shows the progress and the result of one command; `view` says how to show a benchmark.

    `quiet` shows only the result in one line, the path of the record and warnings. `verbose` also shows what is about
    to run, and long tables. With `json`, stdout gets one JSON document and nothing else. `brief` hides the messages of
    the work and its finished progress bars: a command of several steps shows a line for each step instead.
    """

    def __init__(self, detail: Detail = "normal") -> None:
        self._detail = detail
        self.view = BenchView()
        self.json = False
        self.brief = False
        self._out = _CleanConsole("stdout")
        self._err = _CleanConsole("stderr")
        self._progress: Progress | None = None
        self._spinner: Status | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line = 0.0

    @property
    def is_verbose(self) -> bool:
        """Whether details are shown."""
        return self._detail == "verbose"

    def starting(self, text: str) -> None:
        """Show what is starting, unless quiet; on a terminal, with a spinner until the next output."""
        self.close()
        if self._detail == "quiet":
            return
        self._err.print(Text(one_line(text), "bold"), soft_wrap=True)
        if self._err.is_terminal:
            self._spinner = self._err.status("loading")
            self._spinner.start()

    def close(self) -> None:
        """Stop the spinner and the progress bars."""
        self._stop_spinner()
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._tasks = None, {}

    def _stop_spinner(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
        self._spinner = None

    # --- the Observer protocol ---

    def began(self, record: RunRecord) -> None:
        """Show what is about to run, if verbose."""
        if self.is_verbose:
            self._stop_spinner()
            self._err.print(render.opening(cleaned(record)))

    def say(self, text: str) -> None:
        """Print a line on stderr, unless quiet or brief."""
        if self._detail != "quiet" and not self.brief:
            self._print_line(text)

    def warn(self, text: str) -> None:
        """Print a warning on stderr, even if quiet."""
        self._print_line(f"warning: {text}")

    def _print_line(self, text: str) -> None:
        self._stop_spinner()
        (self._progress.console if self._progress else self._err).print(one_line(text), soft_wrap=True)

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Update the progress bar; without a terminal, print a line from time to time and at the end."""
        if self._detail == "quiet":
            return
        self._stop_spinner()
        if self._err.is_terminal:
            self._bar(task, done, total, one_line(detail))
            return
        if self.brief:
            return
        now = time.monotonic()
        if done == total or (detail and now - self._last_line >= QUIET_LINE_EVERY_S):
            self._last_line = now
            self._err.print(f"{task} {done}/{total}  {one_line(detail)}".rstrip(), soft_wrap=True)

    def _bar(self, task: str, done: int, total: int, detail: str) -> None:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"),
                console=self._err,
                transient=self.brief,
            )
            self._progress.start()
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total, detail=detail)
        self._progress.update(self._tasks[task], completed=done, total=total)
        if detail:
            self._progress.update(self._tasks[task], detail=detail)

    # --- results ---

    def partial(self, record: object, view: object = None) -> None:
        """Show the finished part of an interrupted run, unless quiet or JSON; `view` says how to show a benchmark."""
        self.close()
        if self._detail == "quiet" or self.json:
            return
        if isinstance(record, Record):
            view = view if isinstance(view, BenchView) else self.view
            self._out.print(render.render(cleaned(record), view, verbose=self.is_verbose))

    def _alert(self, record: object) -> None:
        """Warn of what the tables would say, because they are not shown."""
        if isinstance(record, Record):
            for text in render.alerts(record):
                self.warn(text)

    def show(self, record: Record, path: Path) -> None:
        """Show the tables of a record and its path; if quiet or brief, its result in one line instead of the tables."""
        self.close()
        if self._detail != "quiet" and not self.brief:
            self._out.print(render.render(cleaned(record), self.view, verbose=self.is_verbose))
        else:
            if not self.brief:  # the summary at the end says it
                self._alert(record)
            if (line := render.headline(cleaned(record))) is not None:
                self._out.print(line, soft_wrap=True)
        if not self.brief:
            self._out.print(f"record: {one_line(str(path))}", soft_wrap=True)

    def comparison(self, found: Comparison) -> None:
        """Show a comparison; if quiet, its warnings and its verdict."""
        self.close()
        found = cleaned(found)
        if self._detail == "quiet":
            for warning in found.warnings:
                self.warn(warning)
            self._out.print(comparison.verdict_line(found.verdict), soft_wrap=True)
        else:
            self._out.print(comparison.comparison(found))

    def annotate(self, lines: Sequence[str]) -> None:
        """Print commands for a CI runner on stderr, each on one line of any length."""
        self.close()
        for line in lines:
            write_command(line)

    def print_json(self, record: RunRecord | Comparison | Sequence[RunRecord]) -> None:
        """Print one JSON document: a record, a comparison, or a list of records."""
        self.close()
        if isinstance(record, RunRecord | Comparison):
            self._alert(record)
            document = store.dumps(record)
        else:
            document = "[" + ",".join(store.dumps(item) for item in record) + "]\n"
        self._json(document)

    def _json(self, document: str) -> None:
        sys.stdout.write(printable_json(document, sys.stdout.encoding))

    def summary(self, panel: RenderableType, line: str) -> None:
        """Show the result of a command of several steps as a panel; if quiet, as one line."""
        self.close()
        if self._detail == "quiet":
            self._out.print(line, soft_wrap=True)
        else:
            self._out.print(panel)

    def answer(self, found: PairAnswer, *, as_json: bool) -> None:
        """Show the answer of a model for one pair."""
        self.close()
        if as_json:
            self._json(store.to_json(found) + "\n")
        else:
            self._out.print(render.pair_answer(cleaned(found)), soft_wrap=True)

    def environment(self, found: EnvironmentReport, *, as_json: bool) -> None:
        """Show which engines and devices work here."""
        self.close()
        if as_json:
            self._json(store.to_json(found) + "\n")
        else:
            self._out.print(render.environment(cleaned(found)))

    def baseline(self, found: SavedBaseline, folder: str, *, as_json: bool) -> None:
        """Show the records in a baseline, which is saved below `folder`."""
        self.close()
        if as_json:
            self._json(store.to_json(found) + "\n")
        else:
            self._out.print(render.baseline(cleaned(found), one_line(folder)), soft_wrap=True)

    def report(self, found: Report, *, as_json: bool) -> None:
        """Show what records hold, and which case to deploy; if quiet, in one line each."""
        if as_json:
            self._json(store.to_json(flat.document(found)) + "\n")
        elif self._detail == "quiet":
            self._out.print(overview.brief(cleaned(found)), soft_wrap=True)
        else:
            self._out.print(overview.overview(cleaned(found)))
