"""The server scenario: requests at random moments, batched as they come, and the largest load that keeps a latency.

The workload is that of MLPerf's LoadGen (Reddi et al., MLPerf Inference Benchmark, 2020): Poisson arrivals whose rate
is the load. Latency counts from the moment at which a request was *due*, not from when anyone got round to it: an
engine that stalls delays everything that was due meanwhile, and a harness that waits for an answer before it sends
again would not see that (Tene, How NOT to Measure Latency, 2013: coordinated omission).
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mrpcbench.data.batches import Batch, EncodedPairs
from mrpcbench.instruments.clock import Clock
from mrpcbench.schema.bench_results import LoadPoint
from mrpcbench.statistics import quantile, samples_needed

SHARE = 0.99  # the percentile that must keep the target
FEWEST_REQUESTS = samples_needed(SHARE)  # of a load: fewer do not bound that percentile
TOLERANCE = 0.10  # the search ends when the smallest rate that fails is within this of the largest that holds

Infer = Callable[[Batch], NDArray[np.float32]]


@dataclass(frozen=True)
class Load:
    """One load as it was run: the figures, and the answers of the timed requests themselves.

    `rows` int64 [answered] says which pair each answer is of and `logits` float32 [answered, 2] what it is, both in the
    order of arrival; tokens count over all requests sent. `cut` is true where the load was ended before all that was
    scheduled had been sent; `error` is the first failure, in words.
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
    """What a load has shown so far."""

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
            # A cut load needs no rule of its own: what is too many late of all scheduled is too many of those sent.
            meets_slo=not self.failed and quantile(self.latencies_ms, SHARE) <= self.slo_ms,
        )
        rows = np.concatenate([np.empty(0, np.int64), *self.rows])
        logits = np.concatenate([np.empty((0, 2), np.float32), *self.logits])
        return Load(point, rows, logits, self.real_tokens, self.padding_tokens, cut, self.error)


def arrivals(rate_per_s: float, count: int, seed: int) -> NDArray[np.float64]:
    """Seconds at which each of `count` requests is due, float64 [count], a Poisson process of `rate_per_s`.

    For one seed all rates share one sequence, scaled, and a longer schedule begins with the shorter one: two loads
    differ in their rate and in nothing else.
    """
    return np.random.default_rng(seed).standard_exponential(count).cumsum() / rate_per_s


def requests_at(rate_per_s: float, *, slo_ms: float) -> int:
    """How many requests a load needs: `FEWEST_REQUESTS`, or as many as let an overload show.

    A queue that grows must have the time to outgrow the target, or a short burst at any rate would pass. With x more
    work than the engine can do the wait grows by x seconds a second; so a load lasts until half the tolerance of the
    search, as overload, would break the target.
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
) -> Load:
    """Answer requests due at `schedule` (seconds from now, ascending, at least one); request i is pair i mod N.

    One worker. The oldest waiting request opens a batch, which runs once `max_batch` wait or `window_ms` has passed
    since the oldest was due, whichever is first, and at once where the engine was busy for longer. A request waits from
    the moment it is due. The latency holds the padding of the batch, not the tokenising.

    A pass that raises an `Exception`, or answers another number of requests than it was given, counts its requests as
    failed, and serving goes on. Once so many are late or failed that `slo_ms` cannot be kept, nothing more is sent;
    what was due by then is still answered, so that sent = answered + failed always, and `meets_slo` is False.
    `rate_per_s` is the schedule's, for the record.
    """
    begin = clock.now()
    due: list[float] = (begin + schedule).tolist()
    # The order statistic just below the percentile is late once this many are, however fast all others may be.
    beyond_hope = len(due) - math.floor(SHARE * (len(due) - 1))
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
        if end == len(due) and tally.late + tally.failed >= beyond_hope:
            end = bisect_right(due, now, first)
    return tally.load(rate_per_s, now - due[0], cut=end < len(due))


def bracket(curve: Sequence[LoadPoint]) -> tuple[float | None, float | None]:
    """The largest rate of `curve` that meets the target, and the smallest above it that does not; None for neither.

    The first is the answer of a search, the second says how far the answer can be from the truth.
    """
    low = max((point.rate_per_s for point in curve if point.meets_slo), default=None)
    missed = (point.rate_per_s for point in curve if not point.meets_slo)
    return low, min((rate for rate in missed if low is None or rate > low), default=None)


def find_rate(
    run_at: Callable[[float], LoadPoint],
    *,
    slo_ms: float,
    start_rate: float,
    max_loads: int = 10,
    least_rate: float = 0.0,
) -> tuple[LoadPoint, ...]:
    """The loads tried while looking for the largest rate that meets the target; `bracket` reads the answer from them.

    From `start_rate` (requests a second; the engine's own offline throughput) the rate doubles or halves until it is
    bracketed, then the bracket is halved geometrically until it is within `TOLERANCE`. The search ends sooner after
    `max_loads`, below `least_rate`, after a load with failures, since no rate of an engine that fails is worth knowing,
    and where fewer requests would be as late. Raises `ValueError` for a load that passes on fewer requests than
    `requests_at` says.
    """
    curve: list[LoadPoint] = []
    rate = start_rate
    while len(curve) < max_loads:
        point = run_at(rate)
        needed = requests_at(point.rate_per_s, slo_ms=slo_ms)
        if point.meets_slo and len(point.latencies_ms) < needed:
            raise ValueError(f"{len(point.latencies_ms)} requests at {rate:g}/s judge nothing; at least {needed}")
        curve.append(point)
        low, high = bracket(curve)
        if point.failed or (low is None and _late_even_alone(point, slo_ms)):
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


def _late_even_alone(point: LoadPoint, slo_ms: float) -> bool:
    """Whether more are late than company can explain, so that a lower rate would not help.

    By Little's law the latencies over the duration are the mean number of requests inside, which bounds the share of
    time that the engine was not empty, and so (Poisson arrivals see time averages) the share of requests that found
    another there. As many again may have been joined by one that came after.
    """
    company = 2 * sum(point.latencies_ms) / 1e3 / point.duration_s
    late = sum(latency > slo_ms for latency in point.latencies_ms) / len(point.latencies_ms)
    return late > 1 - SHARE + company


def _ask(infer: Infer, batch: Batch) -> NDArray[np.float32] | str:
    """Logits [B, 2] of `batch`, or why there are none."""
    try:
        logits = infer(batch)
        answers = len(logits)
    except Exception as error:  # whatever an engine raises is an answer that the caller did not get
        return f"{type(error).__name__}: {error}"
    return logits if answers == len(batch.rows) else f"{answers} answers to {len(batch.rows)} requests"
