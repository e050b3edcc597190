"""Measure engines side by side on real pairs at real lengths: `mrpcbench bench --backend torch --backend onnx`."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from mrpcbench import data, store
from mrpcbench.backends import check_labels, encode_for, model_folder, open_session
from mrpcbench.backends.base import Session
from mrpcbench.batches import Batch, Order, in_order
from mrpcbench.environment import capture, public_name
from mrpcbench.errors import InterruptedRunError, UsageError
from mrpcbench.metrics import accuracy_of, confusion, f1_of
from mrpcbench.progress import Observer
from mrpcbench.schema import BackendSpec, BenchPlan, BenchRow, BenchSection, RunRecord, Scenario, check

T = TypeVar("T")


@dataclass
class Lane:
    """One row while it is measured: a session, its batches, and what it has shown so far."""

    spec: BackendSpec
    session: Session
    open_ms: float
    scenario: Scenario
    batch_size: int
    batches: list[Batch]
    first_ms: float = 0.0
    samples_ms: list[float] = field(default_factory=list)
    logits: NDArray[np.float32] | None = None
    peak_memory_bytes: int | None = None

    def warm_up(self, calls: int) -> None:
        """The first call, timed by itself, then `calls` more that are not."""
        _, self.first_ms = _timed(partial(self.session.infer, self.batches[0]))
        for index in range(calls):
            self.session.infer(self.batches[index % len(self.batches)])

    def run_round(self) -> None:
        """Once over all pairs; the answers of the timed calls themselves are kept."""
        self.session.reset_peak_memory()
        if self.scenario == "single-stream":
            timed = [_timed(partial(self.session.infer, batch)) for batch in self.batches]
            outputs = [logits for logits, _ in timed]
            self.samples_ms += [milliseconds for _, milliseconds in timed]
        else:
            outputs, milliseconds = _timed(lambda: list(self.session.infer_many(self.batches)))
            self.samples_ms.append(milliseconds)
        self.logits = in_order(outputs, self.batches)
        peak = self.session.peak_memory_bytes
        self.peak_memory_bytes = peak if peak is None else max(peak, self.peak_memory_bytes or 0)

    def row(self, labels: NDArray[np.int64]) -> BenchRow:
        """What has been measured, against `labels` [N]."""
        assert self.logits is not None
        answered = np.isfinite(self.logits).all(axis=1)
        counts = confusion(np.where(answered, self.logits.argmax(axis=1), 1 - labels), labels)
        return BenchRow(
            spec=replace(self.spec, model=public_name(self.spec.model)),
            placement=self.session.placement,
            model=self.session.model,
            scenario=self.scenario,
            batch_size=self.batch_size,
            pairs=len(labels),
            real_tokens=sum(batch.real_tokens for batch in self.batches),
            padding_tokens=sum(batch.padding_tokens for batch in self.batches),
            open_ms=self.open_ms,
            first_ms=self.first_ms,
            samples_ms=tuple(self.samples_ms),
            accuracy=accuracy_of(counts),
            f1=f1_of(counts),
            failed=int((~answered).sum()),
            peak_memory_bytes=self.peak_memory_bytes,
        )


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
        for grown in _rounds(record, lanes, labels, observer):
            store.save(grown, results)
            record = grown
    except KeyboardInterrupt:
        if record.bench and record.bench.rows:
            raise InterruptedRunError(f"interrupted; the rows so far are in {results}", record) from None
        raise InterruptedRunError("interrupted; no row was finished") from None
    finally:
        for session in {id(lane.session): lane.session for lane in lanes}.values():
            session.close()
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
        observer.say(f"opening {backend}")
        session, open_ms = _timed(partial(open_session, asked))
        for scenario in dict.fromkeys(plan.scenario):
            # One pair at a time arrives in no order; a pass over all pairs may choose its own.
            sizes = (1,) if scenario == "single-stream" else tuple(dict.fromkeys(plan.batch_size))
            order: Order = "given" if scenario == "single-stream" else "length"
            for size in sizes:
                cut = tokens.batches(size, order=order)
                lanes.append(Lane(asked, session, open_ms, scenario, size, cut))
    return lanes


def _rounds(record: RunRecord, lanes: list[Lane], labels: NDArray[np.int64], observer: Observer) -> Iterator[RunRecord]:
    """Run the rounds, every other one backwards so that drift favours no row, and give the record after every row."""
    assert record.bench is not None
    rounds = record.bench.plan.rounds
    for done in range(rounds):
        for position, lane in enumerate(lanes if done % 2 == 0 else reversed(lanes)):
            lane.run_round()
            finished = done + (position == len(lanes) - 1)
            rows = tuple(item.row(labels) for item in lanes if item.samples_ms)
            section = replace(record.bench, rows=rows, rounds_done=finished, peak_rss_bytes=_peak_rss_bytes())
            yield replace(record, complete=finished == rounds, bench=section)
            name = f"{lane.spec.backend} {lane.scenario} batch {lane.batch_size}"
            observer.advance("bench", done * len(lanes) + position + 1, rounds * len(lanes), name)


def _public(plan: BenchPlan) -> BenchPlan:
    return replace(plan, data=public_name(plan.data))


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` returns and how many milliseconds it took.

    The one clock: `work` returns host arrays, so that it cannot end before the device is done.
    """
    start = time.perf_counter_ns()
    result = work()
    return result, (time.perf_counter_ns() - start) / 1e6


def _peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux, getrusage(2)
