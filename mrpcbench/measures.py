"""Which figures of a record are followed over time, and what must be equal for two of them to be comparable.

Standard library only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mrpcbench.figures import percentile_ms, speed
from mrpcbench.schema import BenchRow, DataIdentity, Environment, ModelIdentity, Placement, RunRecord

# Enough of a hash to tell machines and data apart, and short enough to read.
SHORT_HASH = 12


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A figure of a record; `same` is what it depends on beside the code and the weights, in words."""

    metric: str
    unit: Literal["share", "logit", "ms", "pairs/s"]
    better: Literal["higher", "lower"]
    value: float
    same: dict[str, str]
    model: str
    valid: bool = True


def measures(record: RunRecord) -> Iterator[Measure]:
    """The figures of `record` that are followed; none of a section that has no such figure yet."""
    if record.train:
        yield from _train(record)
    elif record.evaluate:
        yield from _evaluate(record)
    elif record.export:
        yield from _export(record)
    elif record.bench:
        for row in record.bench.rows:
            yield from _bench(record, row)


def machine(found: Environment) -> str:
    """Processor, and GPU where there is one."""
    return f"{found.cpu}, {found.cpu_cores} cores" + (f", {found.gpu}" if found.gpu else "")


def _train(record: RunRecord) -> Iterator[Measure]:
    section = record.train
    assert section is not None
    same = _same(record, record.model, f"{section.placement.device} {section.placement.dtype}")
    for line in section.epochs:
        if line.step == section.best_step:
            yield _share("best accuracy", line.eval_accuracy_score, same, record.model)


def _evaluate(record: RunRecord) -> Iterator[Measure]:
    section = record.evaluate
    assert section is not None
    place = section.placement
    same = _same(record, record.model, f"{section.spec.backend} on {place.device} {place.dtype}")
    yield _share("accuracy", section.score.accuracy, same, record.model)
    yield _share("F1", section.score.f1, same, record.model)


def _export(record: RunRecord) -> Iterator[Measure]:
    section = record.export
    assert section is not None
    deltas = [trial.max_abs_delta for trial in section.gate.trials] if section.gate else []
    finite = [delta for delta in deltas if delta is not None]
    if finite and len(finite) == len(deltas):
        same = _same(record, record.model, f"{section.dtype} graph on {section.placement.device}")
        yield Measure(
            metric="largest |Δlogit|",
            unit="logit",
            better="lower",
            value=max(finite),
            same=same,
            model=record.model.name,
        )


def _bench(record: RunRecord, row: BenchRow) -> Iterator[Measure]:
    """A row's speed, and of single pairs the median latency; nothing of a row without a sample."""
    assert record.bench is not None
    plan = record.bench.plan
    # The seed orders the pairs, and so decides which of them share a batch.
    same = _same(record, row.model, _placed(row.placement), data=f"{row.pairs} pairs, seed {plan.seed}")
    if plan.seq_len is not None:
        same["shape"] = f"every pair {plan.seq_len} tokens"
    if row.order == "given":
        same["order"] = "as given"
    if plan.from_text and row.scenario == "offline":
        same["from"] = "text"
    if row.server is not None:
        same["server"] = f"target {row.server.slo_ms:g} ms, window {row.server.window_ms:g} ms"
    name = str(row.id)
    rate = speed(row) if row.samples_ms or row.server else None
    median = percentile_ms(row, 0.5) if row.scenario == "single-stream" else None
    valid = not row.broken_rules
    if rate is not None:
        yield Measure(
            metric=name, unit="pairs/s", better="higher", value=rate, same=same, model=row.model.name, valid=valid
        )
    if median is not None:
        yield Measure(
            metric=f"{name} p50", unit="ms", better="lower", value=median, same=same, model=row.model.name, valid=valid
        )


def _share(metric: str, value: float, same: dict[str, str], model: ModelIdentity) -> Measure:
    return Measure(metric=metric, unit="share", better="higher", value=value, same=same, model=model.name)


def _same(record: RunRecord, model: ModelIdentity, runs: str, data: str = "") -> dict[str, str]:
    """What a series of figures must have in common, whatever the command: model, pairs, place and machine."""
    found = record.environment
    return {
        "model": f"{model.architecture}, {model.parameters} parameters, {model.label}",
        "data": ", ".join([*map(_pairs, record.data), *([data] if data else [])]),
        "runs": runs,
        "machine": f"{machine(found)} ({found.machine_sha256[:SHORT_HASH]})",
    }


def _pairs(found: DataIdentity) -> str:
    return f"{found.split} {found.data_sha256[:SHORT_HASH]}"


def _placed(place: Placement) -> str:
    return f"{place.device} {place.dtype}, {place.threads} threads"
