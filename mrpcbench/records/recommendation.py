"""Which case of a benchmark to deploy: the fastest whose row is VALID and that meets the limits.

Pure functions of a record. All results are flat, so that they are the JSON document of `report` too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mrpcbench.records.f1_drop import F1Drop, f1_drop
from mrpcbench.records.figures import RelativeSpeed, relative_speed, speed
from mrpcbench.schema.bench_results import BenchRow, BenchSection
from mrpcbench.schema.gate_requests import ReportPlan
from mrpcbench.schema.records import BenchRecord
from mrpcbench.schema.requests import Scenario
from mrpcbench.schema.rows import RowId
from mrpcbench.schema.verdicts import Outcome
from mrpcbench.statistics import samples_needed

# Throughput is that of the first of these scenarios that the record has.
RANKED_BY: tuple[Scenario, ...] = ("offline", "server", "single-stream")
# The knee is the smallest batch size that reaches this share of the best throughput.
KNEE_SHARE = 0.9
NO_LIMITS = ReportPlan()


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A case as one to deploy, by its fastest row that is VALID and keeps F1.

    `outcome` is PASS for an eligible case, REGRESSION for one that misses a limit, and INCONCLUSIVE for one that cannot
    be judged; `reason` says why. `row` and its figures are of the fastest row if no row can be deployed. `p50_ms` and
    `p99_ms` are of the case's single-stream row, and None unless that is VALID. The drops of F1 are in points.
    `slowdown` is the speedup of the recommended case over this one, with its 95% interval.
    """

    case: str
    outcome: Outcome
    reason: str
    row: str | None = None
    batch_size: int | None = None
    pairs_per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    f1: float | None = None
    f1_drop: float | None = None
    f1_drop_bound: float | None = None
    cost_per_million: float | None = None
    slowdown: float | None = None
    slowdown_low: float | None = None
    slowdown_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Knee:
    """The smallest of a case's VALID offline batch sizes with at least `KNEE_SHARE` of the best one's throughput.

    `share` is its share of the best. `memory_bytes` is a bound of the GPU memory that it takes, None if unknown: what
    its engine had reserved, which includes CUDA graphs and other engines of the process, else that of the process.
    """

    case: str
    batch_size: int
    pairs_per_s: float
    share: float
    best_batch_size: int
    memory_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The case to deploy, first among `candidates`; these are ordered from eligible to excluded, then by speed.

    `chosen` is its name, or None if no case is eligible. `reference` is the case that F1 is compared with. `front`
    names the cases on the Pareto front of throughput against the median time of one pair; `front_of` counts the cases
    that have both figures.
    """

    chosen: str | None
    reference: str
    scenario: Scenario
    candidates: tuple[Candidate, ...]
    front: tuple[str, ...]
    front_of: int
    knee: Knee | None

    @property
    def best(self) -> Candidate | None:
        """The case to deploy."""
        return self.candidates[0] if self.chosen is not None else None

    @property
    def outcome(self) -> Outcome:
        """PASS if a case is eligible; REGRESSION if every case misses a limit; else INCONCLUSIVE."""
        found = {one.outcome for one in self.candidates}
        return "PASS" if "PASS" in found else "REGRESSION" if found == {"REGRESSION"} else "INCONCLUSIVE"


def recommend(record: BenchRecord, plan: ReportPlan = NO_LIMITS) -> Recommendation | None:
    """The case of `record` to deploy within the limits of `plan`; None if the run did not end, or has no row.

    A case is eligible if a row of it is VALID with a verified graph, keeps F1 by the bound of its interval, and if the
    case's single-stream row is VALID with a p99 within the limit. The fastest eligible case is recommended.
    """
    section = record.bench
    if not record.complete or not section.rows:
        return None
    scenario = next(one for one in RANKED_BY if any(row.scenario == one for row in section.rows))
    base = _base(section)
    reference = base.case if base else section.rows[0].case
    rows = {
        name: [row for row in section.rows if row.case == name]
        for name in dict.fromkeys(row.case for row in section.rows)
    }
    deployed = {name: _deployed(of_case, scenario, base, reference, plan) for name, of_case in rows.items()}
    found = [_judged(name, rows[name], *deployed[name], plan) for name in rows]
    found.sort(key=lambda one: (one.outcome != "PASS", -(one.pairs_per_s or 0.0)))
    chosen = found[0].case if found[0].outcome == "PASS" else None
    best = deployed[chosen][0] if chosen else None
    points = [one for one in found if deployed[one.case][1] is None and one.p50_ms is not None]
    return Recommendation(
        chosen=chosen,
        reference=reference,
        scenario=scenario,
        candidates=tuple(_with_slowdown(one, deployed[one.case][0], best) for one in found),
        front=pareto_front(points),
        front_of=len(points),
        knee=knee(rows[chosen]) if chosen else None,
    )


def pareto_front(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """The cases that no other beats in throughput and in the median time of one pair, the fastest first.

    Cases without both figures are left out.
    """
    points = [
        (one.pairs_per_s, -one.p50_ms, one.case)
        for one in candidates
        if one.pairs_per_s is not None and one.p50_ms is not None
    ]
    front = [
        (rate, case)
        for rate, latency, case in points
        if not any(
            other >= rate and quicker >= latency and (other, quicker) != (rate, latency) for other, quicker, _ in points
        )
    ]
    return tuple(case for _, case in sorted(front, reverse=True))


def knee(rows: Sequence[BenchRow]) -> Knee | None:
    """The knee of the throughput curve of one case; None with fewer than two VALID offline batch sizes."""
    valid = [row for row in rows if row.scenario == "offline" and _is_valid(row)]
    speeds = {row.batch_size: (found, row) for row in valid if (found := speed(row)) is not None}
    if len(speeds) < 2:
        return None
    most, best = max(((found, size) for size, (found, _) in speeds.items()))
    size = min(size for size, (found, _) in speeds.items() if found >= KNEE_SHARE * most)
    rate, row = speeds[size]
    return Knee(
        case=row.case,
        batch_size=size,
        pairs_per_s=rate,
        share=rate / most,
        best_batch_size=best,
        memory_bytes=row.peak_reserved_bytes or (row.resources.gpu_memory_process_bytes if row.resources else None),
    )


# --- one case ---------------------------------------------------------------------------------------------------------

# Why a row or a case is not eligible: the outcome and the reason.
Problem = tuple[Outcome, str]


def _base(section: BenchSection) -> BenchRow | None:
    """The row whose answers the label agreement was computed from; None if the record has no such answers."""
    if section.reference is None:
        return None
    name = RowId.parse(section.reference.row)
    return next((row for row in section.rows if row.id == name), None)


def _deployed(
    rows: Sequence[BenchRow], scenario: Scenario, base: BenchRow | None, reference: str, plan: ReportPlan
) -> tuple[BenchRow | None, Problem | None, F1Drop | None]:
    """The fastest row of a case without a problem, else its fastest row with its problem; and that row's drop of F1."""
    ranked = sorted((row for row in rows if row.scenario == scenario), key=lambda row: speed(row) or 0.0, reverse=True)
    if not ranked:
        return None, ("INCONCLUSIVE", f"no {scenario} row"), None
    tried = []
    for row in ranked:
        # Without paired answers, the reference case can still be compared with itself.
        compared = base or (row if row.case == reference else None)
        drop = f1_drop(row, compared) if compared else None
        problem = _row_problem(row) or _f1_problem(row, drop, reference, plan)
        tried.append((row, problem, drop))
        if problem is None:
            return row, None, drop
    # A row that cannot be judged could be the one to deploy, so that the case is not known to miss a limit.
    unsure = [one for one in tried if one[1] and one[1][0] == "INCONCLUSIVE"]
    row, problem, drop = (unsure or tried)[0]
    return row, problem, drop


def short_id(row: BenchRow) -> str:
    """The text form of a row without its case."""
    return str(row.id).removeprefix(f"{row.case} ")


def _is_valid(row: BenchRow) -> bool:
    return row.broken_rules == ()


def _validity_problem(row: BenchRow) -> str | None:
    if row.broken_rules is None:
        return f"the validity of {short_id(row)} was not checked"
    return f"{short_id(row)} is INVALID: {'; '.join(row.broken_rules)}" if row.broken_rules else None


def _row_problem(row: BenchRow) -> Problem | None:
    if found := _validity_problem(row):
        return "INCONCLUSIVE", found
    if speed(row) is None:
        return "INCONCLUSIVE", f"{short_id(row)} has no throughput"
    if row.model.proven is False:
        return "INCONCLUSIVE", "its graph is UNVERIFIED; verify it with `mrpcbench export`"
    return None


def _f1_problem(row: BenchRow, drop: F1Drop | None, reference: str, plan: ReportPlan) -> Problem | None:
    if plan.max_f1_drop is None:
        return None
    if drop is None:
        unknown = "is not in the record"
        if row.f1 is not None:
            unknown = f"cannot be compared with that of {reference}: the record lacks answers; run `bench` again"
        return "INCONCLUSIVE", f"the F1 of {short_id(row)} {unknown}"
    if drop.bound <= plan.max_f1_drop:
        return None
    text = f"F1 drops by {drop.points:.2f} points from {reference}, by up to {drop.bound:.2f} in its 95% interval"
    # The interval holds values within the limit and beyond it, so more pairs could decide.
    outcome: Outcome = "REGRESSION" if drop.points > plan.max_f1_drop else "INCONCLUSIVE"
    return outcome, f"{text}; at most {plan.max_f1_drop:g} is allowed"


def _p99_problem(single: BenchRow | None, limit: float) -> Problem | None:
    if single is None:
        return "INCONCLUSIVE", "no single-stream row, which --max-p99-ms needs"
    if found := _validity_problem(single):
        return "INCONCLUSIVE", found
    p99 = single.summary.p99_ms if single.summary else None
    if p99 is None:
        return (
            "INCONCLUSIVE",
            f"p99 needs {samples_needed(0.99)} samples, and single-stream has {len(single.samples_ms)}",
        )
    return None if p99 <= limit else ("REGRESSION", f"p99 of one pair is {p99:.4g} ms, above {limit:g}")


def _judged(
    case: str,
    rows: Sequence[BenchRow],
    row: BenchRow | None,
    problem: Problem | None,
    drop: F1Drop | None,
    plan: ReportPlan,
) -> Candidate:
    single = next((one for one in rows if one.scenario == "single-stream"), None)
    if problem is None and plan.max_p99_ms is not None:
        problem = _p99_problem(single, plan.max_p99_ms)
    rate = speed(row) if row else None
    latency = single.summary if single and _is_valid(single) else None
    return Candidate(
        case=case,
        outcome=problem[0] if problem else "PASS",
        reason=problem[1] if problem else "",
        row=str(row.id) if row else None,
        batch_size=row.batch_size if row else None,
        pairs_per_s=rate,
        p50_ms=latency.p50_ms if latency else None,
        p99_ms=latency.p99_ms if latency else None,
        f1=row.f1 if row else None,
        f1_drop=drop.points if drop else None,
        f1_drop_bound=drop.bound if drop else None,
        cost_per_million=plan.price_per_hour / 3600 / rate * 1e6 if plan.price_per_hour and rate else None,
    )


def _with_slowdown(candidate: Candidate, row: BenchRow | None, best: BenchRow | None) -> Candidate:
    """`candidate` with the speedup of the recommended row over its row, if both can be deployed."""
    if candidate.outcome != "PASS" or row is None or best is None or row is best:
        return candidate
    found: RelativeSpeed | None = relative_speed(best, row)
    if found is None:
        return candidate
    ends = found.interval
    return replace(
        candidate,
        slowdown=found.times,
        slowdown_low=ends.low if ends else None,
        slowdown_high=ends.high if ends else None,
    )
