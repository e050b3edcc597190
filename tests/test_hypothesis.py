"""Tests of mrpcbench.hypothesis against scipy, brute force, published and worked values."""

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as scipy_stats

from mrpcbench.hypothesis import (
    holm,
    mcnemar_fails,
    mcnemar_p,
    noninferior,
    permutation_p,
    permutation_smallest_p,
    wilcoxon_p,
    wilcoxon_smallest_p,
)

# --- McNemar's test ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gains", "losses"), [(0, 1), (1, 0), (0, 5), (4, 12), (8, 18), (18, 8), (30, 0), (7, 7), (150, 190)]
)
def test_mcnemars_p_is_the_binomial_test_of_scipy(gains: int, losses: int) -> None:
    expected = scipy_stats.binomtest(losses, gains + losses, 0.5, alternative="greater").pvalue
    assert mcnemar_p(gains, losses) == pytest.approx(float(expected), rel=1e-10)


def test_mcnemars_p_has_its_worked_values() -> None:
    assert mcnemar_p(0, 5) == 1 / 32
    assert mcnemar_p(1, 4) == 6 / 32
    assert mcnemar_p(3, 0) == 1.0


def test_no_flip_at_all_is_no_evidence() -> None:
    assert mcnemar_p(0, 0) == 1.0


def test_mcnemars_p_stays_exact_where_two_to_the_flips_is_no_float() -> None:
    half_and_the_middle = Fraction(1, 2) + Fraction(math.comb(4000, 2000), 2**4001)
    assert mcnemar_p(2000, 2000) == float(half_and_the_middle)
    assert mcnemar_p(0, 2000) == 0.0


@pytest.mark.parametrize(("gains", "losses"), [(-1, 3), (3, -1)])
def test_fewer_than_no_flips_have_no_p(gains: int, losses: int) -> None:
    with pytest.raises(ValueError, match=f"{gains} gains and {losses} losses"):
        mcnemar_p(gains, losses)


# --- the checkpoint gate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gains", "losses"), [(0, 5), (4, 12), (8, 18)])
def test_of_the_408_pairs_so_many_losses_fail_as_worked_out_by_hand(gains: int, losses: int) -> None:
    assert mcnemar_fails(gains, losses, 408)
    assert not mcnemar_fails(gains, losses - 1, 408)


@pytest.mark.parametrize("pairs", [1, 7, 60, 408])
@pytest.mark.parametrize(("alpha", "net_loss"), [(0.05, 0.01), (0.01, 0.0), (0.2, 0.05)])
def test_the_gate_fails_for_a_significant_net_loss_of_its_size_alone(pairs: int, alpha: float, net_loss: float) -> None:
    wrong = []
    for gains in {0, 1, 5, pairs // 3, pairs // 2, pairs - 1, pairs} & set(range(pairs + 1)):
        for losses in range(pairs - gains + 1):
            p_value = scipy_stats.binom.sf(losses - 1, gains + losses, 0.5) if gains + losses else 1.0
            expected = p_value < alpha and Fraction(losses - gains, pairs) >= Fraction(str(net_loss))
            if mcnemar_fails(gains, losses, pairs, alpha=alpha, net_loss=net_loss) != expected:
                wrong.append((gains, losses))
    assert wrong == []


def test_a_p_of_exactly_alpha_does_not_fail_and_a_net_loss_of_exactly_the_threshold_does() -> None:
    assert not mcnemar_fails(0, 5, 408, alpha=1 / 32)
    assert mcnemar_fails(0, 6, 408, alpha=1 / 32)
    assert mcnemar_fails(0, 5, 500, net_loss=0.01)
    assert not mcnemar_fails(0, 5, 501, net_loss=0.01)


def test_on_1725_pairs_the_net_loss_decides_where_few_flip() -> None:
    assert not mcnemar_fails(0, 17, 1725)
    assert mcnemar_fails(0, 18, 1725)
    assert mcnemar_fails(0, 5, 1725, net_loss=0.0)


@pytest.mark.parametrize(("gains", "losses", "pairs"), [(-1, 0, 4), (0, -1, 4), (3, 2, 4), (0, 0, 0), (0, 0, -1)])
def test_flips_that_the_pairs_cannot_hold_are_refused(gains: int, losses: int, pairs: int) -> None:
    shown = f"{gains} gains and {losses} losses of {pairs} pairs"
    with pytest.raises(ValueError, match=shown):
        mcnemar_fails(gains, losses, pairs)
    with pytest.raises(ValueError, match=shown):
        noninferior(gains, losses, pairs, 0.01)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_a_gate_without_a_level_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha lies between 0 and 1"):
        mcnemar_fails(0, 5, 408, alpha=alpha)


# --- non-inferiority --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gains", "losses", "pairs", "alpha", "upper"),
    [
        # Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33, the airways of Bentur et al.: -0.517 to -0.026.
        (7, 1, 21, 0.025, -0.0260),
        (1, 7, 21, 0.025, 0.5172),
        # Fagerland, Lydersen & Laake 2017, Statistical Analysis of Contingency Tables, chapter 8, Cavo et al.
        (16, 6, 161, 0.025, -0.0054),
        (6, 16, 161, 0.025, 0.1240),
        # PropCIs 0.3 in R, scoreci.mp(25, 28, 618, 0.9).
        (25, 28, 618, 0.05, 0.0247),
        (28, 25, 618, 0.05, 0.0148),
    ],
)
def test_the_bound_of_the_net_loss_is_the_published_one(
    gains: int, losses: int, pairs: int, alpha: float, upper: float
) -> None:
    assert round(noninferior(gains, losses, pairs, 0.01, alpha)[0], 4) == upper


@pytest.mark.parametrize("pairs", [1, 10, 408, 3668])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_without_flips_the_bound_of_the_net_loss_is_its_closed_form(pairs: int, alpha: float) -> None:
    z = float(scipy_stats.norm.isf(alpha))
    assert noninferior(0, 0, pairs, 0.01, alpha)[0] == pytest.approx(z * z / (pairs + z * z), rel=1e-9)


def test_no_flip_of_408_shows_that_less_than_a_point_was_lost_and_no_flip_of_200_does_not() -> None:
    upper, holds = noninferior(0, 0, 408, 0.01)
    assert (round(upper, 5), holds) == (0.00659, True)
    assert noninferior(0, 0, 200, 0.01)[1] is False


@pytest.mark.parametrize(
    ("gains", "losses", "pairs"), [(3, 5, 60), (5, 3, 60), (0, 4, 60), (4, 0, 60), (20, 30, 60), (2, 1, 3)]
)
def test_at_its_bound_the_score_of_the_net_loss_is_the_normal_quantile(gains: int, losses: int, pairs: int) -> None:
    upper, _ = noninferior(gains, losses, pairs, 0.5, 0.05)

    def against(rate: float) -> float:
        cells = [(gains, rate), (losses, rate + upper), (pairs - gains - losses, 1 - 2 * rate - upper)]
        return -sum(count * math.log(max(share, 1e-300)) for count, share in cells if count)

    bounds = (max(0.0, -upper), (1 - upper) / 2)
    rate = optimize.minimize_scalar(against, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    score = (losses - gains - pairs * upper) / math.sqrt(pairs * (2 * rate + upper - upper**2))
    assert score == pytest.approx(-1.6448536, abs=1e-4)


def test_where_all_pairs_flip_the_bound_of_the_net_loss_stays_within_1() -> None:
    assert noninferior(0, 7, 7, 0.5) == (1.0, False)
    upper, holds = noninferior(7, 0, 7, 0.5)
    assert -1 < upper < 0
    assert holds


def test_the_bound_of_the_net_loss_is_above_the_net_loss_and_rises_with_each_loss() -> None:
    for gains in (0, 1, 10, 100):
        uppers = [noninferior(gains, losses, 408, 0.01)[0] for losses in range(0, 300, 10)]
        assert uppers == sorted(set(uppers))
        assert all(upper > (10 * k - gains) / 408 for k, upper in enumerate(uppers))


def test_a_bound_at_the_margin_is_not_below_it() -> None:
    upper, _ = noninferior(2, 3, 408, 0.01)
    assert noninferior(2, 3, 408, upper) == (upper, False)
    assert noninferior(2, 3, 408, math.nextafter(upper, 1)) == (upper, True)


def test_at_a_level_of_a_half_the_bound_is_the_net_loss_itself() -> None:
    assert noninferior(0, 102, 408, 0.3, 0.5)[0] == pytest.approx(0.25)
    for pairs in range(1, 9):
        assert noninferior(pairs, 0, pairs, 0.3, 0.5)[0] == pytest.approx(-1)


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.03])
@pytest.mark.parametrize("gain_rate", [0.0, 0.001, 0.005, 0.02, 0.0346])
def test_a_net_loss_at_the_margin_passes_in_hardly_more_than_alpha_of_cases(margin: float, gain_rate: float) -> None:
    passes = 0.0
    for gains in range(60):
        likely = scipy_stats.binom.pmf(gains, 408, gain_rate)
        if likely > 1e-9:
            fewest = bisect_left(range(409 - gains), True, key=lambda k, g=gains: not noninferior(g, k, 408, margin)[1])
            passes += likely * scipy_stats.binom.cdf(fewest - 1, 408 - gains, (gain_rate + margin) / (1 - gain_rate))
    assert passes <= 0.051


@pytest.mark.parametrize("margin", [0.0, -0.01, 1.0, math.nan])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin lies between 0 and 1"):
        noninferior(0, 0, 408, margin)


@pytest.mark.parametrize("alpha", [0.0, 0.51, -0.1, math.nan])
def test_a_bound_below_the_estimate_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha lies between 0 and 0\.5"):
        noninferior(0, 0, 408, 0.01, alpha)


# --- Wilcoxon's test --------------------------------------------------------------------------------------------------


def wilcoxon_by_enumeration(differences: Sequence[float]) -> float:
    """Over all signs of the ranks of scipy."""
    kept = [difference for difference in differences if difference != 0]
    ranks = scipy_stats.rankdata(np.abs(kept))
    seen = sum(rank for rank, difference in zip(ranks, kept, strict=True) if difference > 0)
    sums = [float(np.dot(ranks, signs)) for signs in product([0, 1], repeat=len(kept))]
    return sum(total >= seen for total in sums) / len(sums)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 30, 50, 200])
@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.5])
def test_wilcoxons_p_is_that_of_scipy(count: int, shift: float) -> None:
    differences = np.random.default_rng(count).normal(shift, 1, count)
    expected = scipy_stats.wilcoxon(differences, alternative="greater", method="exact").pvalue
    assert wilcoxon_p(differences.tolist()) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_wilcoxons_p_with_ties_and_zeros_is_that_of_all_signs(seed: int) -> None:
    draw = random.Random(seed)
    differences = [float(draw.randint(-3, 4)) for _ in range(draw.randint(1, 11))]
    assert wilcoxon_p(differences) == wilcoxon_by_enumeration(differences)


def test_wilcoxons_p_has_its_worked_values() -> None:
    assert wilcoxon_p([1, 2, 3]) == 1 / 8
    assert wilcoxon_p([-1, 2, 3]) == 2 / 8
    assert wilcoxon_p([-1, -2, 3]) == 5 / 8  # 3 of 6 is reached by {3}, {1,2}, {1,3}, {2,3}, {1,2,3}
    assert wilcoxon_p([-1, 1]) == 3 / 4  # midranks of 1.5 each


def test_zeros_say_nothing() -> None:
    assert wilcoxon_p([0.0, 1.0, -0.0, 2.0]) == wilcoxon_p([1.0, 2.0]) == 1 / 4
    assert wilcoxon_p([0.0, 0.0]) == wilcoxon_p([]) == 1.0


@pytest.mark.parametrize("count", [0, 1, 7, 10, 200])
def test_the_smallest_p_of_wilcoxons_test_is_that_of_differences_all_above_0(count: int) -> None:
    assert wilcoxon_p([float(k) for k in range(1, count + 1)]) == wilcoxon_smallest_p(count) == 2.0**-count


def test_fewer_than_no_differences_have_no_smallest_p() -> None:
    with pytest.raises(ValueError, match="-1 differences"):
        wilcoxon_smallest_p(-1)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_difference_that_is_not_finite_has_no_p(broken: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        wilcoxon_p([1.0, broken, 2.0])


# --- the permutation test ---------------------------------------------------------------------------------------------


def permutation_by_enumeration(baseline: Sequence[int], current: Sequence[int]) -> float:
    """Of whole numbers, whose sums are exact."""
    sums = [sum(split) for split in combinations([*baseline, *current], len(current))]
    return sum(total <= sum(current) for total in sums) / len(sums)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 3), (2, 9), (9, 2), (6, 7)])
def test_the_permutation_p_is_that_of_scipy(n: int, m: int) -> None:
    draw = np.random.default_rng(10 * n + m)
    baseline, current = draw.normal(0.3, 1, n), draw.normal(0, 1, m)
    expected = scipy_stats.permutation_test(
        (current, baseline), lambda one, other: one.mean() - other.mean(), alternative="less", n_resamples=10_000
    ).pvalue
    assert permutation_p(baseline.tolist(), current.tolist()) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("seed", range(40))
def test_accuracies_that_tie_as_counts_tie_as_floats(seed: int) -> None:
    draw = random.Random(seed)
    baseline = [draw.randint(345, 355) for _ in range(draw.randint(1, 6))]
    current = [draw.randint(343, 354) for _ in range(draw.randint(1, 6))]
    found = permutation_p([right / 408 for right in baseline], [right / 408 for right in current])
    assert found == permutation_by_enumeration(baseline, current)


def test_the_split_that_was_seen_counts_itself_and_one_of_the_same_sum_too() -> None:
    assert 340 / 408 + 351 / 408 != 341 / 408 + 350 / 408
    assert permutation_p([341 / 408, 350 / 408], [340 / 408, 351 / 408]) == 4 / 6  # itself, its twin, {340, 341 or 350}
    assert permutation_p([350 / 408, 341 / 408], [351 / 408, 340 / 408]) == 4 / 6


def test_a_lower_current_mean_is_evidence_and_a_higher_one_is_not() -> None:
    high, low = [0.86, 0.87, 0.88], [0.80, 0.81, 0.82, 0.83]
    assert permutation_p(high, low) == 1 / 35
    assert permutation_p(low, high) == 1.0
    assert permutation_p(low, [0.5]) == 1 / 5
    assert permutation_p([0.9], low) == 1 / 5


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 4), (7, 7), (11, 11)])
@pytest.mark.parametrize("value", [0.0, 351 / 408, -2.5])
def test_where_all_values_are_the_same_there_is_no_evidence(n: int, m: int, value: float) -> None:
    assert permutation_p([value] * n, [value] * m) == 1.0


def exact_permutation_p(baseline: Sequence[int], current: Sequence[int]) -> float:
    """By counting the groups of each size and sum."""
    ways = Counter({(0, 0): 1})
    for value in (*baseline, *current):
        ways.update({(size + 1, total + value): count for (size, total), count in list(ways.items())})
    of_size = {total: count for (size, total), count in ways.items() if size == len(current)}
    return sum(count for total, count in of_size.items() if total <= sum(current)) / sum(of_size.values())


@pytest.mark.parametrize(("n", "m"), [(11, 11), (8, 15), (15, 8)])
def test_where_the_splits_are_too_many_random_ones_come_near_the_p_of_all(n: int, m: int) -> None:
    draw = random.Random(n)
    baseline, current = [draw.randint(340, 360) for _ in range(n)], [draw.randint(337, 358) for _ in range(m)]
    exact = exact_permutation_p(baseline, current)
    assert 0.01 < exact < 0.99
    found = permutation_p([right / 408 for right in baseline], [right / 408 for right in current])
    # 200,000 draws of a share have a standard deviation of 0.0011 at most.
    assert found == pytest.approx(exact, abs=0.004)
    assert found != exact


def test_random_splits_are_the_same_each_time_and_others_with_another_seed() -> None:
    baseline, current = [float(k) for k in range(0, 22, 2)], [float(k) for k in range(1, 23, 2)]
    found = permutation_p(baseline, current)
    assert permutation_p(baseline, current) == found
    assert permutation_p(baseline, current, seed=1) != found


def test_random_splits_never_give_a_p_of_0() -> None:
    assert permutation_p([2.0] * 20, [1.0] * 20) == permutation_smallest_p(20, 20) == 1 / 200_001


@pytest.mark.parametrize(("n", "m", "splits"), [(1, 1, 2), (3, 3, 20), (3, 4, 35), (4, 4, 70), (10, 10, 184_756)])
def test_the_smallest_permutation_p_is_that_of_groups_wholly_apart(n: int, m: int, splits: int) -> None:
    assert permutation_smallest_p(n, m) == permutation_smallest_p(m, n) == 1 / splits
    assert permutation_p([10.0 + k for k in range(n)], [float(k) / m for k in range(m)]) == 1 / splits


def test_three_runs_against_three_cannot_fall_below_five_percent_and_three_against_four_can() -> None:
    assert not permutation_smallest_p(3, 3) < 0.05
    assert permutation_smallest_p(3, 4) < 0.05


@pytest.mark.parametrize(
    ("baseline", "current"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0]), ([1.0, 2.0], [math.inf])]
)
def test_a_mean_of_nothing_or_of_what_is_not_finite_has_no_p(baseline: list[float], current: list[float]) -> None:
    with pytest.raises(ValueError, match="all of them finite"):
        permutation_p(baseline, current)


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (-1, 3)])
def test_a_group_of_nothing_has_no_smallest_p(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=f"groups of {n} and {m}"):
        permutation_smallest_p(n, m)


# --- Holm's correction ------------------------------------------------------------------------------------------------


def test_holms_correction_has_its_worked_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_holms_correction_is_the_closed_bonferroni_test(seed: int) -> None:
    draw = random.Random(seed)
    p_values = [round(draw.random() ** 3, 2) for _ in range(draw.randint(1, 6))]
    found = holm(p_values)
    for index, adjusted in enumerate(found):
        # All sets of hypotheses that hold this one must be rejected.
        worst = max(
            min(1.0, len(chosen) * min(p_values[k] for k in chosen))
            for size in range(1, len(p_values) + 1)
            for chosen in combinations(range(len(p_values)), size)
            if index in chosen
        )
        assert adjusted == pytest.approx(worst, abs=1e-12)


@pytest.mark.parametrize("broken", [-0.1, 1.1, math.nan])
def test_a_p_value_that_is_no_probability_is_refused(broken: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, broken])
