"""Statistics on plain numbers, exact where that is possible. Standard library only."""

import math
import random
from collections.abc import Callable, Sequence
from statistics import NormalDist

from mrpcbench.verdicts import Interval

# Confidence with which a printed percentile must be bounded by the samples, and by which order statistic: the second
# largest, so that one freak sample does not decide (David & Nagaraja, Order Statistics, section 7.1).
PERCENTILE_CONFIDENCE = 0.99


def quantile(samples: Sequence[float], share: float) -> float:
    """The `share` quantile of `samples`, linear between order statistics (numpy's default, Hyndman & Fan type 7)."""
    if not samples:
        raise ValueError("a quantile of no samples")
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def samples_needed(share: float) -> int:
    """The fewest samples whose second largest bounds the `share` quantile from above at 99% confidence.

    At most one of n samples lies above the quantile with probability p^n + n p^(n-1) (1 - p), p being the share: 64
    samples for p90, 662 for p99.
    """
    if not 0 < share < 1:
        raise ValueError(f"a quantile's share lies between 0 and 1, not {share}")
    n = 2
    while share**n + n * share ** (n - 1) * (1 - share) > 1 - PERCENTILE_CONFIDENCE:
        n += 1
    return n


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927): inside [0, 1], sound at 0 and at all successes."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # At the ends the formula gives 0 and 1 exactly, and floating-point arithmetic almost.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == trials else (centre + spread) / scale
    return Interval(low=low, high=high, level=level, method="wilson")


def binomial_pmf(successes: int, trials: int, rate: float) -> float:
    """P(X = successes) for X ~ Binomial(trials, rate), by way of logarithms so that large counts do not overflow."""
    if rate <= 0 or rate >= 1:
        return float(successes == (trials if rate >= 1 else 0))
    ways = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
    return math.exp(ways + successes * math.log(rate) + (trials - successes) * math.log1p(-rate))


def binomial_cdf(successes: int, trials: int, rate: float) -> float:
    """P(X <= successes) for X ~ Binomial(trials, rate), the sum of all its terms."""
    if successes >= trials:
        return 1.0
    return min(1.0, math.fsum(binomial_pmf(k, trials, rate) for k in range(successes + 1)))


def border(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """Where `holds` turns from true to false between `low` and `high`, by bisection down to neighbouring floats."""
    for _ in range(100):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return high


def rate_upper_bound(events: int, trials: int, level: float = 0.95) -> float:
    """The exact one-sided upper bound of a rate (Clopper & Pearson 1934); 0 of 408 gives 0.73% at 95%."""
    if not 0 <= events <= trials or trials == 0:
        raise ValueError(f"{events} events of {trials} trials")
    return border(events / trials, 1.0, lambda rate: binomial_cdf(events, trials, rate) > 1 - level)


def exact_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """The exact two-sided interval of a proportion (Clopper & Pearson 1934), each tail at half the error.

    It covers at least `level`, and so is wider than Wilson's. ValueError for impossible counts or an impossible level.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials")
    within_0_and_1("level", level)
    one_sided = (1 + level) / 2
    low = 1 - rate_upper_bound(trials - successes, trials, one_sided)  # the failures' bound, seen from the other side
    high = rate_upper_bound(successes, trials, one_sided)
    return Interval(low=low, high=high, level=level, method="clopper-pearson")


def median_interval(
    samples: Sequence[float], *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the median (Efron & Tibshirani 1993, chapter 13), in the unit of `samples`.

    The same samples, in any order, and the same seed give the same interval. Its ends are samples or midpoints of two,
    so with few it is coarse, and one sample gives an interval of no width. ValueError for no samples, one that is not
    finite, or fewer than one resample.
    """
    if not samples or not all(map(math.isfinite, samples)):
        raise ValueError("a median needs samples, all of them finite")
    if resamples < 1:
        raise ValueError(f"{resamples} resamples")
    within_0_and_1("level", level)
    draw, pool, size = random.Random(seed), sorted(samples), len(samples)
    above, below = size // 2, (size - 1) // 2
    medians = []
    for _ in range(resamples):
        ordered = sorted(draw.choices(pool, k=size))
        medians.append((ordered[below] + ordered[above]) / 2)
    return Interval(
        low=quantile(medians, (1 - level) / 2),
        high=quantile(medians, (1 + level) / 2),
        level=level,
        method=f"percentile bootstrap, {resamples} resamples",
    )


def within_0_and_1(name: str, value: float) -> None:
    """ValueError unless `value`, a level, a power or the like, lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} lies between 0 and 1, not {value}")
