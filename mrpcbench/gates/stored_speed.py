"""Bench records: speed against a record of another time."""

from collections.abc import Sequence

from mrpcbench.figures import speed
from mrpcbench.policy import Policy
from mrpcbench.rows import RowId
from mrpcbench.schema import BenchRow, BenchSection
from mrpcbench.verdicts import MetricResult, Verdict

# Rows of a benchmark that are gated unless the policy names them: more would need a larger change to be believed.
MOST_GATED = 5


def judge_bench(baseline: BenchSection, current: BenchSection, policy: Policy) -> tuple[MetricResult, ...]:
    """The speed of each row that the baseline or the policy names, against that of the same row."""
    limits = policy.stored_speed
    before, after = ({row.id: row for row in section.rows} for section in (baseline, current))
    gated = (limits.rows or rows_that_decide(baseline.rows)) if limits.gate else ()
    names = dict.fromkeys((*gated, *before))
    return tuple(
        _stored_speed(name, before.get(name), after.get(name), limits.change, gated=name in gated)
        for name in names
        if name in gated or name in after
    )


def rows_that_decide(rows: Sequence[BenchRow]) -> tuple[RowId, ...]:
    """Of each contender the fastest offline row and single pairs, in the order of the rows; the first five."""
    names: list[RowId] = []
    for name in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == name]
        offline = [row for row in own if row.scenario == "offline"]
        fastest = [max(offline, key=lambda row: _speed(row) or 0.0)] if offline else []
        names += [row.id for row in (*fastest, *(row for row in own if row.scenario == "single-stream"))]
    return tuple(names[:MOST_GATED])


def _stored_speed(
    name: RowId, before: BenchRow | None, after: BenchRow | None, limit: float, *, gated: bool
) -> MetricResult:
    was, now = (None if row is None else _speed(row) for row in (before, after))
    change = now / was - 1 if was and now else None
    known = after or before
    return MetricResult(
        metric=str(name),
        gated=gated,
        verdict=_speed_verdict(before, after, change, limit),
        baseline=was,
        current=now,
        unit="requests/s" if known and known.scenario == "server" else "pairs/s",
        change=None if change is None else change * 100,
        change_unit="%",
        limit=f"slower by more than {limit * 100:g}%; passes where it is faster by more",
    )


def _speed_verdict(before: BenchRow | None, after: BenchRow | None, change: float | None, limit: float) -> Verdict:
    for row, side in ((before, "baseline"), (after, "current record")):
        if row is None or row.broken_rules is None or row.broken_rules:
            return Verdict(outcome="INCONCLUSIVE", reason=f"{side}: {_unfit(row)}")
    if change is None:
        return Verdict(outcome="INCONCLUSIVE", reason="one of them has no speed")
    if abs(change) <= limit:
        reason = f"{change:+.1%} is within the drift of {limit * 100:g}% between two sessions; `mrpcbench ab` decides"
        return Verdict(outcome="INCONCLUSIVE", reason=reason)
    way = "slower" if change < 0 else "faster"
    reason = f"{abs(change):.1%} {way}, and {limit * 100:g}% may be drift"
    return Verdict(outcome="REGRESSION" if change < 0 else "PASS", reason=reason)


def _unfit(row: BenchRow | None) -> str:
    """Why `row` decides nothing."""
    if row is None:
        return "it has no such row"
    return f"the row is INVALID: {'; '.join(row.broken_rules)}" if row.broken_rules else "the row was not judged valid"


def _speed(row: BenchRow) -> float | None:
    """Pairs or requests a second; None without samples, or where one took no time at all."""
    return speed(row) if row.scenario == "server" or min(row.samples_ms, default=0.0) > 0 else None
