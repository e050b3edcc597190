"""Runs `quickstart`, and shows one panel: scores, the verdict on the graph, speeds, and what to run next."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.box import HORIZONTALS
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mrpcbench.benchmark.validity import invalid_sentence
from mrpcbench.cli.results import verdict_of
from mrpcbench.cli.terminal import Terminal
from mrpcbench.commands.quickstart import model_folder, steps
from mrpcbench.display.comparison import verdict_line
from mrpcbench.display.numbers import fixed, interval, multiple, score
from mrpcbench.records.figures import relative_speed
from mrpcbench.records.outputs import only_writer
from mrpcbench.records.ranking import best
from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.schema.records import BenchRecord, EvaluateRecord, ExportRecord, Record
from mrpcbench.schema.requests import QuickstartRequest

# Words and form are those of the bundled pairs; the model is often wrong about others.
TRY_PAIR = (
    "The doctor lent the nurse 3 books on Monday.",
    "On Monday, the nurse borrowed three books from the physician.",
)


def run(request: QuickstartRequest, terminal: Terminal) -> list[Record]:
    """Run the steps until one fails its gate, and show each record and the panel. Returns the records."""
    with only_writer("--output-dir", Path(request.output_dir)):
        return _run(request, terminal)


def _run(request: QuickstartRequest, terminal: Terminal) -> list[Record]:
    records: list[Record] = []
    terminal.brief = not terminal.is_verbose
    todo = steps(request)
    for number, step in enumerate(todo, start=1):
        terminal.starting(f"{number}/{len(todo)} {step.name}: {step.about}")
        records.append(step.run(terminal))
        if not terminal.json:
            terminal.show(records[-1], step.path)
        if (verdict := verdict_of(records[-1])) and verdict.outcome != "PASS":
            break
    if terminal.json:
        terminal.print_json(records)
    else:
        terminal.summary(panel(records, request.output_dir, model_folder(request)), last_line(records))
    return records


def panel(records: Sequence[Record], folder: str, model: str) -> RenderableType:
    """The results of `records`, the folder that holds them, and what to run next with `model`.

    It has no lines at its sides, so that the command can be copied.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (*_lines(records), ("records", str(Path(folder, "results")))):
        table.add_row(Text(name, "bold"), Text(value) if isinstance(value, str) else value)
    first, second = map(shlex.quote, TRY_PAIR)
    command = Text(f"mrpcbench evaluate --model {shlex.quote(model)} \\\n  --pair {first} \\\n  {second}")
    title = Text("Result", "bold")
    return Panel(
        Group(table, Text("\nTry the model:", "bold"), command), title=title, title_align="left", box=HORIZONTALS
    )


def last_line(records: Sequence[Record]) -> str:
    """The results of `records` in one line, without intervals."""
    found = {name: re.sub(r" \([^)]*\)", "", str(value)) for name, value in _lines(records)}
    parts = [f"{name} {found[name].split(';')[0]}" for name in ("accuracy", "F1", "ONNX export") if name in found]
    return "; ".join([*parts, *(found[name] for name in ("fastest",) if name in found)])


def _lines(records: Sequence[Record]) -> Iterator[tuple[str, str | Text]]:
    for record in records:
        match record:
            case EvaluateRecord():
                found = record.evaluate.score
                for name, value, between, majority in (
                    ("accuracy", found.accuracy, found.accuracy_interval, found.majority_accuracy),
                    ("F1", found.f1, found.f1_interval, found.majority_f1),
                ):
                    yield name, f"{score(value)} (95% CI {interval(between)}); majority class {score(majority)}"
            case ExportRecord() if record.export.gate:
                yield "ONNX export", verdict_line(record.export.gate.verdict)
            case BenchRecord():
                yield from _speeds(record.bench.rows)


def _speeds(rows: Sequence[BenchRow]) -> Iterator[tuple[str, str]]:
    single = [row for row in rows if row.scenario == "single-stream"]
    if fastest := next(iter(best(single)), None):
        yield "fastest", _fastest(fastest, [row for row in single if row is not fastest])
    for row in single:
        if row.summary:
            yield (
                f"one pair, {row.case}",
                f"p50 {fixed(row.summary.p50_ms, 2)} ms, p99 {fixed(row.summary.p99_ms, 2)} ms{_mark(row)}",
            )
    if sentence := invalid_sentence(rows):
        yield "reliability", sentence


def _fastest(row: BenchRow, others: Sequence[BenchRow]) -> str:
    """The speedup of `row` over each of the `others`, or that the interval does not tell."""
    parts = []
    for other in others:
        found = relative_speed(row, other)
        if found is None or found.interval is None or found.interval.low <= 1:
            parts.append(f"cannot tell: {row.case} or {other.case}")
            continue
        ends = f"{found.interval.low:.2f} to {found.interval.high:.2f}"
        parts.append(f"{row.case} is {multiple(found.times)} faster than {other.case} (95% CI {ends})")
    return "; ".join(parts) + _mark(row)


def _mark(row: BenchRow) -> str:
    return ", INVALID" if row.broken_rules else ""
