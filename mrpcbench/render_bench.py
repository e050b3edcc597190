"""A benchmark's record as rich renderables. Prints nothing."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType

from mrpcbench.limits import share_of_limit
from mrpcbench.schema import BenchRow, BenchSection, LoadPoint, RunRecord
from mrpcbench.stats import quantile, samples_needed
from mrpcbench.tables import PlainTable, machine_line, model_line, notes, placement_line, table

SCENARIOS = (("single-stream", "one pair at a time"), ("offline", "all pairs, sorted by length"))


def bench(record: RunRecord) -> Iterator[RenderableType]:
    """One table a scenario, the fastest row first, and what a reader must not overlook."""
    section = record.bench
    assert section is not None
    fixed = f"; FIXED SHAPE of {section.plan.seq_len} tokens, all-ones mask" if section.plan.seq_len else ""
    for scenario, words in SCENARIOS:
        rows = [row for row in section.rows if row.scenario == scenario]
        if rows:
            yield _steady_table(f"{scenario}: {words}{fixed}", rows, section, record)
    loaded = [row for row in section.rows if row.server is not None]
    if loaded:
        yield _server_table(loaded, section, record)
    yield from notes((row.model for row in section.rows), *_warnings(section.rows))


def _steady_table(title: str, rows: list[BenchRow], section: BenchSection, record: RunRecord) -> PlainTable:
    on_gpu = any(row.peak_memory_bytes is not None for row in rows)
    alone = rows[0].scenario == "single-stream"
    # A pass over all pairs is one sample; its percentiles would take hundreds of rounds.
    times = ("p50 ms", "p90 ms", "p99 ms") if alone else ("ms a pass",)
    shown = table(
        *(title, "backend", *([] if alone else ["batch"]), "pairs/s", *times, "first ms", "limit", "acc.", "F1"),
        *(["GPU MiB"] if on_gpu else []),
        numeric=True,
        tight=True,
        caption=_caption(rows, section, record),
    )
    ranked = sorted(rows, key=pairs_per_s, reverse=True)
    for row in ranked:
        shown.add_row(
            row.spec.backend + (" UNPROVEN" if row.model.proven is False else "") + ("!" if row.broken_rules else ""),
            *([] if alone else [str(row.batch_size)]),
            f"{pairs_per_s(row):.1f}",
            *(_percentile(row, share) for share, _ in zip((0.5, 0.9, 0.99), times, strict=False)),
            f"{row.first_ms:.1f}",
            _limit(row, section),
            _score(row.accuracy),
            _score(row.f1),
            *([_mebibytes(row.peak_memory_bytes)] if on_gpu else []),
            style="bold" if row is ranked[0] and len(ranked) > 1 else None,
        )
    return shown


def _server_table(rows: list[BenchRow], section: BenchSection, record: RunRecord) -> PlainTable:
    plan = section.plan
    shown = table(
        f"server: requests at random moments, p99 within {plan.slo_ms:g} ms, window {plan.window_ms:g} ms",
        *("backend", "batch", "requests/s", "p50 ms", "p99 ms", "mean batch", "sent", "failed", "target"),
        numeric=True,
        tight=True,
        caption=_caption(rows, section, record),
    )
    for row in rows:
        assert row.server is not None
        for point in sorted(row.server.curve, key=lambda point: point.rate_per_s):
            best = point.rate_per_s == row.server.best_rate_per_s
            shown.add_row(
                row.spec.backend + ("!" if row.broken_rules else ""),
                str(row.batch_size),
                f"{point.rate_per_s:.1f}",
                *(_load_percentile(point, share) for share in (0.5, 0.99)),
                f"{point.sent / max(1, len(point.batch_sizes)):.1f}",
                str(point.sent),
                str(point.failed),
                "best" if best else "kept" if point.meets_slo else "missed",
                style="bold" if best else None,
            )
    return shown


def _load_percentile(point: LoadPoint, share: float) -> str:
    return f"{quantile(point.latencies_ms, share):.1f}" if point.latencies_ms else "none"


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


def _caption(rows: list[BenchRow], section: BenchSection, record: RunRecord) -> str:
    placed = "; ".join(dict.fromkeys(f"{row.spec.backend} = {placement_line(row.placement)}" for row in rows))
    return (
        f"{model_line(record.model)}\n{placed}\n{rows[0].pairs} pairs x {section.rounds_done} rounds interleaved; "
        f"{record.data[0].source} {record.data[0].split}; {machine_line(record.environment, rows[0].placement)}; "
        f"peak main memory {_mebibytes(section.peak_rss_bytes)} MiB"
    )


def _mebibytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**20:.0f}"


def pairs_per_s(row: BenchRow) -> float:
    """Pairs in a second: over all single pairs, whose median is not their mean, or in the median pass."""
    if row.scenario == "single-stream":
        return len(row.samples_ms) * 1e3 / sum(row.samples_ms)
    return row.pairs * 1e3 / quantile(row.samples_ms, 0.5)


def _percentile(row: BenchRow, share: float) -> str:
    """A percentile, or how many samples it would take to bound it at 99% confidence."""
    needed = samples_needed(share)
    if share > 0.5 and len(row.samples_ms) < needed:
        return f"n<{needed}"
    return f"{quantile(row.samples_ms, share):.2f}"


def _warnings(rows: Sequence[BenchRow]) -> Iterator[str]:
    for row in rows:
        for rule in row.broken_rules or ():
            yield f"! INVALID {row.spec.backend} {row.scenario} batch {row.batch_size}: {rule}"
    if any(row.failed for row in rows):
        yield f"FAILED: up to {max(row.failed for row in rows)} pairs a row had no answer, or one that is not finite."
    single = [len(row.samples_ms) for row in rows if row.scenario == "single-stream"]
    short = [count for count in map(samples_needed, (0.9, 0.99)) if single and min(single) < count]
    if short:
        names = ", ".join(f"n<{count}" for count in short)
        yield f"{names}: too few samples to bound that percentile at 99% confidence; more --rounds give more."
