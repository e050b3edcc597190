"""The gates tested on the machine at hand: `mrpcbench selftest`: false alarms, power, and what must never pass."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Literal

import psutil

from mrpcbench import data, store
from mrpcbench.backends import open_session
from mrpcbench.batches import Batch, EncodedPairs
from mrpcbench.closed_cases import closed_cases
from mrpcbench.duel import Duel, Process, Side, Workload, side_of
from mrpcbench.environment import capture, public_name
from mrpcbench.errors import InterruptedRunError, UsageError
from mrpcbench.gates.live_speed import check_reach, fails, log_ratio
from mrpcbench.plans import BackendSpec, SelftestPlan, check
from mrpcbench.policy import Policy
from mrpcbench.progress import Observer
from mrpcbench.reading import reader_for
from mrpcbench.schema import ClosedCase, GateTrial, RunRecord, SelftestSection
from mrpcbench.stats import exact_interval
from mrpcbench.verdicts import Verdict

# The side that each other is held against, and by which share those are slower.
BASE = "a"
SLOWDOWNS = {"b": 0.0, "b+3%": 0.03, "b+5%": 0.05, "b+10%": 0.10}
WARMUP = 5


def selftest(plan: SelftestPlan, results: Path, observer: Observer) -> RunRecord:
    """Run the processes of all sides in rounds, judge them as `ab` would, and try what must never pass.

    The record is written to `results` after every round. Raises `UsageError` where the model or the data is not there
    or the number of pairs cannot reach the level, `InterruptedRunError` after an interrupt.
    """
    check(plan)
    _check_sizes(plan)
    environment = capture()
    spec = BackendSpec(backend=plan.backend, model=plan.model, device=plan.device, threads=plan.threads)
    observer.say(f"opening {plan.backend} {public_name(plan.model)}")
    session = open_session(spec)
    session.close()
    pairs = data.split_of(data.load(plan.data), plan.data, plan.split)
    record = RunRecord(
        command="selftest",
        complete=False,
        environment=environment,
        model=session.model,
        data=(data.identity(pairs, plan.data, plan.split),),
        selftest=SelftestSection(
            plan=_public(plan), placement=session.placement, busy_cores=None, times_ms={}, log_ratios={}
        ),
    )
    observer.began(record)
    batches = _batches(plan, reader_for(spec).encode(pairs))
    try:
        for grown in _measured(record, side_of(spec, session.placement), batches, observer):
            record = grown
            store.save(record, results)
        cases = closed_cases(spec, plan, observer)
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted; a selftest is made anew, never continued") from None
    record = _concluded(record, cases)
    store.save(record, results)
    return record


def _check_sizes(plan: SelftestPlan) -> None:
    check_reach(plan.process_pairs, Policy().alpha)
    if plan.batches_a_call % 20:
        raise UsageError(f"--batches-a-call {plan.batches_a_call}: a multiple of 20, or 5% of them are no whole number")


def _public(plan: SelftestPlan) -> SelftestPlan:
    return replace(plan, model=public_name(plan.model), data=public_name(plan.data))


def _batches(plan: SelftestPlan, tokens: EncodedPairs) -> list[Batch]:
    """Single pairs in a seeded order, as many as make whole calls."""
    count = len(tokens.lengths)
    wanted = min(count, plan.batches_a_call * plan.calls) // plan.batches_a_call * plan.batches_a_call
    if not wanted:
        raise UsageError(f"--batches-a-call {plan.batches_a_call}: the {plan.split} split has {count} pairs")
    return tokens.drawn(1, wanted, plan.seed)


def _measured(record: RunRecord, real: Side, batches: Sequence[Batch], observer: Observer) -> Iterator[RunRecord]:
    """The record after every round: the real engine's, then those of an engine that sleeps."""
    section = record.selftest
    assert section is not None
    plan = section.plan
    load = _Load()
    workload = Workload(batches=batches, calls=plan.calls, warmup=WARMUP, group=plan.batches_a_call)
    sides = {
        "b": real,
        "b+3%": replace(real, wait_share=0.03),  # too little for a whole batch of so few
        "b+5%": replace(real, repeat=plan.batches_a_call // 20),
        "b+10%": replace(real, repeat=plan.batches_a_call // 10),
    }
    fake = Side(spec=BackendSpec(backend="fake", threads=1))
    fakes = {f"fake {name}": replace(fake, wait_share=share) for name, share in SLOWDOWNS.items()}
    single = replace(workload, batches=batches[:1], group=1)
    # Two sides at a time, as `ab` has them: of more, those at the ends of the order would meet warmer caches.
    duels = [
        *(
            (name, real, side, workload, plan.power_runs if SLOWDOWNS[name] else plan.runs)
            for name, side in sides.items()
        ),
        *((name, fake, side, single, plan.fake_runs) for name, side in fakes.items()),
    ]
    for name, base, side, work, runs in duels:
        count = (runs + 1) * plan.process_pairs if runs else 0  # the run after the last one confirms it
        with Duel({BASE: base, name: side}, work) as duel:
            for done, (_, ran) in enumerate(duel.rounds(count), 1):
                record = _with_round(record, name, ran, load)
                observer.advance(f"selftest, {name}", done, count)
                yield record


def _with_round(record: RunRecord, name: str, ran: Mapping[str, Process], load: "_Load") -> RunRecord:
    """The record with one more process of a side and of the one beside it; not where something disturbed them."""
    section = record.selftest
    assert section is not None
    if any(process.disturbances for process in ran.values()):
        return replace(record, selftest=replace(section, discarded=section.discarded + 1))
    times, ratios = dict(section.times_ms), dict(section.log_ratios)
    for key, process in ((f"{BASE} beside {name}", ran[BASE]), (name, ran[name])):
        times[key] = (*times.get(key, ()), median(process.samples_ms))
    ratios[name] = (*ratios.get(name, ()), log_ratio(ran[BASE].samples_ms, ran[name].samples_ms))
    changed = replace(section, times_ms=times, log_ratios=ratios, busy_cores=load.others_busy())
    return replace(record, selftest=changed)


class _Load:
    """How many cores of the machine something else than this measurement keeps busy."""

    def __init__(self) -> None:
        self._began = time.monotonic(), self._busy_s()

    def others_busy(self) -> float:
        """Mean number of cores since the start."""
        began, busy_s = self._began
        return (self._busy_s() - busy_s) / (time.monotonic() - began)

    @staticmethod
    def _busy_s() -> float:
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle_s = machine.idle + getattr(machine, "iowait", 0.0) + getattr(machine, "guest", 0.0)
        mine_s = own.user + own.system + own.children_user + own.children_system
        return float(sum(machine) - idle_s - mine_s)


def _concluded(record: RunRecord, cases: tuple[ClosedCase, ...]) -> RunRecord:
    """The record with what its rounds come to."""
    section = record.selftest
    assert section is not None
    trials = tuple(trials_of(section.log_ratios, section.plan.process_pairs, Policy()))
    false_alarms = sum(trial.alarms for trial in trials if not trial.slowdown)
    broken = [case.name for case in cases if not case.holds]
    runs = sum(trial.runs for trial in trials if not trial.slowdown and trial.kind == "real")
    if not runs:
        verdict = Verdict(outcome="INCONCLUSIVE", reason="no run of A against A could be judged")
    elif false_alarms or broken:
        reason = "; ".join([*([f"{false_alarms} false alarms"] if false_alarms else []), *broken])
        verdict = Verdict(outcome="REGRESSION", reason=reason)
    else:
        verdict = Verdict(outcome="PASS", reason=f"no false alarm in {runs} real A/A runs; all {len(cases)} cases hold")
    changed = replace(section, trials=trials, cases=cases, verdict=verdict)
    return replace(record, complete=True, selftest=changed)


def trials_of(log_ratios: Mapping[str, Sequence[float]], size: int, limits: Policy) -> Iterator[GateTrial]:
    """How often the gate alarms, side by side: in runs of `size` rounds that follow one another, and in all windows."""
    for name, ratios in log_ratios.items():
        slowdown = SLOWDOWNS[name.removeprefix("fake ")]
        kinds: tuple[tuple[Literal["real", "replayed"], int], ...] = (("real", size), ("replayed", 1))
        for kind, step in kinds:
            starts = range(0, len(ratios) - 2 * size + 1, step)
            if starts:
                yield _trial(name, kind, slowdown, [ratios[at : at + 2 * size] for at in starts], limits)


def _trial(
    side: str, kind: Literal["real", "replayed"], slowdown: float, runs: Sequence[Sequence[float]], limits: Policy
) -> GateTrial:
    """Each of `runs` is a run with its confirmation after it."""
    size = len(runs[0]) // 2
    looked = [
        [fails(part, alpha=limits.alpha, slowdown=limits.speed.slowdown) for part in (run[:size], run[size:])]
        for run in runs
    ]
    alarms = sum(all(pair) for pair in looked)
    return GateTrial(
        side=side,
        kind=kind,
        slowdown=slowdown,
        runs=len(runs),
        looked_slower=sum(first for first, _ in looked),
        alarms=alarms,
        rate=exact_interval(alarms, len(runs)),
        median_slowdown=math.expm1(median(median(run[:size]) for run in runs)),
    )
