"""Measure engines side by side on real pairs at real lengths: `mrpcbench bench --backend torch --backend onnx`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset

from mrpcbench.backends.reading import resolve_all
from mrpcbench.benchmark.presets import choose
from mrpcbench.benchmark.row import RowMeasurement
from mrpcbench.benchmark.suite import measure, open_suite, peak_rss_bytes
from mrpcbench.data import loading
from mrpcbench.environment.capture import capture, usable_cores
from mrpcbench.environment.redaction import public
from mrpcbench.errors import InterruptedRunError, UsageError, first_line
from mrpcbench.instruments import trace
from mrpcbench.instruments.roofline import measure_ceilings
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.records.outputs import TRACE, check_distinct, check_file, record_of
from mrpcbench.schema.bench_requests import BenchPlan, BenchView
from mrpcbench.schema.bench_results import BenchSection
from mrpcbench.schema.cases import BenchRequest
from mrpcbench.schema.fields import check
from mrpcbench.schema.records import BenchRecord


def bench(request: BenchRequest, results: Path | None, observer: Observer) -> tuple[BenchRecord, BenchView]:
    """Measure every row of `request`, and write the record to `results` after every row.

    Returns the record, and how to show its tables. A case whose engine fails is left out, and `failed` in the record
    says why; `failures.check_required` tells whether it was optional. Raises `UsageError` if the model or the data does
    not exist, or if the request contradicts its preset, and `MissingError` if no case could be measured. The error of
    the only case is raised as it is. After an interrupt, the finished rows are saved, and `InterruptedRunError` holds
    the same two values.
    """
    check(request.spec, request.plan)
    profile = Path(request.control.profile) if request.control.profile else None
    check_distinct({"--results": results, "--profile": profile})
    check_file("--profile", profile, TRACE)
    check_file("--results", results, record_of("bench"))
    suite, plan, view = choose(request)
    environment = capture()
    sources = resolve_all(case.spec for case in suite.cases)
    pairs = _pairs(plan, observer)
    running = open_suite(suite, sources, plan, pairs, observer)
    section = BenchSection(plan=public(plan), rows=(), rounds_done=0, peak_rss_bytes=peak_rss_bytes())
    record = BenchRecord(
        complete=False,
        environment=environment,
        model=running.rows[0].session.model,
        data=(loading.identity(pairs, plan.data, plan.split),),
        bench=section,
    )
    try:
        observer.began(record)
        _say_unusual(running.rows, len(pairs), observer)
        for updated in measure(section, running, np.asarray(pairs["label"][:], dtype=np.int64), observer):
            record = _saved(replace(record, model=running.rows[0].session.model, bench=updated), results)
            section = updated
        record = _saved(replace(record, complete=True, bench=_with_ceilings(section, observer)), results)
        if profile:
            _profile(running.rows, profile, observer)
    except KeyboardInterrupt:
        where = f"the finished rows are in {results or 'the record'}" if section.rows else "no row was finished"
        raise InterruptedRunError(f"interrupted; {where}", record if section.rows else None, view) from None
    finally:
        running.close()
    return record, view


def _say_unusual(rows: Sequence[RowMeasurement], pairs: int, observer: Observer) -> None:
    """Warn of more threads than cores, and say which batches the pairs do not fill."""
    placements = [row.session.placement for row in rows if row.session.placement.device == "cpu"]
    threads, cores = max((placed.threads for placed in placements), default=1), usable_cores()
    if threads > cores:
        observer.warn(f"--threads {threads}: this process can use {cores} cores; threads that share one wait for it")
    sizes = sorted({row.id.batch_size for row in rows if row.id.scenario == "offline" and row.id.batch_size > pairs})
    if sizes:
        named = " and ".join(map(str, sizes))
        observer.say(f"--batch-size {named}: there are {pairs} pairs, so each pass is one batch of {pairs}")


def _saved(record: BenchRecord, results: Path | None) -> BenchRecord:
    """Save `record` and return it, so that after an interrupt the record shown equals the file."""
    store.save(record, results)
    return record


def _pairs(plan: BenchPlan, observer: Observer) -> Dataset:
    """The pairs in the seeded order, which is the same for every engine."""
    pairs = loading.split_of(loading.load(plan.data, observer, (plan.split,)), plan.data, plan.split)
    if plan.pairs is not None and plan.pairs > len(pairs):
        raise UsageError(f"--pairs {plan.pairs}: the {plan.split} split has {len(pairs)}")
    order = np.random.default_rng(plan.seed).permutation(len(pairs))
    return pairs.select(order[: plan.pairs])


def _profile(rows: Sequence[RowMeasurement], path: Path, observer: Observer) -> None:
    """Write the trace of a few calls of every row."""
    traced = {}
    for position, row in enumerate(rows):
        try:
            traced[str(row.id)] = row.events()
        except Exception as error:  # a second session may not fit into memory; the other rows still get a trace
            observer.warn(f"{row.id}: no trace: engine failed ({first_line(error)})")
        observer.advance("profile", position + 1, len(rows), str(row.id))
    trace.write(path, traced)
    observer.say(f"trace: {path}; open it in ui.perfetto.dev or chrome://tracing")


def _with_ceilings(section: BenchSection, observer: Observer) -> BenchSection:
    """`section` with the peak compute and bandwidth of the machine.

    They are measured last, because their large arrays would count as memory of a row. The rows do not depend on them,
    so a failure, such as too little memory, is only a warning.
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
    except Exception as error:  # torch has its own exception types, such as for memory
        observer.warn(f"no share of the machine's limits: measuring them failed ({first_line(error)})")
        return section
    return replace(section, ceilings=tuple(ceilings))
