"""The live speed gate: `mrpcbench ab --a-model OLD --b-model NEW`, two sides in alternating fresh processes."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from mrpcbench.backends.reading import resolve_all
from mrpcbench.backends.registry import open_session
from mrpcbench.data import loading
from mrpcbench.data.batches import EncodedPairs
from mrpcbench.environment.capture import capture
from mrpcbench.environment.redaction import public, public_name
from mrpcbench.errors import InterruptedRunError, MissingError, UsageError
from mrpcbench.gates import policy
from mrpcbench.gates.live_speed import check_reach, comparison_of, incompatibilities, log_ratio, looks_slower
from mrpcbench.gates.policy import Policy
from mrpcbench.models.sources import ModelSource
from mrpcbench.paired.processes import PairedProcesses, Process, Side, Workload, side_of
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.schema.bench_results import AbPair, AbSection, AbSide
from mrpcbench.schema.fields import check
from mrpcbench.schema.gate_requests import AbPlan
from mrpcbench.schema.identity import ModelIdentity, Placement
from mrpcbench.schema.records import AbRecord
from mrpcbench.schema.requests import BackendSpec

Name = Literal["a", "b"]
NAMES: tuple[Name, Name] = ("a", "b")
Part = Literal["ab", "confirmation"]


@dataclass(frozen=True)
class Known:
    """A side before its first process: what to run, and what of it this process has found out."""

    side: Side
    spec: BackendSpec
    placement: Placement
    model: ModelIdentity


def ab(plan: AbPlan, results: Path, observer: Observer) -> AbRecord:
    """Measure side B against side A, and again where B looks slower; write the record to `results` after every pair.

    Raises `UsageError` where the number of pairs cannot reach the level or a model or the data is not there,
    `MissingError` where a side would run elsewhere than asked, `InterruptedRunError` after an interrupt.
    """
    check(plan)
    limits = policy.load(Path(plan.policy) if plan.policy else None)
    check_reach(plan.process_pairs, limits.alpha)
    environment = capture()
    specs = {name: _spec(plan, name) for name in NAMES}
    sources = resolve_all(specs.values())
    known: dict[Name, Known] = {name: _known(plan, name, specs[name], sources[specs[name]], observer) for name in NAMES}
    pairs = loading.split_of(loading.load(plan.data), plan.data, plan.split)
    record = AbRecord(
        complete=False,
        environment=environment,
        model=known["b"].model,
        data=(loading.identity(pairs, plan.data, plan.split),),
        ab=AbSection(plan=public(plan), a=_side(known["a"]), b=_side(known["b"]), pairs=()),
    )
    observer.began(record)
    if not incompatibilities(record.ab):
        workload = _workload(plan, sources[specs["a"]].reader.encode(pairs))
        try:
            with PairedProcesses({name: known[name].side for name in NAMES}, workload) as processes:
                record = _measured(processes, record, limits, results, observer)
        except KeyboardInterrupt:
            raise InterruptedRunError("interrupted; a comparison cannot be continued; run it again") from None
    judged = replace(record.ab, comparison=comparison_of(record, limits))
    record = replace(record, complete=True, ab=judged)
    store.save(record, results)
    return record


def _workload(plan: AbPlan, tokens: EncodedPairs) -> Workload:
    batches = tokens.drawn(plan.batch_size, plan.calls, plan.seed)
    if not batches:
        raise UsageError(f"--batch-size {plan.batch_size}: the {plan.split} split has {len(tokens.lengths)} pairs")
    return Workload(batches=batches, calls=plan.calls, warmup=plan.warmup)


def _known(plan: AbPlan, name: Name, spec: BackendSpec, source: ModelSource, observer: Observer) -> Known:
    """Open a side here once, so that what cannot run ends the command before the first process."""
    observer.say(f"opening side {name.upper()}: {spec.backend} {public_name(spec.model)}")
    session = open_session(spec, source)
    session.close()
    python = plan.a_python if name == "a" else plan.b_python
    side = side_of(spec, source, session.placement)
    return Known(replace(side, python=python) if python else side, spec, session.placement, session.model)


def _spec(plan: AbPlan, name: Name) -> BackendSpec:
    """What a side asks for; what B does not say, A has said."""
    asked = asdict(plan)
    values = {item: asked[f"a_{item}"] for item in ("model", "backend", "device", "dtype", "threads")}
    if name == "b":
        values.update({item: asked[f"b_{item}"] for item in values if asked[f"b_{item}"] is not None})
    return BackendSpec(**values)


def _side(known: Known) -> AbSide:
    """A side as it ran here; its processes say the rest."""
    return AbSide(
        spec=public(known.spec),
        placement=known.placement,
        model=known.model,
        python="",
        packages={},
    )


def _measured(
    processes: PairedProcesses, record: AbRecord, limits: Policy, results: Path, observer: Observer
) -> AbRecord:
    """The record with its pairs; they are run a second time where the first say "slower"."""
    for grown in _pairs(processes, record, "ab", observer):
        record = grown
        store.save(record, results)
    if looks_slower(record.ab.pairs, limits):
        observer.say("B looks slower: rerunning to confirm")
        for grown in _pairs(processes, record, "confirmation", observer):
            record = grown
            store.save(record, results)
    return record


def _pairs(processes: PairedProcesses, record: AbRecord, part: Part, observer: Observer) -> Iterator[AbRecord]:
    """The record after every pair of a part of the run."""
    section = record.ab
    count = section.plan.process_pairs
    for done, (order, ran) in enumerate(processes.rounds(count), 1):
        pair = AbPair(
            first="a" if order[0] == "a" else "b",
            a_samples_ms=ran["a"].samples_ms,
            b_samples_ms=ran["b"].samples_ms,
            disturbances=tuple(dict.fromkeys((*ran["a"].disturbances, *ran["b"].disturbances))),
        )
        section = replace(section, a=_as_ran(section.a, ran["a"]), b=_as_ran(section.b, ran["b"]))
        if part == "ab":
            section = replace(section, pairs=(*section.pairs, pair))
        else:
            section = replace(section, confirmation=(*section.confirmation, pair))
        observer.advance(part, done, count, _ratio_text(pair))
        yield replace(record, ab=section)


def _as_ran(side: AbSide, process: Process) -> AbSide:
    """The side as a process of it ran. Raises `MissingError` where that was elsewhere than asked."""
    was, now = side.placement, process.placement
    for item in ("device", "provider", "dtype", "threads"):
        if getattr(was, item) != getattr(now, item):
            raise MissingError(
                f"{item}: requested {getattr(was, item)}, but {getattr(now, item)} would be used; see `mrpcbench env`"
            )
    return replace(side, placement=now, python=process.python, packages=process.packages)


def _ratio_text(pair: AbPair) -> str:
    ratio = math.expm1(log_ratio(pair.a_samples_ms, pair.b_samples_ms))
    return f"B {ratio:+.1%}" + ("" if not pair.disturbances else f", discarded: {'; '.join(pair.disturbances)}")
