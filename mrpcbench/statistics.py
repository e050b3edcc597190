"""Intervals and tests: thin functions over scipy, and our own where scipy has no exact method.

Tests are one-sided towards "worse" and exact unless their docstring says otherwise. A share is a fraction of 1. scipy
and numpy are imported by the functions that need them: `scipy.stats` takes 0.8 s of CPU time to load.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations, groupby
from statistics import NormalDist, fmean, stdev

from mrpcbench.schema.verdicts import Interval

# A printed percentile must be bounded at this confidence by the second largest sample, so that one outlier does not
# decide (David & Nagaraja, Order Statistics, section 7.1).
PERCENTILE_CONFIDENCE = 0.99
RESAMPLES = 10_000
BOOTSTRAP = f"percentile bootstrap, {RESAMPLES} resamples"
# A permutation test enumerates up to this many splits, and draws this many otherwise.
SPLITS = 200_000
# Sums that differ by less than this share of the largest value are equal: 340/408 + 351/408 and 341/408 + 350/408 are
# the same number, but not in floating point.
EQUAL_WITHIN = 1e-9

# --- percentiles ------------------------------------------------------------------------------------------------------


def quantile(samples: Sequence[float], share: float) -> float:
    """The `share` quantile of `samples`, as `numpy.quantile` computes it, without loading numpy.

    Linear between order statistics (Hyndman & Fan 1996, type 7). ValueError for no samples.
    """
    if not samples:
        raise ValueError("a quantile of no samples")
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def samples_needed(share: float) -> int:
    """The fewest samples whose second largest bounds the `share` quantile from above at 99% confidence.

    At most one of n samples lies above the p quantile with probability p^n + n p^(n-1) (1 - p). 64 samples for p90, 662
    for p99. ValueError for a share that is not strictly between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, not {share}")
    n = 2
    while share**n + n * share ** (n - 1) * (1 - share) > 1 - PERCENTILE_CONFIDENCE:
        n += 1
    return n


# --- intervals --------------------------------------------------------------------------------------------------------


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927): within [0, 1] even for no or only successes.

    ValueError for impossible counts or no trials.
    """
    low, high = _proportion(successes, trials, level, "wilson", "two-sided")
    # At the ends the formula gives exactly 0 and 1, but not in floating point.
    low, high = 0.0 if successes == 0 else low, 1.0 if successes == trials else high
    return Interval(low=low, high=high, level=level, method="wilson")


def exact_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Exact two-sided interval of a proportion (Clopper & Pearson 1934). It covers at least `level`.

    ValueError for impossible counts or no trials.
    """
    low, high = _proportion(successes, trials, level, "exact", "two-sided")
    return Interval(low=low, high=high, level=level, method="clopper-pearson")


def rate_upper_bound(events: int, trials: int, level: float = 0.95) -> float:
    """Exact one-sided upper bound of a rate (Clopper & Pearson 1934): 0 of 408 gives 0.73% at 95%.

    ValueError for impossible counts or no trials.
    """
    return _proportion(events, trials, level, "exact", "less")[1]


def _proportion(successes: int, trials: int, level: float, method: str, alternative: str) -> tuple[float, float]:
    from scipy.stats import binomtest

    if not 0 <= successes <= trials or trials < 1:  # scipy 1.18 answers with nan
        raise ValueError(f"{successes} of {trials} trials")
    found = binomtest(successes, trials, alternative=alternative).proportion_ci(level, method=method)
    return float(found.low), float(found.high)


def median_interval(samples: Sequence[float], *, level: float = 0.95) -> Interval:
    """Percentile bootstrap interval of the median (Efron & Tibshirani 1993, chapter 13), in the unit of `samples`.

    The order of the samples does not matter, and the seed is fixed. The ends are samples or midpoints of two, and one
    sample gives an interval of no width. ValueError for no samples, one that is not finite, or an impossible level.
    """
    if not samples or not all(map(math.isfinite, samples)):
        raise ValueError("a median needs samples, and all of them must be finite")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    low = high = samples[0]
    if len(samples) > 1:  # scipy refuses one sample
        import numpy as np
        from scipy.stats import bootstrap

        found = bootstrap(
            (sorted(samples),),
            np.median,
            confidence_level=level,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return Interval(low=low, high=high, level=level, method=BOOTSTRAP)


def prediction_limit(values: Sequence[float], alpha: float) -> float:
    """The value that one more observation of the same kind exceeds with probability `alpha`.

    The one-sided prediction limit of one future observation from a normal distribution, mean + t(1 - alpha, n - 1) s
    sqrt(1 + 1/n) (Whitmore 1986, The American Statistician 40, 141). ValueError for fewer than two values.
    """
    from scipy.special import stdtrit  # half the time to load of scipy.stats

    quantile_of_t = float(stdtrit(len(values) - 1, 1 - alpha))
    return fmean(values) + quantile_of_t * _prediction_error(values)


def prediction_p(values: Sequence[float], value: float) -> float:
    """The probability that one more observation like `values` is at least `value`: below alpha beyond the limit of
    `prediction_limit`. ValueError for fewer than two values."""
    from scipy.special import stdtr

    difference, error = value - fmean(values), _prediction_error(values)
    if error == 0:
        return 0.0 if difference > 0 else 1.0
    return float(stdtr(len(values) - 1, -difference / error))


def _prediction_error(values: Sequence[float]) -> float:
    """The standard error of the difference between one more value and the mean of these."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} values; a prediction needs two")
    return stdev(values) * math.sqrt(1 + 1 / len(values))


# --- paired predictions -----------------------------------------------------------------------------------------------


def mcnemar_p(gains: int, losses: int) -> float:
    """The exact one-sided McNemar test for "worse": P(X >= losses) for X ~ Binomial(gains + losses, 1/2).

    `gains` counts pairs that were wrong and are now right, `losses` the reverse. 1 without any flip. ValueError for a
    negative count. (McNemar 1947; Fagerland, Lydersen & Laake 2013.)
    """
    if min(gains, losses) < 0:  # scipy 1.18 answers with nan
        raise ValueError(f"{gains} gains and {losses} losses")
    if gains == losses == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(losses, gains + losses, 0.5, alternative="greater").pvalue)


def net_loss_bound(gains: int, losses: int, pairs: int, alpha: float = 0.05) -> float:
    """Upper bound of the net loss, a share of `pairs`, at confidence 1 - `alpha`; it rules out what lies above.

    Upper end of Tango's score interval (Tango 1998, Statistics in Medicine 17), which scipy lacks: the largest net loss
    d with (losses - gains - pairs d) / sqrt(pairs (2 q + d - d^2)) >= -z, where q is the likeliest rate of gains given
    d. z^2 / (pairs + z^2) without any flip. Not exact: of 408 pairs, a true net loss of 1, 2 or 3 points has a bound
    below it in at most 5.1% of cases at an `alpha` of 5%. ValueError for counts that `pairs` cannot hold, or an `alpha`
    outside of (0, 0.5].
    """
    if gains < 0 or losses < 0 or pairs < 1 or gains + losses > pairs:
        raise ValueError(f"{gains} gains and {losses} losses of {pairs} pairs")
    if not 0 < alpha <= 0.5:
        raise ValueError(f"alpha must be between 0 and 0.5, not {alpha}")
    z = NormalDist().inv_cdf(1 - alpha)

    def is_tenable(net_loss: float) -> bool:
        beyond = pairs * net_loss - (losses - gains)
        variance = pairs * (2 * _gain_rate(gains, losses, pairs, net_loss) + net_loss - net_loss * net_loss)
        return beyond * beyond <= z * z * variance

    return _boundary((losses - gains) / pairs, 1.0, is_tenable)


def _gain_rate(gains: int, losses: int, pairs: int, net_loss: float) -> float:
    """The likeliest rate q of gains if that of losses is larger by `net_loss`: the root of 2 n q^2 + b q + c = 0."""
    b = (2 * pairs + gains - losses) * net_loss - gains - losses
    c = -gains * net_loss * (1 - net_loss)
    root = math.sqrt(max(0.0, b * b - 8 * pairs * c))  # 0 if all pairs are gains, but not in floating point
    return (root - b) / (4 * pairs)


def _boundary(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """Where `holds` turns from true to false between `low` and `high`, by bisection down to neighbouring floats."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


# --- paired differences -----------------------------------------------------------------------------------------------


def wilcoxon_p(differences: Sequence[float]) -> float:
    """The exact one-sided Wilcoxon signed-rank test for "the differences are above 0": P(W+ >= observed).

    Zeros are dropped and ties share their mean rank (Wilcoxon 1945; Pratt & Gibbons 1981, chapter 3); the null
    distribution is that of these ranks under random signs. scipy's exact method allows neither ties nor zeros. 1 for no
    difference but zeros. ValueError for a difference that is not finite.
    """
    if not all(map(math.isfinite, differences)):
        raise ValueError("a difference is not finite")
    signed = sorted((difference for difference in differences if difference), key=abs)
    doubled: list[int] = []  # twice the mean ranks, which are whole numbers
    for _, group in groupby(signed, key=abs):
        tied = len(list(group))
        doubled += [2 * len(doubled) + tied + 1] * tied
    observed = sum(rank for rank, difference in zip(doubled, signed, strict=True) if difference > 0)
    return _subsets_reaching(doubled, observed) / (1 << len(doubled))


def wilcoxon_smallest_p(n: int) -> float:
    """2^-n, the p-value of `n` differences that are all above 0."""
    return 2.0**-n


def _subsets_reaching(weights: Sequence[int], least: int) -> int:
    """How many subsets of `weights` sum to `least` or more.

    The usual dynamic programme over sums, packed into one integer: the bits from s * slot count the subsets that sum to
    s, so adding a weight is one shift and one addition (200 weights take 0.05 s). The remainder by 2^slot - 1 adds up
    the slots, as the remainder by 9 adds up decimal digits.
    """
    slot = len(weights) + 2
    counts = 1
    for weight in weights:
        counts += counts << (weight * slot)
    return (counts >> (least * slot)) % ((1 << slot) - 1)


# --- two groups of runs -----------------------------------------------------------------------------------------------


def permutation_p(baseline: Sequence[float], current: Sequence[float]) -> float:
    """The one-sided permutation test for "the mean of `current` is below that of `baseline`" (Pitman 1937).

    The share of all splits of the pooled values whose current group sums to the observed value or less. Beyond 200,000
    splits, as many random ones and the observed one (Phipson & Smyth 2010), so p is never 0. ValueError for an empty
    group or a value that is not finite.
    """
    if not baseline or not current or not all(map(math.isfinite, (*baseline, *current))):
        raise ValueError("a mean needs values, and all of them must be finite")
    pooled = [*baseline, *current]
    splits = math.comb(len(pooled), len(current))
    if splits <= SPLITS:  # scipy enumerates too, but takes 1.1 s for 10 and 10 values, and this 0.03 s
        limit = math.fsum(current) + EQUAL_WITHIN * max(map(abs, pooled))
        return sum(sum(split) <= limit for split in combinations(pooled, len(current))) / splits
    import numpy as np
    from scipy.stats import permutation_test

    found = permutation_test(
        (current, baseline),
        lambda drawn, _, axis: drawn.sum(axis=axis),
        vectorized=True,
        alternative="less",
        n_resamples=SPLITS,
        batch=10_000,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def permutation_smallest_p(n: int, m: int) -> float:
    """The smallest p that `permutation_p` gives for groups of `n` and `m` different values: 0.05 for 3 and 3."""
    return 1 / min(math.comb(n + m, n), SPLITS + 1)


def permutation_shift_bound(higher: Sequence[float], lower: Sequence[float], alpha: float) -> float:
    """The largest d with `permutation_p(lower, [value - d for value in higher]) >= alpha`: the test does not refute it.

    That p counts the splits that exchange some values of `higher` less d for as many of `lower` without raising the
    sum, which are those whose exchanged values differ by d or more in their mean. So the bound is an order statistic of
    these differences. Infinite if no d is refuted. All splits are enumerated.
    """
    size, splits = len(higher), math.comb(len(higher) + len(lower), len(higher))
    pooled = [*higher, *lower]
    differences = []
    for kept in combinations(range(len(pooled)), size):
        came = [pooled[index] for index in kept if index >= size]
        went = [pooled[index] for index in set(range(size)).difference(kept)]
        if came:
            differences.append((math.fsum(went) - math.fsum(came)) / len(came))
    needed = next(count for count in range(splits) if (1 + count) / splits >= alpha)
    return sorted(differences, reverse=True)[needed - 1] if needed else math.inf


# --- several tests ----------------------------------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values (Holm 1979), in the order given: rejecting those below alpha keeps the error rate of the
    family at alpha. scipy has none. ValueError for a p-value outside of [0, 1]."""
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("a p-value must be between 0 and 1")
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(order), 0.0
    for done, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - done) * p_values[index]))
        adjusted[index] = largest
    return adjusted
