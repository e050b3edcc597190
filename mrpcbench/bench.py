"""Measure engines side by side on real pairs at real lengths: `mrpcbench bench --backend torch --backend onnx`."""

import resource
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from mrpcbench import data, store, trace
from mrpcbench.environment import capture
from mrpcbench.errors import InterruptedRunError, UsageError, first_line
from mrpcbench.lanes import Lane
from mrpcbench.limits import measure_ceilings
from mrpcbench.lineup import label_array, open_lanes, reference_of
from mrpcbench.plans import (
    BackendSpec,
    BenchControl,
    BenchPlan,
    check,
)
from mrpcbench.presets import field_of
from mrpcbench.progress import Observer
from mrpcbench.reading import resolve_all
from mrpcbench.redaction import public
from mrpcbench.schema import (
    BenchRecord,
    BenchSection,
    LoadPoint,
)
from mrpcbench.validity import broken_rules

MEASURE = BenchControl()


def bench(
    spec: BackendSpec, plan: BenchPlan, results: Path, observer: Observer, control: BenchControl = MEASURE
) -> BenchRecord:
    """Measure every contender, scenario and batch size of `plan`, and write the record to `results` after every row.

    `spec` says what all contenders share; its own `backend` is replaced by each of theirs. Raises `UsageError` where
    the model or the data is not there, `MissingError` where an engine would run
    elsewhere than asked, `InterruptedRunError` after an interrupt, when the rows so far are saved.
    """
    check(spec, plan)
    if control.profile and Path(control.profile).is_dir():
        raise UsageError(f"--profile {control.profile}: a folder; name a file in it")
    environment = capture()
    field = field_of(spec, plan)
    sources = resolve_all(contender.spec for contender in field.contenders)
    pairs = _workload(plan)
    labels = np.asarray(pairs["label"], dtype=np.int64)
    lanes = open_lanes(field, sources, plan, pairs, observer)
    record = BenchRecord(
        complete=False,
        environment=environment,
        model=lanes[0].session.model,
        data=(data.identity(pairs, plan.data, plan.split),),
        bench=BenchSection(plan=public(plan), rows=(), rounds_done=0, peak_rss_bytes=_peak_rss_bytes()),
    )
    try:
        observer.began(record)
        for grown in _measured(record, lanes, labels, observer):
            store.save(grown, results)
            record = grown
        record = _with_ceilings(record, observer)
        store.save(record, results)
        if control.profile:
            _profile(lanes, Path(control.profile), observer)
    except KeyboardInterrupt:
        raise InterruptedRunError(_where_it_stopped(record, results), record if _rows(record) else None) from None
    finally:
        for session in {id(lane.session): lane.session for lane in lanes}.values():
            session.close()
    return record


def _rows(record: BenchRecord) -> int:
    return len(record.bench.rows)


def _where_it_stopped(record: BenchRecord, results: Path) -> str:
    if not _rows(record):
        return "interrupted; no row was finished"
    return f"interrupted; the finished rows are in {results}"


def _workload(plan: BenchPlan) -> Dataset:
    """The pairs in their seeded order, the same for every engine."""
    pairs = data.split_of(data.load(plan.data), plan.data, plan.split)
    if plan.pairs is not None and plan.pairs > len(pairs):
        raise UsageError(f"--pairs {plan.pairs}: the {plan.split} split has {len(pairs)}")
    order = np.random.default_rng(plan.seed).permutation(len(pairs))
    return pairs.select(order[: plan.pairs])


def _measured(
    record: BenchRecord, lanes: list[Lane], labels: NDArray[np.int64], observer: Observer
) -> Iterator[BenchRecord]:
    """The record after every row: first the rounds, then the loads, then where the time goes.

    Every other round runs backwards, so that drift favours no row.
    """
    rounds = record.bench.plan.rounds
    for lane in lanes:
        lane.warm_up(record.bench.plan.warmup)
    steady = [lane for lane in lanes if lane.scenario != "server"]
    servers = [lane for lane in lanes if lane.scenario == "server"]
    for done in range(rounds if steady else 0):
        for position, lane in enumerate(steady if done % 2 == 0 else reversed(steady)):
            lane.run_round()
            detail = f"round {done + 1} of {rounds}: {lane.name}"
            observer.advance("bench", done * len(steady) + position + 1, rounds * len(steady), detail)
            yield _grown(record, lanes, labels)
    for lane in servers:
        lane.find_rate(record.bench.plan, partial(_tell_load, observer, lane))
        yield _grown(record, lanes, labels)
    for position, lane in enumerate(lanes):
        try:
            lane.spans = lane.road.spans()
        except Exception as error:  # whatever an engine raises; the rows that it has given stay
            observer.say(f"{lane.name}: not taken apart, for the engine failed ({first_line(error)})")
        observer.advance("spans", position + 1, len(lanes), lane.name)
        yield _grown(record, lanes, labels)


def _profile(lanes: list[Lane], path: Path, observer: Observer) -> None:
    """Write the trace of a few calls of every row."""
    traced = {}
    for position, lane in enumerate(lanes):
        try:
            traced[lane.name] = lane.road.events()
        except Exception as error:  # a second session may not fit into memory; the other rows have their trace
            observer.say(f"{lane.name}: no trace, for the engine failed ({first_line(error)})")
        observer.advance("profile", position + 1, len(lanes), lane.name)
    trace.write(path, traced)
    observer.say(f"trace: {path}, for ui.perfetto.dev or chrome://tracing")


def _tell_load(observer: Observer, lane: Lane, point: LoadPoint) -> None:
    kept = "meets the target" if point.meets_slo else "misses the target"
    observer.say(f"{lane.name}: {point.rate_per_s:.1f} requests/s {kept}")


def _grown(record: BenchRecord, lanes: list[Lane], labels: NDArray[np.int64]) -> BenchRecord:
    """The record with the rows so far, each judged by the rounds that it has run."""
    fixed_shape = record.bench.plan.seq_len is not None
    rounds_done = min((lane.rounds for lane in lanes if lane.scenario != "server"), default=0)
    measured = [lane for lane in lanes if lane.has_row]
    reference = None if fixed_shape else reference_of(lanes, len(labels))
    known = label_array(reference.labels) if reference else None
    rows = [lane.row(labels, fixed_shape=fixed_shape, reference=known) for lane in measured]
    judged = [replace(row, broken_rules=broken_rules(row)) for row in rows]
    section = replace(
        record.bench, rows=tuple(judged), rounds_done=rounds_done, reference=reference, peak_rss_bytes=_peak_rss_bytes()
    )
    return replace(record, bench=section)


def _with_ceilings(record: BenchRecord, observer: Observer) -> BenchRecord:
    """The finished record, with what the machine itself can do: last, for its large arrays would count as a row's."""
    placed = {(row.placement.device, row.placement.product_dtype) for row in record.bench.rows if row.work}
    if placed:
        observer.say("measuring what this machine can do at best")
    ceilings = tuple(measure_ceilings(device.split()[0], dtype) for device, dtype in sorted(placed))
    return replace(record, complete=True, bench=replace(record.bench, ceilings=ceilings))


def _peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux, getrusage(2)
