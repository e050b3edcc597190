"""False-alarm rate and power of the live speed gate on this machine: `python docs/benchmarks/gate_error_rates.py`.

Runs the pairs of processes that `mrpcbench ab` runs, with a known slowdown: a model against itself, and against itself
with an injected slowdown. For 5% and 10%, 1 or 2 of the 20 pairs of a call are computed twice; for 3% the process
waits. The gate then judges each run, and the run after it confirms the verdict, as in `ab`. docs/ci.md explains the
results. The output is rewritten after every round, so an interrupted measurement keeps its rounds.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import psutil

from mrpcbench.backends.reading import resolve
from mrpcbench.backends.registry import open_session
from mrpcbench.data import loading
from mrpcbench.data.batches import Batch, EncodedPairs
from mrpcbench.environment.capture import capture
from mrpcbench.environment.redaction import public_name
from mrpcbench.gates.live_speed import check_reach, fails, log_ratio
from mrpcbench.gates.policy import Policy
from mrpcbench.paired.processes import PairedProcesses, Process, Side, Workload, side_of
from mrpcbench.records.store import to_json, write_text
from mrpcbench.schema.requests import DEFAULT_MODEL_DIR, BackendSpec
from mrpcbench.statistics import exact_interval

FORMAT = "gate-error-rates 1"
SLOWDOWNS = (0.0, 0.03, 0.05, 0.10)
WARMUP = 5
PAIRS_PER_CALL = 20

Windows = Literal["consecutive", "overlapping"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured. Each field is an option of this script."""

    model: str = DEFAULT_MODEL_DIR
    backend: str = "onnx"
    device: str = "auto"
    threads: int = 1  # several threads of one process wait for each other on a busy machine
    data: str = "hub"
    split: str = "validation"
    runs: int = 59  # with no alarm in 59 runs, the rate is below 5% at 95% confidence
    slowdown_runs: int = 20
    process_pairs: int = 10
    calls: int = 50
    pairs_per_call: int = PAIRS_PER_CALL
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The rounds of one slowdown. Each round is one reference process and one slowed process.

    Times are medians over the calls of a process. `log_ratios` are medians of ln(slowed / reference) over the calls.
    """

    engine: str = "real"
    slowdown: float
    reference_times_ms: tuple[float, ...] = ()
    times_ms: tuple[float, ...] = ()
    log_ratios: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often the gate reported a regression in `runs` runs with a known slowdown.

    `flagged` runs failed the gate; for `regressions` the run after it failed too. Overlapping windows share processes,
    so the 95% interval (Clopper-Pearson) of their rate is too narrow.
    """

    engine: str
    slowdown: float
    windows: Windows
    runs: int
    flagged: int
    regressions: int
    rate_low: float
    rate_high: float
    median_slowdown: float


@dataclass
class Measurement:
    """All rounds so far, and the number of discarded ones."""

    comparisons: dict[float, Comparison] = field(default_factory=dict)
    discarded_rounds: int = 0

    def add(self, slowdown: float, reference: Process, slowed: Process) -> None:
        """Count a round, unless the GPU's sensors reported a disturbance."""
        if reference.disturbances or slowed.disturbances:
            self.discarded_rounds += 1
            return
        old = self.comparisons.get(slowdown, Comparison(slowdown=slowdown))
        self.comparisons[slowdown] = replace(
            old,
            reference_times_ms=(*old.reference_times_ms, median(reference.samples_ms)),
            times_ms=(*old.times_ms, median(slowed.samples_ms)),
            log_ratios=(*old.log_ratios, log_ratio(reference.samples_ms, slowed.samples_ms)),
        )


class OtherLoad:
    """Mean number of cores that other programs keep busy, since the start."""

    def __init__(self) -> None:
        self._began_s, self._busy_s = time.monotonic(), self._others_s()

    def busy_cores(self) -> float:
        """The mean so far."""
        return (self._others_s() - self._busy_s) / (time.monotonic() - self._began_s)

    @staticmethod
    def _others_s() -> float:
        machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle_s = machine.idle + getattr(machine, "iowait", 0.0) + getattr(machine, "guest", 0.0)
        mine_s = own.user + own.system + own.children_user + own.children_system
        return float(sum(machine) - idle_s - mine_s)


def slowed(side: Side, slowdown: float, pairs_per_call: int) -> Side:
    """`side` with an injected slowdown: repeated pairs if that gives a whole number of them, otherwise a wait."""
    repeated = slowdown * pairs_per_call
    if math.isclose(repeated, round(repeated)):
        return replace(side, repeat=round(repeated))
    return replace(side, wait_share=slowdown)


def rates(comparison: Comparison, process_pairs: int, limits: Policy) -> Iterator[Rate]:
    """How often the gate fails, first over consecutive runs, then over all overlapping windows of the same rounds.

    A run is `process_pairs` rounds; the next `process_pairs` rounds confirm it. Yields nothing with too few rounds.
    """
    ratios, both = comparison.log_ratios, 2 * process_pairs
    kinds: tuple[tuple[Windows, int], ...] = (("consecutive", process_pairs), ("overlapping", 1))
    for windows, step in kinds:
        runs = [ratios[at : at + both] for at in range(0, len(ratios) - both + 1, step)]
        if runs:
            yield _rate(comparison, windows, runs, limits)


def _rate(comparison: Comparison, windows: Windows, runs: Sequence[Sequence[float]], limits: Policy) -> Rate:
    size = len(runs[0]) // 2
    failed = [
        [fails(part, alpha=limits.alpha, slowdown=limits.speed.slowdown) for part in (run[:size], run[size:])]
        for run in runs
    ]
    regressions = sum(all(pair) for pair in failed)
    interval = exact_interval(regressions, len(runs))
    return Rate(
        engine=comparison.engine,
        slowdown=comparison.slowdown,
        windows=windows,
        runs=len(runs),
        flagged=sum(first for first, _ in failed),
        regressions=regressions,
        rate_low=interval.low,
        rate_high=interval.high,
        median_slowdown=math.expm1(median(median(run[:size]) for run in runs)),
    )


def measure(settings: Settings, output: Path) -> None:
    """Measure every slowdown, and write the results so far to `output` after each round."""
    check_reach(settings.process_pairs, Policy().alpha)
    chosen = {name: getattr(settings, name) for name in ("backend", "model", "device", "threads")}
    spec = BackendSpec(**chosen)
    source = resolve(spec)
    session = open_session(spec, source)
    session.close()
    pairs = loading.split_of(loading.load(settings.data), settings.data, settings.split)
    about = {
        "format": FORMAT,
        "environment": asdict(capture()),
        "model": asdict(session.model),
        "data": asdict(loading.identity(pairs, settings.data, settings.split)),
        "settings": asdict(replace(settings, model=public_name(settings.model), data=public_name(settings.data))),
        "placement": asdict(session.placement),
    }
    batches = _batches(settings, source.reader.encode(pairs))
    workload = Workload(batches=batches, calls=settings.calls, warmup=WARMUP, group=settings.pairs_per_call)
    side = side_of(spec, source, session.placement)
    found, load = Measurement(), OtherLoad()
    for slowdown in SLOWDOWNS:
        runs = settings.slowdown_runs if slowdown else settings.runs
        count = (runs + 1) * settings.process_pairs if runs else 0  # the last run needs a confirmation
        sides = {"a": side, "b": slowed(side, slowdown, settings.pairs_per_call)}
        # Two sides at a time, as in `ab`. With more, the sides at the ends of the order would find warmer caches.
        with PairedProcesses(sides, workload) as processes:
            for done, (_, ran) in enumerate(processes.rounds(count), 1):
                found.add(slowdown, ran["a"], ran["b"])
                print(f"\r{slowdown:.0%} slower: round {done}/{count} ", end="", flush=True)
                _write(output, about, found, settings.process_pairs, load, complete=False)
    print()
    _write(output, about, found, settings.process_pairs, load, complete=True)


def _batches(settings: Settings, tokens: EncodedPairs) -> list[Batch]:
    """Single pairs in a seeded order, as many as fill whole calls."""
    size, available = settings.pairs_per_call, len(tokens.lengths)
    count = min(available, size * settings.calls) // size * size
    if not count:
        raise SystemExit(f"--pairs-per-call {size}: the {settings.split} split has {available} pairs")
    return tokens.drawn(1, count, settings.seed)


def _write(
    output: Path,
    about: Mapping[str, Any],
    found: Measurement,
    process_pairs: int,
    load: OtherLoad,
    *,
    complete: bool,
) -> None:
    comparisons = list(found.comparisons.values())
    judged = [rate for comparison in comparisons for rate in rates(comparison, process_pairs, Policy())]
    results = {
        "complete": complete,
        "busy_cores_of_other_programs": load.busy_cores(),
        "discarded_rounds": found.discarded_rounds,
        "rates": [asdict(rate) for rate in judged],
        "comparisons": [asdict(comparison) for comparison in comparisons],
    }
    write_text(output, to_json({**about, **results}) + "\n")


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """The rates of a results file as rows of a table; docs/ci.md shows those of consecutive runs."""
    for rate in (Rate(**item) for item in document["rates"]):
        yield (
            f"| {rate.engine}, {rate.windows} | {rate.slowdown:.0%} | {rate.runs} | {rate.median_slowdown:+.1%} | "
            f"{rate.flagged} | {rate.regressions} | {rate.rate_low:.1%} to {rate.rate_high:.1%} |"
        )


def main() -> None:
    """Measure with the options of the command line, and print the table of rates."""
    parser = argparse.ArgumentParser(
        description="Measure the false-alarm rate and the power of the live speed gate on this machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for item in fields(Settings):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=item.type, default=item.default, help=" ")
    parser.add_argument("--output", type=Path, default=Path("results/gate/error-rates.json"), help=" ")
    given = vars(parser.parse_args())
    output = given.pop("output")
    measure(Settings(**given), output)
    print(*table(json.loads(output.read_text(encoding="utf-8"))), sep="\n")


if __name__ == "__main__":
    main()
