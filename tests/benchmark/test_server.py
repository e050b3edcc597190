"""The server scenario: arrivals, dynamic batching, latency from the scheduled arrival, and the search for a rate.

No test sleeps or reads the real clock for a verdict: time is scripted, so that every latency is known exactly. Moments
are binary fractions of a second, which floating-point numbers add without error.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mrpcbench.benchmark.server import Load, arrivals, find_rate, requests_at, serve
from mrpcbench.data.batches import Batch, EncodedPairs
from mrpcbench.records.figures import bracket
from mrpcbench.schema.bench_results import LoadPoint

TICK = 1 / 64  # seconds: 15.625 ms
TICK_MS = 1e3 * TICK


@dataclass
class ScriptedClock:
    """A clock that a test advances; every sleep ends `oversleeps` seconds late."""

    moment: float = 1024.0
    oversleeps: float = 0.0

    def now(self) -> float:
        return self.moment

    def sleep_until(self, moment: float) -> None:
        if moment > self.moment:
            self.moment = moment + self.oversleeps


@dataclass
class ScriptedEngine:
    """An engine whose calls take `cost(call, batch)` seconds; the logits of pair i are [i, -i]."""

    clock: ScriptedClock
    cost: Callable[[int, Batch], float] = lambda index, batch: TICK
    passes: int = 0

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        self.passes += 1
        seconds = self.cost(self.passes - 1, batch)
        self.clock.moment += seconds
        pair = batch.inputs["input_ids"][:, 0].astype(np.float32)
        return np.stack([pair, -pair], axis=1)


class Pairs(EncodedPairs):
    """Pair i begins with token i and is i + 1 tokens long; `batch_of` makes a batch of given pairs."""

    def batch_of(self, rows: NDArray[np.int64], multiple_of: int = 1) -> Batch:
        width = max(len(self.columns["input_ids"][row]) for row in rows)
        inputs = {name: np.zeros((len(rows), width), dtype=np.int64) for name in self.columns}
        for name, column in self.columns.items():
            for line, row in enumerate(rows):
                inputs[name][line, : len(column[row])] = column[row]
        return Batch(inputs=inputs, rows=rows, real_tokens=int(inputs["attention_mask"].sum()))


def pairs_of(count: int) -> EncodedPairs:
    ids = [[pair] * (pair + 1) for pair in range(count)]
    return Pairs(columns={"input_ids": ids, "attention_mask": [[1] * len(one) for one in ids]}, padding={})


def run(schedule: Sequence[float] | NDArray[np.float64], engine: Any = None, **changes: Any) -> Load:
    """A load on `engine`, by default of one tick per call, with up to four requests per batch and no window."""
    engine = engine or ScriptedEngine(ScriptedClock())
    asked: dict[str, Any] = {"rate_per_s": 1.0, "window_ms": 0.0, "max_batch": 4, "slo_ms": 1e9} | changes
    clock = asked.pop("clock", None) or engine.clock
    return serve(engine, pairs_of(5), np.asarray(schedule, dtype=np.float64), clock=clock, **asked)


def engine_of(cost: Callable[[int, Batch], float], **clock: float) -> ScriptedEngine:
    return ScriptedEngine(ScriptedClock(**clock), cost)


# --- arrivals ---------------------------------------------------------------------------------------------------------


def test_gaps_have_the_mean_and_the_spread_of_a_poisson_process() -> None:
    moments = arrivals(50.0, 200_000, seed=3)
    gaps = np.diff(moments, prepend=0.0)
    assert gaps.min() > 0
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.01)
    assert gaps.std() == pytest.approx(1 / 50, rel=0.01)
    a_second = np.bincount(moments.astype(int))[:-1]
    assert a_second.mean() == pytest.approx(50, rel=0.01)
    assert a_second.var() == pytest.approx(50, rel=0.1)  # of a Poisson count, variance = mean
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.01


def test_arrivals_depend_only_on_the_seed() -> None:
    assert np.array_equal(arrivals(50.0, 100, 3), arrivals(50.0, 100, 3))
    assert not np.allclose(arrivals(50.0, 100, 3), arrivals(50.0, 100, 4))


def test_loads_of_one_seed_differ_only_in_their_rate() -> None:
    assert np.allclose(arrivals(50.0, 100, 3), 4 * arrivals(200.0, 100, 3))
    assert np.array_equal(arrivals(50.0, 100, 3), arrivals(50.0, 900, 3)[:100])


@pytest.mark.parametrize(
    ("rate", "slo_ms", "expected"), [(10.0, 100.0, 662), (1000.0, 100.0, 2000), (20_000.0, 50.0, 20_000)]
)
def test_a_load_lasts_long_enough_for_a_queue_to_outgrow_the_target(rate: float, slo_ms: float, expected: int) -> None:
    assert requests_at(rate, slo_ms=slo_ms) == expected


# --- batching ---------------------------------------------------------------------------------------------------------


def test_a_single_request_waits_for_the_window_and_its_call() -> None:
    load = run([TICK], window_ms=2 * TICK_MS)
    assert load.point.latencies_ms == (3 * TICK_MS,)
    assert load.point.duration_s == 3 * TICK


def test_max_batch_1_runs_without_waiting() -> None:
    assert run([TICK], window_ms=2 * TICK_MS, max_batch=1).point.latencies_ms == (TICK_MS,)


def test_without_a_window_a_request_runs_immediately() -> None:
    load = run([0, 2 * TICK, 4 * TICK])
    assert load.point.batch_sizes == (1, 1, 1)
    assert load.point.latencies_ms == (TICK_MS,) * 3


def test_a_full_batch_runs_immediately() -> None:
    load = run([TICK] * 4, window_ms=64 * TICK_MS)
    assert load.point.batch_sizes == (4,)
    assert load.point.latencies_ms == (TICK_MS,) * 4


def test_a_burst_larger_than_a_batch_is_answered_in_several_batches() -> None:
    load = run([TICK] * 6)
    assert load.point.batch_sizes == (4, 2)
    assert load.point.latencies_ms == (TICK_MS,) * 4 + (2 * TICK_MS,) * 2


def test_the_request_that_fills_the_batch_ends_the_wait() -> None:
    load = run([0, TICK, 2 * TICK, 3 * TICK], window_ms=64 * TICK_MS)
    assert load.point.batch_sizes == (4,)
    assert load.point.latencies_ms == (4 * TICK_MS, 3 * TICK_MS, 2 * TICK_MS, TICK_MS)


def test_only_requests_due_within_the_window_join_a_batch() -> None:
    load = run([0, TICK, 2 * TICK, 2.5 * TICK], window_ms=2 * TICK_MS)
    assert load.point.batch_sizes == (3, 1)
    assert load.point.latencies_ms == (3 * TICK_MS, 2 * TICK_MS, TICK_MS, 3 * TICK_MS)


def test_the_window_starts_at_the_scheduled_arrival() -> None:
    # The second is due at 1, the engine is busy until 4, its window ended at 3: it runs at 4.
    load = run([0, TICK], engine_of(lambda index, batch: (4 - 3 * index) * TICK), window_ms=2 * TICK_MS, max_batch=1)
    assert load.point.latencies_ms == (4 * TICK_MS, 4 * TICK_MS)
    # Two in a batch: the first fills at 0 and runs until 4; the next is due at 3 and its window ends at 5.
    load = run(
        [0, 0, 3 * TICK],
        engine_of(lambda index, batch: (4 - 3 * index) * TICK),
        window_ms=2 * TICK_MS,
        max_batch=2,
    )
    assert load.point.latencies_ms == (4 * TICK_MS, 4 * TICK_MS, 3 * TICK_MS)


def test_a_late_wake_up_counts_as_latency_and_includes_requests_that_arrived_meanwhile() -> None:
    late = engine_of(lambda index, batch: TICK, oversleeps=2 * TICK)
    load = run([TICK, 2 * TICK], late)
    assert load.point.batch_sizes == (2,)
    assert load.point.latencies_ms == (3 * TICK_MS, 2 * TICK_MS)


def test_latency_includes_padding_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(lambda index, batch: TICK)
    pad = Pairs.batch_of

    def slow(self: Pairs, rows: NDArray[np.int64]) -> Batch:
        engine.clock.moment += 2 * TICK
        return pad(self, rows)

    monkeypatch.setattr(Pairs, "batch_of", slow)
    assert run([0], engine).point.latencies_ms == (3 * TICK_MS,)


# --- latency from the scheduled arrival -------------------------------------------------------------------------------


def test_a_stall_delays_every_request_due_meanwhile() -> None:
    """At 128 requests/s, one stall of a second makes 128 requests late and 19 more, not one."""
    schedule = np.arange(1, 1025) / 128
    load = run(schedule, engine_of(lambda index, batch: 1.0 if index == 256 else 1 / 1024), max_batch=1)
    # In 1/1024 s: the stalled one takes 1024, each one after it was due 8 later and is answered 1 later.
    expected = [1] * 256 + [max(1, 1024 - 7 * after) for after in range(768)]
    assert load.point.latencies_ms == tuple(1e3 * wait / 1024 for wait in expected)
    assert sum(latency > 1e3 / 1024 for latency in load.point.latencies_ms) == 128 + 19


def test_overload_grows_the_queue_by_the_excess_rate() -> None:
    load = run(np.zeros(8), max_batch=1)
    assert load.point.latencies_ms == tuple(TICK_MS * turn for turn in range(1, 9))
    assert load.point.duration_s == 8 * TICK


# --- failures ---------------------------------------------------------------------------------------------------------


def fails(*passes: int) -> Callable[[int, Batch], float]:
    def cost(index: int, batch: Batch) -> float:
        if index in passes:
            raise RuntimeError(f"pass {index} broke")
        return TICK

    return cost


def test_a_failing_call_fails_only_its_own_requests() -> None:
    schedule = [0, 4 * TICK, 4 * TICK, *(4 * TICK * np.arange(2, 399))]
    load = run(schedule, engine_of(fails(1)), max_batch=2)
    assert (load.point.sent, load.point.failed) == (400, 2)
    assert load.point.batch_sizes == (1, 2) + (1,) * 397
    assert load.point.latencies_ms == (TICK_MS,) * 398
    assert load.rows.tolist() == [0] + [index % 5 for index in range(3, 400)]
    assert load.error == "RuntimeError: pass 1 broke"
    assert not load.cut
    assert not load.point.meets_slo


def test_the_first_failure_is_reported() -> None:
    assert run([0, TICK, 2 * TICK], engine_of(fails(1, 2))).error == "RuntimeError: pass 1 broke"


def test_an_engine_that_fails_everything_has_no_latency_and_meets_no_target() -> None:
    load = run([0, TICK], engine_of(fails(0, 1)))
    assert (load.point.sent, load.point.failed, load.point.latencies_ms) == (2, 2, ())
    assert not load.point.meets_slo
    assert load.logits.shape == (0, 2)
    assert load.rows.shape == (0,)


@pytest.mark.parametrize("wrong", [lambda logits: logits[:-1], lambda logits: None])
def test_an_engine_that_returns_too_few_answers_has_failed(wrong: Callable[[Any], Any]) -> None:
    clock = ScriptedClock()
    engine = ScriptedEngine(clock)
    load = run([0] * 3, lambda batch: wrong(engine(batch)), clock=clock)
    assert (load.point.sent, load.point.failed) == (3, 3)
    assert load.error


@pytest.mark.parametrize("seed", range(60))
def test_every_sent_request_is_answered_or_failed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, max_batch = int(rng.integers(1, 300)), int(rng.integers(1, 9))
    broken = set(rng.choice(300, int(rng.integers(0, 30)) * (seed % 2)).tolist())

    def cost(index: int, batch: Batch) -> float:
        engine.clock.moment += float(rng.exponential(0.02))
        if index in broken:
            raise ValueError("broken")
        return 0.0

    engine = engine_of(cost, oversleeps=0.001 * (seed % 3))
    window_ms, slo_ms = float(rng.integers(0, 50)), float(rng.choice([20.0, 100.0, 1e9]))
    schedule = arrivals(float(rng.uniform(10, 500)), count, seed)
    load = run(schedule, engine, window_ms=window_ms, max_batch=max_batch, slo_ms=slo_ms)
    point = load.point
    assert point.sent == len(point.latencies_ms) + point.failed == sum(point.batch_sizes)
    assert len(load.rows) == len(load.logits) == len(point.latencies_ms)
    assert (point.sent == count) != load.cut
    assert max(point.batch_sizes) <= max_batch
    assert min(point.latencies_ms, default=1.0) > 0
    if not point.failed:
        assert load.rows.tolist() == [index % 5 for index in range(point.sent)]
        assert point.meets_slo == (not load.cut and np.quantile(point.latencies_ms, 0.99) <= slo_ms)


@pytest.mark.parametrize("seed", range(30))
def test_a_call_starts_on_time_with_all_waiting_requests(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs, max_batch, window = rng.exponential(0.02, 300), int(rng.integers(1, 9)), float(rng.uniform(0, 0.05))
    started: list[float] = []

    def cost(index: int, batch: Batch) -> float:
        started.append(engine.clock.moment)
        return float(costs[index])

    engine = engine_of(cost)
    due = 1024.0 + arrivals(float(rng.uniform(10, 500)), 300, seed)
    load = run(due - 1024.0, engine, window_ms=1e3 * window, max_batch=max_batch)
    ends = np.cumsum(load.point.batch_sizes)
    free = 1024.0
    for index, (start, after) in enumerate(zip(started, ends, strict=True)):
        first = after - load.point.batch_sizes[index]
        full = due[first + max_batch - 1] if first + max_batch <= 300 else math.inf
        assert start == pytest.approx(max(free, min(due[first] + window, full)), abs=1e-9)
        assert due[after - 1] <= start + 1e-9
        assert after - first == max_batch or after == 300 or due[after] > start - 1e-9
        free = start + costs[index]
        assert load.point.latencies_ms[first:after] == pytest.approx(1e3 * (free - due[first:after]), abs=1e-6)


def test_answers_belong_to_the_requested_pairs() -> None:
    load = run(arrivals(200.0, 43, 1), max_batch=4)
    assert load.rows.tolist() == [index % 5 for index in range(43)]
    assert load.logits.tolist() == [[pair, -pair] for pair in load.rows]


def test_token_counts_are_those_of_the_batches_that_ran() -> None:
    load = run([0, 0, 0, 0, 4 * TICK])
    assert load.point.batch_sizes == (4, 1)
    assert load.real_tokens == 1 + 2 + 3 + 4 + 5
    assert load.padding_tokens == 3 + 2 + 1


def test_an_interrupt_is_not_a_failed_request() -> None:
    def stop(index: int, batch: Batch) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([0], engine_of(stop))


# --- the target -------------------------------------------------------------------------------------------------------


def late_passes(count: int) -> ScriptedEngine:
    """An engine of one tick per call whose first `count` calls take three ticks."""
    return engine_of(lambda index, batch: TICK * (3 if index < count else 1))


SPARSE = np.arange(1000) * 8 * TICK


def test_a_load_meets_the_target_if_its_p99_does() -> None:
    assert run(SPARSE, late_passes(9), slo_ms=TICK_MS).point.meets_slo
    assert run(SPARSE, late_passes(10), slo_ms=TICK_MS * 1.05).point.meets_slo  # between order statistics
    assert not run(SPARSE, late_passes(10), slo_ms=TICK_MS).point.meets_slo
    assert not run(SPARSE, engine_of(fails(500)), slo_ms=1e9).point.meets_slo


def test_a_latency_equal_to_the_target_meets_it() -> None:
    assert run([0], slo_ms=TICK_MS).point.meets_slo


def test_a_load_is_cut_when_it_can_no_longer_meet_the_target() -> None:
    whole, cut = run(SPARSE, late_passes(10), slo_ms=TICK_MS), run(SPARSE, late_passes(11), slo_ms=TICK_MS)
    assert (whole.cut, whole.point.sent) == (False, 1000)
    assert (cut.cut, cut.point.sent, cut.point.meets_slo) == (True, 11, False)


def test_failures_cut_a_load_like_late_requests() -> None:
    load = run(SPARSE, engine_of(fails(*range(0, 1000, 2))), slo_ms=TICK_MS)
    assert (load.cut, load.point.sent, load.point.failed) == (True, 21, 11)


def test_requests_due_when_a_load_is_cut_are_still_answered() -> None:
    """The first pass takes 64 ticks: eight were due by its end, and two of a hundred late are too many."""
    engine = engine_of(lambda index, batch: TICK * (64 if index == 0 else 4))
    load = run(np.arange(100) * 8 * TICK, engine, max_batch=3, slo_ms=2 * TICK_MS)
    # The cut is at the end of the second pass, tick 68; those due at 0, 8, ..., 64 were sent, and the one of 72 is not,
    # although passes still run then.
    assert load.cut
    assert load.point.batch_sizes == (1, 3, 3, 2)
    ends = (64, 68, 68, 68, 72, 72, 72, 76, 76)
    assert load.point.latencies_ms == tuple(TICK_MS * (end - 8 * index) for index, end in enumerate(ends))


# --- the search -------------------------------------------------------------------------------------------------------


def point_at(rate: float, holds: bool, **changes: Any) -> LoadPoint:
    count = 10_000
    figures = {
        "rate_per_s": rate,
        "sent": count,
        "failed": 0,
        "latencies_ms": (1.0 if holds else 1e6,) * count,
        "batch_sizes": (1,) * count,
        "duration_s": count / rate,
        "meets_slo": holds,
    }
    return LoadPoint(**(figures | changes))


@pytest.mark.parametrize("start", [1.0, 100.0, 130.0, 3000.0])
def test_the_search_finds_the_largest_passing_rate(start: float) -> None:
    curve = find_rate(lambda rate: point_at(rate, rate <= 137), slo_ms=10, start_rate=start, max_loads=20)
    low, high = bracket(curve)
    assert low is not None
    assert high is not None
    assert low <= 137 < high <= 1.1 * low
    assert {low, high} <= {point.rate_per_s for point in curve}


def test_the_search_doubles_or_halves_and_then_bisects() -> None:
    curve = find_rate(lambda rate: point_at(rate, rate <= 137), slo_ms=10, start_rate=400)
    tried = [400, 200, 100, 100 * 2**0.5, 100 * 2**0.25, 100 * 2**0.375, 100 * 2**0.4375]
    assert [point.rate_per_s for point in curve] == pytest.approx(tried[:6])


def test_the_search_is_bounded_if_every_rate_meets_the_target() -> None:
    curve = find_rate(lambda rate: point_at(rate, True), slo_ms=10, start_rate=1, max_loads=7)
    assert bracket(curve) == (64, None)
    assert len(curve) == 7


def test_the_search_is_bounded_if_no_rate_meets_the_target() -> None:
    curve = find_rate(lambda rate: point_at(rate, False), slo_ms=10, start_rate=64, max_loads=7)
    assert bracket(curve) == (None, 1)


def test_a_bracket_is_the_largest_passing_and_the_next_failing_rate() -> None:
    curve = [point_at(rate, rate in (8, 10)) for rate in (10, 5, 40, 8, 20)]
    assert bracket(curve) == (10, 20)
    assert bracket([]) == (None, None)


def test_a_load_with_failures_ends_the_search() -> None:
    curve = find_rate(lambda rate: point_at(rate, rate < 3, failed=int(rate > 3)), slo_ms=10, start_rate=1, max_loads=9)
    assert [point.rate_per_s for point in curve] == [1, 2, 4]
    assert bracket(curve) == (2, 4)


def test_a_passing_load_with_too_few_requests_is_an_error() -> None:
    with pytest.raises(ValueError, match="661 requests at 1/s are too few"):
        find_rate(lambda rate: point_at(rate, True, latencies_ms=(1.0,) * 661), slo_ms=1, start_rate=1)
    # 100 ms at 1000 requests/s needs 2000 requests: any queue absorbs a shorter burst.
    with pytest.raises(ValueError, match="at least 2000"):
        find_rate(lambda rate: point_at(rate, True, latencies_ms=(1.0,) * 1999), slo_ms=100, start_rate=1000)


def search(
    cost: Callable[[int, Batch], float], *, slo_ms: float, start: float, requests: int = 662, **changes: Any
) -> tuple[LoadPoint, ...]:
    def run_at(rate: float) -> LoadPoint:
        schedule = arrivals(rate, max(requests, requests_at(rate, slo_ms=slo_ms)), seed=0)
        return run(schedule, engine_of(cost), rate_per_s=rate, slo_ms=slo_ms, **changes).point

    return find_rate(run_at, slo_ms=slo_ms, start_rate=start)


def waits_at_most(times: float, load: float) -> float:
    """P(wait <= `times` service times) of the queue M/D/1 (Crommelin 1932; Tijms, A First Course, section 9.2)."""
    terms = (
        (-load * (times - k)) ** k / math.factorial(k) * math.exp(load * (times - k)) for k in range(int(times) + 1)
    )
    return (1 - load) * math.fsum(terms)


def test_the_search_finds_the_rate_that_queueing_theory_gives() -> None:
    """Calls of 10 ms with one request, 50 ms allowed: the p99 of the wait may be 4 calls."""
    loads = np.linspace(0.1, 0.95, 8501)
    capacity = 100 * max(load for load in loads if waits_at_most(4, load) >= 0.99)
    assert 55 < capacity < 70
    low, high = bracket(
        search(lambda index, batch: 0.01, slo_ms=50, start=100, requests=20_000, max_batch=1, window_ms=0.0)
    )
    assert low is not None
    assert high is not None
    assert low * 0.98 < capacity < high * 1.02
    assert high <= 1.1 * low


def test_an_engine_with_a_constant_cost_per_pass_serves_nearly_full_batches() -> None:
    """Calls of 10 ms for up to 8 requests: 800/s, which the search finds within 5%; one by one at most 100/s."""
    low, high = bracket(search(lambda index, batch: 0.01, slo_ms=50, start=100, max_batch=8))
    assert low is not None
    assert high is not None
    assert 600 < low <= 800 * 1.05
    alone, _ = bracket(search(lambda index, batch: 0.01, slo_ms=50, start=100, max_batch=1))
    assert alone is not None
    assert alone < 100


def test_a_load_above_capacity_lasts_long_enough_to_fail() -> None:
    """At 110% of capacity, 662 requests build up only 0.6 s of delay; a load has enough requests to miss the target."""
    curve = search(lambda index, batch: 0.01, slo_ms=1000, start=110, max_batch=1)
    assert not curve[0].meets_slo
    short = run(arrivals(110.0, 662, 0), engine_of(lambda index, batch: 0.01), max_batch=1, slo_ms=1000)
    assert short.point.meets_slo


def test_a_target_below_one_call_ends_the_search_without_a_rate() -> None:
    curve = search(lambda index, batch: 0.01, slo_ms=9, start=100, max_batch=8)
    assert bracket(curve)[0] is None
    assert len(curve) <= 4
    assert all(point.sent < 30 for point in curve)


def test_requests_that_are_late_without_any_load_end_the_search() -> None:
    """One call in twenty takes longer than the target at any load."""
    curve = search(lambda index, batch: 0.02 if index % 20 == 0 else 0.001, slo_ms=15, start=100, max_batch=8)
    assert bracket(curve)[0] is None
    assert len(curve) <= 5


def test_a_search_that_starts_overloaded_continues() -> None:
    curve = search(lambda index, batch: 0.01, slo_ms=50, start=1600, max_batch=1)
    low, _ = bracket(curve)
    assert low is not None
    assert [point.meets_slo for point in curve[:5]] == [False] * 5


def test_an_engine_with_occasional_failures_has_no_passing_load() -> None:
    curve = search(fails(*range(0, 5000, 400)), slo_ms=1000, start=10)
    assert len(curve) == 1
    assert curve[0].failed > 0
    assert bracket(curve) == (None, 10)
