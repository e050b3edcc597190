"""Throughput against latency in the HTML report: of cases, with the Pareto front, and of server loads."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mrpcbench.display.numbers import fixed
from mrpcbench.display.report import drawing
from mrpcbench.display.report.content import Figure, Section, Table, benches, is_invalid, rank, source
from mrpcbench.records.figures import load_percentile_ms
from mrpcbench.records.recommendation import Candidate, pareto_front
from mrpcbench.records.reports import Named
from mrpcbench.schema.bench_results import BenchRow, LoadPoint
from mrpcbench.schema.records import BenchRecord

Validity = Literal["VALID", "INVALID", "UNCHECKED"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A case: the p50 of its single pairs in ms, the pairs/s of its fastest offline row, and the validity of both."""

    case: str
    latency_ms: float
    pairs_per_s: float
    row: str
    validity: Validity


def tradeoffs(records: Sequence[Named]) -> Section | None:
    """Throughput against latency of each bench record: of its cases, and of its loads in the server scenario."""
    figures: list[Figure] = []
    for at, (name, record) in enumerate(benches(records)):
        points = list(_points(record))
        if len(points) > 1:
            figures.append(_front(f"front-{at}", source(name, record), points))
        loaded = [row for row in record.rows if row.server and any(load.latencies_ms for load in row.server.curve)]
        if loaded:
            figures.append(_loads(f"load-{at}", source(name, record), loaded))
    if not figures:
        return None
    lead = "Higher throughput and lower latency are better."
    return Section(id="tradeoff", title="Throughput against latency", lead=lead, figures=tuple(figures))


def _points(record: BenchRecord) -> Iterator[Point]:
    for case in dict.fromkeys(row.case for row in record.rows):
        own = [row for row in record.rows if row.case == case and row.summary]
        alone = next((row for row in own if row.scenario == "single-stream"), None)
        offline = sorted((row for row in own if row.scenario == "offline"), key=rank)
        latency = alone.summary.p50_ms if alone and alone.summary else None
        if alone is None or latency is None:
            continue
        best = offline[0] if offline else alone
        rate = best.summary.pairs_per_s if best.summary else None
        if rate and latency > 0:
            yield Point(
                case=case,
                latency_ms=latency,
                pairs_per_s=rate,
                row=str(best.id),
                validity=_validity(alone, best),
            )


def _validity(*rows: BenchRow) -> Validity:
    if any(map(is_invalid, rows)):
        return "INVALID"
    return "UNCHECKED" if any(row.broken_rules is None for row in rows) else "VALID"


def _on_front(points: Sequence[Point]) -> tuple[str, ...]:
    """The VALID cases that no other VALID case beats."""
    return pareto_front(
        [
            Candidate(case=one.case, outcome="PASS", reason="", pairs_per_s=one.pairs_per_s, p50_ms=one.latency_ms)
            for one in points
            if one.validity == "VALID"
        ]
    )


def _front(name: str, where: str, points: Sequence[Point]) -> Figure:
    height = 240
    front = _on_front(points)
    times, rates = [one.latency_ms for one in points], [one.pairs_per_s for one in points]
    log_x, log_y = drawing.is_wide(times), drawing.is_wide(rates)
    ends_x, ends_y = drawing.span(times, log=log_x), drawing.span(rates, log=log_y, room=0.12)
    x = drawing.axis("x", "p50 of one pair, ms", ends_x, log=log_x)
    y = drawing.upright("y", "pairs/s", ends_y, log=log_y)
    rows = [
        {
            "x": one.latency_ms,
            "y": one.pairs_per_s,
            "label": one.case,
            "fill": _fill(one, front),
        }
        for one in points
    ]
    line = {"color": drawing.ACCENT, "interpolate": "step-after", "strokeDash": [4, 3], "strokeWidth": 1.5}
    dot = {"size": 130, "stroke": drawing.ACCENT, "strokeWidth": 1.5, "opacity": 1}
    layers = [
        drawing.layer([row for row in rows if row["fill"] == drawing.ACCENT], "line", line, x=x, y=y),
        drawing.layer(rows, "point", dot, x=x, y=y, fill=drawing.as_given("fill")),
        *_point_labels(rows, (ends_x, log_x), (ends_y, log_y), height),
    ]
    title = (
        f"Pareto front: {', '.join(front)}" if front else "No case is known to be VALID, so there is no Pareto front"
    )
    description = "Each case by the median time of one pair and its throughput; numbers in the table."
    return drawing.figure(
        layers,
        height=height,
        id=name,
        title=title,
        source=where,
        description=description,
        table=_front_table(points, front),
        note="Filled: on the Pareto front, which no other VALID case beats in both. Hollow: not on it. "
        "Hatched: INVALID.",
    )


def _fill(one: Point, front: Sequence[str]) -> str:
    if one.validity == "INVALID":
        return drawing.HATCH
    return drawing.ACCENT if one.case in front else "#ffffff"


def _point_labels(
    rows: list[drawing.Row], x: tuple[drawing.Ends, bool], y: tuple[drawing.Ends, bool], height: int
) -> Iterator[drawing.Layer]:
    """The name of each point, left or right of it, with 14 pixels between the names of one side."""
    dots = [
        {
            "label": row["label"],
            "across": drawing.WIDTH * drawing.share_of(row["x"], x[0], log=x[1]),
            "down": height * (1 - drawing.share_of(row["y"], y[0], log=y[1])),
        }
        for row in rows
    ]
    for side, align, shift in (("right", "left", 10), ("left", "right", -10)):
        last = -math.inf
        for row in sorted(dots, key=lambda row: row["down"]):
            if (row["across"] < drawing.WIDTH / 2) != (side == "right"):
                continue
            last = max(row["down"], last + 14)
            # Beside every point that is near, so that the name covers none.
            near = [
                one["across"]
                for one in dots
                if abs(one["down"] - last) < 12 and abs(one["across"] - row["across"]) < 30
            ]
            at = (max if side == "right" else min)([row["across"], *near]) + shift
            style = {"align": align, "baseline": "middle", "fontSize": 12, "color": drawing.INK}
            yield drawing.layer(
                [{"label": row["label"]}],
                "text",
                style,
                x={"value": at},
                y={"value": last},
                text=drawing.name("label"),
            )


def _front_table(points: Sequence[Point], front: Sequence[str]) -> Table:
    ordered = sorted(points, key=lambda one: (one.validity == "INVALID", -one.pairs_per_s))
    return Table(
        caption="Throughput and latency",
        headers=("case", "pairs/s", "p50 ms", "fastest row", "Pareto front"),
        rows=tuple(
            (
                one.case,
                fixed(one.pairs_per_s, 1),
                fixed(one.latency_ms, 2),
                one.row,
                ("yes" if one.case in front else "no") if one.validity == "VALID" else one.validity,
            )
            for one in ordered
        ),
        marked=frozenset(at for at, one in enumerate(ordered) if one.validity == "INVALID"),
    )


# --- server -----------------------------------------------------------------------------------------------------------


def _loads(name: str, where: str, rows: Sequence[BenchRow]) -> Figure:
    height = 220
    lines = [(row, load) for row in rows for load in _by_rate(row)]
    points: list[drawing.Row] = [
        {"x": load.rate_per_s, "y": p99, "case": f"{row.case}, batch {row.batch_size}"}
        for row, load in lines
        if (p99 := load_percentile_ms(load, 0.99)) is not None and p99 > 0
    ]
    target = rows[0].server.slo_ms if rows[0].server else 0.0
    p99s = [one["y"] for one in points] + [target]
    log = drawing.is_wide(p99s)
    x = drawing.axis("x", "requests/s", drawing.span([one["x"] for one in points], zero=True))
    y = drawing.upright("y", "p99, ms", drawing.span(p99s, log=log), log=log)
    names = list(dict.fromkeys(one["case"] for one in points))
    colour, shape = (drawing.among("case", names, one) for one in (drawing.SERIES, drawing.SHAPES))
    limit = [{"y": target, "label": f"target {target:g} ms"}]
    above = {"align": "left", "dy": -7, "fontSize": 12, "color": drawing.INK}
    layers = [
        drawing.layer(limit, "rule", {"color": drawing.INK, "strokeDash": [4, 3]}, y=y),
        drawing.layer(limit, "text", above, x={"value": 4}, y=y, text=drawing.name("label")),
        drawing.layer(points, "line", {"strokeWidth": 1.5}, x=x, y=y, color=colour),
        drawing.layer(points, "point", {"size": 60, "filled": True, "opacity": 1}, x=x, y=y, color=colour, shape=shape),
        *drawing.legend(names, drawing.SERIES, drawing.SHAPES),
    ]
    best = max(rows, key=lambda row: (row.server and row.server.best_rate_per_s) or 0.0)
    rate = best.server.best_rate_per_s if best.server else None
    title = f"{best.case} serves {fixed(rate, 0)} requests/s with p99 within {target:g} ms"
    if rate is None:
        title = f"No load kept p99 within {target:g} ms"
    description = "The 99th percentile of the latency against the mean rate of requests; numbers in the table."
    return drawing.figure(
        layers,
        height=height,
        id=name,
        title=title,
        source=where,
        description=description,
        table=_load_table(lines),
        note="A point is one load.",
    )


def _by_rate(row: BenchRow) -> list[LoadPoint]:
    return sorted(row.server.curve, key=lambda load: load.rate_per_s) if row.server else []


def _load_table(lines: Sequence[tuple[BenchRow, LoadPoint]]) -> Table:
    return Table(
        caption="Loads",
        headers=("case", "batch", "requests/s", "p50 ms", "p99 ms", "failed", "target"),
        rows=tuple(
            (
                row.case,
                str(row.batch_size),
                fixed(load.rate_per_s, 1),
                fixed(load_percentile_ms(load, 0.5), 1),
                fixed(load_percentile_ms(load, 0.99), 1),
                str(load.failed),
                "met" if load.meets_slo else "missed",
            )
            for row, load in lines
        ),
    )
