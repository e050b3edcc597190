"""Measure engines side by side on real pairs at real lengths: `mrpcbench bench --backend torch --backend onnx`."""

import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset

from mrpcbench.backends.reading import resolve_all
from mrpcbench.benchmark.presets import choose
from mrpcbench.benchmark.row import RowMeasurement, ServerRow, SteadyRow
from mrpcbench.benchmark.scoring import Labels, labels_in
from mrpcbench.benchmark.server import Load
from mrpcbench.benchmark.suite import open_suite, reference_of
from mrpcbench.benchmark.validity import broken_rules, needs_rounds
from mrpcbench.data import loading
from mrpcbench.environment.capture import capture
from mrpcbench.environment.redaction import public
from mrpcbench.errors import InterruptedRunError, UsageError, first_line
from mrpcbench.instruments import trace
from mrpcbench.instruments.clock import WallClock
from mrpcbench.instruments.control import control_us
from mrpcbench.instruments.roofline import measure_ceilings
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.schema.cases import BenchRequest
from mrpcbench.schema.records import BenchRecord, BenchRow, BenchSection
from mrpcbench.schema.requests import BenchPlan, BenchView, check


def bench(request: BenchRequest, results: Path, observer: Observer) -> tuple[BenchRecord, BenchView]:
    """Measure every row that `request` asks for, and write the record to `results` after every row.

    Gives the record, and how its tables are shown. Raises `UsageError` where the model or the data is not there, or the
    request contradicts its preset; `MissingError` where an engine would run elsewhere than asked; `InterruptedRunError`
    with the same two after an interrupt, when the finished rows are saved.
    """
    check(request.spec, request.plan)
    profile = Path(request.control.profile) if request.control.profile else None
    if profile and profile.is_dir():
        raise UsageError(f"--profile {profile}: a folder; name a file in it")
    suite, plan, view = choose(request)
    environment = capture()
    sources = resolve_all(case.spec for case in suite.cases)
    pairs = _pairs(plan)
    rows = open_suite(suite, sources, plan, pairs, observer)
    section = BenchSection(plan=public(plan), rows=(), rounds_done=0, peak_rss_bytes=_peak_rss_bytes())
    record = BenchRecord(
        complete=False,
        environment=environment,
        model=rows[0].session.model,
        data=(loading.identity(pairs, plan.data, plan.split),),
        bench=section,
    )
    try:
        observer.began(record)
        for grown in _measured(section, rows, np.asarray(pairs["label"], dtype=np.int64), observer):
            record = _saved(replace(record, bench=grown), results)
            section = grown
        record = _saved(replace(record, complete=True, bench=_with_ceilings(section, observer)), results)
        if profile:
            _profile(rows, profile, observer)
    except KeyboardInterrupt:
        where = f"the finished rows are in {results}" if section.rows else "no row was finished"
        raise InterruptedRunError(f"interrupted; {where}", record if section.rows else None, view) from None
    finally:
        for session in {id(row.session): row.session for row in rows}.values():
            session.close()
    return record, view


def _saved(record: BenchRecord, results: Path) -> BenchRecord:
    """`record`, once it is on disk: what is shown after an interrupt is what the file holds."""
    store.save(record, results)
    return record


def _pairs(plan: BenchPlan) -> Dataset:
    """The pairs in their seeded order, the same for every engine."""
    pairs = loading.split_of(loading.load(plan.data), plan.data, plan.split)
    if plan.pairs is not None and plan.pairs > len(pairs):
        raise UsageError(f"--pairs {plan.pairs}: the {plan.split} split has {len(pairs)}")
    order = np.random.default_rng(plan.seed).permutation(len(pairs))
    return pairs.select(order[: plan.pairs])


def _measured(
    section: BenchSection, rows: list[RowMeasurement], truth: Labels, observer: Observer
) -> Iterator[BenchSection]:
    """The section after every row: first the rounds, then the server's loads, then the breakdown."""
    for row in rows:
        row.warm_up(section.plan.warmup)
    steady = [row for row in rows if isinstance(row, SteadyRow)]
    controls: list[float] = []
    for rounds_done in _rounds(steady, section.plan, truth, controls, observer):
        section = _grown(replace(section, rounds_done=rounds_done, control_us=tuple(controls)), rows, truth)
        yield section
    for row in rows:
        if isinstance(row, ServerRow):
            row.find_rate(section.plan, partial(_say_load, observer, row))
            section = _grown(section, rows, truth)
            yield section
    for position, row in enumerate(rows):
        try:
            row.break_down()
        except Exception as error:  # whatever an engine raises; its rows stay
            observer.say(f"warning: {row.id}: no time breakdown: engine failed ({first_line(error)})")
        observer.advance("breakdown", position + 1, len(rows), str(row.id))
        section = _grown(section, rows, truth)
        yield section


def _rounds(
    rows: Sequence[SteadyRow], plan: BenchPlan, truth: Labels, controls: list[float], observer: Observer
) -> Iterator[int]:
    """Run the rounds of the plan, and more while that may make a row valid; after every row, the whole rounds so far.

    Every other round runs backwards, so that drift favours no row. An added round runs all rows too, so that ratios
    stay paired by round. None is begun that would end after the plan's `max_s` if it took as long as the last.
    `controls` gets the time of the control before each round, if all rows run on the CPU.
    """
    on_cpu = all(row.session.placement.device == "cpu" for row in rows)
    clock, done, total, most, added_s = WallClock(), 0, plan.rounds if rows else 0, plan.rounds, 0.0
    while done < total:
        begin = clock.now()
        if on_cpu:
            controls.append(control_us(rows[0].session.placement.threads))
        for position, row in enumerate(rows if done % 2 == 0 else reversed(rows)):
            row.run_round()
            task, first, last = ("bench", 0, plan.rounds) if done < plan.rounds else ("added rounds", plan.rounds, most)
            detail = f"round {done + 1}{f' of {plan.rounds}' if task == 'bench' else ''}: {row.id}"
            observer.advance(task, (done - first) * len(rows) + position + 1, (last - first) * len(rows), detail)
            yield done + (position + 1 == len(rows))
        done += 1
        last_s = clock.now() - begin
        added_s += last_s if done > plan.rounds else 0.0
        if done == total and (noisy := _noisy(rows, truth)):
            left = (plan.max_s - added_s) / last_s
            if left >= 1:
                total, most = total + 1, done + int(left)
            else:
                _say_noisy(noisy, done, plan, observer)


def _noisy(rows: Sequence[SteadyRow], truth: Labels) -> list[BenchRow]:
    """Those of `rows` that more rounds may make valid."""
    return [made for made in (row.row(truth, None, fixed_shape=True) for row in rows) if needs_rounds(made)]


def _say_noisy(noisy: Sequence[BenchRow], rounds: int, plan: BenchPlan, observer: Observer) -> None:
    names = ", ".join(str(row.id) for row in noisy)
    observer.say(
        f"warning: still noisy after {rounds} rounds: {names}; end other programs, or allow more time for rounds than "
        f"--max-seconds {plan.max_s:g}"
    )


def _say_load(observer: Observer, row: RowMeasurement, load: Load) -> None:
    verdict = "meets the target" if load.point.meets_slo else "misses the target"
    observer.say(f"{row.id}: {load.point.rate_per_s:.1f} requests/s {verdict}")
    if load.error:
        observer.say(f"warning: {row.id}: engine failed ({load.error})")


def _grown(section: BenchSection, rows: Sequence[RowMeasurement], truth: Labels) -> BenchSection:
    """`section` with the rows that have been measured, each judged by the rounds that it has run."""
    fixed_shape = section.plan.seq_len is not None
    reference = None if fixed_shape else reference_of(rows, len(truth))
    known = labels_in(reference.labels) if reference else None
    made = [row.row(truth, known, fixed_shape=fixed_shape) for row in rows if row.answers is not None]
    return replace(
        section,
        rows=tuple(replace(row, broken_rules=broken_rules(row)) for row in made),
        reference=reference,
        peak_rss_bytes=_peak_rss_bytes(),
    )


def _profile(rows: Sequence[RowMeasurement], path: Path, observer: Observer) -> None:
    """Write the trace of a few calls of every row."""
    traced = {}
    for position, row in enumerate(rows):
        try:
            traced[str(row.id)] = row.events()
        except Exception as error:  # a second session may not fit into memory; the other rows have their trace
            observer.say(f"warning: {row.id}: no trace: engine failed ({first_line(error)})")
        observer.advance("profile", position + 1, len(rows), str(row.id))
    trace.write(path, traced)
    observer.say(f"trace: {path}, for ui.perfetto.dev or chrome://tracing")


def _with_ceilings(section: BenchSection, observer: Observer) -> BenchSection:
    """`section` with what the machine can do: measured last, because its large arrays would count as a row's memory.

    The rows do not depend on it, so a failure (no memory for the arrays) costs the limits and nothing else.
    """
    threads: dict[tuple[str, str], int] = {}
    for row in section.rows:
        if row.work:
            placed = row.placement.device, row.placement.product_dtype
            threads[placed] = max(row.placement.threads, threads.get(placed, 1))
    if not threads:
        return section
    observer.say("measuring peak compute and bandwidth")
    try:
        ceilings = [
            measure_ceilings(device.split()[0], dtype, threads[device, dtype]) for device, dtype in sorted(threads)
        ]
    except Exception as error:  # torch raises types of its own, such as for memory
        observer.say(f"warning: no share of the machine's limits: measuring them failed ({first_line(error)})")
        return section
    return replace(section, ceilings=tuple(ceilings))


def _peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux, getrusage(2)
