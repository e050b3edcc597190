"""Rows of a benchmark in the order that was asked for, the best of them, and the one that the others are held against.

Standard library only, so that what was asked can be refused before anything heavy is loaded.
"""

from collections.abc import Callable, Mapping, Sequence

from mrpcbench.contenders import Field
from mrpcbench.errors import UsageError
from mrpcbench.figures import joules_per_thousand, percentile_ms, speed
from mrpcbench.plans import BenchView, SortKey
from mrpcbench.rows import RowId, RowSelector
from mrpcbench.schema import BenchRow

# The figure by which rows are sorted, smaller is better; None where it is unknown.
COSTS: Mapping[SortKey, Callable[[BenchRow], float | None]] = {
    "speed": lambda row: _negative(speed(row)),
    "p50": lambda row: percentile_ms(row, 0.5),
    "p99": lambda row: percentile_ms(row, 0.99),
    "first": lambda row: row.first_ms,
    "memory": lambda row: row.peak_memory_bytes,
    "energy": joules_per_thousand,
    "given": lambda row: _negative(speed(row)),
}


def check_view(view: BenchView, entered: Field) -> None:
    """Raise `UsageError` where `view` is relative to a row that a run of the contenders `entered` cannot have."""
    rows = entered.row_ids()
    for text in view.relative_to:
        try:
            selector = RowSelector.parse(text)
        except ValueError as error:
            raise UsageError(f"--relative-to: {error}, or CASE or CASE:BATCH") from None
        if not any(map(selector.matches, rows)):
            raise UsageError(f"--relative-to {text}: no row of this run; name one of {', '.join(map(str, rows))}")


def ranked(rows: Sequence[BenchRow], sort: SortKey) -> list[BenchRow]:
    """Best first by `sort`, rows for which it is unknown last; as given for `given`, and among equals."""
    if sort == "given":
        return list(rows)
    costs = [COSTS[sort](row) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (costs[index] is None, costs[index] or 0))
    return [rows[index] for index in order]


def is_known(rows: Sequence[BenchRow], sort: SortKey) -> bool:
    """Whether any of `rows` has the figure of `sort`."""
    return any(COSTS[sort](row) is not None for row in rows)


def best(rows: Sequence[BenchRow], sort: SortKey) -> list[BenchRow]:
    """The best of `rows` by `sort` (`given`: the fastest) and its equals; none where no row is better than another."""
    costs = [COSTS[sort](row) for row in rows]
    least = min((cost for cost in costs if cost is not None), default=None)
    found = [row for row, cost in zip(rows, costs, strict=True) if cost is not None and cost == least]
    return found if len(found) < len(rows) else []


def references(rows: Sequence[BenchRow], relative_to: Sequence[str]) -> list[BenchRow]:
    """The rows of one table that `relative_to` names, each once; of several that one name selects, the fastest."""
    found: dict[RowId, BenchRow] = {}
    for selector in map(RowSelector.parse, relative_to):
        if named := [row for row in rows if selector.matches(row.id)]:
            first = ranked(named, "speed")[0]
            found.setdefault(first.id, first)
    return list(found.values())


def ratio(row: BenchRow, base: BenchRow) -> float | None:
    """Speed of `row` in multiples of that of `base`; None where either is unknown."""
    mine, other = speed(row), speed(base)
    return None if mine is None or other is None else mine / other


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
