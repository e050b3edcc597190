"""Speedups of the CPU graphs and of sorting by length, with ModernBERT-base's architecture on MRPC.

    python docs/benchmarks/cpu_graphs.py --model FOLDER --data FOLDER [--graphs FOLDER] [--quick]

The model's FOLDER needs only a config.json and a tokenizer: the weights are random, which does not change the speed.
`mrpcbench export` makes the graphs, verified on a few pairs, in a temporary folder or in `--graphs`, where the next run
finds them. Each comparison is between two cases in one process. They run the same pairs in turns, in alternating order,
with the project's own sessions and batches. A ratio is of two neighbouring turns; its interval is that of the median
over the rounds.

The cost of dispatching nodes is measured with a model of as many layers that is 16 wide, and with single pairs of 8
tokens, which need almost no computation.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from mrpcbench.backends.reading import resolve
from mrpcbench.backends.registry import open_session
from mrpcbench.backends.session import Session
from mrpcbench.data import loading
from mrpcbench.data.batches import Batch, EncodedPairs
from mrpcbench.environment.capture import capture, resolve_threads
from mrpcbench.environment.redaction import public_name
from mrpcbench.errors import ExitStatus
from mrpcbench.instruments.clock import timed
from mrpcbench.records.store import to_json, write_text
from mrpcbench.schema.requests import BackendSpec, Order
from mrpcbench.statistics import median_interval

OUTPUT = Path(__file__).with_name("cpu-graphs.json")
NARROW = {"hidden_size": 16, "num_attention_heads": 1, "intermediate_size": 16}
DISPATCH_TOKENS = 8
PROOF_PAIRS = 16
# 8 bits may flip a label of random weights, and cost the same time.
PASSABLE = (ExitStatus.OK, ExitStatus.REGRESSION)
GRAPHS = {"base": ("none", "cpu", "int8"), "narrow": ("none", "cpu")}


@dataclass(frozen=True, kw_only=True)
class Run:
    """How much is measured."""

    split_pairs: int | None = None
    split_rounds: int = 5
    pairs: int = 64
    rounds: int = 12
    dispatch_rounds: int = 40


QUICK = Run(split_pairs=64, split_rounds=2, pairs=16, rounds=3, dispatch_rounds=5)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A graph of one of the two models, with the order and the batch size of its pairs."""

    graph: str
    order: Order
    batch_size: int

    @property
    def name(self) -> str:
        """Its unique name."""
        return f"{self.graph} {'sorted' if self.order == 'length' else 'unsorted'} batch {self.batch_size}"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A target for a ratio of times, `over` to `under`: at least `least`, or at most `most`."""

    what: str
    over: Case
    under: Case
    least: float | None = None
    most: float | None = None

    def is_met(self, low: float, middle: float, high: float) -> bool:
        """Whether the median meets the target; with `least` the whole interval must also lie above 1."""
        if self.most is not None:
            return middle <= self.most
        return self.least is not None and middle >= self.least and low >= 1


PLAIN = Case(graph="base/none", order="given", batch_size=32)
SORTED = Case(graph="base/none", order="length", batch_size=32)
SPLIT_GOALS = (
    Goal(
        what="int8 sorted against Optimum's unsorted, batch 32",
        over=PLAIN,
        under=Case(graph="base/int8", order="length", batch_size=32),
        least=4.0,
    ),
    Goal(
        what="int8 sorted, batch 8, against Optimum's unsorted, batch 32",
        over=PLAIN,
        under=Case(graph="base/int8", order="length", batch_size=8),
        least=4.0,
    ),
    Goal(what="sorted against unsorted, batch 32", over=PLAIN, under=SORTED, least=1.35),
)
BATCH_GOALS = tuple(
    Goal(
        what=f"cpu graph against Optimum's, batch {size}",
        over=Case(graph="base/none", order="length", batch_size=size),
        under=Case(graph="base/cpu", order="length", batch_size=size),
        least=1.05,
    )
    for size in (1, 8, 32)
)
DISPATCH_GOALS = (
    Goal(
        what="cpu graph's time as a share of Optimum's "
        f"(hidden size {NARROW['hidden_size']}, one pair of {DISPATCH_TOKENS} tokens)",
        over=Case(graph="narrow/cpu", order="length", batch_size=1),
        under=Case(graph="narrow/none", order="length", batch_size=1),
        most=0.4,
    ),
)


# --- models -----------------------------------------------------------------------------------------------------------


def make_graphs(model: Path, pairs: Mapping[str, Sequence[Any]], folder: Path) -> None:
    """Export each graph that is not in `folder` yet, `base/none` and so on, in a process of its own.

    A folder keeps only graphs of one model, made by one version of this project's code; `SystemExit` otherwise.
    """
    few = folder / "proof"
    few.mkdir(parents=True, exist_ok=True)
    made = to_json({"source": capture().source_sha256, "config": (model / "config.json").read_text(encoding="utf-8")})
    stamp = folder / "made-by.json"
    if stamp.exists() and stamp.read_text(encoding="utf-8") != made:
        sys.exit(f"cpu_graphs.py: {folder} holds graphs of another model or another version of the code; name another")
    write_text(stamp, made)
    rows = [{name: pairs[name][row] for name in ("sentence1", "sentence2", "label")} for row in range(PROOF_PAIRS)]
    write_text(few / "validation.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    models = {"base": model, "narrow": narrow_model(model, folder / "narrow-model")}
    for name, kinds in GRAPHS.items():
        for kind in kinds:
            if (folder / name / kind / "model.onnx").exists():
                continue
            sys.stderr.write(f"exporting {name} {kind}\n")
            (folder / name).mkdir(exist_ok=True)
            command = [sys.executable, "-m", "mrpcbench", "export", "--random-init", "--device", "cpu"]
            command += ["--model", str(models[name]), "--data", str(few), "--optimize", kind]
            command += ["--output-dir", str(folder / name / kind), "--results", str(folder / f"{name}-{kind}.json")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode not in PASSABLE:
                sys.exit(f"failed:\n{done.stderr[-4000:]}")


def narrow_model(model: Path, folder: Path) -> Path:
    """A folder with the tokenizer of `model` and its configuration, but as narrow as `NARROW`."""
    shutil.copytree(model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors", "onnx*"))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    write_text(folder / "config.json", json.dumps(config | NARROW))
    return folder


# --- timing -----------------------------------------------------------------------------------------------------------


class Track:
    """Opens each session once, and measures cases with it."""

    def __init__(self, graphs: Path, threads: int) -> None:
        self._graphs, self._threads = graphs, threads
        self._sessions: dict[str, Session] = {}

    def spec(self, graph: str) -> BackendSpec:
        """The request to the engine for `graph`."""
        return BackendSpec(backend="onnx", model=str(self._graphs / graph), device="cpu", threads=self._threads)

    def session(self, graph: str) -> Session:
        """The session of `base/none` and so on."""
        if graph not in self._sessions:
            self._sessions[graph] = open_session(self.spec(graph))
        return self._sessions[graph]

    def measured(self, goals: Sequence[Goal], tokens: EncodedPairs, rounds: int) -> list[dict[str, Any]]:
        """A row for each of `goals`. After an untimed warm-up, every case runs once per round over all pairs.

        Every other round runs in reverse order.
        """
        cases = list(dict.fromkeys(part for goal in goals for part in (goal.over, goal.under)))
        batches = {case: tokens.batches(case.batch_size, order=case.order) for case in cases}
        for case in cases:
            list(self.session(case.graph).infer_many(batches[case][:2]))
        times: dict[Case, list[float]] = {case: [] for case in cases}
        for done in range(rounds):
            for case in cases[:: 1 if done % 2 == 0 else -1]:
                times[case].append(self._pass_ms(case, batches[case]))
            sys.stderr.write(f"round {done + 1} of {rounds}: {', '.join(f'{times[case][-1]:.0f}' for case in times)}\n")
        return [_row(goal, times, len(tokens.lengths), batches) for goal in goals]

    def _pass_ms(self, case: Case, batches: list[Batch]) -> float:
        session = self.session(case.graph)
        return timed(lambda: list(session.infer_many(batches)))[1]

    def facts(self) -> dict[str, Any]:
        """The weights and the placement of each session."""
        return {
            name: {"weights": session.model.weights, "parameters": session.model.parameters} | asdict(session.placement)
            for name, session in self._sessions.items()
        }


def _row(
    goal: Goal, times: Mapping[Case, list[float]], pairs: int, batches: Mapping[Case, list[Batch]]
) -> dict[str, Any]:
    ratios = [over / under for over, under in zip(times[goal.over], times[goal.under], strict=True)]
    interval = median_interval(ratios)
    return {
        "what": goal.what,
        "ratio": median(ratios),
        "interval": asdict(interval),
        "least": goal.least,
        "most": goal.most,
        "met": goal.is_met(interval.low, median(ratios), interval.high),
        "pairs": pairs,
        "rounds": len(ratios),
        "contenders": [  # the key of the committed record
            {
                "name": case.name,
                "tokens_for_each_real_one": sum(batch.inputs["input_ids"].size for batch in batches[case])
                / sum(batch.real_tokens for batch in batches[case]),
                "ms_a_pass": times[case],
            }
            for case in (goal.over, goal.under)
        ],
    }


def others_s() -> float:
    """CPU seconds that other processes have used so far."""
    times, own = psutil.cpu_times(), resource.getrusage(resource.RUSAGE_SELF)
    return float(sum(times[:8]) - times.idle - times.iowait - own.ru_utime - own.ru_stime)


# --- command line -----------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="config.json and tokenizer of ModernBERT-base")
    parser.add_argument("--data", required=True, help="MRPC, in a layout that mrpcbench reads")
    parser.add_argument("--graphs", type=Path, help="folder that keeps the graphs; default: a temporary one")
    parser.add_argument("--output", type=Path, help=f"file for the results; default: {OUTPUT.name} here unless --quick")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: OMP_NUM_THREADS, or the usable cores")
    parser.add_argument("--quick", action="store_true", help="few pairs and rounds, for a trial run")
    return parser.parse_args()


def measure(asked: argparse.Namespace, graphs: Path) -> dict[str, Any]:
    """Export the graphs and time the cases: the results with their environment, model, data and settings."""
    run = QUICK if asked.quick else Run()
    pairs = loading.split_of(loading.load(asked.data), asked.data, "validation")
    pairs = pairs.select(np.random.default_rng(0).permutation(len(pairs)))
    make_graphs(asked.model.resolve(), pairs, graphs)
    threads = resolve_threads(asked.threads)
    track = Track(graphs, threads)
    reader = resolve(track.spec("base/none")).reader
    whole = reader.encode(pairs.select(range(run.split_pairs or len(pairs))))
    few = reader.encode(pairs.select(range(run.pairs)))
    tokenised = [timed(lambda: reader.encode(pairs))[1] for _ in range(run.split_rounds)]
    begin, others = time.monotonic(), others_s()
    rows = [
        *track.measured(SPLIT_GOALS, whole, run.split_rounds),
        *track.measured(BATCH_GOALS, few, run.rounds),
        *track.measured(DISPATCH_GOALS, few.of_length(DISPATCH_TOKENS), run.dispatch_rounds),
    ]
    seconds = time.monotonic() - begin
    return {
        "environment": asdict(capture()),
        "model": public_name(str(asked.model)),
        "weights": "random-init",
        "data": asdict(loading.identity(pairs, asked.data, "validation")),
        "settings": {
            "threads": threads,
            "quick": asked.quick,
            **asdict(run),
            "narrow": NARROW,
            "dispatch_tokens": DISPATCH_TOKENS,
        },
        "tokenise_ms": {"pairs": len(pairs), "samples_ms": tokenised},
        "measured_s": seconds,
        "others_cores": (others_s() - others) / seconds,
        "sessions": track.facts(),
        "rows": rows,
    }


def main() -> None:
    """Measure, print the results, and write them with the environment."""
    asked = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(asked, asked.graphs or Path(scratch))
    print("ratio  95% interval       target     met")
    for row in found["rows"]:
        goal = f">= {row['least']}" if row["least"] else f"<= {row['most']}"
        span = f"{row['interval']['low']:.3f} to {row['interval']['high']:.3f}"
        print(f"{row['ratio']:5.3f}  {span:17}  {goal:9}  {'yes' if row['met'] else 'NO':3}  {row['what']}")
        print(f"       {row['pairs']} pairs x {row['rounds']} rounds; " + "; ".join(map(words, row["contenders"])))
    print(f"random-init weights; other programs used {found['others_cores']:.2f} cores meanwhile")
    if output := asked.output or (None if asked.quick else OUTPUT):
        write_text(output, to_json(found) + "\n")
        print(f"written to {output}")


def words(case: Mapping[str, Any]) -> str:
    """A case with its time and its padding."""
    return (
        f"{case['name']} {median(case['ms_a_pass']):.0f} ms/pass, "
        f"{case['tokens_for_each_real_one']:.3f} tokens per real token"
    )


if __name__ == "__main__":
    main()
