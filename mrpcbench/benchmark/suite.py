"""The rows of a suite, ready to be measured: each engine opened once, each case with its own tokens."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from mrpcbench.backends.registry import open_session
from mrpcbench.backends.session import Session
from mrpcbench.benchmark.row import RowMeasurement, ServerRow, SteadyRow, Workload
from mrpcbench.benchmark.scoring import label_text
from mrpcbench.data import loading
from mrpcbench.data.batches import EncodedPairs, Reader
from mrpcbench.environment.capture import usable_cores
from mrpcbench.errors import UsageError
from mrpcbench.instruments.clock import timed
from mrpcbench.instruments.roofline import work_of
from mrpcbench.instruments.spans import Tokenise
from mrpcbench.instruments.telemetry import GpuSensor, Meter, open_gpu_sensor
from mrpcbench.models.sources import ModelSource
from mrpcbench.progress import Observer
from mrpcbench.schema.cases import Suite
from mrpcbench.schema.records import ReferenceAnswers, Work
from mrpcbench.schema.requests import BackendSpec, BenchPlan


def open_suite(
    suite: Suite, sources: Mapping[BackendSpec, ModelSource], plan: BenchPlan, pairs: Dataset, observer: Observer
) -> list[RowMeasurement]:
    """The rows of all cases over `pairs`; cases that ask the same of an engine share its session.

    Raises `UsageError` where a model has the labels the other way round, or takes fewer tokens than `--seq-len`;
    `MissingError` where an engine is not available.
    """
    opened: dict[BackendSpec, tuple[Session, float]] = {}
    try:
        return _rows(suite, sources, plan, pairs, observer, opened)
    except BaseException:
        for session, _ in opened.values():
            session.close()
        raise


def _rows(
    suite: Suite,
    sources: Mapping[BackendSpec, ModelSource],
    plan: BenchPlan,
    pairs: Dataset,
    observer: Observer,
    opened: dict[BackendSpec, tuple[Session, float]],
) -> list[RowMeasurement]:
    """The rows; the sessions are put into `opened`, each with the milliseconds that opening it took."""
    texts = {name: list(pairs[name]) for name in ("sentence1", "sentence2")}
    rows: list[RowMeasurement] = []
    for case in suite.cases:
        source = sources[case.spec]
        source.check_labels(loading.label_names(pairs))
        if case.spec not in opened:
            observer.say(f"opening {case.name}")
            opened[case.spec] = timed(partial(open_session, case.spec, source))
        session, open_ms = opened[case.spec]
        tokens, tokenise = _tokens(plan, source.reader, texts)
        sensor = open_gpu_sensor(session.placement.device)
        for row in case.rows():
            kind = ServerRow if row.scenario == "server" else SteadyRow
            # One pair at a time arrives in no order; a pass over all pairs may choose its own.
            order = case.order if row.scenario == "offline" else None
            batches = tokens.batches(row.batch_size, order=order or "given")
            work = None if row.scenario == "server" else _work(source, session, tokens, len(batches))
            workload = Workload(tokens, tokenise, batches, order, work)
            rows.append(kind(row, case, session, open_ms, workload, _meter(session, sensor)))
    return rows


def _meter(session: Session, sensor: GpuSensor | None) -> Meter:
    """Sensors of a row. With more threads than cores, threads wait for each other: that says nothing of the machine."""
    crowded = session.placement.threads > usable_cores()
    return Meter(sensor, wait_clock=lambda: None) if crowded else Meter(sensor)


def _tokens(plan: BenchPlan, reader: Reader, texts: Mapping[str, list[str]]) -> tuple[EncodedPairs, Tokenise | None]:
    """The pairs as tokens, and what makes tokens of some of them; nothing does for a fixed shape."""
    if plan.seq_len is None:

        def tokenise(rows: NDArray[np.int64]) -> EncodedPairs:
            return reader.encode({name: [column[row] for row in rows] for name, column in texts.items()})

        return reader.encode(texts), tokenise
    if plan.seq_len > reader.longest_allowed:
        raise UsageError(f"--seq-len {plan.seq_len}: the model takes {reader.longest_allowed} tokens")
    return reader.encode(texts).of_length(plan.seq_len), None


def _work(source: ModelSource, session: Session, tokens: EncodedPairs, batches: int) -> Work | None:
    if not session.model.parameters:  # an engine without a model, which does no work
        return None
    return work_of(
        source.config,
        tokens.lengths,
        batches=batches,
        parameters=session.model.parameters,
        dtype=session.placement.product_dtype,
    )


def reference_of(rows: Sequence[RowMeasurement], pairs: int) -> ReferenceAnswers | None:
    """The answers of the row that runs first; None for a single case, and before there are any."""
    if len({row.case.name for row in rows}) == 1:
        return None
    first = next((row for row in rows if isinstance(row, SteadyRow)), rows[0])
    if first.answers is None:
        return None
    return ReferenceAnswers(row=str(first.id), labels=label_text(first.answers, pairs))
