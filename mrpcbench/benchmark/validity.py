"""Whether a benchmark row is VALID, and the rules that it breaks where it is not. Standard library only.

docs/bench.md has the rules with their reasons; a run that is VALID or INVALID is MLPerf LoadGen's idea. The
rules judge how well the time of a row is known, not how much its rounds vary, so more rounds cure a noisy row.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from statistics import median

from mrpcbench.records.figures import JUDGED_QUANTILE, round_us
from mrpcbench.schema.bench_results import BenchRow, Resources
from mrpcbench.statistics import quantile

# With fewer rounds nothing is known about steadiness.
FEWEST_ROUNDS = 3
# Half the width of the interval of the row's time, relative to it. Two VALID rows of the same code then differ by less
# than the 10% that `compare` allows, unless their processes differ.
LARGEST_UNCERTAINTY = 0.05
# Level of that interval.
LEVEL = 0.95
# Share of the time that the engine's threads wait for a core which another program holds. Under a constant load the
# rounds are steady, but a row can take twice its time.
LARGEST_WAIT = 0.05
# A row whose last third of rounds is this much slower or faster than its first is still warming up, or throttled: no
# figure of all rounds describes either state.
LARGEST_DRIFT = 0.10
# Chance that rounds in random order look like a trend.
TREND_ALPHA = 0.01
# A GPU that is limited by its power is so whenever it works at its best.
NORMAL = {"sw_power_cap"}


def broken_rules(row: BenchRow) -> tuple[str, ...]:
    """The rules that `row` breaks with the whole rounds that it has run, each in words; none means VALID."""
    return tuple(_broken(row))


def needs_rounds(row: BenchRow) -> bool:
    """Whether more rounds may make `row` valid: it breaks rules about noise in its rounds, and no other.

    Too few rounds are no noise: who asks for fewer than `FEWEST_ROUNDS` gets them.
    """
    rounds = round_us(row)
    if row.scenario == "server" or len(rounds) < FEWEST_ROUNDS:
        return False
    noise = (*_unsteady(rounds), *_waited(row))
    return bool(noise) and noise == broken_rules(row)


def _broken(row: BenchRow) -> Iterator[str]:
    if row.failed:
        yield f"the engine failed {row.failed} requests"
    if row.scenario == "server":
        if row.server is None or row.server.best_rate_per_s is None:
            yield "no load that was tried meets the target"
    else:
        yield from _unsteady(round_us(row))
    yield from _waited(row)
    yield from disturbances(row.resources)


def disturbances(used: Resources | None) -> Iterator[str]:
    """What disturbed a measurement, according to the sensors of the GPU."""
    if used is None:
        return
    if used.gpu_foreign_processes:
        yield f"{used.gpu_foreign_processes} other processes were on the GPU"
    throttled = set(used.gpu_throttle_reasons or ()) - NORMAL
    if throttled:
        yield f"the GPU throttled ({', '.join(sorted(throttled))})"


def _unsteady(rounds: Sequence[float]) -> Iterator[str]:
    """The rules over the times of the rounds. A round times every pair once, so rounds are comparable."""
    if len(rounds) < FEWEST_ROUNDS:
        yield f"too few rounds: {len(rounds)}, at least {FEWEST_ROUNDS} are needed"
        return
    if min(rounds) <= 0:
        yield "a round took no time"
        return
    drift = drift_of(rounds)
    if abs(drift) > LARGEST_DRIFT:
        way = "slower" if drift > 0 else "faster"
        yield f"drifting: the last third of the rounds is {abs(drift):.0%} {way} than the first"
    uncertainty = uncertainty_of(rounds)
    if uncertainty > LARGEST_UNCERTAINTY:
        yield f"unsteady: the time is known to ±{uncertainty:.1%}, at most ±{LARGEST_UNCERTAINTY:.0%} is allowed"


def _waited(row: BenchRow) -> Iterator[str]:
    """The rule for a busy machine: the quantile of the rounds by which the row is judged; a server has one value."""
    waits = row.resources.cpu_waits if row.resources else None
    if not waits:
        return
    share = quantile(waits, JUDGED_QUANTILE) / max(1, row.placement.threads)
    if share > LARGEST_WAIT:
        yield f"busy machine: threads waited for a core {share:.0%} of the time, at most {LARGEST_WAIT:.0%} is allowed"


def drift_of(rounds: Sequence[float]) -> float:
    """How much slower the median of the last third of `rounds` is than that of the first, as a share; negative: faster.

    0 unless the rounds have a trend that their own noise does not explain: Mann and Kendall's test, two-sided at
    `TREND_ALPHA` with the normal approximation and its continuity correction (Kendall 1975, Rank Correlation Methods,
    chapter 4). Six rounds are the fewest that can show one.
    """
    count = len(rounds)
    signs = sum((later > earlier) - (later < earlier) for earlier, later in combinations(rounds, 2))
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    if math.erfc((abs(signs) - 1) / deviation / math.sqrt(2)) > TREND_ALPHA:
        return 0.0
    third = count // 3
    return median(rounds[-third:]) / median(rounds[:third]) - 1


def uncertainty_of(rounds: Sequence[float]) -> float:
    """Half the width of the distribution-free interval of the row's time, relative to it.

    The interval of the `JUDGED_QUANTILE` between two order statistics, with at most half of 1 - `LEVEL` beyond each
    (David & Nagaraja 2003, Order Statistics, section 7.1). Of fewer than 13 rounds the fastest is its lower end, beyond
    which there is more: 0.75^n.
    """
    ordered = sorted(rounds)
    low, high = interval_ranks(len(ordered))
    return (ordered[high] - ordered[low]) / 2 / quantile(ordered, JUDGED_QUANTILE)


@cache
def interval_ranks(count: int) -> tuple[int, int]:
    """The order statistics of `count` rounds, from 0, between which the interval of `uncertainty_of` lies."""
    share, beyond = JUDGED_QUANTILE, (1 - LEVEL) / 2
    below, cumulated = [], 0.0  # below[k] is the chance that at most k of the rounds are below the quantile
    for k in range(count + 1):
        cumulated += math.comb(count, k) * share**k * (1 - share) ** (count - k)
        below.append(cumulated)
    low = sum(chance <= beyond for chance in below)
    high = next((rank for rank in range(count) if 1 - below[rank] <= beyond), count - 1)
    return max(0, low - 1), high
