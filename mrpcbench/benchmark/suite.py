"""A suite of benchmark rows: opens each engine once, tokenises the pairs, and measures all rows in rounds."""

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from mrpcbench.backends.registry import open_session
from mrpcbench.backends.session import Session
from mrpcbench.benchmark.failures import RunningRows
from mrpcbench.benchmark.row import RowMeasurement, ServerRow, SteadyRow, Workload
from mrpcbench.benchmark.scoring import Labels, label_text, labels_in
from mrpcbench.benchmark.validity import broken_rules, needs_rounds
from mrpcbench.data import loading
from mrpcbench.data.batches import EncodedPairs, Reader
from mrpcbench.environment.capture import usable_cores
from mrpcbench.errors import UsageError, first_line
from mrpcbench.instruments.clock import WallClock, timed
from mrpcbench.instruments.control import control_us
from mrpcbench.instruments.roofline import work_of
from mrpcbench.instruments.spans import Tokenise
from mrpcbench.instruments.telemetry import GpuSensor, Meter, open_gpu_sensor
from mrpcbench.models.sources import ModelSource
from mrpcbench.progress import Observer
from mrpcbench.records.summary import summarised
from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.bench_results import BenchRow, BenchSection, ReferenceAnswers, Work
from mrpcbench.schema.cases import Suite
from mrpcbench.schema.requests import BackendSpec


def open_suite(
    suite: Suite, sources: Mapping[BackendSpec, ModelSource], plan: BenchPlan, pairs: Dataset, observer: Observer
) -> RunningRows:
    """Open the rows of all cases over `pairs`. Cases with equal specs share a session.

    A case whose engine cannot be opened is left out (`RunningRows.attempt`). Raises `UsageError` if a model has its
    labels in the other order, or a limit below `--seq-len` tokens, and `MissingError` if no engine can be opened.
    """
    running = RunningRows(suite.cases, observer, is_preset=plan.preset is not None)
    opened: dict[BackendSpec, tuple[Session, float]] = {}
    try:
        _open_rows(running, suite, sources, plan, pairs, observer, opened)
    except BaseException:
        for session, _ in opened.values():
            session.close()
        raise
    return running


def _open_rows(
    running: RunningRows,
    suite: Suite,
    sources: Mapping[BackendSpec, ModelSource],
    plan: BenchPlan,
    pairs: Dataset,
    observer: Observer,
    opened: dict[BackendSpec, tuple[Session, float]],
) -> None:
    """Open the rows of `suite`. Adds each session to `opened`, with the time in ms that it took to open."""
    texts = {name: list(pairs[name][:]) for name in ("sentence1", "sentence2")}
    for case in suite.cases:
        source = sources[case.spec]
        label_order = source.label_order(loading.label_names(pairs), case.spec.label_map)
        if case.spec not in opened:
            observer.say(f"opening {case.name}")
            found = running.attempt(case, "opening", partial(timed, partial(open_session, case.spec, source)))
            if found is None:
                continue
            opened[case.spec] = found
        session, open_ms = opened[case.spec]
        tokens, tokenise = _tokens(plan, source.reader, texts)
        source.tell(observer)
        sensor = open_gpu_sensor(session.placement.device)
        for row in case.rows():
            kind = ServerRow if row.scenario == "server" else SteadyRow
            # Only an offline pass may choose the order of the pairs.
            order = case.order if row.scenario == "offline" else None
            batches = tokens.batches(row.batch_size, order=order or "given")
            work = None if row.scenario == "server" else _work(source, session, tokens, len(batches))
            workload = Workload(tokens, tokenise, batches, order, work, label_order)
            running.rows.append(kind(row, case, session, open_ms, workload, _meter(session, sensor)))


def _meter(session: Session, sensor: GpuSensor | None) -> Meter:
    """Sensors of a row. Waits are not counted with more threads than cores: the threads then wait for each other."""
    crowded = session.placement.threads > usable_cores()
    return Meter(sensor, wait_clock=lambda: None) if crowded else Meter(sensor)


def _tokens(plan: BenchPlan, reader: Reader, texts: Mapping[str, list[str]]) -> tuple[EncodedPairs, Tokenise | None]:
    """The tokenised pairs, and a function that tokenises some of them again; None for a fixed shape."""
    if plan.seq_len is None:

        def tokenise(rows: NDArray[np.int64]) -> EncodedPairs:
            return reader.encode({name: [column[row] for row in rows] for name, column in texts.items()})

        return reader.encode(texts), tokenise
    if plan.seq_len > reader.longest_allowed:
        raise UsageError(f"--seq-len {plan.seq_len}: the model takes {reader.longest_allowed} tokens")
    return reader.encode(texts).of_length(plan.seq_len), None


def _work(source: ModelSource, session: Session, tokens: EncodedPairs, batches: int) -> Work | None:
    if not session.model.parameters:  # a fake engine has no model and does no work
        return None
    return work_of(
        source.config,
        tokens.lengths,
        batches=batches,
        parameters=session.model.parameters,
        dtype=session.placement.product_dtype,
    )


def reference_of(rows: Sequence[RowMeasurement], pairs: int) -> ReferenceAnswers | None:
    """The answers of the first row; None for a single case, and before the first round."""
    if len({row.case.name for row in rows}) < 2:
        return None
    first = next((row for row in rows if isinstance(row, SteadyRow)), rows[0])
    if first.answers is None:
        return None
    return ReferenceAnswers(row=str(first.id), labels=label_text(first.answers, pairs))


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(section: BenchSection, running: RunningRows, truth: Labels, observer: Observer) -> Iterator[BenchSection]:
    """Measure the rows of `running`: first the rounds, then the server loads, then the time breakdowns.

    Yields the updated section after every row. `truth`, int64 [N], are the labels of the pairs. A case that fails is
    left out (`RunningRows.attempt`).
    """
    for row in running.rows:
        running.attempt(row.case, "warm-up", partial(row.warm_up, section.plan.warmup))
    _say_expected(running, section.plan, observer)
    controls: list[float] = []
    for rounds_done in _rounds(running, section.plan, truth, controls, observer):
        section = _grown(replace(section, rounds_done=rounds_done, control_us=tuple(controls)), running, truth)
        yield section
    for row in running.rows:
        if isinstance(row, ServerRow):
            find_rate = partial(row.find_rate, section.plan, observer)
            running.attempt(row.case, "measurement", find_rate)
            section = _grown(section, running, truth)
            yield section
    rows = running.rows
    for position, row in enumerate(rows):
        try:
            row.break_down()
        except Exception as error:  # an engine may raise anything; the rows measured so far are kept
            observer.warn(f"{row.id}: no time breakdown: engine failed ({first_line(error)})")
        observer.advance("breakdown", position + 1, len(rows), str(row.id))
        section = _grown(section, running, truth)
        yield section


def _steady(running: RunningRows) -> list[SteadyRow]:
    return [row for row in running.rows if isinstance(row, SteadyRow)]


def _rounds(
    running: RunningRows, plan: BenchPlan, truth: Labels, controls: list[float], observer: Observer
) -> Iterator[int]:
    """Run the rounds of the plan, and add rounds while they may make a row valid.

    Yields the number of finished rounds after every row. Every other round runs in reverse order, so drift favours no
    row. An added round runs all rows, so speedups stay paired by round. A round is added only if, at the duration of
    the last one, it ends within the plan's `max_s`. If all rows run on the CPU, the time of the control before each
    round is appended to `controls`.
    """
    on_cpu = all(row.session.placement.device == "cpu" for row in _steady(running))
    clock, done, total, most, added_s = WallClock(), 0, plan.rounds, plan.rounds, 0.0
    while done < total and (rows := _steady(running)):
        begin = clock.now()
        if on_cpu:
            controls.append(control_us(rows[0].session.placement.threads))
        for position, row in enumerate(rows if done % 2 == 0 else reversed(rows)):
            running.attempt(row.case, "measurement", row.run_round)
            task, first, last = ("bench", 0, plan.rounds) if done < plan.rounds else ("added rounds", plan.rounds, most)
            detail = f"round {done + 1}{f' of {plan.rounds}' if task == 'bench' else ''}: {row.id}"
            observer.advance(task, (done - first) * len(rows) + position + 1, (last - first) * len(rows), detail)
            yield done + (position + 1 == len(rows))
        done += 1
        last_s = clock.now() - begin
        added_s += last_s if done > plan.rounds else 0.0
        if done == total and _is_noisy(_steady(running), truth, fixed_shape=plan.seq_len is not None):
            left = (plan.max_s - added_s) / last_s
            if left >= 1:
                total, most = total + 1, done + int(left)


def _is_noisy(rows: Sequence[SteadyRow], truth: Labels, *, fixed_shape: bool) -> bool:
    """Whether a row is invalid but may become valid with more rounds."""
    made, answers = _rows_so_far(rows, truth, fixed_shape=fixed_shape)
    reference = _row_of(answers, made)
    return any(needs_rounds(row, reference) for row in made)


def _say_expected(running: RunningRows, plan: BenchPlan, observer: Observer) -> None:
    """Say how long the measurement will take. Rounds that are added take up to `max_s` more."""
    rows = running.rows
    seconds = sum(row.expected_s(plan) for row in rows)
    more = f", at most {roughly(plan.max_s)} more if they are noisy" if plan.max_s and _steady(running) else ""
    count = f"{len(rows)} row{'s' * (len(rows) > 1)}"
    observer.say(f"measuring {count}: about {roughly(seconds)}{more}")


def roughly(seconds: float) -> str:
    """A duration without false precision, such as '20 s' or '4 min'."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    return f"{5 * round(seconds / 5)} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _grown(section: BenchSection, running: RunningRows, truth: Labels) -> BenchSection:
    """`section` with the rows measured so far, their summaries and broken validity rules, and the failed cases."""
    made, answers = _rows_so_far(running.rows, truth, fixed_shape=section.plan.seq_len is not None)
    reference = _row_of(answers, made)
    grown = replace(
        section,
        rows=tuple(replace(row, broken_rules=broken_rules(row, reference)) for row in made),
        failed=tuple(running.failed),
        reference=answers,
        peak_rss_bytes=peak_rss_bytes(),
    )
    return summarised(grown)


def _rows_so_far(
    rows: Sequence[RowMeasurement], truth: Labels, *, fixed_shape: bool
) -> tuple[list[BenchRow], ReferenceAnswers | None]:
    """The rows measured so far, and the answers that their agreement was computed from."""
    answers = None if fixed_shape else reference_of(rows, len(truth))
    known = labels_in(answers.labels) if answers else None
    return [row.row(truth, known, fixed_shape=fixed_shape) for row in rows if row.answers is not None], answers


def _row_of(answers: ReferenceAnswers | None, rows: Sequence[BenchRow]) -> BenchRow | None:
    return next((row for row in rows if answers and str(row.id) == answers.row), None)


def peak_rss_bytes() -> int:
    """Peak resident memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux, getrusage(2)
