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

from mrpcbench import data, models, store
from mrpcbench.backends import check_labels, encode_for, model_folder, open_session
from mrpcbench.backends.base import Session
from mrpcbench.batches import EncodedPairs, Order
from mrpcbench.environment import capture, public_name
from mrpcbench.errors import InterruptedRunError, UsageError
from mrpcbench.lanes import Lane, timed
from mrpcbench.limits import measure_ceilings, work_of
from mrpcbench.progress import Observer
from mrpcbench.schema import BackendSpec, BenchPlan, BenchSection, LoadPoint, RunRecord, Work, check
from mrpcbench.sensors import Meter, open_gpu_sensor
from mrpcbench.validity import broken_rules


def bench(spec: BackendSpec, plan: BenchPlan, results: Path, observer: Observer) -> RunRecord:
    """Measure every backend, scenario and batch size of `plan`, and write the record to `results` after every row.

    `spec` says what all backends share; its own `backend` is replaced by each of the plan's. Raises `UsageError` where
    the model or the data is not there, `MissingError` where an engine would run elsewhere than asked,
    `InterruptedRunError` after an interrupt, when the rows so far are saved.
    """
    check(spec, plan)
    environment = capture()
    for backend in plan.backend:
        model_folder(replace(spec, backend=backend))
    pairs = _workload(plan)
    labels = np.asarray(pairs["label"], dtype=np.int64)
    lanes = _open_lanes(spec, plan, pairs, observer)
    record = RunRecord(
        command="bench",
        complete=False,
        environment=environment,
        model=lanes[0].session.model,
        data=(data.identity(pairs, plan.data, plan.split),),
        bench=BenchSection(plan=_public(plan), rows=(), rounds_done=0, peak_rss_bytes=_peak_rss_bytes()),
    )
    try:
        observer.began(record)
        for lane in lanes:
            lane.warm_up(plan.warmup)
        for grown in _measured(record, lanes, labels, observer):
            store.save(grown, results)
            record = grown
    except KeyboardInterrupt:
        if record.bench and record.bench.rows:
            raise InterruptedRunError(f"interrupted; the rows so far are in {results}", record) from None
        raise InterruptedRunError("interrupted; no row was finished") from None
    finally:
        for session in {id(lane.session): lane.session for lane in lanes}.values():
            session.close()
    record = _with_ceilings(record, observer)
    store.save(record, results)
    return record


def _workload(plan: BenchPlan) -> Dataset:
    """The pairs in their seeded order, the same for every engine."""
    pairs = data.split_of(data.load(plan.data), plan.data, plan.split)
    if plan.pairs is not None and plan.pairs > len(pairs):
        raise UsageError(f"--pairs {plan.pairs}: the {plan.split} split has {len(pairs)}")
    order = np.random.default_rng(plan.seed).permutation(len(pairs))
    return pairs.select(order[: plan.pairs])


def _open_lanes(spec: BackendSpec, plan: BenchPlan, pairs: Dataset, observer: Observer) -> list[Lane]:
    lanes: list[Lane] = []
    for backend in dict.fromkeys(plan.backend):
        asked = replace(spec, backend=backend)
        check_labels(asked, data.label_names(pairs))
        tokens = encode_for(asked, pairs)
        if plan.seq_len is not None:
            tokens = tokens.of_length(plan.seq_len)
        observer.say(f"opening {backend}")
        session, open_ms = timed(partial(open_session, asked))
        sensor = open_gpu_sensor(session.placement.device)
        for scenario in dict.fromkeys(plan.scenario):
            # One pair at a time arrives in no order; a pass over all pairs may choose its own.
            sizes = (1,) if scenario == "single-stream" else tuple(dict.fromkeys(plan.batch_size))
            order: Order = "length" if scenario == "offline" else "given"
            for size in sizes:
                cut = tokens.batches(size, order=order)
                work = _work(asked, session, tokens, len(cut)) if scenario != "server" else None
                lanes.append(Lane(asked, session, open_ms, scenario, size, tokens, cut, work, Meter(sensor)))
    return lanes


def _work(spec: BackendSpec, session: Session, tokens: EncodedPairs, batches: int) -> Work | None:
    if spec.backend == "fake":
        return None
    config = models.load_config(model_folder(spec), spec.model)
    return work_of(
        config, tokens.lengths, batches=batches, parameters=session.model.parameters, dtype=session.placement.dtype
    )


def _measured(
    record: RunRecord, lanes: list[Lane], labels: NDArray[np.int64], observer: Observer
) -> Iterator[RunRecord]:
    """The record after every row: first the rounds, then the loads.

    Every other round runs backwards, so that drift favours no row.
    """
    assert record.bench is not None
    plan = record.bench.plan
    steady = [lane for lane in lanes if lane.scenario != "server"]
    rounds = plan.rounds if steady else 0
    for done in range(rounds):
        for position, lane in enumerate(steady if done % 2 == 0 else reversed(steady)):
            lane.run_round()
            name = f"{lane.spec.backend} {lane.scenario} batch {lane.batch_size}"
            observer.advance("bench", done * len(steady) + position + 1, rounds * len(steady), name)
            yield _grown(record, lanes, labels, done + (position == len(steady) - 1))
    for lane in (lane for lane in lanes if lane.scenario == "server"):
        lane.find_rate(plan, partial(_tell_load, observer, lane))
        yield _grown(record, lanes, labels, rounds)


def _tell_load(observer: Observer, lane: Lane, point: LoadPoint) -> None:
    kept = "meets the target" if point.meets_slo else "misses the target"
    observer.say(f"server {lane.spec.backend} batch {lane.batch_size}: {point.rate_per_s:.1f} requests/s {kept}")


def _grown(record: RunRecord, lanes: list[Lane], labels: NDArray[np.int64], rounds_done: int) -> RunRecord:
    """The record with the rows so far, each judged by the whole rounds that it has."""
    assert record.bench is not None
    fixed_shape = record.bench.plan.seq_len is not None
    rows = [lane.row(labels, fixed_shape=fixed_shape) for lane in lanes if lane.logits is not None]
    judged = [
        replace(row, broken_rules=broken_rules(row, rounds_done)) if rounds_done or row.server else row for row in rows
    ]
    section = replace(record.bench, rows=tuple(judged), rounds_done=rounds_done, peak_rss_bytes=_peak_rss_bytes())
    return replace(record, bench=section)


def _with_ceilings(record: RunRecord, observer: Observer) -> RunRecord:
    """The finished record, with what the machine itself can do: last, for its large arrays would count as a row's."""
    assert record.bench is not None
    placed = {(row.placement.device, row.placement.dtype) for row in record.bench.rows if row.work}
    if placed:
        observer.say("measuring what this machine can do at best")
    ceilings = tuple(measure_ceilings(device.split()[0], dtype) for device, dtype in sorted(placed))
    return replace(record, complete=True, bench=replace(record.bench, ceilings=ceilings))


def _public(plan: BenchPlan) -> BenchPlan:
    return replace(plan, data=public_name(plan.data))


def _peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux, getrusage(2)
