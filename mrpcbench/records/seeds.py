"""Statistics over the seeds of a recipe: a summary of each setting, and tests between settings that share seeds.

scipy and numpy are imported by the functions that need them, as in `mrpcbench.statistics`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product
from statistics import fmean, median, stdev
from typing import Literal, get_args

from mrpcbench.records.figures import best_epoch
from mrpcbench.schema.identity import DataIdentity
from mrpcbench.schema.records import (
    SeedMetric,
    SeedSummary,
    SettingComparison,
    StudyRecord,
    StudySection,
    StudySetting,
)
from mrpcbench.schema.results import EpochMetrics
from mrpcbench.schema.verdicts import Interval
from mrpcbench.statistics import EQUAL_WITHIN, SPLITS, holm

# The error rate of the tests of one metric between settings.
ALPHA = 0.05


def summarised(section: StudySection, validation: DataIdentity) -> StudySection:
    """`section` with the summary of each setting and the comparisons, computed from the records of its trials."""
    settings = tuple(replace(setting, summaries=tuple(_summaries(setting, validation))) for setting in section.settings)
    return replace(section, settings=settings, comparisons=_comparisons(settings))


def validation_of(data: Sequence[DataIdentity]) -> DataIdentity | None:
    """The validation pairs among the splits of a record of `train` or `study`; None if it names none."""
    return next((item for item in data if item.split == "validation"), None)


def other_summary(record: StudyRecord) -> str | None:
    """Which summary or comparison of a study is not that of its trials; None if there is none.

    P-values of more seeds than can be enumerated are drawn at random, and are not compared.
    """
    settings, validation = record.study.settings, validation_of(record.data)
    if validation is None:
        return "it has no validation pairs" if any(scores_of(one, "accuracy") for one in settings) else None
    made = summarised(record.study, validation)
    for was, now in zip(settings, made.settings, strict=True):
        if len(was.summaries) != len(now.summaries):
            return f"{was.name} has {len(was.summaries)} summaries, and its trials give {len(now.summaries)}"
        for stored, found in zip(was.summaries, now.summaries, strict=True):
            if problem := _difference(stored, found):
                return f"{found.metric} of {was.name}: {problem}"
    if len(record.study.comparisons) != len(made.comparisons):
        return f"it has {len(record.study.comparisons)} comparisons, and its settings give {len(made.comparisons)}"
    for one, other in zip(record.study.comparisons, made.comparisons, strict=True):
        drawn = ("p_value", "adjusted_p") if 2 ** len(other.seeds) > SPLITS else ()
        if problem := _difference(one, other, without=drawn):
            return f"{other.metric} of {other.a} and {other.b}: {problem}"
    return None


def _difference(stored: object, found: object, without: Sequence[str] = ()) -> str | None:
    """The first field in which two objects of one class differ by more than rounding; None if there is none."""
    for name in (name for name in vars(found) if name not in without):
        was, now = getattr(stored, name), getattr(found, name)
        if not _is_near(was, now):
            return f"its {name} is {was}, and its trials give {now}"
    return None


def _is_near(stored: object, found: object) -> bool:
    if isinstance(stored, Interval) and isinstance(found, Interval):
        return _difference(stored, found) is None
    if isinstance(stored, tuple) and isinstance(found, tuple):
        return len(stored) == len(found) and all(map(_is_near, stored, found))
    if isinstance(stored, float) and isinstance(found, float):
        return math.isclose(stored, found, rel_tol=1e-9, abs_tol=1e-12)
    return stored == found


def scores_of(setting: StudySetting, metric: SeedMetric) -> dict[int, float]:
    """The `metric` of the best epoch of each finished trial, by seed; a loss that is not finite is left out."""
    found: dict[int, float] = {}
    for trial in setting.trials:
        epoch = best_epoch(trial.record.train) if trial.record else None
        value = _value(epoch, metric) if epoch else None
        if value is not None:
            found[trial.seed] = value
    return found


def _value(epoch: EpochMetrics, metric: SeedMetric) -> float | None:
    return {"accuracy": epoch.eval_accuracy_score, "f1": epoch.eval_f1_score, "loss": epoch.eval_loss}[metric]


def majority(validation: DataIdentity) -> dict[SeedMetric, float]:
    """Accuracy and F1 of always answering the majority class of `validation`."""
    positives, pairs = validation.positives, validation.pairs
    is_positive = positives * 2 >= pairs
    return {
        "accuracy": max(positives, pairs - positives) / pairs,
        "f1": 2 * positives / (positives + pairs) if is_positive else 0.0,
    }


def _summaries(setting: StudySetting, validation: DataIdentity) -> list[SeedSummary]:
    floors, found = majority(validation), []
    for metric in get_args(SeedMetric):
        scores = scores_of(setting, metric)
        values = list(scores.values())
        if not values:
            continue
        several = len(values) > 1
        floor = floors.get(metric)
        found.append(
            SeedSummary(
                metric=metric,
                seeds=tuple(scores),
                values=tuple(values),
                median=median(values),
                median_interval=median_order_interval(values) if several else None,
                mean=fmean(values),
                standard_deviation=stdev(values) if several else None,
                smallest=min(values),
                largest=max(values),
                majority=floor,
                at_or_below_majority=None if floor is None else sum(value <= floor for value in values),
            )
        )
    return found


def _comparisons(settings: Sequence[StudySetting]) -> tuple[SettingComparison, ...]:
    """Each metric of each pair of settings that share seeds; Holm's correction covers the pairs of a metric."""
    return tuple(found for metric in get_args(SeedMetric) for found in _compared(settings, metric))


def _compared(settings: Sequence[StudySetting], metric: SeedMetric) -> list[SettingComparison]:
    found = []
    for first, second in combinations(settings, 2):
        was, now = scores_of(first, metric), scores_of(second, metric)
        if shared := [seed for seed in was if seed in now]:
            found.append((first.name, second.name, tuple(shared), [now[one] - was[one] for one in shared]))
    p_values = [sign_flip_p(differences) for *_, differences in found]
    adjusted = holm(p_values)
    return [
        SettingComparison(
            metric=metric,
            a=first,
            b=second,
            seeds=seeds,
            difference=fmean(differences),
            p_value=p_value,
            adjusted_p=corrected,
            smallest_p=min(1.0, sign_flip_smallest_p(len(seeds)) * len(found)),
            smallest_difference=smallest_significant(differences, ALPHA / len(found)),
        )
        for (first, second, seeds, differences), p_value, corrected in zip(found, p_values, adjusted, strict=True)
    ]


# --- statistics -------------------------------------------------------------------------------------------------------


def median_order_interval(samples: Sequence[float], *, level: float = 0.95) -> Interval:
    """Distribution-free interval of the median between two order statistics, in the unit of `samples`.

    Between the k-th smallest and the k-th largest of n samples, the median lies with probability 1 - 2 P(X < k) for
    X ~ Binomial(n, 1/2), whatever the distribution (David & Nagaraja, Order Statistics, section 7.1). k is the largest
    that reaches `level`. If none does, k is 1, and the interval has the level that it reaches: 6 samples give 96.9%, 3
    give 75%. ValueError for fewer than two samples, or one that is not finite.
    """
    n = len(samples)
    if n < 2 or not all(map(math.isfinite, samples)):
        raise ValueError("an interval of a median needs two samples or more, and all of them must be finite")
    ordered, k = sorted(samples), 1
    while k < n / 2 and _order_level(n, k + 1) >= level:
        k += 1
    method = f"order statistics {k} and {n - k + 1} of {n}"
    return Interval(low=ordered[k - 1], high=ordered[n - k], level=_order_level(n, k), method=method)


def _order_level(n: int, k: int) -> float:
    """The probability that the median lies between the k-th smallest and the k-th largest of `n` samples."""
    return float(1 - 2 * sum(math.comb(n, below) for below in range(k)) / 2**n)


def sign_flip_p(differences: Sequence[float], *, alternative: Literal["two-sided", "less"] = "two-sided") -> float:
    """The paired permutation test for "the mean of `differences` is not 0" or, for "less", is below 0 (Fisher 1935).

    The share of all choices of signs whose sum is as far from 0 as the observed one, or as low. Exact up to 17
    differences; beyond that, from 200,000 random choices. ValueError for no difference, or one that is not finite.
    """
    if not differences or not all(map(math.isfinite, differences)):
        raise ValueError("a mean needs differences, and all of them must be finite")
    if len(differences) == 1 or not any(differences):  # scipy refuses one
        return 0.5 if alternative == "less" and differences[0] < 0 else 1.0
    import numpy as np
    from scipy.stats import permutation_test

    found = permutation_test(
        (np.asarray(differences, dtype=np.float64),),
        lambda drawn, axis: drawn.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        alternative=alternative,
        n_resamples=SPLITS,
        batch=10_000,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def sign_flip_smallest_p(n: int, *, two_sided: bool = True) -> float:
    """The smallest p that `sign_flip_p` gives for `n` differences: 2 / 2^n, or half of it if one-sided."""
    return float(min(1.0, (2 if two_sided else 1) / 2**n))


def sign_flip_bound(differences: Sequence[float], alpha: float) -> float:
    """The largest mean d that `sign_flip_p` for "less" does not refute at `alpha`, for `differences` minus d.

    All choices of signs are enumerated. Infinite if the differences are too few to refute any.
    """
    n = len(differences)
    if sign_flip_smallest_p(n, two_sided=False) >= alpha:
        return math.inf
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)
    signs = np.array(list(product((-1.0, 1.0), repeat=n)))

    def is_refuted(mean: float) -> bool:
        moved = values - mean
        slack = EQUAL_WITHIN * float(np.abs(moved).max())
        return bool((signs @ moved <= moved.sum() + slack).mean() < alpha)

    # Above the largest difference only the observed signs give the smallest sum.
    low, high = float(values.min()), float(values.max()) + 1e-6
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if is_refuted(middle) else (middle, high)
    return low


def smallest_significant(differences: Sequence[float], alpha: float) -> float | None:
    """The smallest mean that `differences` with this spread could have, and be two-sided significant at `alpha`.

    The differences are moved by a constant until `sign_flip_p` falls below `alpha`. None if no mean is significant,
    because there are too few differences, or more than 16, whose signs are too many to enumerate.
    """
    n = len(differences)
    if n > 16 or sign_flip_smallest_p(n) >= alpha:
        return None
    import numpy as np

    centred = np.asarray(differences, dtype=np.float64) - fmean(differences)
    signs = np.array(list(product((-1.0, 1.0), repeat=n)))
    sums, counts = signs @ centred, signs.sum(axis=1)
    scale = float(np.abs(centred).max())

    def is_significant(mean: float) -> bool:
        extreme = np.abs(sums + counts * mean) >= n * mean - EQUAL_WITHIN * (scale + mean)
        return bool(extreme.mean() < alpha)

    low, high = 0.0, 4 * scale  # there, every other choice of signs has a smaller sum
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_significant(middle) else (middle, high)
    return high
