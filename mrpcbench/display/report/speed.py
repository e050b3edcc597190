"""The figures of speed in the HTML report: speedups with intervals, and the time breakdown."""

import math
from collections.abc import Sequence
from typing import get_args

from mrpcbench.display.numbers import fixed, multiple, short, whole_percent
from mrpcbench.display.report import drawing
from mrpcbench.display.report.content import Figure, Section, Table, benches, is_invalid, rank, source, validity
from mrpcbench.records.figures import ROUNDS_FOR_INTERVAL, RelativeSpeed, relative_speed, span_us
from mrpcbench.records.ranking import ratio
from mrpcbench.records.reports import Named
from mrpcbench.schema.bench_results import BenchRow, SpanName

# From dark to light in the order of the pipeline, so that neighbours differ without colour.
SPAN_COLOURS: dict[SpanName, str] = {
    "tokenise": "#3d444d",
    "batch": "#e3a857",
    "copy in": "#8c959f",
    "compute": "#0b5cad",
    "copy out": "#c9d1d9",
}
# A smaller share would be invisible.
LEAST = 0.0005
Line = tuple[BenchRow, RelativeSpeed | None]


def row_name(row: BenchRow) -> str:
    """The row within its scenario."""
    unverified = " (UNVERIFIED)" if row.model.proven is False else ""
    size = "" if row.scenario == "single-stream" else f", batch {row.batch_size}"
    return f"{row.case}{unverified}{size}"


# --- speedups ---------------------------------------------------------------------------------------------------------


def speedups(records: Sequence[Named]) -> Section | None:
    """A figure per bench record and scenario with more than one row."""
    figures: list[Figure] = []
    for at, (name, record) in enumerate(benches(records)):
        for scenario in dict.fromkeys(row.scenario for row in record.rows):
            rows = [row for row in record.rows if row.scenario == scenario]
            base = next(
                (row for row in rows if row.summary and row.summary.pairs_per_s and not row.summary.reference), None
            )
            if base is not None and len(rows) > 1:
                lines = [(row, _relative(row, base)) for row in rows]
                figures.append(_speedup_figure(f"speedup-{at}-{scenario}", source(name, record), lines, base))
    if not figures:
        return None
    return Section(id="speedup", title="Speedups", figures=tuple(figures))


def _relative(row: BenchRow, base: BenchRow) -> RelativeSpeed | None:
    if row is base:
        return RelativeSpeed(times=1.0, interval=None, rounds=0)
    if row.scenario != "server":
        return relative_speed(row, base)
    times = ratio(row, base)
    return RelativeSpeed(times=times, interval=None, rounds=0) if times else None


def speedup_text(found: RelativeSpeed) -> str:
    """A speedup with its interval."""
    return f"{multiple(found.times)} ({_interval(found)})" if found.interval else multiple(found.times)


def _speedup_figure(name: str, where: str, lines: list[Line], base: BenchRow) -> Figure:
    ordered = sorted(lines, key=lambda line: -(line[1].times if line[1] else 0.0))
    places, height = drawing.slots(len(ordered))
    rows = [
        {**place, "x": found.times, "label": row_name(row), "value": _value(row, found, base), "fill": _fill(row, base)}
        | ({"low": found.interval.low, "high": found.interval.high} if found.interval else {})
        for place, (row, found) in zip(places, ordered, strict=True)
        if found
    ]
    values = [one for row in rows for one in (row["x"], row.get("high", 1.0))]
    y = drawing.pixels("bar", height)
    x = drawing.axis("x", f"speedup over {base.id}", (0.0, max(values) * 1.04))
    bar = {"size": drawing.BAR, "orient": "horizontal", "stroke": drawing.SOFT, "strokeWidth": 0.5}
    line = {"color": drawing.INK, "strokeWidth": 1.5}
    end = {"color": drawing.INK, "orient": "vertical", "thickness": 1.5, "size": 9}
    known = [row for row in rows if "low" in row]
    # Not through the texts.
    equal = [{"x": 1.0, "bar": place["bar"] - drawing.BAR / 2 - 3, "end": place["bar"] + 9} for place in places]
    layers = [
        drawing.layer(rows, "bar", bar, x=x, y=y, fill=drawing.as_given("fill")),
        drawing.layer(known, "rule", line, x={**x, "field": "low"}, x2={"field": "high"}, y=y),
        drawing.layer(known, "tick", end, x={**x, "field": "low"}, y=y),
        drawing.layer(known, "tick", end, x={**x, "field": "high"}, y=y),
        drawing.layer(equal, "rule", {"color": drawing.INK, "strokeDash": [3, 2]}, x=x, y=y, y2={"field": "end"}),
        *drawing.texts(rows, height),
    ]
    title = finding(lines, base)
    description = (
        f"A bar per row of {base.scenario}: its speedup over {base.id}, with the 95% interval; numbers in the table."
    )
    return drawing.figure(
        layers,
        height=height,
        id=name,
        title=title,
        source=where,
        description=description,
        table=_speedup_table(ordered),
        note=f"Dashed: as fast as {base.id}. Lines with ends: 95% intervals. Hatched: INVALID.",
    )


def _value(row: BenchRow, found: RelativeSpeed, base: BenchRow) -> str:
    text = "reference" if row is base else multiple(found.times) if is_invalid(row) else speedup_text(found)
    return f"{text}, INVALID" if is_invalid(row) else text


def _fill(row: BenchRow, base: BenchRow) -> str:
    if is_invalid(row):
        return drawing.HATCH
    return "#c9d1d9" if row is base else drawing.ACCENT


def finding(lines: Sequence[Line], base: BenchRow) -> str:
    """What the speedups over `base` show, as a sentence; only VALID rows count."""
    if is_invalid(base):
        return f"{base.scenario}: the reference {base.case} is INVALID, so no speedup is certain"
    rivals = [(row, found) for row, found in lines if row is not base and found and not is_invalid(row)]
    if not rivals:
        return f"{base.scenario}: no other row is VALID, so no speedup is certain"
    row, found = max(rivals, key=lambda line: line[1].times)
    name = f"{base.scenario}: {row_name(row)}"
    if found.times <= 1:
        return f"{base.scenario}: no VALID row is faster than {row_name(base)}"
    if found.interval is not None and found.interval.low <= 1:
        return f"{name} may not be faster than {row_name(base)}: {speedup_text(found)}"
    ends = f" (95% CI {_interval(found)})" if found.interval else ""
    unchecked = "; UNCHECKED" if None in (row.broken_rules, base.broken_rules) else ""
    return f"{name} is {multiple(found.times)} faster than {row_name(base)}{ends}{unchecked}"


def _speedup_table(lines: Sequence[Line]) -> Table:
    return Table(
        caption="Speedup and throughput",
        headers=("row", "pairs/s", "speedup", "95% interval", "validity"),
        rows=tuple(
            (
                row_name(row),
                fixed(row.summary.pairs_per_s if row.summary else None, 1),
                multiple(found.times if found else None),
                _interval(found),
                validity(row),
            )
            for row, found in lines
        ),
        marked=frozenset(at for at, (row, _) in enumerate(lines) if is_invalid(row)),
    )


def _interval(found: RelativeSpeed | None) -> str:
    if found is None or found.interval is None:
        return f"n<{ROUNDS_FOR_INTERVAL}" if found and 0 < found.rounds < ROUNDS_FOR_INTERVAL else "-"
    return f"{fixed(found.interval.low, 2)} to {fixed(found.interval.high, 2)}"


# --- time breakdown ---------------------------------------------------------------------------------------------------


def breakdowns(records: Sequence[Named]) -> Section | None:
    """A figure per bench record whose rows have a time breakdown."""
    figures: list[Figure] = []
    for at, (name, record) in enumerate(benches(records)):
        rows = sorted((row for row in record.rows if sum(span_us(row).values()) > 0), key=rank)
        if rows:
            figures.append(_breakdown_figure(f"breakdown-{at}", source(name, record), rows))
    if not figures:
        return None
    lead = "From a separate pass with device synchronisation after each part."
    return Section(id="breakdown", title="Time breakdown", lead=lead, figures=tuple(figures))


def _breakdown_figure(name: str, where: str, rows: Sequence[BenchRow]) -> Figure:
    names: tuple[SpanName, ...] = get_args(SpanName)
    places, height = drawing.slots(len(rows))
    parts: dict[SpanName, list[drawing.Row]] = {part: [] for part in names}
    texts = []
    for place, row in zip(places, rows, strict=True):
        found = span_us(row)
        total = math.fsum(found.values())
        at = 0.0
        for part in names:
            share = found.get(part, 0.0) / total
            if share > LEAST:
                parts[part].append({**place, "x": at, "end": at + share})
            at += share
        texts.append({**place, "label": str(row.id), "value": f"{_duration(total)} per pair"})
    x = drawing.axis("x", "share of the time of a pair", (0.0, 1.0), format="%")
    bar = {"size": drawing.BAR, "orient": "horizontal", "stroke": "#ffffff", "strokeWidth": 0.8}
    y = drawing.pixels("bar", height)
    layers = [
        *(
            drawing.layer(of, "bar", {**bar, "color": SPAN_COLOURS[part]}, x=x, x2={"field": "end"}, y=y)
            for part, of in parts.items()
        ),
        *drawing.texts(texts, height),
        *drawing.legend(names, [SPAN_COLOURS[part] for part in names], ("square",), top=-12),
    ]
    title = _breakdown_finding(rows)
    description = "A stacked bar per row: the share of each part in the time of a pair; numbers in the table."
    return drawing.figure(
        layers,
        height=height,
        id=name,
        title=title,
        source=where,
        description=description,
        table=_breakdown_table(rows, names),
    )


def _duration(microseconds: float) -> str:
    return f"{microseconds:.1f} µs" if microseconds < 1000 else f"{microseconds / 1000:.2f} ms"


def _breakdown_finding(rows: Sequence[BenchRow]) -> str:
    shares = {
        part: [span_us(row).get(part, 0.0) / math.fsum(span_us(row).values()) for row in rows]
        for part in get_args(SpanName)
    }
    part, found = max(shares.items(), key=lambda item: sum(item[1]))
    low, high = whole_percent(min(found)), whole_percent(max(found))
    return f"{part} takes {low if low == high else f'{low} to {high}'} of the time"


def _breakdown_table(rows: Sequence[BenchRow], names: Sequence[SpanName]) -> Table:
    return Table(
        caption="µs per pair",
        headers=("row", *names, "sum"),
        rows=tuple(
            (
                str(row.id),
                *(short(span_us(row).get(part)) for part in names),
                short(math.fsum(span_us(row).values())),
            )
            for row in rows
        ),
        marked=frozenset(at for at, row in enumerate(rows) if is_invalid(row)),
    )
