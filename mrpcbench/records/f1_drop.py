"""The loss of F1 of a benchmark row against the reference row, with its interval, from the counts that a record holds.

A record has no prediction of a single pair, except those of the reference row, and no true label. But accuracy, F1 and
label agreement give the counts of a paired comparison, except one: how many lost pairs have label 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mrpcbench.records.scores import f1_difference_interval
from mrpcbench.schema.bench_results import BenchRow


@dataclass(frozen=True, kw_only=True)
class F1Drop:
    """Loss of F1 in points (hundredths); negative for a gain. `bound` is the upper end of its 95% interval."""

    points: float
    bound: float


@dataclass(frozen=True)
class _Counts:
    """Wrong answers and true positives of a row; `hits` is None if F1 is 1, which does not give them."""

    wrong: int
    hits: int | None


def f1_drop(row: BenchRow, base: BenchRow) -> F1Drop | None:
    """The loss of F1 of `row` against `base`, whose answers `row.agreement` was computed from.

    Both answered the same pairs, so the interval is that of the paired bootstrap (`scores.f1_difference_interval`). It
    is computed for the least and the largest number of lost pairs that can have label 1, and the worse bound counts:
    the variance of the difference is, to first order, linear in that number. None if the counts are unknown or
    contradict each other.
    """
    agreement = 1.0 if row is base else row.agreement
    mine, other = _counts(row), _counts(base)
    if mine is None or other is None or agreement is None or row.pairs != base.pairs or row.failed or base.failed:
        return None
    if mine.hits is None and row.f1 is not None and base.f1 is not None:
        return F1Drop(points=100 * (base.f1 - row.f1), bound=0.0)  # no resample of right answers has a lower F1
    different = _whole(row.pairs * (1 - agreement))
    if different == 0 and mine == other:
        return F1Drop(points=0.0, bound=0.0)
    drops = []
    for cells in _tables(mine, other, different, row.pairs):
        label, before, after = (np.repeat([cell[at] for cell in cells], [cell[3] for cell in cells]) for at in range(3))
        change, interval = f1_difference_interval(before, after, label)
        drops.append(F1Drop(points=-100 * change, bound=-100 * interval.low))
    return max(drops, key=lambda drop: drop.bound, default=None)


def _counts(row: BenchRow) -> _Counts | None:
    """The counts of a row; None if it has no scores, or if these are not of its pairs."""
    if row.accuracy is None or row.f1 is None:
        return None
    wrong = _whole(row.pairs * (1 - row.accuracy))
    if wrong == 0:
        return _Counts(0, None if row.f1 else 0)  # an F1 of 0 / 0 is 0: no pair has label 1
    if wrong is None:
        return None
    # F1 = 2 TP / (2 TP + wrong)
    hits = _whole(row.f1 * wrong / (2 * (1 - row.f1))) if row.f1 < 1 else None
    return None if hits is None else _Counts(wrong, hits)


def _tables(
    mine: _Counts, other: _Counts, different: int | None, pairs: int
) -> Iterator[tuple[tuple[int, int, int, int], ...]]:
    """The possible tables with the fewest and the most lost pairs of label 1; none if the counts contradict each other.

    A cell is (label, answer of the reference, answer of the row, count). The label of a pair that both got wrong does
    not matter to F1; it is set to 1.
    """
    if different is None or mine.hits is None or (different + other.wrong - mine.wrong) % 2:
        return
    gained, lost = (different + other.wrong - mine.wrong) // 2, (different - other.wrong + mine.wrong) // 2
    possible = []
    for lost_ones in range(max(lost, -1) + 1):
        # With an F1 of 1 the reference got every answer right, so that no pair is gained.
        gained_ones = lost_ones + mine.hits - other.hits if other.hits is not None else 0
        both_hit, both_wrong = mine.hits - gained_ones, mine.wrong - lost
        rest = pairs - both_hit - both_wrong - gained - lost
        counts = (both_hit, lost_ones, gained_ones, both_wrong, rest, lost - lost_ones, gained - gained_ones)
        if min(counts) >= 0:
            possible.append(tuple((*cell, count) for cell, count in zip(_CELLS, counts, strict=True)))
    yield from possible[:1] + possible[1:][-1:]


# Label, answer of the reference, answer of the row.
_CELLS = ((1, 1, 1), (1, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 0), (0, 0, 1), (0, 1, 0))


def _whole(count: float) -> int | None:
    """`count` as an integer; None if it is not within rounding of one."""
    return round(count) if abs(count - round(count)) < 1e-6 * max(1.0, count) else None
