"""The server scenario: random arrivals, dynamic batching, and the largest rate that meets a latency target.

The workload follows MLPerf's LoadGen (Reddi et al., MLPerf Inference Benchmark, 2020): Poisson arrivals whose rate
is the load. Latency counts from the *scheduled* arrival, not from when the request is dispatched. An engine that stalls
delays every request scheduled meanwhile. A harness that waits for each answer before it sends the next request would
miss that delay (coordinated omission: Tene, How NOT to Measure Latency, 2013).
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mrpcbench.data.batches import Batch, EncodedPairs
from mrpcbench.instruments.clock import Clock
from mrpcbench.records.figures import bracket, load_percentile_ms
from mrpcbench.schema.bench_results import LoadPoint
from mrpcbench.statistics import samples_needed

SHARE = 0.99  # the percentile that must meet the target
FEWEST_REQUESTS = samples_needed(SHARE)  # per load: fewer samples do not bound that percentile
TOLERANCE = 0.10  # the search ends when the smallest failing rate is within this of the largest passing one
MOST_LOADS = 10  # the search ends after this many loads
PROGRESS_EVERY_S = 0.2  # between two reports of the progress, so that they take no time from the engine

Infer = Callable[[Batch], NDArray[np.float32]]


@dataclass(frozen=True)
class Load:
    """The results of one load: its figures, and the answers of the timed requests.

    `rows` int64 [answered] are the pairs and `logits` float32 [answered, 2] the answers, both in order of arrival. The
    token counts cover all requests sent. `cut` is True if the load ended before every scheduled request was sent.
    `error` is the message of the first failure.
    """

    point: LoadPoint
    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    real_tokens: int
    padding_tokens: int
    cut: bool
    error: str | None


@dataclass
class _Tally:
    """The results of a load so far."""

    slo_ms: float
    latencies_ms: list[float] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    logits: list[NDArray[np.float32]] = field(default_factory=list)
    real_tokens: int = 0
    padding_tokens: int = 0
    failed: int = 0
    late: int = 0
    error: str | None = None

    def add(self, batch: Batch, outcome: NDArray[np.float32] | str, waited_ms: list[float]) -> None:
        self.batch_sizes.append(len(waited_ms))
        self.real_tokens += batch.real_tokens
        self.padding_tokens += batch.padding_tokens
        if isinstance(outcome, str):
            self.failed += len(waited_ms)
            self.error = self.error or outcome
            return
        self.latencies_ms += waited_ms
        self.late += sum(latency > self.slo_ms for latency in waited_ms)
        self.rows.append(batch.rows)
        self.logits.append(outcome)

    def load(self, rate_per_s: float, duration_s: float, cut: bool) -> Load:
        point = LoadPoint(
            rate_per_s=rate_per_s,
            sent=sum(self.batch_sizes),
            failed=self.failed,
            latencies_ms=tuple(self.latencies_ms),
            batch_sizes=tuple(self.batch_sizes),
            duration_s=duration_s,
            meets_slo=False,
        )
        # A cut load needs no extra rule: too many late among all scheduled is also too many among those sent.
        p99_ms = load_percentile_ms(point, SHARE)
        point = replace(point, meets_slo=not self.failed and p99_ms is not None and p99_ms <= self.slo_ms)
        rows = np.concatenate([np.empty(0, np.int64), *self.rows])
        logits = np.concatenate([np.empty((0, 2), np.float32), *self.logits])
        return Load(point, rows, logits, self.real_tokens, self.padding_tokens, cut, self.error)


def arrivals(rate_per_s: float, count: int, seed: int) -> NDArray[np.float64]:
    """Scheduled times of `count` requests in seconds, float64 [count]: a Poisson process of `rate_per_s`.

    With the same seed, all rates share one scaled sequence, and a longer schedule starts with the shorter one. So two
    loads differ only in their rate.
    """
    return np.random.default_rng(seed).standard_exponential(count).cumsum() / rate_per_s


def requests_at(rate_per_s: float, *, slo_ms: float) -> int:
    """Number of requests of a load: at least `FEWEST_REQUESTS`, and enough to detect an overload.

    A load must be long enough for a growing queue to exceed the target; otherwise a short burst would pass at any rate.
    If requests arrive at 1 + x times the engine's rate, the wait grows by x seconds per second. The load lasts long
    enough that an overload of half the search's tolerance misses the target.
    """
    return max(FEWEST_REQUESTS, math.ceil(rate_per_s * slo_ms / 1e3 / (TOLERANCE / 2)))


def serve(
    infer: Infer,
    pairs: EncodedPairs,
    schedule: NDArray[np.float64],
    *,
    rate_per_s: float,
    window_ms: float,
    max_batch: int,
    slo_ms: float,
    clock: Clock,
    progress: Callable[[int], None] = lambda answered: None,
) -> Load:
    """Answer requests scheduled at `schedule` (seconds from now, ascending, not empty). Request i is pair i mod N.

    There is one worker. The oldest waiting request opens a batch. The batch runs when `max_batch` requests wait, or
    `window_ms` after the oldest was scheduled; immediately if that time passed while the engine was busy. Latency
    includes padding the batch, but not tokenising.

    If a call raises an `Exception`, or returns the wrong number of answers, its requests count as failed and serving
    continues. As soon as too many requests are late or failed to meet `slo_ms`, no more are sent. Requests scheduled by
    then are still answered, so sent = answered + failed, and `meets_slo` is False. `rate_per_s` is only recorded.
    From time to time, `progress` gets the number of requests that have run.
    """
    begin = reported = clock.now()
    due: list[float] = (begin + schedule).tolist()
    # With this many late requests, the order statistic just below the percentile is late, however fast the others are.
    too_many_late = len(due) - math.floor(SHARE * (len(due) - 1))
    tally = _Tally(slo_ms)
    first, end, now = 0, len(due), begin
    while first < end:
        dispatch = due[first] + window_ms / 1e3
        if first + max_batch <= end:
            dispatch = min(dispatch, due[first + max_batch - 1])
        clock.sleep_until(dispatch)
        after = min(bisect_right(due, clock.now(), first, end), first + max_batch)
        batch = pairs.batch_of(np.arange(first, after) % len(pairs.columns["input_ids"]))
        outcome = _ask(infer, batch)
        now = clock.now()
        tally.add(batch, outcome, [(now - moment) * 1e3 for moment in due[first:after]])
        first = after
        if now - reported >= PROGRESS_EVERY_S:
            progress(first)
            reported = now
        if end == len(due) and tally.late + tally.failed >= too_many_late:
            end = bisect_right(due, now, first)
    return tally.load(rate_per_s, now - due[0], cut=end < len(due))


def find_rate(
    run_at: Callable[[float], LoadPoint],
    *,
    slo_ms: float,
    start_rate: float,
    max_loads: int = MOST_LOADS,
    least_rate: float = 0.0,
) -> tuple[LoadPoint, ...]:
    """Search for the largest rate that meets the target. Returns all loads tried; `bracket` extracts the result.

    The rate starts at `start_rate` (requests/s; the engine's offline throughput) and doubles or halves until it is
    bracketed. The bracket is then bisected geometrically until it is within `TOLERANCE`. The search ends earlier after
    `max_loads` loads, below `least_rate`, after a load with failures, or if a lower rate would not help. Raises
    `ValueError` if a load passes with fewer requests than `requests_at` asks for.
    """
    curve: list[LoadPoint] = []
    rate = start_rate
    while len(curve) < max_loads:
        point = run_at(rate)
        needed = requests_at(point.rate_per_s, slo_ms=slo_ms)
        if point.meets_slo and len(point.latencies_ms) < needed:
            raise ValueError(f"{len(point.latencies_ms)} requests at {rate:g}/s are too few; at least {needed}")
        curve.append(point)
        low, high = bracket(curve)
        if point.failed or (low is None and _late_without_queue(point, slo_ms)):
            break
        if low is None and rate / 2 < least_rate:
            break
        if low is None:
            rate /= 2
        elif high is None:
            rate *= 2
        elif high <= low * (1 + TOLERANCE):
            break
        else:
            rate = math.sqrt(low * high)
    return tuple(curve)


def _late_without_queue(point: LoadPoint, slo_ms: float) -> bool:
    """Whether more requests are late than other requests can explain, so a lower rate would not help.

    By Little's law, the sum of latencies over the duration is the mean number of requests in the system. It bounds the
    share of time in which the system is not empty. Poisson arrivals see time averages, so it also bounds the share of
    requests that find another one there. As many again may be joined by a later request.
    """
    shared = 2 * sum(point.latencies_ms) / 1e3 / point.duration_s
    late = sum(latency > slo_ms for latency in point.latencies_ms) / len(point.latencies_ms)
    return late > 1 - SHARE + shared


def _ask(infer: Infer, batch: Batch) -> NDArray[np.float32] | str:
    """Logits [B, 2] of `batch`, or an error message."""
    try:
        logits = infer(batch)
        answers = len(logits)
    except Exception as error:  # an engine may raise anything; its requests count as failed
        return f"{type(error).__name__}: {error}"
    return logits if answers == len(batch.rows) else f"{answers} answers to {len(batch.rows)} requests"
