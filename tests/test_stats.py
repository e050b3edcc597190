"""Tests of mrpcbench.stats against numpy, scipy and worked values."""

import math
import random

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mrpcbench.stats import (
    binomial_cdf,
    binomial_pmf,
    exact_interval,
    median_interval,
    quantile,
    rate_upper_bound,
    samples_needed,
    wilson_interval,
)

# --- quantiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101, 662])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_is_that_of_numpy(count: int, share: float) -> None:
    samples = np.random.default_rng(count).lognormal(size=count).tolist()
    assert quantile(samples, share) == pytest.approx(float(np.quantile(samples, share)), rel=1e-12)


def test_a_quantile_does_not_depend_on_the_order_of_the_samples_and_leaves_them_as_they_are() -> None:
    samples = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert quantile(samples, 0.5) == 3.0
    assert samples == [5.0, 1.0, 4.0, 2.0, 3.0]


def test_no_samples_have_no_quantile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        quantile([], 0.5)


@pytest.mark.parametrize(("share", "needed"), [(0.9, 64), (0.99, 662)])
def test_a_percentile_needs_as_many_samples_as_the_design_says(share: float, needed: int) -> None:
    assert samples_needed(share) == needed


@pytest.mark.parametrize("share", [0.01, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995])
def test_the_samples_needed_are_the_fewest_whose_second_largest_bounds_the_quantile(share: float) -> None:
    needed = samples_needed(share)

    def confidence(samples: int) -> float:
        """That at least two of `samples` lie above the quantile."""
        return float(scipy_stats.binom.sf(1, samples, 1 - share))

    assert confidence(needed) >= 0.99
    assert needed == 2 or confidence(needed - 1) < 0.99


@pytest.mark.parametrize("share", [-0.1, 0.0, 1.0, 1.5])
def test_a_share_that_is_none_needs_no_samples_but_an_error(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        samples_needed(share)


# --- Wilson's interval ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 10), (5, 10), (10, 10), (279, 408), (408, 408), (1, 1)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilsons_interval_is_that_of_scipy(successes: int, trials: int, level: float) -> None:
    found = wilson_interval(successes, trials, level)
    expected = scipy_stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (found.level, found.method) == (level, "wilson")


def test_wilsons_interval_has_its_textbook_value() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81 of 263.
    found = wilson_interval(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


def test_wilsons_interval_lies_between_0_and_1_and_holds_the_share_itself() -> None:
    for trials in (*range(1, 60), 408, 1725, 3668):
        for successes in {0, 1, trials // 3, trials - 1, trials}:
            found = wilson_interval(successes, trials)
            assert 0 <= found.low <= successes / trials <= found.high <= 1, (successes, trials, found)
            assert found.high - found.low > 0


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (5, 4), (-1, 4)])
def test_a_share_of_nothing_or_of_too_much_has_no_interval(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {trials} trials"):
        wilson_interval(successes, trials)


# --- the binomial -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trials", [1, 2, 20, 408, 1725, 100_000])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.0073, 0.3, 0.5, 0.9, 1.0])
def test_the_binomials_distribution_is_that_of_scipy(trials: int, rate: float) -> None:
    for successes in {0, 1, trials // 10, trials // 2, int(trials * rate), trials - 1, trials}:
        expected = float(scipy_stats.binom.cdf(successes, trials, rate))
        assert binomial_cdf(successes, trials, rate) == pytest.approx(expected, rel=1e-8, abs=1e-300), successes


@pytest.mark.parametrize("trials", [0, 1, 20, 408, 100_000])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.3, 0.5, 0.9, 1.0])
def test_the_binomials_probabilities_are_those_of_scipy(trials: int, rate: float) -> None:
    for successes in {0, min(1, trials), trials // 2, int(trials * rate), trials}:
        expected = float(scipy_stats.binom.pmf(successes, trials, rate))
        assert binomial_pmf(successes, trials, rate) == pytest.approx(expected, rel=1e-8, abs=1e-300), successes


def test_all_trials_and_more_are_certain_to_the_last_digit() -> None:
    for trials in range(1, 60):
        assert binomial_cdf(trials, trials, 0.3) == binomial_cdf(trials + 2, trials, 0.3) == 1.0


def test_the_binomials_distribution_never_exceeds_1_by_rounding() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        trials = draw.randint(1, 200)
        value = binomial_cdf(draw.randint(0, trials), trials, draw.random())
        assert 0 <= value <= 1


@pytest.mark.parametrize(
    ("events", "trials"), [(0, 408), (1, 408), (5, 408), (200, 408), (407, 408), (0, 1), (3, 1725)]
)
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_bound_of_a_rate_is_clopper_and_pearsons(events: int, trials: int, level: float) -> None:
    expected = float(scipy_stats.beta.ppf(level, events + 1, trials - events))
    assert rate_upper_bound(events, trials, level) == pytest.approx(expected, rel=1e-9)


def test_no_flip_of_408_allows_three_quarters_of_a_percent() -> None:
    assert f"{rate_upper_bound(0, 408):.2%}" == "0.73%"


def test_the_bound_of_a_rate_that_is_always_met_is_1() -> None:
    assert rate_upper_bound(7, 7) == 1.0


@pytest.mark.parametrize(("events", "trials"), [(0, 0), (5, 4), (-1, 4)])
def test_a_rate_of_nothing_or_of_too_much_has_no_bound(events: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{events} events of {trials} trials"):
        rate_upper_bound(events, trials)


# --- the exact interval -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 10), (1, 10), (5, 10), (10, 10), (351, 408), (0, 408), (408, 408), (1, 1), (3, 1725)]
)
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_exact_interval_is_that_of_scipy(successes: int, trials: int, level: float) -> None:
    found = exact_interval(successes, trials, level)
    expected = scipy_stats.binomtest(successes, trials).proportion_ci(level, method="exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-10)
    assert (found.level, found.method) == (level, "clopper-pearson")


def test_the_exact_interval_of_none_or_all_ends_at_0_or_1() -> None:
    assert exact_interval(0, 408).low == 0.0
    assert exact_interval(408, 408).high == 1.0
    assert exact_interval(0, 408).high == pytest.approx(1 - 0.025 ** (1 / 408))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (5, 4), (-1, 4)])
def test_a_share_of_nothing_or_of_too_much_has_no_exact_interval(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {trials} trials"):
        exact_interval(successes, trials)


@pytest.mark.parametrize("level", [-0.5, 0.0, 1.0, 95, math.nan])
def test_an_interval_at_no_level_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level lies between 0 and 1"):
        exact_interval(1, 4, level)
    with pytest.raises(ValueError, match="level lies between 0 and 1"):
        median_interval([1.0, 2.0], level=level)


# --- the interval of a median -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 9, 10, 30])
def test_the_interval_of_a_median_is_that_of_resampling_the_samples(count: int) -> None:
    samples = np.random.default_rng(count).normal(size=count)
    draw = np.random.default_rng(1)
    medians = np.median(draw.choice(samples, size=(20_000, count)), axis=1)
    found = median_interval(samples.tolist())
    # An end moves from sample to sample; between two resamplings it moves by one gap of neighbours at most.
    gap = float(np.diff(np.sort(samples)).max())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(medians, [0.025, 0.975])), abs=gap)
    assert samples.min() <= found.low <= np.median(samples) <= found.high <= samples.max()


@pytest.mark.parametrize(("count", "level"), [(5, 0.9), (11, 0.95), (21, 0.8)])
def test_the_ends_of_the_interval_are_those_of_all_resamples_at_once(count: int, level: float) -> None:
    # The median of an odd resample is at most the k-th sample where at least half of the draws are (Efron 1982).
    at_most = [scipy_stats.binom.sf((count - 1) // 2, count, k / count) for k in range(1, count + 1)]
    ends = (next(k for k, share in enumerate(at_most) if share >= tail) for tail in ((1 - level) / 2, (1 + level) / 2))
    found = median_interval([float(k) for k in range(count)], level=level)
    assert (found.low, found.high) == tuple(float(end) for end in ends)


def test_the_interval_of_a_median_takes_the_middle_of_two_where_the_samples_are_even() -> None:
    # Of the four resamples 0 0, 0 1, 1 0 and 1 1 the middle half has the median 0.5.
    found = median_interval([0.0, 1.0], level=0.4)
    assert (found.low, found.high) == (0.5, 0.5)


def test_the_interval_of_a_median_is_the_same_each_time_in_any_order_and_another_with_another_seed() -> None:
    samples = np.random.default_rng(0).normal(size=30).tolist()
    assert median_interval(samples) == median_interval(samples)
    assert median_interval(samples, resamples=20) == median_interval(samples[::-1], resamples=20)
    assert len({median_interval(samples, resamples=20, seed=seed).low for seed in range(10)}) > 1


def test_the_interval_of_a_median_says_how_it_was_made() -> None:
    found = median_interval([1.0, 2.0, 3.0], level=0.9)
    assert (found.level, found.method) == (0.9, "percentile bootstrap, 10000 resamples")
    assert median_interval([1.0], resamples=7).method == "percentile bootstrap, 7 resamples"


def test_one_sample_has_an_interval_of_no_width() -> None:
    found = median_interval([0.25])
    assert (found.low, found.high) == (0.25, 0.25)


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [math.inf, 1.0]])
def test_a_median_of_nothing_or_of_what_is_not_finite_has_no_interval(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="all of them finite"):
        median_interval(samples)


def test_an_interval_of_no_resamples_is_refused() -> None:
    with pytest.raises(ValueError, match="0 resamples"):
        median_interval([1.0], resamples=0)
