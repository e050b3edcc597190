"""The gate of `train` records, a permutation test over seeds, and what the seeds of a study say about a single run.

The test is paired by the seeds that both sides have, if these are enough to show a difference: a seed fixes the order
of the pairs and the new head. Else all seeds of both sides are compared without pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from mrpcbench.gates.policy import AccuracyPolicy, F1Policy, Policy
from mrpcbench.gates.simple_metrics import floor_metric, information
from mrpcbench.records.figures import best_epoch
from mrpcbench.records.seeds import scores_of, sign_flip_bound, sign_flip_p, sign_flip_smallest_p
from mrpcbench.schema.records import EvaluateRecord, SeedMetric, StudyRecord, StudySetting, TrainRecord
from mrpcbench.schema.results import TrainSection
from mrpcbench.schema.verdicts import Interval, MetricResult, Verdict
from mrpcbench.statistics import (
    holm,
    permutation_p,
    permutation_shift_bound,
    permutation_smallest_p,
    prediction_limit,
)

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
    tests = max(1, len(gated))
    shared = _shared(baseline, current, policy.alpha / tests)
    seeds = {
        name: _Seeds(
            before=_at(before, shared and shared[0]),
            after=_at(after, shared and shared[1]),
            net_loss=limits[name].net_loss,
            alpha=policy.alpha,
            tests=tests,
            paired=shared is not None,
        )
        for name, (before, after) in scores.items()
    }
    p_values = {name: found.p_value for name, found in seeds.items()}
    adjusted = dict(zip(gated, holm([p_values[name] for name in gated]), strict=True))
    metrics: list[MetricResult] = []
    for name, found in seeds.items():
        metrics += (_over_seeds(name, found, p_values[name], adjusted.get(name)), *floors[name])
    before_loss, after_loss = (_mean([epoch.eval_loss for epoch in side]) for side in sides)
    return (*metrics, information("loss", before_loss, after_loss, "nats"))


@dataclass(frozen=True)
class _Seeds:
    """One metric of the runs of both sides, and its limits; `tests` is the number of gated metrics.

    If `paired`, the runs of both sides have the same seeds in the same order.
    """

    before: Sequence[float]
    after: Sequence[float]
    net_loss: float
    alpha: float
    tests: int
    paired: bool

    @property
    def p_value(self) -> float:
        if not self.paired:
            return permutation_p(self.before, self.after)
        return sign_flip_p([now - was for was, now in zip(self.before, self.after, strict=True)], alternative="less")

    @property
    def smallest_p(self) -> float:
        sizes = len(self.before), len(self.after)
        smallest = sign_flip_smallest_p(sizes[0], two_sided=False) if self.paired else permutation_smallest_p(*sizes)
        return min(1.0, smallest * self.tests)

    @property
    def test(self) -> str:
        if self.paired:
            return f"paired permutation of {len(self.before)} seeds"
        return f"permutation of {len(self.before)} and {len(self.after)} seeds"


def _at(values: Sequence[float], places: Sequence[int] | None) -> Sequence[float]:
    """Those of `values` at `places`; all of them for None."""
    return values if places is None else [values[place] for place in places]


def _shared(
    baseline: Sequence[TrainSection], current: Sequence[TrainSection], alpha: float
) -> tuple[list[int], list[int]] | None:
    """The places in both sides of the seeds that both have, in the same order; None if too few to reach `alpha`."""
    was, now = ({section.recipe.seed: place for place, section in enumerate(side)} for side in (baseline, current))
    seeds = sorted(was.keys() & now.keys())
    if not seeds or sign_flip_smallest_p(len(seeds), two_sided=False) >= alpha:
        return None
    return [was[seed] for seed in seeds], [now[seed] for seed in seeds]


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
        test=seeds.test,
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
    """The shifts, in points, that the test does not reject; None if it can reject none, or would take too long."""
    alpha = seeds.alpha / seeds.tests
    before, after = seeds.before, seeds.after
    splits = 2 ** len(after) if seeds.paired else math.comb(len(before) + len(after), len(after))
    if seeds.smallest_p >= seeds.alpha or splits > SPLITS_OF_AN_INTERVAL:
        return None
    if seeds.paired:
        differences = [now - was for was, now in zip(before, after, strict=True)]
        high, low = sign_flip_bound(differences, alpha), -sign_flip_bound([-one for one in differences], alpha)
    else:
        high, low = permutation_shift_bound(after, before, alpha), -permutation_shift_bound(before, after, alpha)
    return Interval(low=low * 100, high=high * 100, level=1 - 2 * alpha, method="permutation test inverted")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


# --- a single run, and the seeds of a study ---------------------------------------------------------------------------

# The level of the interval in which one more seed is expected.
NOISE_LEVEL = 0.95


def noise_notes(
    study: StudyRecord, name: str, current: TrainRecord | EvaluateRecord, hashes: Sequence[str]
) -> list[str]:
    """Whether the scores of `current` lie within the noise of the seeds of `study`, which is called `name`.

    The study must be of the same pairs, and of the same recipe: that of a train record, or one that has made a model
    with one of `hashes`, the models of both sides of a comparison of evaluate records.
    """
    setting = next((one for one in study.study.settings if _is_of(one, current, hashes)), None)
    validation = [item.data_sha256 for item in study.data if item.split == "validation"]
    if setting is None or not {item.data_sha256 for item in current.data} & set(validation):
        return [f"{name}: a study of another recipe, model or data; it says nothing about this run"]
    return [_noise(metric, setting, name, value) for metric, value in _scores(current).items()]


def _is_of(setting: StudySetting, current: TrainRecord | EvaluateRecord, hashes: Sequence[str]) -> bool:
    records = [trial.record for trial in setting.trials if trial.record]
    if isinstance(current, EvaluateRecord):
        return any(record.model.model_sha256 in hashes for record in records)
    now = current.train
    return any(
        replace(record.train.recipe, seed=now.recipe.seed) == now.recipe
        and record.train.base_model.name == now.base_model.name
        for record in records
    )


def _scores(record: TrainRecord | EvaluateRecord) -> dict[SeedMetric, float]:
    if isinstance(record, EvaluateRecord):
        return {"accuracy": record.score.accuracy, "f1": record.score.f1}
    best = best_epoch(record.train)
    return {"accuracy": best.eval_accuracy_score, "f1": best.eval_f1_score} if best else {}


def _noise(metric: SeedMetric, setting: StudySetting, name: str, value: float) -> str:
    values = list(scores_of(setting, metric).values())
    if len(values) < 2:
        return f"{name}: one seed says nothing about noise"
    alpha = (1 - NOISE_LEVEL) / 2
    high, low = prediction_limit(values, alpha), -prediction_limit([-one for one in values], alpha)
    place = "within seed noise" if low <= value <= high else f"{'below' if value < low else 'above'} seed noise"
    return (
        f"{metric} {value:.4f} lies {place}: {NOISE_LEVEL:.0%} of further seeds lie between {max(low, 0):.4f} and "
        f"{min(high, 1):.4f} (t prediction interval from {len(values)} seeds, {name})"
    )
