"""The fastest rows of a benchmark, and the reference rows of its speedups.

Standard library only, so that an invalid request fails before torch is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mrpcbench.errors import UsageError
from mrpcbench.records.figures import RelativeSpeed, relative_speed, speed
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


def reference(rows: Sequence[BenchRow], relative_to: Sequence[str] = ()) -> BenchRow:
    """The row that speedups of one scenario are relative to: the first of `references`, or else the fastest row of the
    first case. `rows` are those of the scenario, at least one."""
    return (references(rows, relative_to) or references(rows, (rows[0].case,)))[0]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The fastest row of a case in one scenario, and its speedup over the reference row `base`; None if unknown."""

    row: BenchRow
    base: BenchRow
    relative: RelativeSpeed | None


def standings(rows: Sequence[BenchRow], base: BenchRow) -> list[Standing]:
    """The fastest row of each case other than that of `base`, the largest speedup first. All have one scenario."""
    found = [
        Standing(row=row, base=base, relative=relative_speed(row, base))
        for row in fastest_of_cases(rows)
        if row.case != base.case
    ]
    return sorted(found, key=lambda one: -one.relative.times if one.relative else 0.0)


def fastest_of_cases(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """The fastest row of each case, in the order of `rows`."""
    cases = dict.fromkeys(row.case for row in rows)
    return [max((row for row in rows if row.case == case), key=lambda row: speed(row) or 0.0) for case in cases]


def fastest(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """The fastest of `rows`, then the fastest rows of other cases that may be as fast: the interval of the speedup over
    them includes 1. Empty if no row has a speed. All have one scenario."""
    known = [row for row in rows if speed(row) is not None]
    if not known:
        return []
    first = max(known, key=lambda row: speed(row) or 0.0)
    others = [row for row in fastest_of_cases(known) if row.case != first.case]
    found = {row.id: relative_speed(first, row) for row in others}
    return [first, *(row for row in others if (one := found[row.id]) and one.interval and one.interval.low <= 1)]


def ratio(row: BenchRow, base: BenchRow) -> float | None:
    """Speedup of `row` over `base`; None if either speed is unknown."""
    mine, other = speed(row), speed(base)
    return None if mine is None or other is None else mine / other
