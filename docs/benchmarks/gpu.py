"""All measurements on a GPU in one command: `python docs/benchmarks/gpu.py --model FOLDER --data FOLDER`.

Trains with both engines in turns, exports and verifies every graph, runs `bench --preset peers`, and prints the results
next to the goals of docs/performance.md. Every figure is read from the records, which stay in `--output`. The model
FOLDER may hold only a configuration and a tokenizer: the weights are then random, and every record says so.
`--device cpu` with few `--steps` and `--pairs` tries the script without a GPU; goals whose rows a CPU does not have are
then "not measured".
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mrpcbench.benchmark.presets import graphs_of
from mrpcbench.errors import ExitStatus
from mrpcbench.records import store
from mrpcbench.records.figures import flops_share, pairs_per_s, percentile_ms, relative_speed, row_share, steps_per_s
from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.schema.records import BenchRecord, TrainRecord
from mrpcbench.schema.results import TrainSection

ENGINES = ("trainer", "packed", "packed", "trainer")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A goal of docs/performance.md, and how its figure is read from the records."""

    what: str
    least: float
    unit: str
    figure: Callable[["Records"], float | None]
    is_most: bool = False


@dataclass(frozen=True, kw_only=True)
class Records:
    """The results of the commands, by training engine, and the benchmark's record."""

    trainings: dict[str, list[TrainSection]]
    bench: BenchRecord

    def row(self, case: str, scenario: str, batch: int | None = None) -> BenchRow | None:
        """The row of a case, by default the one of its fastest batch size."""
        rows = [
            row
            for row in self.bench.bench.rows
            if (row.case, row.scenario) == (case, scenario) and batch in (None, row.batch_size)
        ]
        return max(rows, key=pairs_per_s, default=None)

    def times(self, case: str, other: str, scenario: str, batch: int | None = None) -> float | None:
        """Speedup of `case` over `other`."""
        one, base = self.row(case, scenario, batch), self.row(other, scenario, batch)
        found = relative_speed(one, base) if one and base else None
        return found.times if found else None

    def p50_ms(self, case: str) -> float | None:
        """Median time of a single pair."""
        row = self.row(case, "single-stream")
        return percentile_ms(row, 0.5) if row else None

    def rate(self, engine: str) -> float | None:
        """Optimiser steps per second, the median of an engine's runs."""
        found = [rate for section in self.trainings[engine] if (rate := steps_per_s(section))]
        return median(found) if found else None

    def wall_s(self, engine: str) -> float:
        """Seconds of a training with its CUDA graph recordings and evaluations, without its saves; median over runs."""
        return median((section.train_s or 0) - (section.save_s or 0) for section in self.trainings[engine])


def over(one: float | None, other: float | None) -> float | None:
    """A ratio of two figures that may be unknown."""
    return None if one is None or not other else one / other


def share_of_peak(records: Records) -> float | None:
    """MFU of the packed engine at its best batch."""
    row = records.row("torch-packed", "offline")
    return row_share(row, records.bench.bench.ceilings, flops_share) if row else None


GOALS = (
    Goal(
        what="training, optimiser steps/s, packed over trainer",
        least=3.5,
        unit="x",
        figure=lambda found: over(found.rate("packed"), found.rate("trainer")),
    ),
    Goal(
        what="training, wall clock without saves, trainer over packed",
        least=3,
        unit="x",
        figure=lambda found: over(found.wall_s("trainer"), found.wall_s("packed")),
    ),
    Goal(
        what="training, wall clock without saves, packed",
        least=2,
        unit=" s",
        figure=lambda found: found.wall_s("packed"),
        is_most=True,
    ),
    Goal(
        what="one pair, p50, hf-bf16-sorted over torch-packed",
        least=6,
        unit="x",
        figure=lambda found: over(found.p50_ms("hf-bf16-sorted"), found.p50_ms("torch-packed")),
    ),
    Goal(
        what="one pair, p50, torch-packed",
        least=0.8,
        unit=" ms",
        figure=lambda found: found.p50_ms("torch-packed"),
        is_most=True,
    ),
    Goal(
        what="pairs/s at the best batch, torch-packed over hf-autocast",
        least=4,
        unit="x",
        figure=lambda found: found.times("torch-packed", "hf-autocast", "offline"),
    ),
    Goal(
        what="pairs/s at the best batch, torch-packed over hf-bf16-sorted",
        least=1.6,
        unit="x",
        figure=lambda found: found.times("torch-packed", "hf-bf16-sorted", "offline"),
    ),
    Goal(what="MFU at the best batch, torch-packed", least=0.5, unit="", figure=share_of_peak),
    Goal(
        what="one pair, onnx-cuda over optimum-fp32",
        least=6,
        unit="x",
        figure=lambda found: found.times("onnx-cuda", "optimum-fp32", "single-stream"),
    ),
    Goal(
        what="batch 32, onnx-cuda over optimum-fp32",
        least=4,
        unit="x",
        figure=lambda found: found.times("onnx-cuda", "optimum-fp32", "offline", 32),
    ),
    Goal(
        what="one pair, onnx-cuda over optimum-o4",
        least=3,
        unit="x",
        figure=lambda found: found.times("onnx-cuda", "optimum-o4", "single-stream"),
    ),
)


def run(arguments: Sequence[str]) -> None:
    """Run one command of mrpcbench, with its output on this terminal; `SystemExit` if it fails.

    A failed export gate is no failure here: O3 approximates GELU, and such a graph is measured as UNVERIFIED.
    """
    print(f"\n$ mrpcbench {' '.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "mrpcbench", *arguments], check=False)
    if done.returncode not in (ExitStatus.OK, ExitStatus.REGRESSION):
        sys.exit(f"gpu.py: `mrpcbench {arguments[0]}` ended with exit code {done.returncode}")


def train(options: argparse.Namespace, output: Path) -> dict[str, list[TrainSection]]:
    """Train with both engines in turns; the model of the last run stays in `output/model`."""
    found: dict[str, list[TrainSection]] = {engine: [] for engine in ENGINES}
    weights = [] if list(Path(options.model).glob("*.safetensors")) else ["--random-init"]
    for turn, engine in enumerate(ENGINES):
        record = output / f"train-{turn + 1}-{engine}.json"
        run(
            [
                *("train", "--model", options.model, "--data", options.data, "--device", options.device, *weights),
                *("--engine", engine, "--max-steps", str(options.steps), "--output-dir", str(output / "model")),
                *("--overwrite", "--results", str(record)),
            ]
        )
        found[engine].append(store.load_as(TrainRecord, record).train)
        for checkpoint in (output / "model").glob("checkpoint-*"):
            shutil.rmtree(checkpoint)  # 1.8 GB each for ModernBERT-base
    return found


def measure(options: argparse.Namespace, output: Path) -> BenchRecord:
    """Export and verify every graph, then measure all cases in one run."""
    common = ["--model", str(output / "model"), "--data", options.data]
    common += ["--device", options.device]
    for graph in graphs_of("peers", options.device):
        run(["export", *common, "--optimize", graph, "--results", str(output / f"export-{graph}.json")])
    # A p99 of few pairs would take many rounds, and a trial run needs none.
    pairs = ["--pairs", str(options.pairs), "--rounds", "5"] if options.pairs else []
    record = output / "peers.json"
    run(["bench", "--preset", "peers", *common, *pairs, "--results", str(record)])
    return store.load_as(BenchRecord, record)


def rows_of(records: Records) -> Iterator[str]:
    """A line of a Markdown table for each goal."""
    yield "| goal | target | result | met |"
    yield "|---|---|---|---|"
    for goal in GOALS:
        figure, sign = goal.figure(records), "≤" if goal.is_most else "≥"
        if figure is None:
            result, met = "not measured", ""
        else:
            result = f"{figure:.3g}{goal.unit}"
            met = "yes" if (figure <= goal.least if goal.is_most else figure >= goal.least) else "no"
        yield f"| {goal.what} | {sign} {goal.least:g}{goal.unit} | {result} | {met} |"


def main() -> None:
    """Run everything, and print the goals with their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of ModernBERT-base, with or without its weights")
    parser.add_argument("--data", required=True, help="folder of MRPC")
    parser.add_argument("--output", type=Path, default=Path("results/gpu"), help="where the records go")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=-1, help="optimiser steps; default: the recipe's two epochs")
    parser.add_argument("--pairs", type=int, help="pairs of the validation split for bench; default: all")
    options = parser.parse_args()
    began = time.monotonic()
    options.output.mkdir(parents=True, exist_ok=True)
    run(["env"])
    trainings = train(options, options.output)
    records = Records(trainings=trainings, bench=measure(options, options.output))
    place = records.bench.environment
    weights = records.bench.model.weights_label
    print(f"\n{place.gpu or place.cpu}; {weights} weights; all in {time.monotonic() - began:.0f} s\n")
    print("\n".join(rows_of(records)))


if __name__ == "__main__":
    main()
