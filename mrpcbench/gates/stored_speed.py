"""The gate of stored speed: each row of a bench record, compared with baseline records of the same machine."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from mrpcbench.gates.policy import Policy
from mrpcbench.gates.simple_metrics import Problem, absence, validity_problem
from mrpcbench.records.figures import JUDGED_QUANTILE, time_us
from mrpcbench.schema.bench_results import BenchRow, BenchSection
from mrpcbench.schema.rows import RowId
from mrpcbench.schema.verdicts import MetricResult, Verdict
from mrpcbench.statistics import holm, prediction_limit, prediction_p, quantile

# Largest number of rows that are gated by default. Each more row widens the limits of all (Holm's correction).
MOST_GATED = 5
# Valid baseline records that a prediction limit needs. With two, t at 99% is 31.8: the limit would be useless.
FEWEST_RECORDS = 3
# Probability that unchanged code exceeds any prediction limit of a comparison.
ALPHA = 0.01
# Widest limit that can pass, unless `max_slowdown` is larger: a slowdown of 30% must never pass, although it may be
# measured a few points too small.
WIDEST_LIMIT = 0.25

# The control is a fixed task that `bench` times before each round. If it differs by more than this, the machine was in
# another state. It varied by up to 8% within one state (108 runs), and by 40% between two states, like the rows.
LARGEST_MACHINE_CHANGE = 0.10

ADD_RECORDS = "add baseline records, or compare both versions live with `mrpcbench ab`"
USE_AB = "rerun it on a quiet machine, or compare both versions live with `mrpcbench ab`"


def judge_bench(baseline: Sequence[BenchSection], current: BenchSection, policy: Policy) -> tuple[MetricResult, ...]:
    """Judge each baseline row that the current record has or that is gated.

    The slowdown of a row is now / before - 1, in time per pair; `before` is the geometric mean of the valid baseline
    records. The limit is the larger of the policy's `max_slowdown` and the prediction limit, which needs at least
    `FEWEST_RECORDS` valid baseline records. A row within its limit passes. A row is inconclusive if its prediction
    limit is above both `WIDEST_LIMIT` and `max_slowdown`. A baseline record is left out if the machine itself was
    faster or slower.
    """
    limits = policy.stored_speed
    after = {row.id: row for row in current.rows}
    gated = (limits.rows or default_gated_rows(baseline)) if limits.gate else ()
    history = {name: _history(name, baseline, current) for name in dict.fromkeys((*gated, *_names(baseline)))}
    names = [name for name in history if name in gated or name in after]
    rows = [_Row(name, history[name], after.get(name) or absence(name, current), name in gated) for name in names]
    return tuple(_metric(row, limit, limits.max_slowdown) for row, limit in _predicted(rows))


def default_gated_rows(baseline: Sequence[BenchSection]) -> tuple[RowId, ...]:
    """The rows that are gated by default: the fastest offline and the single-stream row of each case, at most five."""
    names = _names(baseline)
    gated: list[RowId] = []
    for case in dict.fromkeys(name.case for name in names):
        own = [name for name in names if name.case == case]
        offline = [name for name in own if name.scenario == "offline"]
        gated += sorted(offline, key=lambda name: _rank(name, baseline))[:1]
        gated += (name for name in own if name.scenario == "single-stream")
    return tuple(gated[:MOST_GATED])


def _rank(name: RowId, baseline: Sequence[BenchSection]) -> tuple[bool, float]:
    """Sort key of the rows of a case: VALID rows first, then the fastest."""
    if valid_us := _history(name, baseline).mean_us:
        return False, valid_us
    times = [time for row in _found(name, baseline) if not isinstance(row, str) and (time := time_us(row))]
    return True, _geometric_mean(times) if times else math.inf


# --- the baseline of a row --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _History:
    """One row in the baseline records: its valid times in microseconds per pair, and the problems of the others."""

    times_us: tuple[float, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def mean_us(self) -> float | None:
        return _geometric_mean(self.times_us) if self.times_us else None

    @property
    def logs(self) -> tuple[float, ...]:
        return tuple(map(math.log, self.times_us))


@dataclass(frozen=True)
class _Row:
    """A row of the comparison before its verdict; `current` is why the current record lacks it, if it does."""

    name: RowId
    history: _History
    current: BenchRow | str
    gated: bool

    @property
    def now_us(self) -> float | None:
        return None if isinstance(self.current, str) else time_us(self.current)

    @property
    def slowdown(self) -> float | None:
        """The growth of the time per pair, as a share; negative if the row is faster."""
        return self.now_us / self.history.mean_us - 1 if self.now_us and self.history.mean_us else None

    @property
    def problem(self) -> Problem | None:
        """Why the row cannot be judged; None if it can."""
        if not self.history.times_us:
            why, count = self.history.problems[0], len(self.history.problems)
            few = f"baseline: {why.reason}"
            many = f"baseline: none of {count} records can be used; {why.reason}"
            return replace(why, reason=few if count < 2 else many)
        found = _time_or_problem(self.current)
        return replace(found, reason=f"current record: {found.reason}") if isinstance(found, Problem) else None


@dataclass(frozen=True)
class _Prediction:
    """The prediction limit of a row, as a share, and the p-values of the current time under the baseline's."""

    limit: float
    p_value: float
    adjusted_p: float


def _names(baseline: Sequence[BenchSection]) -> tuple[RowId, ...]:
    return tuple(dict.fromkeys(row.id for section in baseline for row in section.rows))


def _found(name: RowId, baseline: Sequence[BenchSection]) -> list[BenchRow | str]:
    """The row in each baseline record, or why the record lacks it."""
    return [next((row for row in section.rows if row.id == name), absence(name, section)) for section in baseline]


def _history(name: RowId, baseline: Sequence[BenchSection], current: BenchSection | None = None) -> _History:
    """The history of a row; with `current`, without the records for which the machine was in another state."""
    found = [
        (_machine_problem(section, current) if current else None) or _time_or_problem(row)
        for section, row in zip(baseline, _found(name, baseline), strict=True)
    ]
    return _History(
        times_us=tuple(item for item in found if not isinstance(item, Problem)),
        problems=tuple(item for item in found if isinstance(item, Problem)),
    )


def _time_or_problem(row: BenchRow | str) -> float | Problem:
    """Microseconds per pair of a valid `row`, or why it has no valid time; a text is why there is no row."""
    if isinstance(row, str):
        return Problem(row)
    if problem := validity_problem(row):
        return Problem(problem, USE_AB)
    return time_us(row) or Problem("the row has no samples")


def _geometric_mean(times_us: Sequence[float]) -> float:
    """The mean for ratios: a slowdown and the speedup that undoes it have the same distance from it."""
    return math.exp(fmean(map(math.log, times_us)))


def _machine_problem(before: BenchSection, current: BenchSection) -> Problem | None:
    """How the control differs from that of `before`, if the machine was in another state.

    None if it was not, or if a side has no control.
    """
    old, new = _control_us(before), _control_us(current)
    if old is None or new is None:
        return None
    ratio = new / old
    if max(ratio, 1 / ratio) <= 1 + LARGEST_MACHINE_CHANGE:
        return None
    way = "longer" if ratio > 1 else "less time"
    return Problem(
        f"the machine itself changed: a fixed task took {abs(ratio - 1):.0%} {way} than for the baseline "
        f"(at most {LARGEST_MACHINE_CHANGE:.0%})",
        USE_AB,
    )


def _control_us(section: BenchSection) -> float | None:
    """The control of a record, by the same quantile of the rounds as for its rows; None without a control."""
    return (quantile(section.control_us, JUDGED_QUANTILE) or None) if section.control_us else None


# --- limits -----------------------------------------------------------------------------------------------------------


def _predicted(rows: Sequence[_Row]) -> Iterator[tuple[_Row, _Prediction | None]]:
    """Each row with its prediction limit; None if the row is not gated or has too few records.

    Holm's step-down correction over these rows (Holm 1979): in ascending order of p, the k-th of m rows is tested at
    ALPHA / (m - k + 1), until one is not rejected. The limit of a row is that of its step.
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
    source, limit = _source(row.history, found, max_slowdown), max(max_slowdown, found.limit if found else 0.0)
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
        slack=None if row.slowdown is None or not limit else 1 - row.slowdown / limit,
    )
    if found is None:
        return metric
    test = "one-sided t prediction limit, Holm"
    return replace(metric, test=test, p_value=found.p_value, adjusted_p=found.adjusted_p)


def _source(history: _History, found: _Prediction | None, max_slowdown: float) -> str:
    """The limit and its source, as text."""
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
        return Verdict(outcome="INCONCLUSIVE", reason=row.problem.reason, advice=row.problem.advice)
    assert row.slowdown is not None
    change = f"{abs(row.slowdown):.1%} {'slower' if row.slowdown > 0 else 'faster'}"
    limit, widest = max(max_slowdown, found.limit if found else 0.0), max(max_slowdown, WIDEST_LIMIT)
    if limit > widest:
        noisy = "the baseline is too noisy or has too few records"
        reason = f"{change}; limit {source} is above {widest * 100:g}%: {noisy}"
        return Verdict(outcome="INCONCLUSIVE", reason=reason, advice=ADD_RECORDS)
    return Verdict(outcome="REGRESSION" if row.slowdown > limit else "PASS", reason=f"{change}; limit {source}")
