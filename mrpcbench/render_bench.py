"""A benchmark's record as rich renderables. Prints nothing."""

from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType

from mrpcbench.figures import best_load, joules_per_thousand, padding_share, pairs_per_s, percentile_ms
from mrpcbench.limits import share_of_limit
from mrpcbench.plans import BenchView, Scenario
from mrpcbench.ranking import best, is_known, ranked, ratio, reference, row_name
from mrpcbench.render_use import resources_table, spans_table
from mrpcbench.schema import (
    BenchRow,
    BenchSection,
    LoadPoint,
    RunRecord,
)
from mrpcbench.stats import quantile, samples_needed
from mrpcbench.tables import (
    PlainTable,
    engine,
    known,
    machine_line,
    mebibytes,
    model_line,
    notes,
    placement_line,
    short,
    table_of,
)

SCENARIOS: tuple[tuple[Scenario, str], ...] = (
    ("single-stream", "one pair at a time"),
    ("offline", "all pairs, sorted by length"),
    ("server", "requests at random moments"),
)


def bench(record: RunRecord, view: BenchView) -> Iterator[RenderableType]:
    """One table a scenario, its rows as `view` wants them, where the time went, and what must not be overlooked."""
    section = record.bench
    assert section is not None
    shown: list[BenchRow] = []
    for scenario, words in SCENARIOS:
        rows = ranked([row for row in section.rows if row.scenario == scenario], view.sort)
        shown += rows
        if rows:
            one = _server_table if scenario == "server" else _steady_table
            yield one(f"{scenario}: {words}", rows, record, view)
    timed = [row for row in shown if row.spans]
    if timed:
        yield spans_table(timed)
    if any(row.resources and row.resources.gpu_power_w is not None for row in shown):
        yield resources_table(shown)
    yield from notes((row.model for row in section.rows), *_warnings(section.rows), *_unsorted(section.rows, view))


# --- single-stream and offline ----------------------------------------------------------------------------------------


def _steady_table(title: str, rows: list[BenchRow], record: RunRecord, view: BenchView) -> PlainTable:
    section = record.bench
    assert section is not None
    fixed = f"; FIXED SHAPE of {section.plan.seq_len} tokens, all-ones mask" if section.plan.seq_len else ""
    if section.plan.from_text and rows[0].scenario == "offline":
        fixed += "; FROM TEXT, tokenising timed too"
    counted = f"{rows[0].pairs} pairs x {section.rounds_done} rounds interleaved"
    return table_of(
        title + fixed,
        _steady_columns(rows, section, view),
        rows,
        bold=best(rows, view.sort),
        caption=_caption(rows, counted, record),
    )


def _steady_columns(
    rows: list[BenchRow], section: BenchSection, view: BenchView
) -> list[tuple[str, Callable[[BenchRow], str]]]:
    """Headers, and what gives a row's cell; those that say nothing of any row are left out."""
    alone = rows[0].scenario == "single-stream"
    base = reference(rows, view.relative_to)
    columns: list[tuple[str, Callable[[BenchRow], str]]] = [("backend", engine)]
    if not alone:
        columns.append(("batch", lambda row: str(row.batch_size)))
    columns.append(("pairs/s", lambda row: f"{pairs_per_s(row):.1f}"))
    if base is not None:
        columns.append((_ratio_header(base), lambda row: _times(row, base)))
    if alone:
        columns.append(("p50 ms", lambda row: _percentile(row, 0.5)))
        columns.append(("p90 ms", lambda row: _percentile(row, 0.9)))
        columns.append(("p99 ms", lambda row: _percentile(row, 0.99)))
    else:
        # A pass over all pairs is one sample; its percentiles would take hundreds of rounds.
        columns.append(("ms a pass", lambda row: _percentile(row, 0.5)))
    # The first call is a part of the cold cost, and all of it for an engine that prepares for no shape.
    name = "first ms" if all(row.cold_ms is None for row in rows) else "cold ms"
    columns.append((name, lambda row: f"{row.first_ms if row.cold_ms is None else row.cold_ms:.1f}"))
    if not alone:
        columns.append(("pad.", lambda row: f"{padding_share(row):.0%}"))
    columns.append(("limit", lambda row: _limit(row, section)))
    columns.append(("acc.", lambda row: _score(row.accuracy)))
    columns.append(("F1", lambda row: _score(row.f1)))
    if any(row.peak_memory_bytes is not None for row in rows):
        columns.append(("GPU MiB", lambda row: mebibytes(row.peak_memory_bytes)))
    if any(joules_per_thousand(row) is not None for row in rows):
        columns.append(("J/1k", lambda row: short(joules_per_thousand(row))))
    return columns


def _percentile(row: BenchRow, share: float) -> str:
    """A percentile, or how many samples it would take to bound it at 99% confidence."""
    found = percentile_ms(row, share)
    return f"n<{samples_needed(share)}" if found is None else f"{found:.2f}"


def _limit(row: BenchRow, section: BenchSection) -> str:
    """Share of what the machine itself reached that the row's useful work comes to."""
    found = [
        item
        for item in section.ceilings
        if (item.device, item.dtype) == (row.placement.device, row.placement.dtype) and row.work is not None
    ]
    if not found or row.work is None:
        return "?"
    return f"{share_of_limit(row.work, found[0], row.pairs / pairs_per_s(row)):.0%}"


def _score(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


# --- server -----------------------------------------------------------------------------------------------------------


def _server_table(title: str, rows: list[BenchRow], record: RunRecord, view: BenchView) -> PlainTable:
    """A line for each load of each row; in bold the best load of the best row."""
    assert record.bench is not None
    plan = record.bench.plan
    lines = [(row, point) for row in rows for point in _by_rate(row)]
    winners = rows if len(rows) == 1 else best(rows, view.sort)
    return table_of(
        f"{title}, p99 within {plan.slo_ms:g} ms, window {plan.window_ms:g} ms",
        _server_columns(rows, view),
        lines,
        bold=[line for line in lines if _is_best(*line) and any(line[0] is row for row in winners)],
        caption=_caption(rows, f"{rows[0].pairs} pairs in turn", record),
    )


def _server_columns(
    rows: list[BenchRow], view: BenchView
) -> list[tuple[str, Callable[[tuple[BenchRow, LoadPoint]], str]]]:
    base = reference(rows, view.relative_to)
    columns: list[tuple[str, Callable[[tuple[BenchRow, LoadPoint]], str]]] = [
        ("backend", lambda line: engine(line[0])),
        ("batch", lambda line: str(line[0].batch_size)),
        ("requests/s", lambda line: f"{line[1].rate_per_s:.1f}"),
    ]
    if base is not None:
        columns.append((_ratio_header(base), lambda line: _times(line[0], base) if _is_best(*line) else ""))
    columns += [
        ("p50 ms", lambda line: _load_percentile(line[1], 0.5)),
        ("p99 ms", lambda line: _load_percentile(line[1], 0.99)),
        ("mean batch", lambda line: f"{line[1].sent / max(1, len(line[1].batch_sizes)):.1f}"),
        ("sent", lambda line: str(line[1].sent)),
        ("failed", lambda line: str(line[1].failed)),
        ("target", lambda line: "best" if _is_best(*line) else "kept" if line[1].meets_slo else "missed"),
    ]
    return columns


def _by_rate(row: BenchRow) -> list[LoadPoint]:
    return sorted(row.server.curve, key=lambda point: point.rate_per_s) if row.server else []


def _is_best(row: BenchRow, point: LoadPoint) -> bool:
    return point is best_load(row)


def _load_percentile(point: LoadPoint, share: float) -> str:
    return f"{quantile(point.latencies_ms, share):.1f}" if point.latencies_ms else "none"


# --- both -------------------------------------------------------------------------------------------------------------


def _ratio_header(base: BenchRow) -> str:
    """Names the row that has 1.00x; among single pairs the backend does. A name of two words stands on two lines."""
    name = base.spec.backend if base.scenario == "single-stream" else row_name(base)
    return f"x {name}".replace("-", "-\n")


def _times(row: BenchRow, base: BenchRow) -> str:
    found = ratio(row, base)
    return known(found, ".2f") + ("" if found is None else "x")


def _caption(rows: list[BenchRow], counted: str, record: RunRecord) -> str:
    assert record.bench is not None
    placed = "; ".join(dict.fromkeys(f"{row.spec.backend} = {placement_line(row.placement)}" for row in rows))
    return (
        f"{model_line(record.model)}\n{placed}\n{counted}; {record.data[0].source} {record.data[0].split}; "
        f"{machine_line(record.environment, rows[0].placement)}; "
        f"peak main memory {mebibytes(record.bench.peak_rss_bytes)} MiB"
    )


def _warnings(rows: Sequence[BenchRow]) -> Iterator[str]:
    for row in rows:
        for rule in row.broken_rules or ():
            yield f"! INVALID {row.spec.backend} {row.scenario} batch {row.batch_size}: {rule}"
    if any(row.failed for row in rows):
        yield f"FAILED: up to {max(row.failed for row in rows)} pairs a row had no answer, or one that is not finite."
    single = [len(row.samples_ms) for row in rows if row.scenario == "single-stream"]
    short_of = [count for count in map(samples_needed, (0.9, 0.99)) if single and min(single) < count]
    if short_of:
        names = ", ".join(f"n<{count}" for count in short_of)
        yield f"{names}: too few samples to bound that percentile at 99% confidence; more --rounds give more."


def _unsorted(rows: Sequence[BenchRow], view: BenchView) -> Iterator[str]:
    """The tables that could not be sorted as asked."""
    for scenario, _ in SCENARIOS:
        mine = [row for row in rows if row.scenario == scenario]
        if len(mine) > 1 and view.sort not in ("speed", "given") and not is_known(mine, view.sort):
            yield f"--sort {view.sort}: no row of {scenario} has that figure; they are in the order given."
