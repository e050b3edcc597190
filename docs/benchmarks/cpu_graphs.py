"""What the graphs for the CPU and sorting by length are worth: ModernBERT-base's architecture on the real MRPC.

    python docs/benchmarks/cpu_graphs.py --model FOLDER --data FOLDER [--graphs FOLDER] [--quick]

The model's FOLDER needs a config.json and a tokenizer alone: the weights are random, which changes no speed. Its graphs
are exported as `mrpcbench export` does, proven on a few pairs only, into a temporary folder, or into `--graphs`, where
the next run finds them. Each comparison is of two contenders in one process that run the same pairs in turns, in
alternating order, with the project's own sessions and batches; a ratio is of two neighbouring turns, and its interval
that of the median over the rounds.

What dispatching nodes costs is seen on a model of as many layers but 16 wide, and single pairs of 8 tokens, which
compute next to nothing.
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

from mrpcbench import data
from mrpcbench.backends import open_session
from mrpcbench.backends.base import Session
from mrpcbench.batches import Batch, EncodedPairs, Order
from mrpcbench.clock import timed
from mrpcbench.environment import capture, usable_cores
from mrpcbench.errors import ExitStatus
from mrpcbench.plans import BackendSpec
from mrpcbench.reading import resolve
from mrpcbench.redaction import public_name
from mrpcbench.statistics import median_interval
from mrpcbench.store import to_json, write_text

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
class Contender:
    """A graph of one of the two models, and how its pairs are batched."""

    graph: str
    order: Order
    batch_size: int

    @property
    def name(self) -> str:
        """What tells it from the others, in words."""
        return f"{self.graph} {'sorted' if self.order == 'length' else 'unsorted'} batch {self.batch_size}"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A ratio of times, `over` to `under`, that is to be at least `least`, or at most `most`."""

    what: str
    over: Contender
    under: Contender
    least: float | None = None
    most: float | None = None

    def is_met(self, low: float, middle: float, high: float) -> bool:
        """Whether the median is where it is to be; with `least` the whole interval must lie above 1, too."""
        if self.most is not None:
            return middle <= self.most
        return self.least is not None and middle >= self.least and low >= 1


PLAIN = Contender(graph="base/none", order="given", batch_size=32)
SORTED = Contender(graph="base/none", order="length", batch_size=32)
SPLIT_GOALS = (
    Goal(
        what="int8 sorted against Optimum's unsorted, batch 32",
        over=PLAIN,
        under=Contender(graph="base/int8", order="length", batch_size=32),
        least=4.0,
    ),
    Goal(
        what="int8 sorted, batch 8, against Optimum's unsorted, batch 32",
        over=PLAIN,
        under=Contender(graph="base/int8", order="length", batch_size=8),
        least=4.0,
    ),
    Goal(what="sorted against unsorted, batch 32", over=PLAIN, under=SORTED, least=1.35),
)
BATCH_GOALS = tuple(
    Goal(
        what=f"cpu graph against Optimum's, batch {size}",
        over=Contender(graph="base/none", order="length", batch_size=size),
        under=Contender(graph="base/cpu", order="length", batch_size=size),
        least=1.05,
    )
    for size in (1, 8, 32)
)
DISPATCH_GOALS = (
    Goal(
        what=f"time of the cpu graph in Optimum's, {NARROW['hidden_size']} wide, one pair of {DISPATCH_TOKENS} tokens",
        over=Contender(graph="narrow/cpu", order="length", batch_size=1),
        under=Contender(graph="narrow/none", order="length", batch_size=1),
        most=0.4,
    ),
)


# --- models -----------------------------------------------------------------------------------------------------------


def make_graphs(model: Path, pairs: Mapping[str, Sequence[Any]], folder: Path) -> None:
    """Export what is not in `folder` yet, `base/none` and so on, in processes of their own.

    A folder keeps only graphs of one model, made by one state of this project's code.
    """
    few = folder / "proof"
    few.mkdir(parents=True, exist_ok=True)
    made = to_json({"source": capture().source_sha256, "config": (model / "config.json").read_text(encoding="utf-8")})
    stamp = folder / "made-by.json"
    if stamp.exists() and stamp.read_text(encoding="utf-8") != made:
        sys.exit(f"cpu_graphs.py: {folder} holds graphs of another model or another state of the code; name another")
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
    """The sessions, which are opened once, and the batches of some pairs."""

    def __init__(self, graphs: Path, threads: int) -> None:
        self._graphs, self._threads = graphs, threads
        self._sessions: dict[str, Session] = {}

    def spec(self, graph: str) -> BackendSpec:
        """What is asked of the engine."""
        return BackendSpec(backend="onnx", model=str(self._graphs / graph), device="cpu", threads=self._threads)

    def session(self, graph: str) -> Session:
        """The session of `base/none` and so on."""
        if graph not in self._sessions:
            self._sessions[graph] = open_session(self.spec(graph))
        return self._sessions[graph]

    def measured(self, goals: Sequence[Goal], tokens: EncodedPairs, rounds: int) -> list[dict[str, Any]]:
        """A row for each of `goals`: every contender runs once a round over all pairs, after a pass that is not kept.

        Every other round runs backwards.
        """
        contenders = list(dict.fromkeys(part for goal in goals for part in (goal.over, goal.under)))
        batches = {item: tokens.batches(item.batch_size, order=item.order) for item in contenders}
        for item in contenders:
            list(self.session(item.graph).infer_many(batches[item][:2]))
        times: dict[Contender, list[float]] = {item: [] for item in contenders}
        for done in range(rounds):
            for item in contenders[:: 1 if done % 2 == 0 else -1]:
                times[item].append(self._pass_ms(item, batches[item]))
            sys.stderr.write(f"round {done + 1} of {rounds}: {', '.join(f'{times[item][-1]:.0f}' for item in times)}\n")
        return [_row(goal, times, len(tokens.lengths), batches) for goal in goals]

    def _pass_ms(self, item: Contender, batches: list[Batch]) -> float:
        session = self.session(item.graph)
        return timed(lambda: list(session.infer_many(batches)))[1]

    def facts(self) -> dict[str, Any]:
        """What each session says of itself."""
        return {
            name: {"weights": session.model.weights, "parameters": session.model.parameters} | asdict(session.placement)
            for name, session in self._sessions.items()
        }


def _row(
    goal: Goal, times: Mapping[Contender, list[float]], pairs: int, batches: Mapping[Contender, list[Batch]]
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
        "contenders": [
            {
                "name": item.name,
                "tokens_for_each_real_one": sum(batch.inputs["input_ids"].size for batch in batches[item])
                / sum(batch.real_tokens for batch in batches[item]),
                "ms_a_pass": times[item],
            }
            for item in (goal.over, goal.under)
        ],
    }


def others_s() -> float:
    """Processor seconds so far that were not ours."""
    times, own = psutil.cpu_times(), resource.getrusage(resource.RUSAGE_SELF)
    return float(sum(times[:8]) - times.idle - times.iowait - own.ru_utime - own.ru_stime)


# --- the whole --------------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="config.json and tokenizer of ModernBERT-base")
    parser.add_argument("--data", required=True, help="MRPC, in any layout that mrpcbench reads")
    parser.add_argument("--graphs", type=Path, help="folder that keeps the graphs; else a temporary one")
    parser.add_argument("--output", type=Path, help=f"file for the figures; {OUTPUT.name} here unless --quick")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--quick", action="store_true", help="a few pairs and rounds: whether it runs, and roughly")
    return parser.parse_args()


def measure(asked: argparse.Namespace, graphs: Path) -> dict[str, Any]:
    """Export, time, and say all that the figures are of."""
    run = QUICK if asked.quick else Run()
    pairs = data.split_of(data.load(asked.data), asked.data, "validation")
    pairs = pairs.select(np.random.default_rng(0).permutation(len(pairs)))
    make_graphs(asked.model.resolve(), pairs, graphs)
    track = Track(graphs, asked.threads)
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
        "data": asdict(data.identity(pairs, asked.data, "validation")),
        "settings": {
            "threads": asked.threads,
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
    """Measure, print, and write the figures with the machine that they are of."""
    asked = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(asked, asked.graphs or Path(scratch))
    print("ratio  its 95% interval   goal       met")
    for row in found["rows"]:
        goal = f">= {row['least']}" if row["least"] else f"<= {row['most']}"
        span = f"{row['interval']['low']:.3f} to {row['interval']['high']:.3f}"
        print(f"{row['ratio']:5.3f}  {span:17}  {goal:9}  {'yes' if row['met'] else 'NO':3}  {row['what']}")
        print(f"       {row['pairs']} pairs x {row['rounds']} rounds; " + "; ".join(map(words, row["contenders"])))
    print(f"random-init weights; other programs took {found['others_cores']:.2f} cores meanwhile")
    if output := asked.output or (None if asked.quick else OUTPUT):
        write_text(output, to_json(found) + "\n")
        print(f"written to {output}")


def words(contender: Mapping[str, Any]) -> str:
    """A contender with its time and its padding."""
    return (
        f"{contender['name']} {median(contender['ms_a_pass']):.0f} ms a pass, "
        f"{contender['tokens_for_each_real_one']:.3f} tokens a real one"
    )


if __name__ == "__main__":
    main()
