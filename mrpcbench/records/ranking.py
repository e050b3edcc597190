"""The fastest rows of a benchmark, and the reference rows of its speedups.

Standard library only, so that an invalid request fails before torch is loaded.
"""

from collections.abc import Sequence

from mrpcbench.errors import UsageError
from mrpcbench.records.figures import speed
from mrpcbench.schema.bench_requests import BenchView
from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.schema.cases import Suite
from mrpcbench.schema.rows import RowId, RowSelector


def check_view(view: BenchView, suite: Suite) -> None:
    """Raise `UsageError` if `view` names a reference row that `suite` does not have."""
    rows = suite.rows()
    for text in view.relative_to:
        try:
            selector = RowSelector.parse(text)
        except ValueError as error:
            raise UsageError(f"--relative-to: {error}, or as CASE or CASE:BATCH") from None
        if not any(map(selector.matches, rows)):
            raise UsageError(f"--relative-to {text}: no row of this run; name one of {', '.join(map(str, rows))}")


def best(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """The fastest of `rows`, several if they tie; empty if all rows are equally fast."""
    speeds = [speed(row) for row in rows]
    most = max((found for found in speeds if found is not None), default=None)
    fastest = [row for row, found in zip(rows, speeds, strict=True) if found is not None and found == most]
    return fastest if len(fastest) < len(rows) else []


def references(rows: Sequence[BenchRow], relative_to: Sequence[str]) -> list[BenchRow]:
    """The rows of one table that `relative_to` names, each once; if a name selects several rows, their fastest."""
    found: dict[RowId, BenchRow] = {}
    for selector in map(RowSelector.parse, relative_to):
        if named := [row for row in rows if selector.matches(row.id)]:
            first = max(named, key=lambda row: speed(row) or 0.0)
            found.setdefault(first.id, first)
    return list(found.values())


def ratio(row: BenchRow, base: BenchRow) -> float | None:
    """Speedup of `row` over `base`; None if either speed is unknown."""
    mine, other = speed(row), speed(base)
    return None if mine is None or other is None else mine / other
