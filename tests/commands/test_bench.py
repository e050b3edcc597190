"""Tests of `mrpcbench bench`: rows, samples, order, timed answers, and interruption."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from conftest import Listener, Outcome
from engines import Answering, Narrow, Stepped, engine
from numpy.typing import NDArray
from records import make_bench
from rich.console import Console

from mrpcbench.backends.registry import BACKENDS, Engine
from mrpcbench.backends.session import PeakMemory
from mrpcbench.benchmark import row as measurement
from mrpcbench.benchmark import suite
from mrpcbench.benchmark.failures import check_required
from mrpcbench.benchmark.validity import broken_rules
from mrpcbench.commands.bench import bench
from mrpcbench.commands.evaluate import evaluate
from mrpcbench.data.batches import Batch
from mrpcbench.display import render
from mrpcbench.environment.capture import usable_cores
from mrpcbench.errors import InterruptedRunError, MissingError, UsageError
from mrpcbench.instruments import clock, fake_engine
from mrpcbench.instruments.fake_engine import FakeSession
from mrpcbench.instruments.telemetry import Meter, waited_s
from mrpcbench.progress import Observer, Silent
from mrpcbench.records import store
from mrpcbench.schema.bench_requests import BenchPlan, BenchView
from mrpcbench.schema.bench_results import BenchRow, FailedCase
from mrpcbench.schema.cases import BenchRequest
from mrpcbench.schema.records import BenchRecord
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan

SILENT = Silent()
ROWS = ("single-stream", "offline batch 8")


def run(plan: BenchPlan, results: Path, model: str = "quickstart", observer: Observer = SILENT) -> BenchRecord:
    return bench(BenchRequest(spec=BackendSpec(model=model, device="cpu"), plan=plan), results, observer)[0]


def rows_of(record: BenchRecord) -> Sequence[BenchRow]:
    return record.bench.rows


@pytest.fixture
def plan(small_data: Path) -> BenchPlan:
    return BenchPlan(backend=("fake",), data=str(small_data), batch_size=(8,), rounds=3, warmup=2, max_s=0)


@pytest.fixture
def scripted_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only the fake engine and the server advance, so that the load of the machine has no effect."""
    now = [0.0]

    class Scripted:
        def now(self) -> float:
            return now[0]

        def sleep_until(self, moment: float) -> None:
            now[0] = max(now[0], moment)

    monkeypatch.setattr(measurement, "WallClock", Scripted)
    monkeypatch.setattr(suite, "Meter", partial(Meter, wait_clock=lambda: None))
    monkeypatch.setattr(fake_engine, "WallClock", Scripted)
    monkeypatch.setattr(clock.time, "perf_counter_ns", lambda: round(now[0] * 1e9))


def test_every_backend_scenario_and_batch_size_is_a_row_with_its_samples(plan: BenchPlan, tmp_path: Path) -> None:
    record = run(replace(plan, batch_size=(8, 16)), tmp_path / "r.json")
    found = [(row.scenario, row.batch_size, len(row.samples_ms)) for row in rows_of(record)]
    assert found == [("single-stream", 1, 3 * 40), ("offline", 8, 3), ("offline", 16, 3)]
    assert record.complete
    assert record.bench.rounds_done == 3
    assert store.load(tmp_path / "r.json") == record


def test_a_sample_holds_at_least_the_cost_of_its_calls(plan: BenchPlan, tmp_path: Path) -> None:
    single, offline = rows_of(run(plan, tmp_path / "r.json"))
    assert min(single.samples_ms) >= 1  # the fake engine sleeps 1 ms a call
    assert min(offline.samples_ms) >= 5  # 40 pairs in batches of 8


def test_the_clock_reads_what_the_engine_takes(plan: BenchPlan, tmp_path: Path, scripted_time: None) -> None:
    single, offline = rows_of(run(plan, tmp_path / "r.json"))
    assert set(single.samples_ms) == {1.0}
    assert set(offline.samples_ms) == {5.0}
    assert single.first_ms == offline.first_ms == 1.0


def test_no_sample_is_the_first_call_of_its_shape_and_the_cold_cost_is_recorded(
    plan: BenchPlan, tmp_path: Path, scripted_time: None
) -> None:
    narrow = Narrow()
    single, offline = rows_of(run(replace(plan, backend=(engine("narrow", lambda: narrow),)), tmp_path / "r.json"))
    shapes = set(narrow.seen)
    # The first row runs every shape once, then 2 warm-up calls; the rounds then have no new shape.
    assert single.cold_ms == len(shapes)  # each call takes 1 ms
    assert set(narrow.seen[: len(shapes)]) == shapes
    assert offline.cold_ms is not None
    assert offline.cold_ms < single.cold_ms
    assert set(single.samples_ms) == {1.0}


class Streaming(FakeSession):
    """Counts the batches of each call of `infer_many`."""

    def __init__(self) -> None:
        super().__init__(cost_ms=0)
        self.passes: list[int] = []

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        cut = list(batches)
        self.passes.append(len(cut))
        return super().infer_many(cut)


def test_an_offline_row_warms_up_by_the_same_calls_as_its_rounds(plan: BenchPlan, tmp_path: Path) -> None:
    streaming = Streaming()
    run(replace(plan, backend=(engine("streaming", lambda: streaming),)), tmp_path / "r.json")
    assert streaming.passes == [2, 5, 5, 5]  # 2 warm-up calls, then 3 rounds of 40 pairs in batches of 8


def test_an_engine_that_prepares_for_no_shape_has_no_cold_cost(plan: BenchPlan, tmp_path: Path) -> None:
    assert [row.cold_ms for row in rows_of(run(plan, tmp_path / "r.json"))] == [None, None]


def test_a_server_meets_every_shape_that_its_requests_can_have_before_the_first_load(
    plan: BenchPlan, tmp_path: Path, scripted_time: None
) -> None:
    narrow, listener = Narrow(), Listener()
    served = replace(plan, backend=(engine("narrow", lambda: narrow),), scenario=("server",), batch_size=(4,))
    (row,) = rows_of(run(replace(served, slo_ms=20.0), tmp_path / "r.json", observer=listener))
    assert row.server is not None
    sent = sum(len(point.batch_sizes) for point in row.server.curve)
    assert set(narrow.seen) == set(narrow.seen[: len(narrow.seen) - sent])
    assert row.cold_ms is not None
    assert row.cold_ms > len(set(narrow.seen))


def test_accuracy_and_f1_come_from_the_answers_of_the_timed_calls(plan: BenchPlan, tmp_path: Path) -> None:
    scored = evaluate(
        BackendSpec(backend="fake", model="quickstart"),
        EvaluatePlan(data=plan.data),
        tmp_path / "evaluate.json",
        Listener(),
    ).evaluate
    assert scored is not None
    for row in rows_of(run(plan, tmp_path / "r.json")):
        assert row.accuracy == scored.score.accuracy
        assert row.f1 == pytest.approx(scored.score.f1)


def test_answers_that_become_wrong_while_timed_show_in_the_row(plan: BenchPlan, tmp_path: Path) -> None:
    right = run(plan, tmp_path / "r.json")
    opposite = engine("opposite", lambda: Answering(lambda logits: -logits))
    wrong = run(replace(plan, backend=(opposite,)), tmp_path / "w.json")
    for good, bad in zip(rows_of(right), rows_of(wrong), strict=True):
        assert bad.accuracy == pytest.approx(1 - good.accuracy)


def test_a_row_with_other_labels_than_the_first_row_is_invalid(
    plan: BenchPlan, tmp_path: Path, scripted_time: None
) -> None:
    opposite = engine("opposite", lambda: Answering(lambda logits: -logits))
    for seq_len, rules in ((None, 1), (16, 0)):
        compared = replace(plan, backend=("fake", opposite), scenario=("offline",), seq_len=seq_len)
        first, other = rows_of(run(compared, tmp_path / "r.json"))
        assert first.broken_rules == ()
        found = [rule for rule in other.broken_rules or () if rule.startswith("other labels: 100.0% differ")]
        assert len(found) == len(other.broken_rules or ()) == rules


def test_rounds_run_the_rows_in_alternating_order(plan: BenchPlan, tmp_path: Path) -> None:
    listener = Listener()
    run(plan, tmp_path / "r.json", observer=listener)
    order = [detail for task, _, _, detail in listener.steps if task == "bench"]
    single, offline = "fake single-stream", "fake offline batch 8"
    rows = [(1, single), (1, offline), (2, offline), (2, single), (3, single), (3, offline)]
    assert order == [f"round {done} of 3: {name}" for done, name in rows]


def test_the_pairs_are_the_same_for_the_same_seed_and_others_for_another(plan: BenchPlan, tmp_path: Path) -> None:
    hashes = [
        run(replace(plan, pairs=10, seed=seed, rounds=1), tmp_path / "r.json").data[0].data_sha256 for seed in (1, 1, 2)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_row_counts_real_tokens_and_padding(plan: BenchPlan, tmp_path: Path) -> None:
    single, offline = rows_of(run(replace(plan, batch_size=(40,)), tmp_path / "r.json"))
    assert single.real_tokens == offline.real_tokens
    assert single.padding_tokens == 0 < offline.padding_tokens


def test_an_engine_without_padding_has_no_padding_tokens(plan: BenchPlan, tuned_model: Path, tmp_path: Path) -> None:
    both = replace(plan, backend=("torch", "torch-packed"), scenario=("offline",), rounds=1)
    theirs, ours = rows_of(run(both, tmp_path / "r.json", str(tuned_model)))
    assert theirs.real_tokens == ours.real_tokens
    assert theirs.padding_tokens > ours.padding_tokens == 0


def test_torch_and_onnx_are_measured_in_one_run_on_the_same_tokens(
    plan: BenchPlan, exported_model: Path, tmp_path: Path
) -> None:
    record = run(replace(plan, backend=("torch", "onnx"), rounds=1), tmp_path / "r.json", str(exported_model))
    found = {row.spec.backend: row for row in rows_of(record) if row.scenario == "offline"}
    assert found["torch"].real_tokens == found["onnx"].real_tokens
    assert found["torch"].padding_tokens == found["onnx"].padding_tokens
    assert found["torch"].accuracy == found["onnx"].accuracy
    assert found["torch"].model.model_sha256 == found["onnx"].model.model_sha256
    assert found["onnx"].model.proven is True
    assert found["torch"].peak_memory_bytes is None
    assert str(exported_model) not in (tmp_path / "r.json").read_text()


class Interrupting(Listener):
    """Simulates Ctrl-C after a number of rounds of rows."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        super().advance(task, done, total, detail)
        if task == "bench" and done > self.after:
            raise KeyboardInterrupt


def test_an_interrupt_keeps_the_finished_rows_in_a_loadable_record(plan: BenchPlan, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match=r"the finished rows are in .*r\.json") as raised:
        run(plan, tmp_path / "r.json", observer=Interrupting(after=2))
    kept = store.load(tmp_path / "r.json")
    assert kept == raised.value.record
    assert not kept.complete
    assert kept.bench.rounds_done == 1
    assert [len(row.samples_ms) for row in kept.bench.rows] == [40, 1]


def test_an_interrupt_before_the_first_row_leaves_no_record(plan: BenchPlan, tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match="no row was finished") as raised:
        run(plan, tmp_path / "r.json", observer=Interrupting(after=0))
    assert raised.value.record is None
    assert not (tmp_path / "r.json").exists()


# --- what is said before and during the run ---------------------------------------------------------------------------


class Slow(Stepped):
    def __init__(self) -> None:
        super().__init__()
        self.fake.cost_ms = 100


def test_the_expected_time_is_that_of_the_rounds_and_the_breakdown(
    plan: BenchPlan, tmp_path: Path, scripted_time: None
) -> None:
    listener = Listener()
    slow = engine("slow", lambda: FakeSession(cost_ms=100))
    # Batches of 8: 5 calls of 100 ms for each of 8 rounds. One by one: 40 calls. The engine has no breakdown.
    run(replace(plan, backend=(slow,), rounds=8), tmp_path / "r.json", observer=listener)
    assert listener.lines[-1] == "measuring 2 rows: about 35 s"
    stepped = replace(plan, backend=(engine("stepped", Slow),), scenario=("offline",), rounds=9)
    run(replace(stepped, max_s=60.0), tmp_path / "r.json", observer=listener)
    assert listener.lines[-1] == "measuring 1 row: about 5 s, at most 60 s more if they are noisy"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (7.4, "7 s"), (9.99, "10 s"), (22, "20 s"), (98, "100 s"), (150, "2 min")]
)
def test_a_duration_has_no_false_precision(seconds: float, text: str) -> None:
    assert suite.roughly(seconds) == text


def test_the_progress_of_a_server_moves_within_each_load(plan: BenchPlan, tmp_path: Path, scripted_time: None) -> None:
    listener = Listener()
    served = replace(plan, scenario=("server",), batch_size=(1,), slo_ms=20.0)
    (row,) = rows_of(run(served, tmp_path / "r.json", observer=listener))
    assert row.server is not None
    steps = [step for step in listener.steps if step[0] == "server"]
    ends = [detail for _, done, total, detail in steps if done == total]
    assert len(ends) == len(row.server.curve)
    assert ends[0].startswith("load 1 of at most 10: fake server batch 1, ")
    assert all(detail.endswith(("meets the target", "misses the target")) for detail in ends)
    first = [done for _, done, total, detail in steps if detail.startswith("load 1 ") and done < total]
    assert len(first) > 2
    assert first == sorted(first)


def test_a_batch_that_the_pairs_do_not_fill_is_said_once(plan: BenchPlan, tmp_path: Path) -> None:
    listener = Listener()
    run(replace(plan, pairs=16, batch_size=(8, 32, 64), rounds=1), tmp_path / "r.json", observer=listener)
    assert [line for line in listener.lines if "--batch-size" in line] == [
        "--batch-size 32 and 64: there are 16 pairs, so each pass is one batch of 16"
    ]


def test_more_threads_than_cores_are_a_warning(plan: BenchPlan, tmp_path: Path, exported_model: Path) -> None:
    for threads, warned in ((1, False), (usable_cores() + 1, True)):
        listener = Listener()
        spec = BackendSpec(model=str(exported_model), device="cpu", threads=threads)
        asked = replace(plan, backend=("onnx",), scenario=("offline",), rounds=1)
        bench(BenchRequest(spec=spec, plan=asked), tmp_path / "r.json", listener)
        assert [line.startswith(f"--threads {threads}: this process can use") for line in listener.warnings] == (
            [True] * warned
        )


def test_a_quiet_run_prints_the_fastest_row_and_the_record_and_warns_of_invalid_rows(
    plan: BenchPlan, mrpcbench: Callable[..., Outcome], scripted_time: None
) -> None:
    options = ("bench", "--backend", "fake", "--model", "quickstart", "--data", plan.data, "--scenario", "offline")
    done = mrpcbench("-q", *options, "--rounds", "2", "--results", "r.json")
    fastest, record = done.out.splitlines()
    assert fastest.startswith("Fastest: fake:")
    assert record == "record: r.json"
    assert (
        done.err == "warning: 2 of 2 rows are INVALID: fewer than 3 rounds (2); use more rounds with `bench --rounds`\n"
    )
    as_json = mrpcbench(*options, "--rounds", "2", "--json")
    assert json.loads(as_json.out)["command"] == "bench"
    assert as_json.err.count("rows are INVALID") == 1
    normal = mrpcbench(*options, "--rounds", "2")
    assert "rows are INVALID" not in normal.err
    assert normal.out.count("rows are INVALID") == 1


# --- more rounds ------------------------------------------------------------------------------------------------------


class Uneven(FakeSession):
    """Takes 1 ms per call, but 1.5 ms in every third round."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def infer(self, batch: Batch) -> np.ndarray:
        self.calls += 1
        self.cost_ms = 1.5 if self.calls % 3 == 0 else 1.0
        return super().infer(batch)


@pytest.fixture
def uneven(plan: BenchPlan) -> BenchPlan:
    """Rounds of one call, of which every third is slow."""
    return replace(plan, backend=(engine("uneven", Uneven),), scenario=("offline",), batch_size=(40,), warmup=0)


def test_rounds_are_added_until_a_noisy_row_is_valid(uneven: BenchPlan, tmp_path: Path, scripted_time: None) -> None:
    listener = Listener()
    record = run(replace(uneven, max_s=1.0), tmp_path / "r.json", observer=listener)
    (row,) = record.bench.rows
    assert row.broken_rules == ()
    assert record.bench.rounds_done == len(row.samples_ms) > 3
    before = replace(row, samples_ms=row.samples_ms[:-1])
    assert broken_rules(before) != ()  # and no more than needed
    assert listener.lines == ["opening uneven", "measuring 1 row: about 1 s, at most 1 s more if they are noisy"]
    assert listener.warnings == []


def test_rounds_are_added_within_their_time_limit(uneven: BenchPlan, tmp_path: Path, scripted_time: None) -> None:
    # 3 rounds of the plan; then 1.0 and 1.0 ms fit, and 1.5 ms do not.
    for seconds, rounds in ((0.0, 3), (0.003, 5)):
        record = run(replace(uneven, max_s=seconds), tmp_path / "r.json")
        assert record.bench.rounds_done == rounds


def test_no_rounds_are_added_for_a_rule_that_they_cannot_fix(
    uneven: BenchPlan, tmp_path: Path, scripted_time: None
) -> None:
    broken = engine("broken", lambda: Answering(lambda logits: logits * np.nan))
    record = run(replace(uneven, backend=(broken,), max_s=60.0), tmp_path / "r.json")
    assert record.bench.rounds_done == 3


def test_fewer_rounds_than_a_valid_row_needs_run_as_requested(
    uneven: BenchPlan, tmp_path: Path, scripted_time: None
) -> None:
    record = run(replace(uneven, rounds=2, max_s=60.0), tmp_path / "r.json")
    (row,) = record.bench.rows
    assert record.bench.rounds_done == 2
    assert row.broken_rules == ("too few rounds: 2, at least 3 are needed",)


def test_added_rounds_have_a_separate_progress_that_never_ends_early(
    uneven: BenchPlan, tmp_path: Path, scripted_time: None
) -> None:
    listener = Listener()
    record = run(replace(uneven, max_s=1.0), tmp_path / "r.json", observer=listener)
    added = [(done, total) for task, done, total, _ in listener.steps if task == "added rounds"]
    assert [done for done, _ in added] == list(range(1, record.bench.rounds_done - 2))
    assert all(done < total for done, total in added)


def test_the_control_is_measured_before_each_round(plan: BenchPlan, tmp_path: Path) -> None:
    record = run(plan, tmp_path / "r.json")
    assert len(record.bench.control_us) == record.bench.rounds_done == 3
    assert min(record.bench.control_us) > 0


def test_a_machine_whose_limits_cannot_be_measured_leaves_a_complete_record(
    plan: BenchPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported_model: Path
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("mrpcbench.commands.bench.measure_ceilings", fail)
    listener = Listener()
    asked = replace(plan, backend=("onnx",), scenario=("offline",), rounds=1)
    record = run(asked, tmp_path / "r.json", str(exported_model), listener)
    assert record.complete
    assert record.bench.ceilings == ()
    assert any(line.startswith("no share of the machine's limits") for line in listener.warnings)


def test_more_threads_than_cores_are_not_taken_for_other_programs(
    plan: BenchPlan, tmp_path: Path, exported_model: Path
) -> None:
    asked = replace(plan, backend=("onnx",), scenario=("offline",), rounds=1)
    for threads, counted in ((1, True), (usable_cores() + 1, False)):
        spec = BackendSpec(model=str(exported_model), device="cpu", threads=threads)
        (row,) = rows_of(bench(BenchRequest(spec=spec, plan=asked), tmp_path / "r.json", SILENT)[0])
        assert row.resources is not None
        assert (row.resources.cpu_waits is not None) == (counted and waited_s() is not None)


def test_offline_pairs_may_keep_their_order(plan: BenchPlan, tmp_path: Path) -> None:
    asked = replace(plan, scenario=("offline",), batch_size=(8,), rounds=1)
    (by_length,) = rows_of(run(asked, tmp_path / "r.json"))
    (given,) = rows_of(run(replace(asked, order="given"), tmp_path / "r.json"))
    assert (by_length.order, given.order) == ("length", "given")
    assert by_length.padding_tokens < given.padding_tokens


# --- engines that fail ------------------------------------------------------------------------------------------------


class Breaking(FakeSession):
    """Works for `calls` calls, and raises `error` from then on; `closed` counts its ends."""

    def __init__(self, calls: int, error: BaseException) -> None:
        super().__init__(cost_ms=0)
        self._calls, self._error, self.closed = calls, error, 0

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        self._calls -= 1
        if self._calls < 0:
            raise self._error
        return super().infer(batch)

    def close(self) -> None:
        self.closed += 1


def breaking_engine(calls: int, error: BaseException) -> tuple[str, list[Breaking]]:
    """The name of an engine that fails after `calls` calls, and the sessions that it opens."""
    made: list[Breaking] = []

    def make() -> Breaking:
        made.append(Breaking(calls, error))
        return made[-1]

    return engine("failing", make), made


OTHER = engine("other", FakeSession)


def fail_to_open() -> FakeSession:
    raise MissingError("--backend failing: no compiler; install one")


def test_an_engine_that_cannot_be_opened_is_left_out_and_the_others_finish(plan: BenchPlan, tmp_path: Path) -> None:
    name, listener = engine("failing", fail_to_open), Listener()
    record = run(replace(plan, backend=(name, "fake")), tmp_path / "r.json", observer=listener)
    assert record.complete
    assert store.load(tmp_path / "r.json") == record
    assert [(row.case, row.agreement) for row in rows_of(record)] == [("fake", None)] * 2
    reason = "--backend failing: no compiler; install one"
    assert record.bench.failed == (FailedCase(case="failing", stage="opening", reason=reason),)
    assert listener.warnings[0] == f"failing failed during opening and is left out: {reason}"


@pytest.mark.parametrize(("calls", "stage"), [(0, "warm-up"), (50, "measurement"), (140, "measurement")])
def test_an_engine_that_fails_while_it_runs_is_left_out_with_all_its_rows(
    plan: BenchPlan, tmp_path: Path, calls: int, stage: str
) -> None:
    name, made = breaking_engine(calls, RuntimeError("CUDA out of memory\nTried to allocate"))
    record = run(replace(plan, backend=("fake", name, OTHER)), tmp_path / "r.json")
    assert record.complete
    assert [(row.case, len(row.samples_ms)) for row in rows_of(record)] == [
        *[("fake", 120), ("fake", 3)],
        *[(OTHER, 120), (OTHER, 3)],
    ]
    (failed,) = record.bench.failed
    assert (failed.stage, failed.reason) == (stage, "RuntimeError: CUDA out of memory")
    assert made[0].closed == 1


def test_without_the_first_case_the_next_gives_the_reference_answers(plan: BenchPlan, tmp_path: Path) -> None:
    name, _ = breaking_engine(50, RuntimeError("lost"))
    record = run(replace(plan, backend=(name, "fake", OTHER)), tmp_path / "r.json")
    assert record.bench.reference is not None
    assert record.bench.reference.row == "fake single-stream"
    assert record.model == rows_of(record)[0].model


def test_an_interrupt_is_no_failure_of_an_engine(plan: BenchPlan, tmp_path: Path) -> None:
    name, _ = breaking_engine(50, KeyboardInterrupt())
    with pytest.raises(InterruptedRunError) as interrupted:
        run(replace(plan, backend=("fake", name)), tmp_path / "r.json")
    assert isinstance(interrupted.value.record, BenchRecord)
    assert interrupted.value.record.bench.failed == ()


def test_if_every_engine_fails_one_line_has_the_reasons(plan: BenchPlan, tmp_path: Path) -> None:
    name, _ = breaking_engine(0, RuntimeError("lost"))
    other = engine("absent", fail_to_open)
    with pytest.raises(MissingError) as found:
        run(replace(plan, backend=(name, other)), tmp_path / "r.json")
    assert str(found.value) == (
        "no case could be measured: absent (--backend failing: no compiler; install one); failing (RuntimeError: lost)"
    )


def test_the_failure_of_the_only_engine_is_raised_as_it_is(plan: BenchPlan, tmp_path: Path) -> None:
    name, _ = breaking_engine(0, RuntimeError("lost"))
    with pytest.raises(RuntimeError, match="lost"):
        run(replace(plan, backend=(name,)), tmp_path / "r.json")


def test_an_option_that_a_named_engine_does_not_take_ends_the_run_at_once(plan: BenchPlan, tmp_path: Path) -> None:
    spec = BackendSpec(model="quickstart", device="cpu", dtype="bf16-autocast")
    request = BenchRequest(spec=spec, plan=replace(plan, backend=("torch", "torch-packed")))
    with pytest.raises(UsageError, match="only for --backend torch"):
        bench(request, tmp_path / "r.json", SILENT)


def test_a_reason_in_the_record_names_no_folder(plan: BenchPlan, tmp_path: Path) -> None:
    name, _ = breaking_engine(0, RuntimeError(f"cannot read {tmp_path}/model.onnx: no access"))
    (failed,) = run(replace(plan, backend=("fake", name)), tmp_path / "r.json").bench.failed
    assert failed.reason == "RuntimeError: cannot read model.onnx: no access"


def test_a_failed_engine_that_was_named_shows_in_the_table_and_in_the_exit_code(
    plan: BenchPlan, mrpcbench: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "torch-compile", Engine("engines.absent:open_absent"))
    options = ("--backend", "fake", "--backend", "torch-compile", "--model", "quickstart", "--data", plan.data)
    done = mrpcbench("bench", *options, "--rounds", "1", "--max-seconds", "0", "--results", "r.json")
    assert done.status == 3
    assert "FAILED and left out: torch-compile" in done.out
    assert done.err.splitlines()[-1] == "error: failed and left out: torch-compile; the other rows are complete"
    assert (done.err + done.out).count("--backend torch-compile: ") == 1  # the reason
    assert store.load(Path("r.json")).complete


def test_only_a_case_that_a_preset_chose_and_no_speedup_needs_is_optional() -> None:
    failed = (FailedCase(case="torch-compile", stage="warm-up", reason="no compiler"),)
    preset = make_bench(plan=BenchPlan(preset="peers", backend=()), failed=failed)
    check_required(preset, BenchView(relative_to=("hf-autocast",)))
    named = make_bench(plan=BenchPlan(backend=("torch", "torch-compile")), failed=failed)
    for section, view in ((named, BenchView()), (preset, BenchView(relative_to=("torch-compile:32",)))):
        with pytest.raises(MissingError, match=r"left out: torch-compile; the other"):
            check_required(section, view)


# --- the breakdown ----------------------------------------------------------------------------------------------------


def test_every_row_of_an_engine_with_separate_steps_has_a_time_breakdown(
    plan: BenchPlan, tmp_path: Path, scripted_time: None
) -> None:
    single, offline = rows_of(run(replace(plan, backend=(engine("stepped", Stepped),)), tmp_path / "r.json"))
    for row, calls, tokenised in ((single, 40, 40), (offline, 5, 1)):
        assert row.spans is not None
        found = {span.name: span.samples_ms for span in row.spans}
        assert found["compute"] == (1.0,) * calls
        assert len(found["tokenise"]) == tokenised
        assert len(found["batch"]) == len(found["copy in"]) == len(found["copy out"]) == calls


def test_an_engine_without_separate_steps_has_rows_without_a_breakdown(plan: BenchPlan, tmp_path: Path) -> None:
    for row in rows_of(run(plan, tmp_path / "r.json")):
        assert row.spans is row.cold_ms is row.peak_memory_bytes is None
        assert row.accuracy is not None


def test_a_fixed_shape_is_not_tokenised_and_must_fit_the_model(plan: BenchPlan, tmp_path: Path) -> None:
    for row in rows_of(run(replace(plan, backend=(engine("stepped", Stepped),), seq_len=16), tmp_path / "r.json")):
        assert row.spans is not None
        assert "tokenise" not in {span.name for span in row.spans}
    with pytest.raises(UsageError, match=r"--seq-len 100000: the model takes \d+ tokens"):
        run(replace(plan, seq_len=100_000), tmp_path / "r.json")


class Lost(Stepped):
    def wait(self) -> None:
        raise RuntimeError("lost")


def test_an_engine_that_fails_in_the_breakdown_keeps_its_rows_with_a_warning(plan: BenchPlan, tmp_path: Path) -> None:
    listener = Listener()
    record = run(replace(plan, backend=(engine("lost", Lost),)), tmp_path / "r.json", observer=listener)
    assert record.complete
    assert all(row.spans is None for row in rows_of(record))
    assert "lost offline batch 8: no time breakdown: engine failed (lost)" in listener.warnings


def test_a_profile_is_a_trace_with_one_process_per_row(
    plan: BenchPlan, exported_model: Path, tmp_path: Path, mrpcbench: Callable[..., Outcome]
) -> None:
    options = ("--backend", "torch", "--backend", "onnx", "--model", exported_model, "--data", plan.data)
    done = mrpcbench(
        "bench", *options, "--rounds", "1", "--max-seconds", "0", "--batch-size", "8", "--profile", "deep/trace.json"
    )
    assert done.status == 0, done.err
    assert "trace: deep/trace.json" in done.err
    events = json.loads(Path("deep/trace.json").read_text())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {f"{backend} {rest}" for backend in ("torch", "onnx") for rest in ROWS}
    ran = {event["name"] for event in events if event["ph"] == "X"}
    assert {"tokenise", "batch", "copy in", "compute", "copy out"} < ran
    assert any(name.startswith("aten::") for name in ran)
    assert any(name.startswith("MatMul") for name in ran)


@pytest.mark.parametrize("change", [{"rounds": 0}, {"pairs": 0}, {"pairs": 41}, {"batch_size": (0,)}])
def test_an_impossible_workload_is_refused(plan: BenchPlan, tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="--"):
        run(replace(plan, **change), tmp_path / "r.json")  # type: ignore[arg-type]


def test_padding_does_not_change_the_fake_answers(plan: BenchPlan, tmp_path: Path) -> None:
    small, large = (
        rows_of(run(replace(plan, batch_size=(size,), rounds=1), tmp_path / "r.json"))[1].accuracy for size in (1, 40)
    )
    assert np.isclose(small, large)


def test_answers_that_are_not_finite_count_as_failed_and_wrong(plan: BenchPlan, tmp_path: Path) -> None:
    broken = engine("broken", lambda: Answering(lambda logits: logits * np.nan))
    for row in rows_of(run(replace(plan, backend=(broken,), rounds=1), tmp_path / "r.json")):
        assert row.failed == row.pairs == 40
        assert row.accuracy == 0


class Remembering(Stepped):
    """An engine whose memory peak is the largest batch since the last reset."""

    peak = 0

    def copy_in(self, batch: Batch) -> Batch:
        self.peak = max(self.peak, len(batch.rows))
        return batch

    def peak_memory(self) -> PeakMemory:
        return PeakMemory(in_use=self.peak)

    def reset_peak_memory(self) -> None:
        self.peak = 0


def test_each_row_has_its_own_memory_peak(plan: BenchPlan, tmp_path: Path) -> None:
    remembering = replace(plan, backend=(engine("remembering", Remembering),))
    assert [row.peak_memory_bytes for row in rows_of(run(remembering, tmp_path / "r.json"))] == [1, 8]


def test_a_fixed_shape_has_no_padding_and_no_score(plan: BenchPlan, exported_model: Path, tmp_path: Path) -> None:
    fixed = replace(plan, backend=("torch", "onnx"), seq_len=24, rounds=1, batch_size=(8,))
    record = run(fixed, tmp_path / "r.json", str(exported_model))
    for row in rows_of(record):
        assert row.padding_tokens == 0
        assert row.real_tokens == 40 * 24
        assert row.accuracy is row.f1 is None
    shown = Console(width=120, file=StringIO())
    shown.print(render.render(record))
    assert "FIXED SHAPE of 24 tokens" in shown.file.getvalue()  # type: ignore[attr-defined]


def test_every_row_of_a_known_architecture_names_its_work_and_the_machines_ceilings(
    plan: BenchPlan, exported_model: Path, tmp_path: Path
) -> None:
    record = run(replace(plan, backend=("torch", "onnx"), rounds=1), tmp_path / "r.json", str(exported_model))
    (ceilings,) = record.bench.ceilings
    assert (ceilings.device, ceilings.dtype) == ("cpu", "fp32")
    work = {row.work.flops for row in record.bench.rows if row.work}
    assert len(work) == 1  # the same pairs, whatever the engine, the scenario and the batch
    single, offline = record.bench.rows[:2]
    assert single.work is not None
    assert offline.work is not None
    assert single.work.moved_bytes > offline.work.moved_bytes  # the weights once per pass
    assert single.resources is not None
    assert single.resources.gpu_power_w is None
    assert (single.resources.rss_bytes or 0) > 2**20


def test_rows_are_validated_and_an_invalid_one_has_the_reason(
    plan: BenchPlan, tmp_path: Path, mrpcbench: Callable[..., Outcome]
) -> None:
    record = run(replace(plan, rounds=1), tmp_path / "r.json")
    assert all(row.broken_rules for row in rows_of(record))
    options = (
        "bench",
        "--backend",
        "fake",
        "--model",
        "quickstart",
        "--data",
        plan.data,
        "--rounds",
        "1",
        "--max-seconds",
        "0",
    )
    done = mrpcbench(*options)
    assert done.status == 0
    shown = " ".join(done.out.split())
    assert re.search(r"[23] of [23] rows are INVALID: (.*, )?fewer than 3 rounds \([23]\); ", shown)


def test_the_server_finds_the_rate_that_its_engine_can_sustain(
    plan: BenchPlan, tmp_path: Path, scripted_time: None
) -> None:
    """A pass takes 1 ms, so one request at a time it can answer just under 1000 per second."""
    served = replace(plan, scenario=("server",), batch_size=(1,), window_ms=0.0, slo_ms=20.0)
    record = run(served, tmp_path / "r.json")
    (row,) = rows_of(record)
    assert record.complete
    assert row.server is not None
    assert row.server.best_rate_per_s is not None
    assert 800 < row.server.best_rate_per_s <= 1000
    assert row.broken_rules == ()
    assert row.accuracy is not None
    for point in row.server.curve:
        assert point.sent == len(point.latencies_ms) + point.failed
    assert store.load(tmp_path / "r.json") == record


class Failing(FakeSession):
    """Fails once, at its 300th call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def infer(self, batch: Batch) -> np.ndarray:
        self.calls += 1
        if self.calls == 300:
            raise RuntimeError("lost")
        return super().infer(batch)


def test_an_engine_that_fails_some_requests_is_never_a_fast_one(
    plan: BenchPlan, tmp_path: Path, scripted_time: None
) -> None:
    served = replace(plan, backend=(engine("failing", Failing),), scenario=("server",), slo_ms=50.0, batch_size=(2,))
    (row,) = rows_of(run(served, tmp_path / "r.json"))
    assert row.failed > 0
    assert row.broken_rules is not None
    assert any("failed" in rule for rule in row.broken_rules)
