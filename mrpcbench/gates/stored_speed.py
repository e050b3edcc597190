"""Bench records: the speed of each row against one baseline record, or several from the same machine."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from mrpcbench.gates.policy import Policy
from mrpcbench.records.figures import JUDGED_QUANTILE, time_us
from mrpcbench.schema.bench_results import BenchRow, BenchSection
from mrpcbench.schema.rows import RowId
from mrpcbench.schema.verdicts import MetricResult, Verdict
from mrpcbench.statistics import holm, prediction_limit, prediction_p, quantile

# Rows that are gated unless the policy names them. Holm's correction widens the limit of each with their number.
MOST_GATED = 5
# Valid baseline records that a prediction limit needs. Of two, t at 99% is 31.8: the limit would be useless.
FEWEST_RECORDS = 3
# Chance that any prediction limit of a comparison is exceeded by unchanged code.
ALPHA = 0.01
# Widest limit that can pass, unless `max_slowdown` is larger: a slowdown of 30% must never pass, although it may be
# measured a few points too small.
WIDEST_LIMIT = 0.25

# Largest change of the control, a fixed task that `bench` times before each round, for records of one machine in one
# state. In one state it varied by up to 8% between 108 runs, and between two states by 40%, as the rows did.
LARGEST_MACHINE_CHANGE = 0.10

USE_AB = "rerun it on a quiet machine, or compare both versions live with `mrpcbench ab`"


def judge_bench(baseline: Sequence[BenchSection], current: BenchSection, policy: Policy) -> tuple[MetricResult, ...]:
    """Judge each row that the baseline has and the current record or the policy names.

    A row is slower by now / before - 1, as a share of the time per pair; `before` is the geometric mean of the valid
    baseline records. Its limit is the larger of the policy's `max_slowdown` and, with `FEWEST_RECORDS` valid baseline
    records or more, their prediction limit. It passes within its limit. It is inconclusive if the prediction limit is
    wider than `WIDEST_LIMIT` and than `max_slowdown`. Baseline records for which the machine itself was faster or
    slower do not count.
    """
    limits = policy.stored_speed
    history = {name: _history(name, baseline, current) for name in _names(baseline)}
    after = {row.id: row for row in current.rows}
    gated = (limits.rows or rows_that_decide(baseline)) if limits.gate else ()
    names = [name for name in dict.fromkeys((*gated, *history)) if name in gated or name in after]
    rows = [_Row(name, history.get(name, _History()), after.get(name), name in gated) for name in names]
    return tuple(_metric(row, limit, limits.max_slowdown) for row, limit in _predicted(rows))


def rows_that_decide(baseline: Sequence[BenchSection]) -> tuple[RowId, ...]:
    """The fastest offline row and single pairs of each case, in the order of the rows; the first five."""
    names = _names(baseline)
    deciding: list[RowId] = []
    for case in dict.fromkeys(name.case for name in names):
        own = [name for name in names if name.case == case]
        offline = [name for name in own if name.scenario == "offline"]
        deciding += sorted(offline, key=lambda name: _rank(name, baseline))[:1]
        deciding += (name for name in own if name.scenario == "single-stream")
    return tuple(deciding[:MOST_GATED])


def _rank(name: RowId, baseline: Sequence[BenchSection]) -> tuple[bool, float]:
    """Sorts the rows of a case: those with a VALID time before those without, the fastest first."""
    if valid_us := _history(name, baseline).mean_us:
        return False, valid_us
    times = [time for row in _found(name, baseline) if row and (time := time_us(row))]
    return True, _geometric_mean(times) if times else math.inf


# --- the baseline of a row --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _History:
    """One row in the baseline records: microseconds per pair where it is valid, and why not where it is not."""

    times_us: tuple[float, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def mean_us(self) -> float | None:
        return _geometric_mean(self.times_us) if self.times_us else None

    @property
    def logs(self) -> tuple[float, ...]:
        return tuple(map(math.log, self.times_us))


@dataclass(frozen=True)
class _Row:
    """A row of the comparison, before it is judged."""

    name: RowId
    history: _History
    current: BenchRow | None
    gated: bool

    @property
    def now_us(self) -> float | None:
        return None if self.current is None else time_us(self.current)

    @property
    def slowdown(self) -> float | None:
        """The share by which the time per pair has grown; negative where the row is faster."""
        return self.now_us / self.history.mean_us - 1 if self.now_us and self.history.mean_us else None

    @property
    def problem(self) -> str | None:
        """Why the row cannot be judged."""
        if not self.history.times_us:
            why = self.history.problems[0] if self.history.problems else "it has no such row"
            count = len(self.history.problems)
            return f"baseline: {why}" if count < 2 else f"baseline: none of {count} records can be used; {why}"
        found = _time_or_problem(self.current)
        return f"current record: {found}" if isinstance(found, str) else None


@dataclass(frozen=True)
class _Prediction:
    """The prediction limit of a row, as a share; p-values of the current time being one of the baseline's."""

    limit: float
    p_value: float
    adjusted_p: float


def _names(baseline: Sequence[BenchSection]) -> tuple[RowId, ...]:
    return tuple(dict.fromkeys(row.id for section in baseline for row in section.rows))


def _found(name: RowId, baseline: Sequence[BenchSection]) -> list[BenchRow | None]:
    """The row in each baseline record; None where a record lacks it."""
    return [next((row for row in section.rows if row.id == name), None) for section in baseline]


def _history(name: RowId, baseline: Sequence[BenchSection], current: BenchSection | None = None) -> _History:
    """A row in the baseline records; with `current`, in those for which the machine was in the same state."""
    found = [
        (_machine_problem(section, current) if current else None) or _time_or_problem(row)
        for section, row in zip(baseline, _found(name, baseline), strict=True)
    ]
    return _History(
        times_us=tuple(item for item in found if not isinstance(item, str)),
        problems=tuple(item for item in found if isinstance(item, str)),
    )


def _time_or_problem(row: BenchRow | None) -> float | str:
    """Microseconds per pair of a valid `row`, or why it decides nothing."""
    if row is None:
        return "it has no such row"
    if row.broken_rules is None:
        return f"the row was not judged valid; {USE_AB}"
    if row.broken_rules:
        return f"the row is INVALID: {'; '.join(row.broken_rules)}; {USE_AB}"
    return time_us(row) or "the row has no samples"


def _geometric_mean(times_us: Sequence[float]) -> float:
    """A slowdown and the speed-up that undoes it are equally far from this mean."""
    return math.exp(fmean(map(math.log, times_us)))


def _machine_problem(before: BenchSection, current: BenchSection) -> str | None:
    """Why the machine was in another state than for `before`, according to the control; None where a side has none."""
    old, new = _control_us(before), _control_us(current)
    if old is None or new is None:
        return None
    ratio = new / old
    if max(ratio, 1 / ratio) <= 1 + LARGEST_MACHINE_CHANGE:
        return None
    way = "longer" if ratio > 1 else "less time"
    return (
        f"the machine itself changed: a fixed task took {abs(ratio - 1):.0%} {way} than for the baseline "
        f"(at most {LARGEST_MACHINE_CHANGE:.0%}); {USE_AB}"
    )


def _control_us(section: BenchSection) -> float | None:
    """The control of a record, by the quantile of the rounds that its rows are judged by."""
    return (quantile(section.control_us, JUDGED_QUANTILE) or None) if section.control_us else None


# --- limits -----------------------------------------------------------------------------------------------------------


def _predicted(rows: Sequence[_Row]) -> Iterator[tuple[_Row, _Prediction | None]]:
    """Each row with its prediction limit, where it is gated and has the records for one.

    Holm's step-down correction over these rows (Holm 1979): with the p-values in ascending order, the k-th of m is
    tested at ALPHA / (m - k + 1), and the first that is not rejected ends it. A limit is that of the row's own step.
    """
    tested = [row for row in rows if row.gated and not row.problem and len(row.history.times_us) >= FEWEST_RECORDS]
    p_values = {row.name: prediction_p(row.history.logs, math.log(row.now_us or 0)) for row in tested}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    ascending = sorted(p_values, key=lambda name: p_values[name])
    rejected = sum(p <= ALPHA for p in adjusted.values())
    for row in rows:
        found = None
        if row.name in p_values:
            step = min(ascending.index(row.name), rejected)
            log_limit = prediction_limit(row.history.logs, ALPHA / (len(tested) - step))
            found = _Prediction(
                limit=math.expm1(log_limit - fmean(row.history.logs)),
                p_value=p_values[row.name],
                adjusted_p=adjusted[row.name],
            )
        yield row, found


# --- verdicts ---------------------------------------------------------------------------------------------------------


def _metric(row: _Row, found: _Prediction | None, max_slowdown: float) -> MetricResult:
    source = _source(row.history, found, max_slowdown)
    metric = MetricResult(
        metric=str(row.name),
        gated=row.gated,
        verdict=_verdict(row, found, max_slowdown, source),
        baseline=row.history.mean_us,
        current=row.now_us,
        unit="µs/request" if row.name.scenario == "server" else "µs/pair",
        change=None if row.slowdown is None else row.slowdown * 100,
        change_unit="%",
        limit=source,
    )
    if found is None:
        return metric
    test = "one-sided t prediction limit, Holm"
    return replace(metric, test=test, p_value=found.p_value, adjusted_p=found.adjusted_p)


def _source(history: _History, found: _Prediction | None, max_slowdown: float) -> str:
    """The limit in words, and where it comes from."""
    count, lost = len(history.times_us), len(history.problems)
    notes = [f"{lost} of {count + lost} baseline records left out"] if lost and count else []
    if found is None:
        if 0 < count < FEWEST_RECORDS <= count + lost:
            notes.append(f"a prediction limit needs {FEWEST_RECORDS}")
        return f"{max_slowdown * 100:g}% ({'; '.join(('--max-slowdown', *notes))})"
    predicted = f"{1 - ALPHA:.0%} prediction limit of {count} baseline records"
    if found.limit > max_slowdown:
        return f"{found.limit * 100:.1f}% ({'; '.join((predicted, *notes))})"
    notes.insert(0, f"the {predicted} is {found.limit * 100:.1f}%")
    return f"{max_slowdown * 100:g}% ({'; '.join(('--max-slowdown', *notes))})"


def _verdict(row: _Row, found: _Prediction | None, max_slowdown: float, source: str) -> Verdict:
    if row.problem:
        return Verdict(outcome="INCONCLUSIVE", reason=row.problem)
    assert row.slowdown is not None
    change = f"{abs(row.slowdown):.1%} {'slower' if row.slowdown > 0 else 'faster'}"
    limit, widest = max(max_slowdown, found.limit if found else 0.0), max(max_slowdown, WIDEST_LIMIT)
    if limit > widest:
        reason = (
            f"{change}; limit {source} is above {widest * 100:g}%: the baseline is too noisy or has too few records; "
            "add baseline records, or compare both versions live with `mrpcbench ab`"
        )
        return Verdict(outcome="INCONCLUSIVE", reason=reason)
    return Verdict(outcome="REGRESSION" if row.slowdown > limit else "PASS", reason=f"{change}; limit {source}")
