"""The gate of `train` records: a permutation test between the seeds of both sides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from mrpcbench.gates.policy import AccuracyPolicy, F1Policy, Policy
from mrpcbench.gates.simple_metrics import floor_metric, information
from mrpcbench.records.figures import best_epoch
from mrpcbench.schema.results import TrainSection
from mrpcbench.schema.verdicts import Interval, MetricResult, Verdict
from mrpcbench.statistics import holm, permutation_p, permutation_shift_bound, permutation_smallest_p

# Most splits of the seeds that are enumerated for their interval; 7 seeds per side have 3,432.
SPLITS_OF_AN_INTERVAL = 5_000


def judge_train(
    baseline: Sequence[TrainSection], current: Sequence[TrainSection], policy: Policy
) -> tuple[MetricResult, ...]:
    """Judge accuracy and F1 of the best epochs, with one run per seed; one seed per side is judged only by the floors.

    Raises `ValueError` for a run without its best epoch, because it has no score.
    """
    sides = [[epoch for epoch in map(best_epoch, side) if epoch] for side in (baseline, current)]
    if [len(side) for side in sides] != [len(baseline), len(current)]:
        raise ValueError("a run has no best epoch")
    scores = {
        "accuracy": [[epoch.eval_accuracy_score for epoch in side] for side in sides],
        "f1": [[epoch.eval_f1_score for epoch in side] for side in sides],
    }
    limits: dict[str, AccuracyPolicy | F1Policy] = {"accuracy": policy.accuracy, "f1": policy.f1}
    floors = {
        name: floor_metric(name, min(before), min(after), limits[name].floor)
        for name, (before, after) in scores.items()
    }
    floor_decides = len(baseline) == len(current) == 1 and any(floors.values())
    gated = [name for name in scores if limits[name].gate and not floor_decides]
    p_values = {name: permutation_p(*scores[name]) for name in scores}
    adjusted = dict(zip(gated, holm([p_values[name] for name in gated]), strict=True))
    metrics: list[MetricResult] = []
    for name, (before, after) in scores.items():
        seeds = _Seeds(before, after, limits[name].net_loss, policy.alpha, max(1, len(gated)))
        metrics += (_over_seeds(name, seeds, p_values[name], adjusted.get(name)), *floors[name])
    before_loss, after_loss = (_mean([epoch.eval_loss for epoch in side]) for side in sides)
    return (*metrics, information("loss", before_loss, after_loss, "nats"))


@dataclass(frozen=True)
class _Seeds:
    """One metric of all runs of both sides, and its limits; `tests` is the number of gated metrics."""

    before: Sequence[float]
    after: Sequence[float]
    net_loss: float
    alpha: float
    tests: int

    @property
    def smallest_p(self) -> float:
        return min(1.0, permutation_smallest_p(len(self.before), len(self.after)) * self.tests)


def _over_seeds(name: str, seeds: _Seeds, p_value: float, adjusted: float | None) -> MetricResult:
    before, after = fmean(seeds.before), fmean(seeds.after)
    decisive = p_value if adjusted is None else adjusted
    return MetricResult(
        metric=name,
        gated=adjusted is not None,
        verdict=_seeds_verdict(seeds, before - after, decisive),
        baseline=before,
        current=after,
        unit="share",
        change=(after - before) * 100,
        change_unit="points",
        interval=_shift_interval(seeds),
        test=f"permutation of {len(seeds.before)} and {len(seeds.after)} seeds",
        p_value=p_value,
        adjusted_p=adjusted,
        limit=f"mean loss of {seeds.net_loss * 100:g} points or more, p < {seeds.alpha:g}",
    )


def _seeds_verdict(seeds: _Seeds, loss: float, p_value: float) -> Verdict:
    if len(seeds.before) == len(seeds.after) == 1:
        reason = "only one seed per side; give several records, or set a floor in the policy"
        return Verdict(outcome="INCONCLUSIVE", reason=reason)
    if seeds.smallest_p >= seeds.alpha:
        counts = f"{len(seeds.before)} and {len(seeds.after)} seeds"
        reason = f"{counts} cannot reach p < {seeds.alpha:g} (at best {seeds.smallest_p:.3g}); add records"
        return Verdict(outcome="INCONCLUSIVE", reason=reason)
    reason = f"the mean is {abs(loss) * 100:.3g} points {'worse' if loss > 0 else 'better'}, p {p_value:.3g}"
    fails = p_value < seeds.alpha and loss >= seeds.net_loss
    return Verdict(outcome="REGRESSION" if fails else "PASS", reason=reason)


def _shift_interval(seeds: _Seeds) -> Interval | None:
    """The shifts, in points, that the permutation test does not reject; None if it can reject none."""
    alpha = seeds.alpha / seeds.tests
    before, after = seeds.before, seeds.after
    too_many = math.comb(len(before) + len(after), len(after)) > SPLITS_OF_AN_INTERVAL
    if seeds.smallest_p >= seeds.alpha or too_many:
        return None
    high, low = permutation_shift_bound(after, before, alpha), -permutation_shift_bound(before, after, alpha)
    return Interval(low=low * 100, high=high * 100, level=1 - 2 * alpha, method="permutation test inverted")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
