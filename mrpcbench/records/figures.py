"""Figures derived from the samples of a benchmark and the times of a training run: rates, percentiles, energy, spans.

Standard library only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from mrpcbench.schema.bench_results import BenchRow, Ceilings, LoadPoint, SpanName, Work
from mrpcbench.schema.results import EpochMetrics, TrainSection
from mrpcbench.schema.verdicts import Interval
from mrpcbench.statistics import median_interval, quantile, samples_needed

# With n samples, their range covers the median with probability 1 - 2 / 2^n: 93.75% for 5, and 87.5% for 4.
ROUNDS_FOR_INTERVAL = 5
# The quantile of the rounds by which `compare` judges a row. Other programs can only slow a round down, so the lower
# quartile is unaffected until they disturb three rounds in four. The minimum would be more robust, but it falls as
# rounds are added.
JUDGED_QUANTILE = 0.25


def pairs_per_s(row: BenchRow) -> float:
    """Pairs per second of a row that is not server: over all calls (single-stream), or in the median pass (offline)."""
    if row.scenario == "single-stream":
        return len(row.samples_ms) * 1e3 / sum(row.samples_ms)
    return row.pairs * 1e3 / quantile(row.samples_ms, 0.5)


def best_load(row: BenchRow) -> LoadPoint | None:
    """The largest server load that met the target; None if no load did, and for the other scenarios."""
    if row.server is None or row.server.best_rate_per_s is None:
        return None
    best = (point for point in row.server.curve if point.rate_per_s == row.server.best_rate_per_s)
    return next(best, None)


def bracket(curve: Sequence[LoadPoint]) -> tuple[float | None, float | None]:
    """The largest rate of `curve` that meets the target, and the smallest rate above it that misses it.

    Either is None if there is none. The first is the result of the search for a rate; the second bounds its error.
    """
    low = max((point.rate_per_s for point in curve if point.meets_slo), default=None)
    missed = (point.rate_per_s for point in curve if not point.meets_slo)
    return low, min((rate for rate in missed if low is None or rate > low), default=None)


def speed(row: BenchRow) -> float | None:
    """Pairs per second; for server, the rate of the best load. None without a load, or without samples above 0."""
    if row.scenario != "server":
        return pairs_per_s(row) if min(row.samples_ms, default=0.0) > 0 else None
    load = best_load(row)
    return load.rate_per_s if load and load.rate_per_s > 0 else None


def time_us(row: BenchRow) -> float | None:
    """Microseconds per pair by which `compare` judges a row: the lower quartile of `round_us`; None without a sample.

    For server, microseconds per request at the best load; None if no load met the target.
    """
    if row.scenario == "server":
        load = best_load(row)
        return 1e6 / load.rate_per_s if load else None
    rounds = round_us(row)
    return quantile(rounds, JUDGED_QUANTILE) if min(rounds, default=0.0) > 0 else None


def round_us(row: BenchRow) -> list[float]:
    """Microseconds per pair of each complete round, in the order run; for single-stream, of the round's median pair.

    If another program interrupts a few single calls, their sum changes, but their median does not.
    """
    if row.scenario != "single-stream":
        return [milliseconds * 1e3 / row.pairs for milliseconds in row.samples_ms]
    whole = len(row.samples_ms) // row.pairs * row.pairs
    return [median(row.samples_ms[start : start + row.pairs]) * 1e3 for start in range(0, whole, row.pairs)]


def percentile_ms(row: BenchRow, share: float) -> float | None:
    """The `share` quantile of the samples of a row that is not server, in milliseconds.

    None for a quantile above the median with too few samples to bound it at 99% confidence.
    """
    if not row.samples_ms or (share > 0.5 and len(row.samples_ms) < samples_needed(share)):
        return None
    return quantile(row.samples_ms, share)


def load_percentile_ms(load: LoadPoint, share: float) -> float | None:
    """The `share` quantile of the latencies under a server load, in milliseconds; None without an answer."""
    return quantile(load.latencies_ms, share) if load.latencies_ms else None


def round_ms(row: BenchRow) -> list[float]:
    """Milliseconds of each complete round of an offline or single-stream row, in the order run."""
    size = row.pairs if row.scenario == "single-stream" else 1
    whole = len(row.samples_ms) // size * size
    return [math.fsum(row.samples_ms[start : start + size]) for start in range(0, whole, size)]


@dataclass(frozen=True, kw_only=True)
class RelativeSpeed:
    """Speedup of one row over another: the median over the rounds that both have run, and its 95% interval.

    The interval is None with too few rounds. For server there are no rounds: see `relative_speed`.
    """

    times: float
    interval: Interval | None
    rounds: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 1, so that one of the rows is faster."""
        return self.interval is not None and not self.interval.low <= 1 <= self.interval.high


def relative_speed(row: BenchRow, base: BenchRow) -> RelativeSpeed | None:
    """Speedup of `row` over `base`, paired by round, because what slows a round slows both of its interleaved rows.

    As `median_speedup`, with a percentile bootstrap interval. None without a complete round. For server, the ratio of
    the best loads, with the range in which it can lie, since each search ends between two rates; None without a load.
    """
    if row.scenario == "server":
        return _relative_load(row, base)
    logs = _log_ratios(row, base)
    times = median_speedup(row, base)
    if times is None:
        return None
    found = median_interval(logs) if len(logs) >= ROUNDS_FOR_INTERVAL else None
    ends = replace(found, low=math.exp(found.low), high=math.exp(found.high)) if found else None
    return RelativeSpeed(times=times, interval=ends, rounds=len(logs))


def _relative_load(row: BenchRow, base: BenchRow) -> RelativeSpeed | None:
    """The ratio of the best loads; its range is None if a search found no rate that misses the target."""
    mine, mine_above = bracket(row.server.curve if row.server else ())
    other, other_above = bracket(base.server.curve if base.server else ())
    if not mine or not other:
        return None
    found = None
    if mine_above is not None and other_above is not None:
        ends = mine / other_above, mine_above / other
        found = Interval(low=ends[0], high=ends[1], level=1.0, method="rates between which both searches ended")
    return RelativeSpeed(times=mine / other, interval=found, rounds=0)


def median_speedup(row: BenchRow, base: BenchRow) -> float | None:
    """exp of the median over the rounds of ln(time of `base` / time of `row`); None without a complete round."""
    logs = _log_ratios(row, base)
    return math.exp(median(logs)) if logs else None


def _log_ratios(row: BenchRow, base: BenchRow) -> list[float]:
    # After an interrupt, one row may have one round more than the other.
    pairs = zip(round_ms(row), round_ms(base), strict=False)
    return [math.log(other / mine) for mine, other in pairs if mine > 0 and other > 0]


def pairs_timed(row: BenchRow) -> int:
    """Pairs that ran while the sensors were read: in all rounds, or for server under all loads."""
    if row.server is not None:
        return sum(point.sent for point in row.server.curve)
    return len(row.samples_ms) * (1 if row.scenario == "single-stream" else row.pairs)


def joules_per_thousand(row: BenchRow) -> float | None:
    """Energy of the GPU per thousand pairs, in joules; None without a sensor.

    For server, it covers all loads that were tried, including the GPU's idle time between requests.
    """
    energy_j = row.resources.gpu_energy_j if row.resources else None
    pairs = pairs_timed(row)
    return None if energy_j is None or not pairs else energy_j / pairs * 1e3


def least_s(work: Work, ceilings: Ceilings) -> float:
    """The least seconds that `work` can take: one of the two `ceilings` is reached all the time (roofline model)."""
    return max(work.flops / ceilings.flops_per_s, work.moved_bytes / ceilings.bytes_per_s)


def share_of_limit(work: Work, ceilings: Ceilings, seconds: float) -> float:
    """The least time for `work` divided by the `seconds` it took: 1 is the limit."""
    return least_s(work, ceilings) / seconds


def flops_share(work: Work, ceilings: Ceilings, seconds: float) -> float:
    """Model FLOP utilisation: the rate of useful arithmetic over `seconds`, divided by its ceiling."""
    return work.flops / ceilings.flops_per_s / seconds


def row_share(
    row: BenchRow, ceilings: Sequence[Ceilings], share: Callable[[Work, Ceilings, float], float]
) -> float | None:
    """`share_of_limit` or `flops_share` for one round of a row.

    None if the row's work is unknown, or if no ceiling was measured for its device and arithmetic.
    """
    place = row.placement.device, row.placement.product_dtype
    found = next((item for item in ceilings if (item.device, item.dtype) == place), None)
    return share(row.work, found, row.pairs / pairs_per_s(row)) if found and row.work else None


def padding_share(row: BenchRow) -> float:
    """Share of the tokens of a round that are padding."""
    return row.padding_tokens / max(1, row.real_tokens + row.padding_tokens)


def pairs_in_spans(row: BenchRow) -> int:
    """The number of pairs over which the spans of a row were timed.

    `compute` has one sample per batch, and only the last batch of a complete pass can be smaller. So n samples cover n
    full batches, or all pairs if that is fewer.
    """
    batches = sum(len(span.samples_ms) for span in row.spans or () if span.name == "compute")
    return min(row.pairs, batches * row.batch_size)


def span_us(row: BenchRow) -> dict[SpanName, float]:
    """Mean microseconds per pair of each span; empty without spans."""
    pairs = pairs_in_spans(row)
    return {span.name: math.fsum(span.samples_ms) * 1e3 / pairs for span in row.spans or () if pairs}


def best_epoch(section: TrainSection) -> EpochMetrics | None:
    """The log line of the epoch whose weights were saved; None if no epoch ends at the best step."""
    return next((epoch for epoch in section.epochs if epoch.step == section.best_step), None)


def stepping_s(section: TrainSection) -> float | None:
    """Seconds that training spent on its steps after the first; None if the record lacks the other parts."""
    if None in (section.train_s, section.cold_s, section.evaluate_s, section.save_s):
        return None
    return math.fsum((section.train_s or 0, -(section.cold_s or 0), -(section.evaluate_s or 0), -(section.save_s or 0)))


def steps_per_s(section: TrainSection) -> float | None:
    """Optimiser steps per second, over all steps but the first (see `stepping_s`)."""
    seconds = stepping_s(section)
    last = section.epochs[-1].step if section.epochs else 0
    steps = last - (section.resumed_from_step or 0) - 1
    return steps / seconds if seconds and seconds > 0 and steps > 0 else None
