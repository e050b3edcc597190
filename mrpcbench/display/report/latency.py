"""The distributions of latency in the HTML report."""

import math
from collections.abc import Iterator, Sequence

from mrpcbench.display.numbers import fixed, percent
from mrpcbench.display.report import drawing
from mrpcbench.display.report.content import Figure, Section, Table, benches, is_invalid, rank, source, validity
from mrpcbench.records.figures import best_load, load_percentile_ms, percentile_ms
from mrpcbench.records.reports import Named
from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.statistics import quantile, samples_needed

SHARES = (0.5, 0.9, 0.99)
# Share of the samples that a distribution shows: single outliers would squeeze the rest.
SHOWN = 0.995
BINS = 36
# A distribution is a curve of at most this height in pixels.
CURVE = 24


def latencies(records: Sequence[Named]) -> Section | None:
    """A figure per bench record with single-stream rows, and one per record with server rows."""
    figures: list[Figure] = []
    for at, (name, record) in enumerate(benches(records)):
        for scenario in ("single-stream", "server"):
            rows = sorted((row for row in record.rows if row.scenario == scenario and _samples(row)), key=rank)
            if rows:
                figures.append(_distributions(f"latency-{at}-{scenario}", source(name, record), rows))
    if not figures:
        return None
    return Section(
        id="latency", title="Latency", lead="Time of one pair, from tokens to logits.", figures=tuple(figures)
    )


def _samples(row: BenchRow) -> tuple[float, ...]:
    """The latencies of a row in milliseconds: of single pairs, or of the requests at the best load."""
    if row.scenario != "server":
        return row.samples_ms
    load = best_load(row)
    return load.latencies_ms if load else ()


def _percentile(row: BenchRow, share: float) -> float | None:
    load = best_load(row)
    return load_percentile_ms(load, share) if load else percentile_ms(row, share)


def _percentile_text(row: BenchRow, share: float) -> str:
    found = _percentile(row, share)
    return f"n<{samples_needed(share)}" if found is None else fixed(found, 2)


def _name(row: BenchRow) -> str:
    unverified = " (UNVERIFIED)" if row.model.proven is False else ""
    load = best_load(row)
    return f"{row.case}{unverified}" + (f", {load.rate_per_s:.0f} requests/s" if load else "")


def _distributions(name: str, where: str, rows: Sequence[BenchRow]) -> Figure:
    slot = drawing.SLOT + CURVE
    height = slot * len(rows)
    tops = [max(quantile(_samples(row), SHOWN), min(_samples(row)) * 1.01 or 1.0) for row in rows]
    values = [*(min(_samples(row)) for row in rows), *tops]
    log = drawing.is_wide(values)
    ends = drawing.span(values, log=log)
    curves, marks, texts = [], [], []
    for at, (row, top) in enumerate(zip(rows, tops, strict=True)):
        base = slot * at + 16 + CURVE + 8
        curves.append([{"x": x, "y": base - y * CURVE} for x, y in _density(_samples(row), top, log=log)])
        shown = [] if is_invalid(row) else [_percentile(row, share) for share in SHARES]
        marks += [
            {"x": one, "y": base - CURVE - 3, "base": base, "w": width}
            for one, width in zip(shown, (2.5, 1.5, 1), strict=False)
            if one is not None and one <= ends[1]
        ]
        texts.append({"text": slot * at + 9, "label": _name(row), "value": _summary(row)})
    x, y = drawing.axis("x", "ms", ends, log=log), drawing.pixels("y", height)
    # A closed line is half as long as an area, which has its base point by point.
    style = {"interpolate": "linear-closed", "stroke": drawing.ACCENT, "strokeWidth": 1}
    rule, width = {"color": drawing.INK}, drawing.number("w", scale=None)
    layers = [
        *(
            drawing.layer(curve, "line", {**style, "fill": _fill(row)}, x=x, y=y, order=drawing.number("x"))
            for curve, row in zip(curves, rows, strict=True)
        ),
        drawing.layer(marks, "rule", rule, x=x, y=y, y2={"field": "base"}, strokeWidth=width),
        *drawing.texts(texts, height),
    ]
    title = _finding(rows)
    description = f"A distribution per case, from {fixed(values[0], 2)} ms. Its numbers are in the table."
    return drawing.figure(
        layers,
        height=height,
        id=name,
        title=title,
        source=where,
        description=description,
        table=_latency_table(rows),
        note="Vertical lines: p50 (thick), p90 and p99 of VALID rows. Hatched: INVALID. "
        f"The slowest {percent(1 - SHOWN)} is not drawn.",
    )


def _fill(row: BenchRow) -> str:
    return drawing.HATCH if is_invalid(row) else drawing.PALE


def _density(samples: Sequence[float], top: float, *, log: bool) -> Iterator[tuple[float, float]]:
    """A histogram of the samples up to `top` as points of a curve: the middle of each bin and its share of the peak."""
    low, high = min(samples), top
    if log:
        low, high = math.log(low), math.log(high)
    width = (high - low) / BINS
    counts = [0] * BINS
    for one in samples:
        if one <= top:
            place = ((math.log(one) if log else one) - low) / width
            counts[min(int(place), BINS - 1)] += 1
    points = [(low, 0.0), *((low + width * (at + 0.5), count / max(counts)) for at, count in enumerate(counts))]
    for x, y in (*points, (high, 0.0)):
        yield (math.exp(x) if log else x), y


def _summary(row: BenchRow) -> str:
    if is_invalid(row):
        return "INVALID"
    found = ((f"p{share * 100:g}", _percentile(row, share)) for share in SHARES)
    return " · ".join(f"{label} {fixed(one, 2)}" for label, one in found if one is not None)


def _finding(rows: Sequence[BenchRow]) -> str:
    valid = sorted((row for row in rows if not is_invalid(row)), key=lambda row: _percentile(row, 0.5) or 0.0)
    if not valid:
        return "No latency is certain: every row is INVALID"
    first, *others = valid
    what = "a request" if first.scenario == "server" else "one pair"
    title = f"{first.case} answers {what} in {fixed(_percentile(first, 0.5), 2)} ms (p50)"
    if others:
        title += f", {others[-1].case} in {fixed(_percentile(others[-1], 0.5), 2)} ms"
    return title


def _latency_table(rows: Sequence[BenchRow]) -> Table:
    return Table(
        caption="Latency in ms",
        headers=("case", "p50", "p90", "p99", "samples", "validity"),
        rows=tuple(
            (_name(row), *(_percentile_text(row, share) for share in SHARES), str(len(_samples(row))), validity(row))
            for row in rows
        ),
        marked=frozenset(at for at, row in enumerate(rows) if is_invalid(row)),
    )
