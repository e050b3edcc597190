"""The summary of each benchmark row, by the functions that the tables use. Standard library only."""

from dataclasses import replace

from mrpcbench.records.figures import best_load, load_percentile_ms, median_speedup, percentile_ms, speed
from mrpcbench.records.ranking import ratio, reference
from mrpcbench.schema.bench_results import BenchRow, BenchSection, RowSummary


def summarised(section: BenchSection) -> BenchSection:
    """`section` with the summary of every row, which replaces any other summary.

    A speedup is relative to the fastest row of the scenario's first case.
    """
    return replace(section, rows=tuple(replace(row, summary=_summary(row, section)) for row in section.rows))


def _summary(row: BenchRow, section: BenchSection) -> RowSummary:
    rate = speed(row)
    if rate is None:
        return RowSummary()
    rivals = [other for other in section.rows if other.scenario == row.scenario]
    base = reference(rivals)
    is_reference = base is row
    return RowSummary(
        pairs_per_s=rate,
        p50_ms=_latency_ms(row, 0.5),
        p90_ms=_latency_ms(row, 0.9),
        p99_ms=_latency_ms(row, 0.99),
        speedup=None if is_reference else ratio(row, base) if row.scenario == "server" else median_speedup(row, base),
        reference=None if is_reference else str(base.id),
    )


def _latency_ms(row: BenchRow, share: float) -> float | None:
    """A quantile of the time of one pair, or of one request at the best load, in milliseconds; None for offline."""
    if row.scenario == "offline":
        return None
    load = best_load(row)
    return load_percentile_ms(load, share) if load else percentile_ms(row, share)
