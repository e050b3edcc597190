"""Tests of hypotheses, all one-sided towards "worse". Standard library only.

A p-value here is exact unless its docstring says otherwise: the sum of the probabilities, under "no change", of all
outcomes at least as bad as the one that was seen. A share is a fraction of 1, so 0.01 is one point of accuracy.
"""

import math
import random
from collections.abc import Sequence
from itertools import accumulate, combinations, groupby
from statistics import NormalDist

from mrpcbench.stats import border, within_0_and_1

# Splits that the permutation test counts one by one, and that it draws where there are more; about 0.2 s either way.
SPLITS = 200_000
# Sums that agree to this share of the largest value are equal, as 340/408 + 351/408 and 341/408 + 350/408 are, though
# not in floating point.
EQUAL_WITHIN = 1e-9

# --- paired predictions -----------------------------------------------------------------------------------------------


def mcnemar_p(gains: int, losses: int) -> float:
    """P(X >= losses) for X ~ Binomial(gains + losses, 1/2): the exact one-sided McNemar test for "got worse".

    `gains` counts pairs that were wrong and are right now, `losses` the reverse; no flip at all gives 1. Exact
    conditional test of McNemar 1947 (Fagerland, Lydersen & Laake 2013), summed in integers. ValueError
    for a negative count.
    """
    _check_flips(gains, losses)
    flips = gains + losses
    # By symmetry at most `gains` of the flips: the first binomial coefficients, each from the one before it.
    ways = accumulate(range(gains), lambda way, k: way * (flips - k) // (k + 1), initial=1)
    return sum(ways) / (1 << flips)


def mcnemar_fails(gains: int, losses: int, pairs: int, *, alpha: float = 0.05, net_loss: float = 0.01) -> bool:
    """The checkpoint gate: worse beyond chance (p < `alpha`), and by a net loss of at least `net_loss` of the pairs.

    ValueError for counts that `pairs` cannot hold.
    """
    _check_flips(gains, losses, pairs)
    within_0_and_1("alpha", alpha)
    return (losses - gains) / pairs >= net_loss and mcnemar_p(gains, losses) < alpha


def noninferior(gains: int, losses: int, pairs: int, margin: float, alpha: float = 0.05) -> tuple[float, bool]:
    """The upper bound of the net loss, a share of the pairs, at confidence 1 - `alpha`; and: is it below `margin`?

    Tango's score interval (Tango 1998, Statistics in Medicine 17), its upper end, by bisection: the largest net loss d
    that (losses - gains - pairs d) / sqrt(pairs (2 q + d - d^2)) >= -z does not refute, q being the likeliest rate of
    gains given d. Sound without any flip, where it is z^2 / (pairs + z^2). It is not exact: of 408 pairs a true net
    loss of 1, 2 or 3 points passes as below that margin in at most 5.1% of cases at an `alpha` of 5%. ValueError for
    counts that `pairs` cannot hold, a margin outside of (0, 1) or an `alpha` outside of (0, 0.5].
    """
    _check_flips(gains, losses, pairs)
    within_0_and_1("margin", margin)
    if not 0 < alpha <= 0.5:
        raise ValueError(f"alpha lies between 0 and 0.5, not {alpha}")
    z = NormalDist().inv_cdf(1 - alpha)

    def tenable(net_loss: float) -> bool:
        beyond = pairs * net_loss - (losses - gains)
        variance = pairs * (2 * _gain_rate(gains, losses, pairs, net_loss) + net_loss - net_loss * net_loss)
        return beyond * beyond <= z * z * variance

    upper = border((losses - gains) / pairs, 1.0, tenable)
    return upper, upper < margin


def _gain_rate(gains: int, losses: int, pairs: int, net_loss: float) -> float:
    """The likeliest probability of a gain where that of a loss is larger by `net_loss` (Tango 1998)."""
    # 2 pairs q^2 + b q + c = 0, the larger root.
    b = (2 * pairs + gains - losses) * net_loss - gains - losses
    c = -gains * net_loss * (1 - net_loss)
    root = math.sqrt(max(0.0, b * b - 8 * pairs * c))  # where all pairs are gains it is 0, and almost in floating point
    return (root - b) / (4 * pairs)


# --- paired differences -----------------------------------------------------------------------------------------------


def wilcoxon_p(differences: Sequence[float]) -> float:
    """P(W+ >= seen) of the exact one-sided Wilcoxon signed-rank test for "the differences are above 0".

    Zeros are dropped, equal sizes share the mean of their ranks (Wilcoxon 1945; Pratt & Gibbons 1981, chapter 3), and
    the null distribution is that of those very ranks under random signs. Sizes are equal only to the last digit.
    Nothing but zeros, or no difference, gives 1. ValueError for a difference that is not finite.
    """
    if not all(map(math.isfinite, differences)):
        raise ValueError("a difference is not finite")
    signed = sorted((difference for difference in differences if difference), key=abs)
    doubled: list[int] = []  # twice the midranks, which are whole numbers
    for _, group in groupby(signed, key=abs):
        tied = len(list(group))
        doubled += [2 * len(doubled) + tied + 1] * tied
    seen = sum(rank for rank, difference in zip(doubled, signed, strict=True) if difference > 0)
    return _subsets_reaching(doubled, seen) / (1 << len(doubled))


def wilcoxon_smallest_p(n: int) -> float:
    """2^-n, the p-value where all of `n` differences that are not 0 are above 0. ValueError for a negative n."""
    if n < 0:
        raise ValueError(f"{n} differences")
    return math.ldexp(1.0, -n)


def _subsets_reaching(weights: Sequence[int], least: int) -> int:
    """How many subsets of `weights` sum to `least` or more.

    The classic dynamic programme over sums, all of them packed into one integer: bits s * slot and up count the subsets
    that sum to s, so adding a weight is one shift and one addition (200 weights take 0.05 s). The slots from `least` up
    add up to the remainder by 2^slot - 1, as decimal digits do by 9.
    """
    slot = len(weights) + 2
    counts = 1
    for weight in weights:
        counts += counts << (weight * slot)
    return (counts >> (least * slot)) % ((1 << slot) - 1)


# --- two groups of runs -----------------------------------------------------------------------------------------------


def permutation_p(baseline: Sequence[float], current: Sequence[float], *, seed: int = 0) -> float:
    """The one-sided permutation test for "the mean of `current` is below that of `baseline`" (Pitman 1937).

    The share of all splits of the pooled values whose current group sums to what was seen or less; sums that agree to
    nine digits of the largest value are equal. Beyond 200,000 splits, that many random ones, and the one seen beside
    them (Phipson & Smyth 2010), so that p is never 0. ValueError for a group of nothing or a value that is not finite.
    """
    if not baseline or not current or not all(map(math.isfinite, (*baseline, *current))):
        raise ValueError("a mean needs values, all of them finite")
    pooled = [*baseline, *current]
    limit = math.fsum(current) + EQUAL_WITHIN * max(map(abs, pooled))
    splits = math.comb(len(pooled), len(current))
    if splits <= SPLITS:
        return sum(sum(split) <= limit for split in combinations(pooled, len(current))) / splits
    return (_random_splits_within(pooled, len(current), limit, seed) + 1) / (SPLITS + 1)


def permutation_smallest_p(n: int, m: int) -> float:
    """The smallest p that `permutation_p` gives for groups of `n` and `m`, all values differing: 3 and 3 give 0.05.

    ValueError for a group of nothing.
    """
    if n < 1 or m < 1:
        raise ValueError(f"groups of {n} and {m}")
    splits = math.comb(n + m, n)
    return 1 / splits if splits <= SPLITS else 1 / (SPLITS + 1)


def _random_splits_within(pooled: list[float], size: int, limit: float, seed: int) -> int:
    """How many of 200,000 random groups of `size` among `pooled` sum to `limit` or less (Fisher-Yates, cut short)."""
    draw, within = random.Random(seed).random, 0
    for _ in range(SPLITS):
        for place in range(size):
            other = place + int(draw() * (len(pooled) - place))
            pooled[place], pooled[other] = pooled[other], pooled[place]
        within += sum(pooled[:size]) <= limit
    return within


# --- several tests ----------------------------------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values (Holm 1979), each at the place of its own: rejecting those below alpha errs at all in
    at most alpha of cases. ValueError for a p-value outside of [0, 1]."""
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("a p-value lies between 0 and 1")
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(order), 0.0
    for done, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - done) * p_values[index]))
        adjusted[index] = largest
    return adjusted


# --- guards -----------------------------------------------------------------------------------------------------------


def _check_flips(gains: int, losses: int, pairs: int | None = None) -> None:
    if gains < 0 or losses < 0 or (pairs is not None and (pairs < 1 or gains + losses > pairs)):
        raise ValueError(f"{gains} gains and {losses} losses" + (f" of {pairs} pairs" if pairs is not None else ""))
