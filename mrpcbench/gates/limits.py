"""Limits without a baseline: each metric of a record checked against a fixed bound."""

from collections.abc import Iterator, Sequence

from mrpcbench.gates.metrics import METRICS, Limit
from mrpcbench.gates.simple_metrics import Problem, absence, limit_metric, undecided_metric, validity_problem
from mrpcbench.schema.bench_results import BenchRow, BenchSection
from mrpcbench.schema.records import BenchRecord, Record
from mrpcbench.schema.rows import RowId
from mrpcbench.schema.verdicts import MetricResult

Named = tuple[str, Record]

RERUN = "run it again on a quiet machine"


def judge_limits(records: Sequence[Named], limits: Sequence[Limit]) -> tuple[MetricResult, ...]:
    """Check every named record against every limit.

    A limit applies to every row that has its metric, or to the row that it names. It is inconclusive for a row that is
    INVALID or whose value is unknown, and if no row has the metric.
    """
    several = len(records) > 1
    return tuple(
        metric
        for limit in limits
        for name, record in records
        for metric in _judged(record, limit, f"{name}: " if several else "")
    )


def _judged(record: Record, limit: Limit, prefix: str) -> Iterator[MetricResult]:
    metric = METRICS[limit.metric]
    values = [(row, value) for row, value in metric.values(record) if _is_meant(row, limit)]

    def title(row: RowId | None) -> str:
        return f"{prefix}{f'{row}: ' if row else ''}{limit.side} {limit.metric}"

    for row, value in values:
        name = title(row.id if row else None)
        if problem := _problem(record, row, value, limit):
            yield undecided_metric(name, value, problem, limit.bound, limit.side, metric.unit)
        elif value is not None:
            yield limit_metric(name, value, limit.bound, limit.side, metric.unit)
    if not values:
        name = title(limit.row)
        yield undecided_metric(name, None, _missing(record, limit), limit.bound, limit.side, metric.unit)


def _is_meant(row: BenchRow | None, limit: Limit) -> bool:
    return limit.row is None or (row is not None and row.id == limit.row)


def _problem(record: Record, row: BenchRow | None, value: float | None, limit: Limit) -> Problem | None:
    """Why a value cannot be judged; None if it can. A speedup is as reliable as its reference row."""
    if row and (found := validity_problem(row)):
        return Problem(found, RERUN)
    if value is None and row:
        return Problem(f"no {limit.metric}: too few samples", "use more --rounds")
    if value is None:
        return Problem(f"the record has no {limit.metric}")
    if row and limit.metric == "speedup" and isinstance(record, BenchRecord) and row.summary:
        base = next(item for item in record.bench.rows if str(item.id) == row.summary.reference)
        if found := validity_problem(base):
            return Problem(f"reference row {base.id}: {found}", RERUN)
    return None


def _missing(record: Record, limit: Limit) -> Problem:
    """Why no row of `record` has the metric of `limit`."""
    if not isinstance(record, BenchRecord):
        return Problem(f"the record has no {limit.metric}")
    section: BenchSection = record.bench
    if limit.row is None:
        return Problem(f"no row has {limit.metric}")
    has_row = any(row.id == limit.row for row in section.rows)
    return Problem(f"the row has no {limit.metric}" if has_row else absence(limit.row, section))
