"""The gate of `evaluate` records: both sides have classified the same pairs, so their predictions are paired."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mrpcbench.gates.policy import AccuracyPolicy, Policy
from mrpcbench.gates.simple_metrics import floor_metric, information
from mrpcbench.records.scores import f1_difference_interval
from mrpcbench.schema.results import EvalScore
from mrpcbench.schema.verdicts import Interval, MetricResult, Outcome, Verdict
from mrpcbench.statistics import holm, mcnemar_p, net_loss_bound


@dataclass(frozen=True, kw_only=True)
class ScoredPredictions:
    """The score of a split, with the label and the prediction of every pair, 0 or 1."""

    score: EvalScore
    labels: tuple[int, ...]
    predictions: tuple[int, ...]


def judge_evaluate(baseline: ScoredPredictions, current: ScoredPredictions, policy: Policy) -> tuple[MetricResult, ...]:
    """Judge each metric of `RULES` by its rule and its floor. The gated ones share `alpha`; the loss is information."""
    tests = max(1, sum(getattr(policy, name).gate for name in RULES))
    metrics: list[MetricResult] = []
    for name, rule in RULES.items():
        before, after = getattr(baseline.score, name), getattr(current.score, name)
        metrics.append(rule(baseline, current, policy, tests))
        metrics += floor_metric(name, before, after, getattr(policy, name).floor)
    return (*metrics, information("loss", baseline.score.loss, current.score.loss, "nats"))


def _paired_accuracy(
    baseline: ScoredPredictions, current: ScoredPredictions, policy: Policy, tests: int
) -> MetricResult:
    pairs, limits, alpha = len(baseline.labels), policy.accuracy, policy.alpha / tests
    gains, losses = _flips(baseline, current)
    p_value = mcnemar_p(gains, losses)
    # The gate of F1 has no p-value, so Holm's first step applies: the p-value times the number of tests.
    adjusted = holm([p_value, *[1.0] * (tests - 1)])[0]
    upper = net_loss_bound(gains, losses, pairs, alpha)
    lost = f"{losses} of {pairs} pairs lost and {gains} gained, p {adjusted:.3g}"
    outcome: Outcome = "PASS"
    if (losses - gains) / pairs >= limits.net_loss and p_value < alpha:
        outcome = "REGRESSION"
    elif limits.margin is not None and upper >= limits.margin:
        outcome = "INCONCLUSIVE"
    if limits.margin is not None:
        lost += f"; the net loss may be up to {upper * 100:.2f} points"
    return MetricResult(
        metric="accuracy",
        gated=limits.gate,
        verdict=Verdict(outcome=outcome, reason=lost),
        baseline=baseline.score.accuracy,
        current=current.score.accuracy,
        unit="share",
        change=(gains - losses) / pairs * 100,
        change_unit="points",
        interval=Interval(
            low=-upper * 100,
            high=net_loss_bound(losses, gains, pairs, alpha) * 100,
            level=1 - 2 * alpha,
            method="Tango score",
        ),
        test="exact McNemar" if limits.margin is None else "exact McNemar, non-inferiority",
        p_value=p_value,
        adjusted_p=adjusted,
        limit=_accuracy_limit(limits, policy.alpha),
    )


def _accuracy_limit(limits: AccuracyPolicy, alpha: float) -> str:
    worse = f"net loss of {limits.net_loss * 100:g} points or more, p < {alpha:g}"
    return worse if limits.margin is None else f"{worse}; passes if {limits.margin * 100:g} points are ruled out"


def _flips(baseline: ScoredPredictions, current: ScoredPredictions) -> tuple[int, int]:
    """The number of pairs that became correct, and of those that became wrong."""
    columns = zip(baseline.labels, baseline.predictions, current.predictions, strict=True)
    correct = [(before == label, now == label) for label, before, now in columns]
    return correct.count((False, True)), correct.count((True, False))


def _paired_f1(baseline: ScoredPredictions, current: ScoredPredictions, policy: Policy, tests: int) -> MetricResult:
    columns = (np.asarray(column) for column in (baseline.predictions, current.predictions, baseline.labels))
    change, share = f1_difference_interval(*columns, level=1 - 2 * policy.alpha / tests)
    interval = Interval(low=share.low * 100, high=share.high * 100, level=share.level, method=share.method)
    net_loss = policy.f1.net_loss * 100
    verdict = Verdict(outcome="PASS", reason=f"the interval is not entirely below {-net_loss:g} points")
    if interval.high < -net_loss:
        verdict = Verdict(outcome="REGRESSION", reason=f"the interval is entirely below {-net_loss:g} points")
    return MetricResult(
        metric="f1",
        gated=policy.f1.gate,
        verdict=verdict,
        baseline=baseline.score.f1,
        current=current.score.f1,
        unit="share",
        change=change * 100,
        change_unit="points",
        interval=interval,
        test="paired bootstrap",
        limit=f"interval below {-net_loss:g} points",
    )


# Each metric of `EvalScore` that can be gated, with its rule. A rule takes both results, the limits and the number of
# gated metrics. The limits of a metric are the field of `Policy` with its name.
RULES: Mapping[str, Callable[[ScoredPredictions, ScoredPredictions, Policy, int], MetricResult]] = {
    "accuracy": _paired_accuracy,
    "f1": _paired_f1,
}
