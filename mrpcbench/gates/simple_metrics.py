"""Metrics without a statistical test: limits, and figures shown for information. Standard library only."""

from dataclasses import dataclass, replace
from typing import Literal

from mrpcbench.schema.bench_results import BenchRow, BenchSection
from mrpcbench.schema.rows import RowId
from mrpcbench.schema.verdicts import MetricResult, Verdict


@dataclass(frozen=True)
class Problem:
    """Why something cannot be judged, and what to do about it."""

    reason: str
    advice: str = ""


INFORMATION = Verdict(outcome="INCONCLUSIVE", reason="information only, no limit")
_WORDS = {"min": "at least", "max": "at most"}


def limit_metric(name: str, value: float, bound: float, side: Literal["min", "max"], unit: str) -> MetricResult:
    """`value` checked against `bound`; a value equal to it passes."""
    passes = value >= bound if side == "min" else value <= bound
    limit = f"{_WORDS[side]} {bound:.6g}"
    return MetricResult(
        metric=name,
        gated=True,
        verdict=Verdict(outcome="PASS" if passes else "REGRESSION", reason=f"{value:.6g}; must be {limit}"),
        baseline=None,
        current=value,
        unit=unit,
        change=None,
        change_unit="",
        limit=limit,
        slack=(value - bound) * (1 if side == "min" else -1) / abs(bound) if bound else None,
    )


def undecided_metric(
    name: str, value: float | None, problem: Problem, bound: float, side: Literal["min", "max"], unit: str
) -> MetricResult:
    """A limit that cannot be judged because of `problem`."""
    made = limit_metric(name, 0.0 if value is None else value, bound, side, unit)
    verdict = Verdict(outcome="INCONCLUSIVE", reason=problem.reason, advice=problem.advice)
    return replace(made, verdict=verdict, current=value, slack=None)


def floor_metric(name: str, before: float, after: float, floor: float | None) -> tuple[MetricResult, ...]:
    """The current value checked against `floor`; no metric without a floor."""
    if floor is None:
        return ()
    made = limit_metric(f"{name} floor", after, floor, "min", "share")
    return (replace(made, baseline=before, change=(after - before) * 100, change_unit="points"),)


def information(name: str, before: float | None, after: float | None, unit: str) -> MetricResult:
    """A figure without a limit."""
    return MetricResult(
        metric=name,
        gated=False,
        verdict=INFORMATION,
        baseline=before,
        current=after,
        unit=unit,
        change=None if not before or after is None else (after / before - 1) * 100,
        change_unit="%",
    )


# --- rows that cannot be judged ---------------------------------------------------------------------------------------


def validity_problem(row: BenchRow) -> str | None:
    """Why the figures of `row` are unreliable; None if it is VALID."""
    if row.broken_rules is None:
        return "the row's validity was not checked"
    return f"the row is INVALID: {'; '.join(row.broken_rules)}" if row.broken_rules else None


def absence(name: RowId, section: BenchSection) -> str:
    """Why a record has no row `name`."""
    reasons = (item.reason for item in section.failed if item.case == name.case)
    return next((f"{name.case} failed: {reason}" for reason in reasons), "it has no such row")
