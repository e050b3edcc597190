"""Metrics without a statistical test: floors, and figures shown for information. Standard library only."""

from mrpcbench.schema.verdicts import MetricResult, Outcome, Verdict

INFORMATION = Verdict(outcome="INCONCLUSIVE", reason="information only, no limit")


def floor_metric(name: str, before: float, after: float, floor: float | None) -> tuple[MetricResult, ...]:
    """The current value checked against `floor`; no metric without a floor."""
    if floor is None:
        return ()
    outcome: Outcome = "PASS" if after >= floor else "REGRESSION"
    metric = MetricResult(
        metric=f"{name} floor",
        gated=True,
        verdict=Verdict(outcome=outcome, reason=f"{after:.4f}; the floor is {floor:g}"),
        baseline=before,
        current=after,
        unit="share",
        change=(after - before) * 100,
        change_unit="points",
        limit=f"below {floor:g}",
    )
    return (metric,)


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
