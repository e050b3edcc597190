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
from mrpcbench.records.outputs import check_file, record_of
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
class PreparedSide:
    """A side before its first process: what to run, and its placement and model as found by opening it once."""

    side: Side
    spec: BackendSpec
    placement: Placement
    model: ModelIdentity


def ab(plan: AbPlan, results: Path, observer: Observer) -> AbRecord:
    """Compare the speed of side B with side A; write the record to `results` after every pair of processes.

    If B looks slower, the comparison runs a second time. Raises `UsageError` if the model or the data does not exist,
    or if so few pairs cannot be significant; `MissingError` if a side would run elsewhere than requested; and
    `InterruptedRunError` after an interrupt.
    """
    check(plan)
    check_file("--results", results, record_of("ab"))
    limits = policy.load(Path(plan.policy) if plan.policy else None)
    check_reach(plan.process_pairs, limits.alpha)
    environment = capture()
    specs = {name: _spec(plan, name) for name in NAMES}
    sources = resolve_all(specs.values())
    sides: dict[Name, PreparedSide] = {
        name: _prepare(plan, name, specs[name], sources[specs[name]], observer) for name in NAMES
    }
    pairs = loading.split_of(loading.load(plan.data, observer, (plan.split,)), plan.data, plan.split)
    record = AbRecord(
        complete=False,
        environment=environment,
        model=sides["b"].model,
        data=(loading.identity(pairs, plan.data, plan.split),),
        ab=AbSection(plan=public(plan), a=_section_side(sides["a"]), b=_section_side(sides["b"]), pairs=()),
    )
    observer.began(record)
    if not incompatibilities(record.ab):
        workload = _workload(plan, sources[specs["a"]].reader.encode(pairs))
        for source in sources.values():
            source.tell(observer)
        try:
            with PairedProcesses({name: sides[name].side for name in NAMES}, workload) as processes:
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


def _prepare(plan: AbPlan, name: Name, spec: BackendSpec, source: ModelSource, observer: Observer) -> PreparedSide:
    """Open a side once in this process, so that a side that cannot run is an error before the first process."""
    observer.say(f"opening side {name.upper()}: {spec.backend} {public_name(spec.model)}")
    session = open_session(spec, source)
    session.close()
    python = plan.a_python if name == "a" else plan.b_python
    side = side_of(spec, source, session.placement)
    return PreparedSide(replace(side, python=python) if python else side, spec, session.placement, session.model)


def _spec(plan: AbPlan, name: Name) -> BackendSpec:
    """The spec of a side; an option that B leaves out has the value of A."""
    options = asdict(plan)
    values = {item: options[f"a_{item}"] for item in ("model", "backend", "device", "dtype", "threads")}
    if name == "b":
        values.update({item: options[f"b_{item}"] for item in values if options[f"b_{item}"] is not None})
    return BackendSpec(**values)


def _section_side(prepared: PreparedSide) -> AbSide:
    """The side as stored in the record; its processes fill in Python and packages."""
    return AbSide(
        spec=public(prepared.spec),
        placement=prepared.placement,
        model=prepared.model,
        python="",
        packages={},
    )


def _measured(
    processes: PairedProcesses, record: AbRecord, limits: Policy, results: Path, observer: Observer
) -> AbRecord:
    """The record with its pairs; if B looks slower, as many pairs run again."""
    for updated in _pairs(processes, record, "ab", observer):
        record = updated
        store.save(record, results)
    if looks_slower(record.ab.pairs, limits):
        observer.say("B looks slower: rerunning to confirm")
        for updated in _pairs(processes, record, "confirmation", observer):
            record = updated
            store.save(record, results)
    return record


def _pairs(processes: PairedProcesses, record: AbRecord, part: Part, observer: Observer) -> Iterator[AbRecord]:
    """Yields the record after every pair of processes, in one part of the run."""
    section = record.ab
    count = section.plan.process_pairs
    for done, (order, ran) in enumerate(processes.rounds(count), 1):
        pair = AbPair(
            first="a" if order[0] == "a" else "b",
            a_samples_ms=ran["a"].samples_ms,
            b_samples_ms=ran["b"].samples_ms,
            disturbances=tuple(dict.fromkeys((*ran["a"].disturbances, *ran["b"].disturbances))),
        )
        section = replace(section, a=_with_process(section.a, ran["a"]), b=_with_process(section.b, ran["b"]))
        if part == "ab":
            section = replace(section, pairs=(*section.pairs, pair))
        else:
            section = replace(section, confirmation=(*section.confirmation, pair))
        observer.advance(part, done, count, _ratio_text(pair))
        yield replace(record, ab=section)


def _with_process(side: AbSide, process: Process) -> AbSide:
    """`side` with what `process` reported. Raises `MissingError` if it ran elsewhere than requested."""
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
