"""Error rates of `compare` of bench records on this machine: `python docs/benchmarks/stored_speed_gate.py`.

Runs `mrpcbench bench` of the quickstart model again and again, each time in a fresh process, and lets `mrpcbench
compare` judge the records. In every cycle one run is a baseline, one is of the same code, and one is 30% slower. One
cycle of --smaller-every has four more runs, with smaller slowdowns. Their order is random, so drift of the machine hits
all alike. A slowed engine spins after each call for that share of the call's own time. The runs before the first cycle
are a baseline folder of several records.

The records stay in --work, so an interrupted measurement goes on where it stopped. docs/ci.md explains the results.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Literal

from mrpcbench.backends.registry import engine_of, register
from mrpcbench.commands.compare import compare
from mrpcbench.errors import UsageError
from mrpcbench.records.figures import JUDGED_QUANTILE
from mrpcbench.records.store import load_as, to_json, write_text
from mrpcbench.schema.gate_requests import ComparePlan
from mrpcbench.schema.records import BenchRecord
from mrpcbench.schema.verdicts import Comparison
from mrpcbench.statistics import exact_interval, quantile

FORMAT = "stored-speed-gate 2"
IN_EVERY_CYCLE = (0.0, 0.30)
IN_SOME_CYCLES = (0.05, 0.10, 0.15, 0.20)
BACKEND_NAMES = ("torch", "onnx")
# How the script calls itself for a run with a slowdown.
SLOWED_RUN = "--slowed-run"

Baseline = Literal["one record", "folder"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured. Each field is an option of this script."""

    cycles: int = 20
    smaller_every: int = 2
    folder_records: int = 8
    pairs: int = 200
    batch_size: int = 32
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One comparison: its outcome, the slowdown that each gated row showed, as a share, and why a row was undecided."""

    baseline: Baseline
    slowdown: float
    outcome: str
    measured: dict[str, float]
    limits: dict[str, str]
    undecided: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often `compare` reported a regression. The 95% interval (Clopper-Pearson) is of the comparisons that it
    decided. An INCONCLUSIVE one has an INVALID row or a limit that is too wide to pass, or the machine itself changed
    its speed, which `machine_changed` counts."""

    baseline: Baseline
    slowdown: float
    comparisons: int
    passes: int
    regressions: int
    inconclusive: int
    machine_changed: int
    regression_low: float | None
    regression_high: float | None
    median_slowdown: float | None


# --- runs -------------------------------------------------------------------------------------------------------------


class Slowed:
    """A session whose calls take `share` longer: after each, the process spins for that share of the call's time."""

    def __init__(self, session: Any, share: float) -> None:
        self._session, self._share = session, share

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def infer(self, batch: Any) -> Any:
        """The logits of `batch`."""
        began_s = time.perf_counter()
        logits = self._session.infer(batch)
        ended_s = time.perf_counter()
        until_s = ended_s + self._share * (ended_s - began_s)
        while time.perf_counter() < until_s:
            pass
        return logits

    def infer_many(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The logits of each batch."""
        return map(self.infer, batches)


def open_slowed(opener: str, share: float, *arguments: Any) -> Any:
    """The session that `opener`, MODULE:FUNCTION, opens with these arguments, slowed down."""
    module, name = opener.split(":")
    return Slowed(getattr(import_module(module), name)(*arguments), share)


def slowed_run(share: float, arguments: Sequence[str]) -> None:
    """Run `mrpcbench` with these arguments and with slowed engines, in this process."""
    if share:
        for name in BACKEND_NAMES:
            engine = engine_of(name)
            globals()[f"open_{name}"] = partial(open_slowed, engine.opener, share)
            register(name, f"__main__:open_{name}", reads_onnx=engine.reads_onnx)
    from mrpcbench.cli.app import app

    app(list(arguments))


def order_of(cycle: int, smaller_every: int) -> tuple[float | None, ...]:
    """The runs of a cycle by their slowdown, None for the baseline, in an order drawn with the cycle as the seed."""
    runs = [None, *IN_EVERY_CYCLE, *(IN_SOME_CYCLES if cycle % smaller_every == 0 else ())]
    return tuple(Random(cycle).sample(runs, len(runs)))


def record_name(cycle: int, slowdown: float | None) -> str:
    """The file of a run's record."""
    return f"{cycle:02d}-{'baseline' if slowdown is None else f'{slowdown * 100:02.0f}'}.json"


def measure(settings: Settings, model: str | None, work: Path) -> None:
    """Make the runs that are missing in `work`; raises `CalledProcessError` if a run fails."""
    folder, runs = work / "folder", work / "runs"
    todo = [(folder / f"{count:02d}.json", 0.0) for count in range(settings.folder_records)]
    todo += [
        (runs / record_name(cycle, run), run or 0.0)
        for cycle in range(settings.cycles)
        for run in order_of(cycle, settings.smaller_every)
    ]
    began_s = time.monotonic()
    for done, (path, slowdown) in enumerate(todo, 1):
        if not _is_complete(path):
            _bench(settings, model or str(_trained(work)), path, slowdown)
        minutes = (time.monotonic() - began_s) / 60
        print(f"\rrun {done}/{len(todo)}, {minutes:.1f} min ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def _is_complete(path: Path) -> bool:
    try:
        return load_as(BenchRecord, path).complete
    except UsageError:
        return False


def _bench(settings: Settings, model: str, path: Path, slowdown: float) -> None:
    options = [*("--model", model), *("--data", "quickstart"), *("--device", "cpu"), *("--results", str(path))]
    options += [option for name in BACKEND_NAMES for option in ("--backend", name)]
    options += [*("--pairs", str(settings.pairs)), *("--batch-size", str(settings.batch_size))]
    options += ["--threads", str(settings.threads)]
    _call(str(Path(__file__).resolve()), SLOWED_RUN, str(slowdown), "bench", *options)


def _trained(work: Path) -> Path:
    """The quickstart model; trained and exported if it does not exist yet."""
    model = work / "model"
    options = ["--data", "quickstart", "--device", "cpu"]
    if not (model / "onnx").is_dir():
        train = ["train", "--model", "quickstart", "--output-dir", str(model), "--overwrite"]
        for command in (train, ["export", "--model", str(model)]):
            _call("-m", "mrpcbench", *command, *options, "--results", str(work / f"{command[0]}.json"))
    return model


def _call(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


# --- judging ----------------------------------------------------------------------------------------------------------


def judged(settings: Settings, work: Path) -> Iterator[Judged]:
    """Every comparison: of each cycle's runs with its baseline run, and with the folder."""
    for cycle in range(settings.cycles):
        baselines: dict[Baseline, Path] = {
            "one record": work / "runs" / record_name(cycle, None),
            "folder": work / "folder",
        }
        for slowdown in (run for run in order_of(cycle, settings.smaller_every) if run is not None):
            current = work / "runs" / record_name(cycle, slowdown)
            for kind, path in baselines.items():
                yield _judged(kind, slowdown, compare([path], [current], ComparePlan()))


def _judged(kind: Baseline, slowdown: float, found: Comparison) -> Judged:
    gated = [metric for metric in found.metrics if metric.gated]
    return Judged(
        baseline=kind,
        slowdown=slowdown,
        outcome=found.verdict.outcome,
        measured={metric.metric: metric.change / 100 for metric in gated if metric.change is not None},
        limits={metric.metric: metric.limit for metric in gated},
        undecided={
            metric.metric: metric.verdict.reason for metric in gated if metric.verdict.outcome == "INCONCLUSIVE"
        },
    )


def rates(comparisons: Sequence[Judged]) -> Iterator[Rate]:
    """How often a regression was reported, for each kind of baseline and slowdown."""
    for kind, slowdown in sorted({(item.baseline, item.slowdown) for item in comparisons}, reverse=True):
        own = [item for item in comparisons if (item.baseline, item.slowdown) == (kind, slowdown)]
        counts = [sum(item.outcome == outcome for item in own) for outcome in ("PASS", "REGRESSION")]
        decided = sum(counts)
        interval = exact_interval(counts[1], decided) if decided else None
        measured = [
            change for item in own if item.outcome in ("PASS", "REGRESSION") for change in item.measured.values()
        ]
        yield Rate(
            baseline=kind,
            slowdown=slowdown,
            comparisons=len(own),
            passes=counts[0],
            regressions=counts[1],
            inconclusive=len(own) - decided,
            machine_changed=sum(_machine_changed(item) for item in own),
            regression_low=interval.low if interval else None,
            regression_high=interval.high if interval else None,
            median_slowdown=median(measured) if measured else None,
        )


def _machine_changed(item: Judged) -> bool:
    """Whether a comparison is undecided only because the machine itself changed its speed."""
    return item.outcome == "INCONCLUSIVE" and all(
        "the machine itself changed" in why for why in item.undecided.values()
    )


def control_us(records: Sequence[BenchRecord]) -> list[float]:
    """The control of each run, as `compare` reads it, in ascending order: the states of the machine."""
    return sorted(round(quantile(record.bench.control_us, JUDGED_QUANTILE), 3) for record in records)


def row_counts(records: Iterable[BenchRecord]) -> dict[str, tuple[int, int, float]]:
    """Of each row: how often it was measured, how often it was INVALID, and its median number of rounds."""
    found: dict[str, list[tuple[bool, int]]] = {}
    for record in records:
        for row in record.bench.rows:
            rounds = len(row.samples_ms) // (row.pairs if row.scenario == "single-stream" else 1)
            found.setdefault(str(row.id), []).append((row.broken_rules != (), rounds))
    return {
        name: (len(items), sum(invalid for invalid, _ in items), median(rounds for _, rounds in items))
        for name, items in found.items()
    }


def write_results(settings: Settings, work: Path, output: Path) -> None:
    """Judge the records in `work`, and write the results to `output`; `SystemExit` if their versions differ."""
    records = [load_as(BenchRecord, path) for path in sorted((*work.glob("folder/*.json"), *work.glob("runs/*.json")))]
    if len({record.environment.source_sha256 for record in records}) > 1:
        raise SystemExit(
            f"{work}: the records are of different versions of mrpcbench; remove the folder and start again"
        )
    comparisons = list(judged(settings, work))
    first = records[0]
    document = {
        "format": FORMAT,
        "environment": asdict(first.environment),
        "models": {row.case: asdict(row.model) for row in first.bench.rows},
        "placements": {row.case: asdict(row.placement) for row in first.bench.rows},
        "data": asdict(first.data[0]),
        "settings": asdict(settings),
        "rates": [asdict(rate) for rate in rates(comparisons)],
        "rows": row_counts(records),
        "control_us": control_us(records),
        "comparisons": [asdict(item) for item in comparisons],
    }
    write_text(output, to_json(document) + "\n")


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """The rates of a results file as the table of docs/ci.md."""
    yield (
        "| baseline | slower by | median measured | PASS | REGRESSION | INCONCLUSIVE "
        "| INCONCLUSIVE because the machine changed | REGRESSION, share of decided comparisons (95% interval) |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for rate in (Rate(**item) for item in document["rates"]):
        interval, measured = "-", "-"
        if rate.regression_low is not None and rate.regression_high is not None:
            interval = f"{rate.regression_low:.0%} to {rate.regression_high:.0%}"
        if rate.median_slowdown is not None:
            measured = f"{rate.median_slowdown:+.1%}"
        yield (
            f"| {rate.baseline} | {rate.slowdown:.0%} | {measured} | {rate.passes} | {rate.regressions} "
            f"| {rate.inconclusive} | {rate.machine_changed} | {interval} |"
        )


def row_table(document: Mapping[str, Any]) -> Iterator[str]:
    """How often each row of the benchmarks was INVALID, as a table."""
    yield "| row | runs | INVALID | median rounds |"
    yield "|---|---|---|---|"
    for name, (count, invalid, rounds) in document["rows"].items():
        yield f"| {name} | {count} | {invalid} ({invalid / count:.0%}) | {rounds:g} |"


def main() -> None:
    """Measure with the options of the command line, and print the tables."""
    if sys.argv[1:2] == [SLOWED_RUN]:
        slowed_run(float(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description="Measure the error rates of `compare` of bench records on this machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for item in fields(Settings):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=item.type, default=item.default, help=" ")
    parser.add_argument("--model", help="fine-tuned and exported model; else the quickstart model is trained")
    parser.add_argument("--work", type=Path, default=Path("build/stored-speed"), help="folder for the records")
    parser.add_argument("--output", type=Path, default=Path("results/gate/stored-speed.json"), help=" ")
    given = vars(parser.parse_args())
    model, work, output = (given.pop(name) for name in ("model", "work", "output"))
    settings = Settings(**given)
    try:
        measure(settings, model, work)
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.stderr.decode()) from None
    write_results(settings, work, output)
    document = json.loads(output.read_text(encoding="utf-8"))
    print(*table(document), "", *row_table(document), sep="\n")


if __name__ == "__main__":
    main()
