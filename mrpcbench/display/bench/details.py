"""The details of a benchmark that its tables leave out: further columns, other references, and server loads.

Rich renderables. Prints nothing.
"""

from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from mrpcbench.display.bench.ratio import ratio_table
from mrpcbench.display.bench.resources import resources_table, spans_tables
from mrpcbench.display.bench.summary import by_scenario
from mrpcbench.display.numbers import fixed, mebibytes, score, short, whole_percent
from mrpcbench.display.tables import (
    PlainTable,
    batch_label,
    case_label,
    name_header,
    percentile,
    placement_line,
    table_of,
)
from mrpcbench.records.figures import (
    best_load,
    flops_share,
    joules_per_thousand,
    load_percentile_ms,
    padding_share,
    row_share,
    share_of_limit,
)
from mrpcbench.records.ranking import best, references
from mrpcbench.schema.bench_requests import BenchView
from mrpcbench.schema.bench_results import BenchRow, BenchSection, Ceilings, LoadPoint, Work
from mrpcbench.schema.records import BenchRecord

Columns = list[tuple[str, Callable[[BenchRow], str]]]
Load = tuple[BenchRow, LoadPoint]

LEGEND = {
    "ms/\npass": "median time of a pass over all pairs",
    "first ms": "first call",
    "cold ms": "first calls of all shapes",
    "pad.": "padding, as a share of the tokens that the engine computes",
    "limit": "useful work as a share of what the machine can do at best",
    "MFU": "the same for floating-point operations only",
    "acc.": "accuracy of the timed answers",
    "GPU MiB": "peak of torch's allocations",
    "J/1k": "energy of the GPU per 1000 pairs",
}


def details(record: BenchRecord, view: BenchView) -> Iterator[RenderableType]:
    """Further columns of each scenario, with the speedups over several references and the loads of a server; then
    time breakdowns, resources, a legend, where each case ran, and the rules that rows break."""
    section = record.bench
    shown: list[BenchRow] = []
    for rows in by_scenario(section):
        shown += rows
        if rows[0].scenario == "server":
            yield _loads_table(rows)
        else:
            yield _steady_table(rows, section)
        if len(bases := references(rows, view.relative_to)) > 1 and rows[0].scenario != "server":
            yield ratio_table(rows, bases)
    yield from spans_tables([row for row in shown if row.spans])
    if any(row.resources and row.resources.gpu_power_w is not None for row in shown):
        yield resources_table(shown)
    lines = [*_legend(section), *_places(record), *_orders(shown), *_failed(section), *_rules(shown)]
    yield Text("\n".join(lines) + "\n")


# --- single-stream and offline ----------------------------------------------------------------------------------------


def _steady_table(rows: Sequence[BenchRow], section: BenchSection) -> PlainTable:
    return table_of(f"{rows[0].scenario}: details", _steady_columns(rows, section), rows, bold=best(rows))


def _steady_columns(rows: Sequence[BenchRow], section: BenchSection) -> Columns:
    """Headers, each with the function that formats a cell; columns without any value are omitted."""
    alone = rows[0].scenario == "single-stream"
    columns: Columns = [(name_header(rows), case_label)]
    if alone:
        columns.append(("p90 ms", lambda row: percentile(row, 0.9)))
    else:
        columns.append(("batch", batch_label))
        # One pass over all pairs is one sample, so its percentiles would need hundreds of rounds.
        columns.append(("ms/\npass", lambda row: percentile(row, 0.5)))
    # Without any cold_ms, no engine prepares for shapes, and the first call is the whole cold cost.
    name = "first ms" if all(row.cold_ms is None for row in rows) else "cold ms"
    columns.append((name, lambda row: fixed(row.first_ms if row.cold_ms is None else row.cold_ms, 1)))
    if not alone:
        columns.append(("pad.", lambda row: whole_percent(padding_share(row))))
    columns.append(("limit", lambda row: _share(row, section, share_of_limit)))
    if not alone:
        columns.append(("MFU", lambda row: _share(row, section, flops_share)))
    columns.append(("acc.", lambda row: score(row.accuracy)))
    columns.append(("F1", lambda row: score(row.f1)))
    if any(row.peak_memory_bytes is not None for row in rows):
        columns.append(("GPU MiB", lambda row: mebibytes(row.peak_memory_bytes)))
    if any(joules_per_thousand(row) is not None for row in rows):
        columns.append(("J/1k", lambda row: short(joules_per_thousand(row))))
    return columns


def _share(row: BenchRow, section: BenchSection, share: Callable[[Work, Ceilings, float], float]) -> str:
    """The row's useful work as a `share` of the measured peak of the machine."""
    return whole_percent(row_share(row, section.ceilings, share))


# --- server -----------------------------------------------------------------------------------------------------------


def _loads_table(rows: Sequence[BenchRow]) -> PlainTable:
    """A line for each load of each row; the best load of each row is bold."""
    lines: list[Load] = [(row, point) for row in rows for point in _by_rate(row)]
    columns: list[tuple[str, Callable[[Load], str]]] = [
        (name_header(rows), lambda line: case_label(line[0])),
        ("batch", lambda line: str(line[0].batch_size)),
        ("requests/s", lambda line: fixed(line[1].rate_per_s, 1)),
        ("p50 ms", lambda line: fixed(load_percentile_ms(line[1], 0.5), 1)),
        ("p99 ms", lambda line: fixed(load_percentile_ms(line[1], 0.99), 1)),
        ("mean batch", lambda line: fixed(line[1].sent / max(1, len(line[1].batch_sizes)), 1)),
        ("sent", lambda line: str(line[1].sent)),
        ("failed", lambda line: str(line[1].failed)),
        ("target", lambda line: "best" if _is_best(*line) else "met" if line[1].meets_slo else "missed"),
    ]
    return table_of("server: every load", columns, lines, bold=[line for line in lines if _is_best(*line)])


def _by_rate(row: BenchRow) -> list[LoadPoint]:
    return sorted(row.server.curve, key=lambda point: point.rate_per_s) if row.server else []


def _is_best(row: BenchRow, point: LoadPoint) -> bool:
    return point is best_load(row)


# --- lines ------------------------------------------------------------------------------------------------------------


def _legend(section: BenchSection) -> Iterator[str]:
    """The meaning of the columns that are shown."""
    steady = [rows for rows in by_scenario(section) if rows[0].scenario != "server"]
    shown = {name for rows in steady for name, _ in _steady_columns(rows, section)}
    found = [f"{name.replace(chr(10), '')}: {text}" for name, text in LEGEND.items() if name in shown]
    if found:
        yield "; ".join(found) + "."


def _places(record: BenchRecord) -> Iterator[str]:
    """Where each case ran, and its graph if it differs from the record's; cases with the same placement together."""
    names: dict[str, dict[str, None]] = {}
    for row in record.bench.rows:
        graph = row.model.graph_label if row.model.graph_label != record.model.graph_label else ""
        place = placement_line(row.placement) + (f", {graph}" if graph else "")
        names.setdefault(place, {})[row.case] = None
    yield from (f"{', '.join(found)} = {place}" for place, found in names.items())
    yield f"peak main memory {mebibytes(record.bench.peak_rss_bytes)} MiB"


def _orders(rows: Sequence[BenchRow]) -> Iterator[str]:
    """Which cases have the pairs in the order given, if others sort them."""
    offline = [row for row in rows if row.scenario == "offline"]
    if {row.order for row in offline} == {"length", "given"}:
        given = dict.fromkeys(row.case for row in offline if row.order == "given")
        yield f"in the order given: {', '.join(given)}; the others sorted by length"


def _failed(section: BenchSection) -> Iterator[str]:
    for failed in section.failed:
        yield f"FAILED during {failed.stage} and left out: {failed.case} ({failed.reason})"


def _rules(rows: Sequence[BenchRow]) -> Iterator[str]:
    for row in rows:
        for rule in row.broken_rules or ():
            yield f"INVALID: {row.id}: {rule}"
