"""Statistics on plain numbers, exact where that is possible. Standard library only."""

import math
from collections.abc import Sequence
from statistics import NormalDist

from mrpcbench.schema import Interval

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


def binomial_cdf(successes: int, trials: int, rate: float) -> float:
    """P(X <= successes) for X ~ Binomial(trials, rate), summed in logarithms so that large counts do not overflow."""
    if successes >= trials or rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    log_p, log_q, log_n = math.log(rate), math.log1p(-rate), math.lgamma(trials + 1)
    terms = (
        math.exp(log_n - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_p + (trials - k) * log_q)
        for k in range(successes + 1)
    )
    return min(1.0, math.fsum(terms))


def rate_upper_bound(events: int, trials: int, level: float = 0.95) -> float:
    """The exact one-sided upper bound of a rate (Clopper & Pearson 1934); 0 of 408 gives 0.73% at 95%."""
    if not 0 <= events <= trials or trials == 0:
        raise ValueError(f"{events} events of {trials} trials")
    if events == trials:
        return 1.0
    low, high = events / trials, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if binomial_cdf(events, trials, middle) > 1 - level:
            low = middle
        else:
            high = middle
    return high
