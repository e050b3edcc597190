"""The validity rules of benchmark rows: rows that just pass each rule, and rows that break it."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from records import NOTHING, make_row

from mrpcbench.benchmark.validity import (
    broken_rules,
    drift_of,
    interval_ranks,
    invalid_sentence,
    needs_rounds,
    uncertainty_of,
)
from mrpcbench.schema.bench_results import BenchRow, LoadPoint, ServerResult


def offline(*samples_ms: float) -> BenchRow:
    return make_row("offline", samples_ms=samples_ms)


def single(*rounds: Sequence[float]) -> BenchRow:
    """Single pairs, a sequence of their times for each round."""
    return make_row("single-stream", pairs=len(rounds[0]), samples_ms=tuple(ms for times in rounds for ms in times))


def noisy(count: int, seed: int = 0) -> list[float]:
    """Rounds of 10 ms; other programs slow two of three down by up to 60%."""
    draw = Random(seed)
    return [10 * draw.uniform(1, 1.01) * (draw.uniform(1.0, 1.6) if draw.random() < 2 / 3 else 1) for _ in range(count)]


def test_three_steady_rounds_are_valid() -> None:
    assert broken_rules(offline(10.0, 10.2, 9.9)) == ()
    assert broken_rules(single([1.0] * 30, [1.01] * 30, [0.99] * 30)) == ()


def test_fewer_than_three_rounds_are_invalid() -> None:
    assert broken_rules(offline(10.0, 10.0)) == ("too few rounds: 2, at least 3 are needed",)
    assert broken_rules(make_row(samples=0)) == ("too few rounds: 0, at least 3 are needed",)


def test_an_unfinished_round_does_not_count() -> None:
    row = single([1.0] * 30, [1.0] * 30, [1.0] * 30)
    assert broken_rules(replace(row, samples_ms=(*row.samples_ms, *[9.0] * 29))) == ()
    assert broken_rules(replace(row, samples_ms=row.samples_ms[:-1])) == ("too few rounds: 2, at least 3 are needed",)


def test_different_lengths_of_single_pairs_do_not_make_a_row_unsteady() -> None:
    lengths = [1.0 + index % 7 for index in range(30)]
    assert broken_rules(single(lengths, lengths, lengths)) == ()


def test_a_few_slow_single_pairs_do_not_make_a_row_unsteady() -> None:
    steady, interrupted = [1.0] * 30, [1.0] * 20 + [50.0] * 10
    assert broken_rules(single(steady, interrupted, steady)) == ()


def test_too_few_samples_for_a_p99_leave_the_row_valid() -> None:
    assert broken_rules(single([1.0], [1.0], [1.0])) == ()


def test_three_rounds_more_than_10_percent_apart_are_unsteady() -> None:
    assert broken_rules(offline(10.0, 10.9, 10.0)) == ()
    (rule,) = broken_rules(offline(10.0, 11.5, 10.0))
    assert rule == "unsteady: the time is known to ±7.5%, at most ±5% is allowed"


def test_six_rounds_make_up_for_one_slow_round() -> None:
    assert broken_rules(offline(30.0, 10.0, 10.0))
    assert broken_rules(offline(30.0, 10.0, 10.0, 10.1, 10.0, 10.1)) == ()


def test_more_rounds_make_a_noisy_row_valid() -> None:
    counts = (3, 6, 12, 24, 48, 96)
    valid = [sum(not broken_rules(offline(*noisy(count, seed))) for seed in range(20)) for count in counts]
    assert valid[0] <= 4
    assert valid[-1] == 20
    uncertain = [sum(uncertainty_of(noisy(count, seed)) for seed in range(20)) for count in counts[1:]]
    assert uncertain == sorted(uncertain, reverse=True)


def test_a_row_with_two_speeds_is_invalid_while_its_time_is_ambiguous() -> None:
    assert broken_rules(offline(*[10.0, 14.0] * 8))
    assert broken_rules(offline(*[10.0, 14.0, 14.0, 14.0] * 8))


@pytest.mark.parametrize(("step", "word"), [(1.03, "slower"), (0.97, "faster")])
def test_a_trend_is_drift_with_a_direction(step: float, word: str) -> None:
    rules = broken_rules(offline(*[10.0 * step**index for index in range(9)]))
    begin = "drifting: the machine's speed changed; the last third of the rounds is "
    assert any(rule.startswith(begin) and rule.endswith(word) for rule in rules)


def test_a_throttled_second_half_is_drift() -> None:
    rounds = [10.0 + index % 3 / 10 for index in range(12)] + [13.0 + index % 3 / 10 for index in range(12)]
    assert drift_of(rounds) == pytest.approx(0.29, abs=0.02)
    assert any(rule.startswith("drifting") for rule in broken_rules(offline(*rounds)))


def test_a_small_trend_is_not_drift() -> None:
    assert broken_rules(offline(*[10.0 + index / 20 for index in range(9)])) == ()


def test_noise_without_a_trend_is_rarely_drift() -> None:
    assert sum(drift_of(noisy(16, seed)) != 0 for seed in range(200)) <= 6


def test_the_interval_has_at_most_a_fortieth_beyond_each_end() -> None:
    """P(Bin(n, 1/4) <= 0) = 0.75^n is below 1/40 from 13 on; P(Bin(6, 1/4) >= 5) = 0.0046 and >= 4 is 0.038."""
    assert interval_ranks(3) == (0, 2)
    assert interval_ranks(6) == (0, 4)
    assert interval_ranks(13)[0] == 0
    assert interval_ranks(24) == (1, 10)


def busy(*waits: float) -> BenchRow:
    """A row of two threads with these waits for a core in each round."""
    return replace(offline(10.0, 10.0, 10.0, 10.0), resources=replace(NOTHING, cpu_waits=waits))


def test_threads_that_wait_for_a_core_in_most_rounds_make_a_row_invalid_however_steady() -> None:
    assert broken_rules(busy(0.01, 0.0, 0.09, 0.05)) == ()
    (rule,) = broken_rules(busy(1.0, 1.0, 1.1, 0.9))
    assert rule == "busy machine: threads waited for a core 49% of the time, at most 5% is allowed"


def test_an_undisturbed_quarter_of_the_rounds_is_enough() -> None:
    assert broken_rules(busy(1.0, 0.0, 1.0, 0.0)) == ()


def test_an_engine_that_fails_requests_is_invalid() -> None:
    assert "failed 3 requests" in broken_rules(replace(offline(1.0, 1.0, 1.0), failed=3))[0]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"gpu_foreign_processes": 2}, "2 other processes were on the GPU"),
        ({"gpu_throttle_reasons": ("hw_thermal_slowdown",)}, "the GPU throttled (hw_thermal_slowdown)"),
    ],
)
def test_a_disturbed_gpu_is_invalid(change: dict[str, object], rule: str) -> None:
    row = replace(offline(1.0, 1.0, 1.0), resources=replace(NOTHING, **change))  # type: ignore[arg-type]
    assert broken_rules(row) == (rule,)


@pytest.mark.parametrize("reasons", [(), ("sw_power_cap",), None])
def test_a_gpu_at_its_power_limit_or_without_readings_is_not_throttled(reasons: tuple[str, ...] | None) -> None:
    row = replace(offline(1.0, 1.0, 1.0), resources=replace(NOTHING, gpu_throttle_reasons=reasons))
    assert broken_rules(row) == ()


def served(best: float | None = 100.0, **resources: Any) -> BenchRow:
    """A row of the server scenario on two threads."""
    point = LoadPoint(
        rate_per_s=100.0, sent=1, failed=0, latencies_ms=(1.0,), batch_sizes=(1,), duration_s=1.0, meets_slo=True
    )
    server = ServerResult(slo_ms=10, window_ms=0, max_batch=8, seed=0, curve=(point,), best_rate_per_s=best)
    made = make_row("offline", samples_ms=(), resources=replace(NOTHING, **resources))
    return replace(made, scenario="server", server=server)


def test_a_server_that_never_meets_its_target_is_invalid() -> None:
    assert broken_rules(served()) == ()
    assert broken_rules(served(best=None)) == ("no load meets the target",)


def test_a_server_on_a_busy_machine_is_invalid_and_no_rounds_are_added_for_it() -> None:
    assert broken_rules(served(cpu_waits=(0.09,))) == ()
    busy_server = served(cpu_waits=(0.98,))
    (rule,) = broken_rules(busy_server)
    assert rule == "busy machine: threads waited for a core 49% of the time, at most 5% is allowed"
    assert not needs_rounds(busy_server)


# --- labels -----------------------------------------------------------------------------------------------------------


def answered(agreement: float | None, dtype: str = "fp32", **changes: Any) -> BenchRow:
    """A steady row of 400 pairs whose labels agree with those of another row."""
    row = replace(offline(10.0, 10.2, 9.9), agreement=agreement, pairs=400, **changes)
    return replace(row, placement=replace(row.placement, dtype=dtype))


@pytest.mark.parametrize(
    ("dtype", "of_reference", "lowest"),
    [("fp32", "fp32", 0.99), ("int8", "fp32", 0.96), ("fp32", "bf16-autocast", 0.96), ("fp16", "bf16", 0.96)],
)
def test_a_row_with_other_labels_than_the_reference_is_invalid(dtype: str, of_reference: str, lowest: float) -> None:
    reference = answered(1.0, of_reference)
    assert broken_rules(answered(lowest, dtype), reference) == ()
    (rule,) = broken_rules(answered(lowest - 1 / 400, dtype), reference)
    assert rule.startswith("other labels: ")
    assert f"differ from those of {reference.id}, at most {1 - lowest:.0%} is allowed" in rule


def test_one_pair_of_few_may_differ() -> None:
    assert broken_rules(replace(answered(31 / 32), pairs=32), answered(1.0)) == ()
    assert broken_rules(replace(answered(30 / 32), pairs=32), answered(1.0))


def test_labels_are_not_judged_without_a_reference_or_an_agreement() -> None:
    assert broken_rules(answered(0.0)) == ()
    assert broken_rules(answered(None), answered(1.0)) == ()


def test_pairs_that_failed_are_not_other_labels_too() -> None:
    assert broken_rules(answered(0.5, failed=200), answered(1.0)) == ("the engine failed 200 requests",)


def test_near_ties_of_random_weights_may_flip_only_in_lower_precision() -> None:
    random = {"model": replace(answered(1.0).model, weights="random-init")}
    assert broken_rules(answered(0.5, "bf16", **random), answered(1.0, **random)) == ()
    assert broken_rules(answered(0.5, **random), answered(1.0, **random))


def test_no_rounds_are_added_for_a_row_with_other_labels() -> None:
    noisy = replace(answered(1.0), samples_ms=offline(10.0, 11.5, 10.0).samples_ms)
    assert needs_rounds(noisy, answered(1.0))
    assert not needs_rounds(replace(noisy, agreement=0.0), answered(1.0))


# --- the sentence about a run -----------------------------------------------------------------------------------------


def breaking(*rules: str) -> BenchRow:
    return make_row(broken_rules=rules)


def test_the_invalid_rows_of_a_run_are_one_sentence_with_one_advice() -> None:
    unsteady, drifting = broken_rules(offline(10.0, 11.5, 10.0))[0], "drifting: the machine's speed changed; x"
    waiting = broken_rules(busy(1.0, 1.0, 1.1, 0.9))[0]
    rows = [breaking(), breaking(unsteady), breaking(unsteady, drifting), breaking(waiting)]
    assert invalid_sentence(rows) == (
        "3 of 4 rows are INVALID: times varied by more than 5% (2), the machine's speed changed (1), other programs "
        "used the cores (1); close other programs or allow more time with `bench --max-seconds`"
    )
    assert invalid_sentence([breaking(waiting)]) == (
        "1 of 1 rows is INVALID: other programs used the cores (1); close other programs"
    )


def test_a_run_without_an_invalid_row_has_no_sentence() -> None:
    assert invalid_sentence([]) is invalid_sentence([breaking(), make_row(broken_rules=None)]) is None


@pytest.mark.parametrize(
    ("row", "clause"),
    [
        (offline(10.0, 10.0), "fewer than 3 rounds (1); use more rounds with `bench --rounds`"),
        (replace(offline(10.0, 10.0, 10.0), failed=3), "the engine failed requests (1)"),
        (make_row("server", server=None), "no load met the target (1); raise `bench --slo-ms`"),
        (replace(offline(1.0, 1.0, 1.0), resources=replace(NOTHING, gpu_foreign_processes=2)), "free the GPU"),
        (
            replace(offline(1.0, 1.0, 1.0), resources=replace(NOTHING, gpu_throttle_reasons=("hw_slowdown",))),
            "the GPU throttled (1); cool the GPU",
        ),
        (replace(offline(1.0, 1.0, 1.0), agreement=0.5), "labels differ from the reference (1); check the model"),
    ],
)
def test_every_rule_has_a_clause(row: BenchRow, clause: str) -> None:
    rules = broken_rules(row, make_row(case="other"))
    assert clause in (invalid_sentence([replace(row, broken_rules=rules)]) or "")


def test_a_rule_of_another_version_is_counted_too() -> None:
    assert invalid_sentence([breaking("melted: x")]) == "1 of 1 rows is INVALID: another rule (1)"
    assert "the machine's speed changed (1)" in (invalid_sentence([breaking("still drifting: x")]) or "")
