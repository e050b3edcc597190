"""The tables of a benchmark record, as rich renderables. Prints nothing."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from rich.console import RenderableType

from mrpcbench.display.numbers import fixed, mebibytes, multiple, percent, score, short, whole_percent
from mrpcbench.display.ratio import ratio_header, ratio_table
from mrpcbench.display.resources import resources_table, spans_tables
from mrpcbench.display.tables import (
    PlainTable,
    case_label,
    machine_line,
    model_line,
    name_header,
    notes,
    placement_line,
    table_of,
)
from mrpcbench.records.figures import (
    best_load,
    flops_share,
    joules_per_thousand,
    load_percentile_ms,
    padding_share,
    pairs_per_s,
    percentile_ms,
    row_share,
    share_of_limit,
)
from mrpcbench.records.ranking import best, ratio, references
from mrpcbench.schema.bench_requests import BenchView
from mrpcbench.schema.bench_results import BenchRow, BenchSection, Ceilings, LoadPoint, Work
from mrpcbench.schema.records import BenchRecord
from mrpcbench.schema.requests import Order, Scenario
from mrpcbench.statistics import samples_needed

SCENARIOS: tuple[Scenario, ...] = ("single-stream", "offline", "server")


def bench(record: BenchRecord, view: BenchView) -> Iterator[RenderableType]:
    """A table per scenario, with the speedups that `view` requests; then time breakdown, resources and warnings."""
    section = record.bench
    shown: list[BenchRow] = []
    for scenario in SCENARIOS:
        rows = [row for row in section.rows if row.scenario == scenario]
        shown += rows
        if rows and scenario == "server":
            yield _server_table(rows, record, view)
        elif rows:
            yield _steady_table(rows, record)
            if bases := references(rows, view.relative_to):
                yield ratio_table(rows, bases)
    yield from spans_tables([row for row in shown if row.spans])
    if any(row.resources and row.resources.gpu_power_w is not None for row in shown):
        yield resources_table(shown)
    yield from notes((row.model for row in section.rows), *_left_out(section), *_warnings(section.rows))


# --- single-stream and offline ----------------------------------------------------------------------------------------


def _steady_table(rows: list[BenchRow], record: BenchRecord) -> PlainTable:
    section = record.bench
    title, more = f"{rows[0].scenario}: {_order_words(rows)}", ""
    if _orders(rows) == {"length", "given"}:
        more += f"\nin the order given: {_names(rows, lambda row: row.order == 'given')}; the others sorted by length"
    if section.reference and _has_agreement(rows):
        more += f"\nagree: label agreement with {section.reference.row}"
    fixed = f"; FIXED SHAPE of {section.plan.seq_len} tokens, all-ones mask" if section.plan.seq_len else ""
    counted = f"{rows[0].pairs} pairs x {section.rounds_done} rounds interleaved"
    return table_of(
        title + fixed,
        _steady_columns(rows, section),
        rows,
        bold=best(rows),
        caption=_caption(rows, counted, record) + more,
    )


def _orders(rows: Sequence[BenchRow]) -> set[Order | None]:
    return {row.order for row in rows}


def _order_words(rows: Sequence[BenchRow]) -> str:
    """The workload of a table in words, with the order of the pairs if all rows have the same."""
    if rows[0].scenario == "single-stream":
        return "one pair at a time"
    words = {"length": "all pairs, sorted by length", "given": "all pairs, in the order given"}
    (first, *others) = _orders(rows)
    return "all pairs, in two orders" if others or first is None else words[first]


def _names(rows: Sequence[BenchRow], wanted: Callable[[BenchRow], bool]) -> str:
    return ", ".join(dict.fromkeys(row.case for row in rows if wanted(row)))


def _has_agreement(rows: Sequence[BenchRow]) -> bool:
    return any(row.agreement is not None for row in rows)


def _steady_columns(rows: list[BenchRow], section: BenchSection) -> list[tuple[str, Callable[[BenchRow], str]]]:
    """Headers, each with the function that formats a cell; columns without any value are omitted."""
    alone = rows[0].scenario == "single-stream"
    columns: list[tuple[str, Callable[[BenchRow], str]]] = [(name_header(rows), case_label)]
    if not alone:
        columns.append(("batch", lambda row: str(row.batch_size)))
    columns.append(("pairs/s", lambda row: fixed(pairs_per_s(row), 1)))
    if alone:
        columns.append(("p50 ms", lambda row: _percentile(row, 0.5)))
        columns.append(("p90 ms", lambda row: _percentile(row, 0.9)))
        columns.append(("p99 ms", lambda row: _percentile(row, 0.99)))
    else:
        # One pass over all pairs is one sample, so its percentiles would need hundreds of rounds.
        columns.append(("ms/\npass", lambda row: _percentile(row, 0.5)))
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
    if _has_agreement(rows):
        columns.append(("agree", lambda row: percent(row.agreement)))
    if any(row.peak_memory_bytes is not None for row in rows):
        columns.append(("GPU MiB", lambda row: mebibytes(row.peak_memory_bytes)))
    if any(joules_per_thousand(row) is not None for row in rows):
        columns.append(("J/1k", lambda row: short(joules_per_thousand(row))))
    return columns


def _percentile(row: BenchRow, share: float) -> str:
    """A percentile, or the number of samples that would bound it at 99% confidence."""
    found = percentile_ms(row, share)
    return f"n<{samples_needed(share)}" if found is None else fixed(found, 2)


def _share(row: BenchRow, section: BenchSection, share: Callable[[Work, Ceilings, float], float]) -> str:
    """The row's useful work as a `share` of the measured peak of the machine."""
    return whole_percent(row_share(row, section.ceilings, share))


# --- server -----------------------------------------------------------------------------------------------------------


def _server_table(rows: list[BenchRow], record: BenchRecord, view: BenchView) -> PlainTable:
    """A line for each load of each row; the best load of the best row is bold."""
    plan = record.bench.plan
    lines = [(row, point) for row in rows for point in _by_rate(row)]
    winners = rows if len(rows) == 1 else best(rows)
    return table_of(
        f"server: requests at random times, p99 within {plan.slo_ms:g} ms, window {plan.window_ms:g} ms",
        _server_columns(rows, view),
        lines,
        bold=[line for line in lines if _is_best(*line) and any(line[0] is row for row in winners)],
        caption=_caption(rows, f"{rows[0].pairs} pairs, cycled", record),
    )


def _server_columns(
    rows: list[BenchRow], view: BenchView
) -> list[tuple[str, Callable[[tuple[BenchRow, LoadPoint]], str]]]:
    columns: list[tuple[str, Callable[[tuple[BenchRow, LoadPoint]], str]]] = [
        (name_header(rows), lambda line: case_label(line[0])),
        ("batch", lambda line: str(line[0].batch_size)),
        ("requests/s", lambda line: fixed(line[1].rate_per_s, 1)),
    ]
    columns += [(ratio_header(base), partial(_load_ratio, base)) for base in references(rows, view.relative_to)]
    columns += [
        ("p50 ms", lambda line: fixed(load_percentile_ms(line[1], 0.5), 1)),
        ("p99 ms", lambda line: fixed(load_percentile_ms(line[1], 0.99), 1)),
        ("mean batch", lambda line: fixed(line[1].sent / max(1, len(line[1].batch_sizes)), 1)),
        ("sent", lambda line: str(line[1].sent)),
        ("failed", lambda line: str(line[1].failed)),
        ("target", lambda line: "best" if _is_best(*line) else "met" if line[1].meets_slo else "missed"),
    ]
    return columns


def _load_ratio(base: BenchRow, line: tuple[BenchRow, LoadPoint]) -> str:
    """The speedup, only for the best load, and without an interval: a search for a rate has no rounds to pair."""
    return multiple(ratio(line[0], base)) if _is_best(*line) else ""


def _by_rate(row: BenchRow) -> list[LoadPoint]:
    return sorted(row.server.curve, key=lambda point: point.rate_per_s) if row.server else []


def _is_best(row: BenchRow, point: LoadPoint) -> bool:
    return point is best_load(row)


# --- both -------------------------------------------------------------------------------------------------------------


def _caption(rows: list[BenchRow], counted: str, record: BenchRecord) -> str:
    return (
        f"{model_line(record.model)}\n{_places(rows, record)}\n"
        f"{counted}; {record.data[0].source} {record.data[0].split}; "
        f"{machine_line(record.environment, rows[0].placement)}; "
        f"peak main memory {mebibytes(record.bench.peak_rss_bytes)} MiB"
    )


def _places(rows: list[BenchRow], record: BenchRecord) -> str:
    """Where each case ran, and its graph if it differs from the record's; cases with the same placement together."""
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        graph = row.model.graph_label if row.model.graph_label != record.model.graph_label else ""
        place = placement_line(row.placement) + (f", {graph}" if graph else "")
        names.setdefault(place, {})[row.case] = None
    return "; ".join(f"{', '.join(found)} = {place}" for place, found in names.items())


def _left_out(section: BenchSection) -> Iterator[str]:
    """A line for each case that failed."""
    for failed in section.failed:
        yield f"! FAILED during {failed.stage} and left out: {failed.case} ({failed.reason})"


def _warnings(rows: Sequence[BenchRow]) -> Iterator[str]:
    broken: dict[str, list[str]] = {}
    for row in rows:
        for kind, _, detail in (rule.partition(": ") for rule in row.broken_rules or ()):
            broken.setdefault(kind, []).append(f"{row.id} ({detail})" if detail else str(row.id))
    for kind, breakers in broken.items():
        yield f"! INVALID, {kind}: {', '.join(breakers)}"
    if any(row.failed for row in rows):
        yield f"FAILED: up to {max(row.failed for row in rows)} pairs per row had no answer, or a non-finite one."
    single = [len(row.samples_ms) for row in rows if row.scenario == "single-stream"]
    short_of = [count for count in map(samples_needed, (0.9, 0.99)) if single and min(single) < count]
    if short_of:
        names = ", ".join(f"n<{count}" for count in short_of)
        yield f"{names}: too few samples to bound that percentile at 99% confidence; use more --rounds."
