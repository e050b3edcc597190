"""Series over time and kept baselines as rich renderables. Prints nothing."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.text import Text

from mrpcbench.tables import PlainTable, facts, table
from mrpcbench.trends import Baseline, ChangePoint, History, Kept, Series, TrendPoint

BARS = "▁▂▃▄▅▆▇█"
# More bars than these are drawn as means of neighbours, so that a line fits beside its name in 80 columns.
MOST_BARS = 56
MODELS_SHOWN = 3


def history(found: History) -> RenderableType:
    """Each series as a small table: its points, a line of bars, and where its level changes."""
    changed = sum(bool(series.changes) for series in found.series)
    unjudged = sum(not series.judged for series in found.series)
    summary = f"{_count(found.records, 'record')}, {len(found.series)} series, {changed} with a change point"
    if unjudged:
        summary += f", {unjudged} with too few points to judge (fewer than {found.least_points})"
    return Group(*(_series(series, found.least_points) for series in found.series), Text(summary, "bold"))


def _series(series: Series, least_points: int) -> PlainTable:
    first, last = series.points[0], series.points[-1]
    shown = facts(f"{series.command}: {series.metric}")
    shown.add_row("points", f"{len(series.points)}, {_date(first)} to {_date(last)}{_invalid(series)}")
    shown.add_row("first, last", f"{value_text(first.value, series.unit)}, {value_text(last.value, series.unit)}")
    shown.add_row("trend", sparkline(series))
    if not series.judged:
        shown.add_row("changes", f"too few points to judge: {len(series.points)} of {least_points}")
    elif not series.changes:
        shown.add_row("changes", "none" + _noise(series))
    for change in series.changes:
        shown.add_row("change", _change(series, change))
    shown.add_row("of", "\n".join([*series.same.values(), _models(series)]))
    return _folded(shown)


def _change(series: Series, change: ChangePoint) -> Text:
    """When, at which commit, from which level to which, and what else was new."""
    levels = f"{value_text(change.before, series.unit)} -> {value_text(change.after, series.unit)}"
    size = "from nothing" if change.change is None else f"{change.change:+.2f} {series.change_unit}"
    colour = "bold green" if change.better else "bold red"
    lines = [
        f" at point {change.index + 1}, {_date(change.first)}, {_commit(change.first)}",
        f"\n{levels}, first in {change.first.file}",
        *(f"\n{line}" for line in change.differs),
    ]
    return Text.assemble((f"{size}, {'better' if change.better else 'worse'}", colour), *lines)


def sparkline(series: Series) -> str:
    """The values as bars from the smallest to the largest, with a line where a level changes.

    Long series are drawn as means of neighbours on the same level.
    """
    values = [point.value for point in series.points]
    width = math.ceil(len(values) / max(1, MOST_BARS - 2 * len(series.changes)))
    bounds = [0, *(change.index for change in series.changes), len(values)]
    levels = [_means(values[start:end], width) for start, end in pairwise(bounds)]
    low, high = min(map(min, levels)), max(map(max, levels))
    return "|".join("".join(_bar(value, low, high) for value in level) for level in levels)


def _means(values: Sequence[float], width: int) -> list[float]:
    parts = [values[start : start + width] for start in range(0, len(values), width)]
    return [math.fsum(part) / len(part) for part in parts]


def _bar(value: float, low: float, high: float) -> str:
    """A series without any difference is a line at half height."""
    share = (value - low) / (high - low) if high > low else 0.5
    return BARS[min(len(BARS) - 1, int(share * len(BARS)))]


def value_text(value: float, unit: str) -> str:
    """A figure with its unit; a share has none."""
    match unit:
        case "share":
            return f"{value:.4f}"
        case "logit":
            return f"{value:.2e}"
        case "ms":
            return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"
        case _:
            return f"{value:.1f} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def _date(point: TrendPoint | Kept) -> str:
    return point.started_at[:16].replace("T", " ")


def _commit(point: TrendPoint | Kept) -> str:
    if point.git_commit is None:
        return "commit unknown"
    changed = " (changed)" if isinstance(point, TrendPoint) and point.git_dirty else ""
    return f"commit {point.git_commit[:12]}{changed}"


def _noise(series: Series) -> str:
    return "" if series.noise is None else f"; a point varies by {series.noise:.2g} {series.change_unit} (1 sigma)"


def _invalid(series: Series) -> str:
    count = sum(not point.valid for point in series.points)
    return f"; {count} of INVALID rows" if count else ""


def _models(series: Series) -> str:
    names = list(dict.fromkeys(point.model for point in series.points))
    more = f" and {len(names) - MODELS_SHOWN} more" if len(names) > MODELS_SHOWN else ""
    return f"called {', '.join(names[:MODELS_SHOWN])}{more}"


def _folded(shown: PlainTable) -> PlainTable:
    """The same table, that breaks a long name where it must and cuts none."""
    for column in shown.columns:
        column.overflow = "fold"
    return shown


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# --- baselines --------------------------------------------------------------------------------------------------------


def baselines(found: Sequence[Baseline]) -> RenderableType:
    """The kept baselines, a line a record, and what is wrong with them."""
    if not found:
        return Text("no baselines; keep one with `mrpcbench baseline set NAME RECORD`")
    shown = table("Baselines", "name", "command", "model", "date", "commit", "machine", "key figure")
    for one in found:
        for record in one.records:
            shown.add_row(one.name, record.command, *_cells(record))
    return Group(_folded(shown), *_problems(found))


def _cells(record: Kept) -> Iterator[str]:
    yield record.model
    yield record.started_at[:10]
    yield record.git_commit[:8] if record.git_commit else "?"
    yield record.machine
    if record.metric is None or record.value is None or record.unit is None:
        yield "none"
    else:
        yield f"{record.metric} {value_text(record.value, record.unit)}"


def _problems(found: Sequence[Baseline]) -> Iterator[Text]:
    for one in found:
        for problem in one.problems:
            yield Text(f"{one.name}: {problem}", "bold red")
