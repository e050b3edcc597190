"""A comparison as rich renderables, and the text of its cells. Prints nothing."""

from collections.abc import Callable, Iterable, Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from mrpcbench.display.escapes import one_line
from mrpcbench.display.numbers import ABSENT, change, measured, probability
from mrpcbench.display.tables import NARROW_BOX, PlainTable, facts, table
from mrpcbench.schema.verdicts import EXIT_STATUS, Compared, Comparison, Interval, MetricResult, Outcome, Verdict

COLOURS: dict[Outcome, str] = {
    "PASS": "bold green",
    "REGRESSION": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "INCOMPARABLE": "bold yellow",
}
INFORMATION = "info"

Column = tuple[str, Callable[[MetricResult], str]]


def comparison(found: Comparison) -> RenderableType:
    """The metrics with the gated ones first, then the records that were compared, then the verdict as the last line."""
    parts: list[RenderableType] = []
    if found.metrics:
        parts.append(_Fitting(_metrics(found, columns(found)), _metrics(found, _stacked(columns(found)))))
    lines = [*gate_lines(found)]  # the verdict has the differences
    lines += [f"warning: {line}" for line in found.warnings]
    lines += found.notes
    if lines:
        parts.append(Text("\n".join(one_line(line) for line in lines) + "\n"))
    parts.append(facts("Compared", ((side, "\n".join(compared(record))) for side, record in sides(found))))
    verdict = Text(f"{headline(found.verdict)}: {one_line(found.verdict.text)}", "bold")
    verdict.stylize(COLOURS[found.verdict.outcome], 0, len(found.verdict.outcome))
    parts.append(verdict)
    return Group(*parts)


def verdict_line(found: Verdict) -> Text:
    """The outcome in its colour, and the reason."""
    return Text.assemble((found.outcome, COLOURS[found.outcome]), f": {found.text}")


class _Fitting:
    """A table in two layouts: `wide` if the terminal is wide enough, else `narrow`."""

    def __init__(self, wide: PlainTable, narrow: PlainTable) -> None:
        self.wide, self.narrow = wide, narrow

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.wide.box, self.wide.padding = NARROW_BOX, (0, 0, 0, 0)
        least = console.measure(self.wide, options=options.update(width=10_000)).maximum
        yield self.wide if least <= options.max_width else self.narrow


def _metrics(found: Comparison, cells: list[Column]) -> PlainTable:
    against = "current compared with baseline" if found.baseline else "limits"
    shown = table(f"{found.kind}: {against}", *(name for name, _ in cells), numeric=True, tight=True)
    shown.columns[-1].justify = "left"
    for metric in ordered(found):
        *texts, outcome = (cell(metric) for _, cell in cells)
        style = COLOURS[metric.verdict.outcome] if metric.gated else ""
        shown.add_row(*texts, Text(outcome, style), style=None if metric.gated else "dim")
    return shown


# --- shared with Markdown, JUnit and annotations ----------------------------------------------------------------------


def ordered(found: Comparison) -> list[MetricResult]:
    """The gated metrics, then the others."""
    return sorted(found.metrics, key=lambda metric: not metric.gated)


def columns(found: Comparison) -> list[Column]:
    """Headers, each with the function that formats a cell. Intervals and p-values only if a metric has one.

    Without a baseline, every metric is a limit.
    """
    level = _common_level(found.metrics)
    differ = any(metric.adjusted_p not in (None, metric.p_value) for metric in found.metrics)
    adjusted: list[Column] = [("adj. p", lambda metric: probability(metric.adjusted_p))] if differ else []
    name = "interval" if level is None else f"{100 * level:g}% interval"
    intervals: list[Column] = [(name, lambda metric: _interval(metric, level))]
    p_values: list[Column] = [("p", lambda metric: probability(metric.p_value))]
    if not found.baseline:
        return [
            ("metric", name_with_unit),
            ("value", lambda metric: measured(metric.current, metric.unit)),
            ("limit", lambda metric: metric.limit),
            ("outcome", lambda metric: metric.verdict.outcome),
        ]
    return [
        ("metric", name_with_unit),
        ("baseline", lambda metric: measured(metric.baseline, metric.unit)),
        ("current", lambda metric: measured(metric.current, metric.unit)),
        ("change", lambda metric: change(metric.change, metric.change_unit, "+")),
        *(intervals if any(metric.interval for metric in found.metrics) else []),
        *(p_values if any(metric.p_value is not None for metric in found.metrics) else []),
        *adjusted,
        ("outcome", lambda metric: metric.verdict.outcome if metric.gated else INFORMATION),
    ]


def _stacked(wide: list[Column]) -> list[Column]:
    """The same cells in fewer columns: the interval below the change, and the adjusted p below the p."""
    made: list[Column] = []
    for name, cell in wide:
        if name.endswith("interval") or name == "adj. p":
            above, first = made.pop()
            made.append((f"{above}\n{name}", _over(first, cell)))
        else:
            made.append((name, cell))
    return made


def _over(upper: Callable[[MetricResult], str], lower: Callable[[MetricResult], str]) -> Callable[[MetricResult], str]:
    return lambda metric: upper(metric) if lower(metric) == ABSENT else f"{upper(metric)}\n{lower(metric)}"


def name_with_unit(metric: MetricResult) -> str:
    """The metric's name, with the unit of its values unless that is a share."""
    name = one_line(metric.metric)
    return name if metric.unit == "share" or name.endswith(metric.unit) else f"{name}, {metric.unit}"


def _common_level(metrics: Iterable[MetricResult]) -> float | None:
    levels = {metric.interval.level for metric in metrics if metric.interval is not None}
    return levels.pop() if len(levels) == 1 else None


def _interval(metric: MetricResult, common: float | None) -> str:
    found: Interval | None = metric.interval
    if found is None:
        return ABSENT
    unit = "%" if metric.change_unit == "%" else ""
    level = "" if common is not None else f" ({100 * found.level:g}%)"
    return f"{found.low:+.2f} to {found.high:+.2f}{unit}{level}"


def gate_lines(found: Comparison) -> Iterator[str]:
    """The limits of the gated metrics, and the reasons that the verdict does not give; equal texts share a line."""
    lines: dict[str, list[str]] = {}
    for metric in ordered(found):
        # Without a baseline, the table has the limits.
        if metric.gated and (found.baseline or metric.verdict.outcome != "PASS"):
            decides = metric.verdict.outcome == found.verdict.outcome
            known = decides and metric.verdict.reason in found.verdict.reason
            limit = f"limit: {metric.limit}" if metric.limit and metric.limit not in metric.verdict.reason else ""
            parts = ["" if known else metric.verdict.reason, limit, f"test: {metric.test}" if metric.test else ""]
            lines.setdefault("; ".join(filter(None, parts)), []).append(metric.metric)
    yield from (one_line(f"{', '.join(names)}: {text}") for text, names in lines.items() if text)


def sides(found: Comparison) -> Iterator[tuple[str, Compared]]:
    """Every record that was compared, with its side."""
    yield from (("baseline", record) for record in found.baseline)
    yield from (("current", record) for record in found.current)


def compared(record: Compared) -> tuple[str, str]:
    """Two lines about a record: its file, time and commit; and its model, weights and engine."""
    moment = f"{record.started_at[:16].replace('T', ' ')} UTC"
    commit = f"commit {record.git_commit[:12]}" if record.git_commit else "no commit"
    engine = f"; {record.engine}" if record.engine else ""
    return (
        one_line(f"{record.name}, {moment}, {commit}"),
        one_line(f"{record.model}, sha256 {record.model_sha256[:12]}{engine}"),
    )


def headline(verdict: Verdict) -> str:
    """The outcome and its exit code."""
    return f"{verdict.outcome} (exit code {EXIT_STATUS[verdict.outcome]:d})"
