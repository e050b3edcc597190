"""All measurements on a GPU in one command: `python docs/benchmarks/gpu.py --model FOLDER --data FOLDER`.

It runs in stages. After each one it prints the goals of docs/performance.md with the results so far, and writes them to
`goals.md` in `--output`, so it is useful if it is stopped early. A stage that fails or takes too long is reported, and
the others go on. Every figure is read from the records in `--output`; a later call with the same folder adds to them.
The model FOLDER may hold only a configuration and a tokenizer: the weights are then random, and every record says so.
`--device cpu` with few `--steps` and `--pairs` tries the script without a GPU.
"""

import argparse
import json
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_stages import goals, work
from gpu_stages.jobs import Job, Runner

from mrpcbench.benchmark.presets import PRESETS, Entry
from mrpcbench.cli.process import prepare_process
from mrpcbench.errors import ExitStatus
from mrpcbench.models.sources import ONNX_FILE, graph_folder
from mrpcbench.records.store import write_text

ENGINES = ("trainer", "packed", "packed", "trainer")
# Optimiser steps of the profiled training, less than an epoch; the last ones are profiled.
STEPS_TO_PROFILE = 110
# A single-stream row has a p99 from 662 samples on.
SINGLE_PAIRS, SINGLE_ROUNDS, OFFLINE_ROUNDS = 100, 7, 5
# Extra rounds of a benchmark that is noisy, in seconds.
EXTRA_S = 10.0
# A CPU takes longer, by about this factor.
CPU_FACTOR = 20
STATUS_FILE = "stages.json"
# Lines of a failed job that are shown.
LAST_LINES = 12

Groups = Sequence[Sequence[Job]]


@dataclass(frozen=True)
class Paths:
    """The files of a run: small ones in `output`, weights and checkpoints in `scratch`."""

    options: argparse.Namespace

    @property
    def has_weights(self) -> bool:
        """Whether the model folder has its own weights."""
        return any(Path(self.options.model).glob("*.safetensors"))

    @property
    def start(self) -> Path:
        """The model that training begins from."""
        return Path(self.options.model) if self.has_weights else self.options.scratch / "weights"

    @property
    def classifier(self) -> Path:
        """The model of the other stages. A trained one is needed only if the given weights may have no head."""
        return self.options.scratch / "model" if self.has_weights else self.start

    def record(self, name: str) -> str:
        """A file for a record."""
        return str(self.options.output / f"{name}.json")

    def common(self, model: Path) -> dict[str, str]:
        """What most of the work needs to know."""
        return {"model": str(model), "data": self.options.data, "device": self.options.device}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the measurement. Groups of jobs run one after another, the jobs of a group at the same time."""

    name: str
    seconds: float
    groups: Callable[[Paths], Groups]
    only_if_asked: bool = False


def arguments_of(values: Mapping[str, str]) -> list[str]:
    """Options of the command line."""
    return [part for name, value in values.items() for part in (f"--{name}", value)]


def env_jobs(paths: Paths) -> Groups:
    """What works on this machine."""
    return [[Job(name="env", work=work.command, arguments=(["env"],))]]


def test_jobs(paths: Paths) -> Groups:
    """The tests marked `gpu` that need no ONNX Runtime and compile nothing."""
    return [[Job(name="tests", work=work.tests, arguments=("not onnx and not compile",))]]


def weights_jobs(paths: Paths) -> Groups:
    """Random weights, written once for all stages, unless they are there."""
    if paths.start.exists():
        return []
    return [[Job(name="weights", work=work.write_weights, arguments=(paths.options.model, str(paths.start)))]]


def train_jobs(paths: Paths) -> Groups:
    """Two epochs with each engine in turns, from the same weights."""
    groups = []
    for turn, engine in enumerate(ENGINES):
        name = f"train-{turn + 1}-{engine}"
        command = ["train", *arguments_of(paths.common(paths.start)), "--engine", engine]
        command += ["--optim", "adamw_torch_fused", "--max-steps", str(paths.options.steps), "--overwrite"]
        command += ["--output-dir", str(paths.options.scratch / "model"), "--results", paths.record(name)]
        groups.append([Job(name=name, work=work.command, arguments=(command,))])
    return [*weights_jobs(paths), *groups]


def entries_of(paths: Paths) -> tuple[Entry, ...]:
    """The cases of `bench --preset peers` on the device."""
    return PRESETS["peers"][paths.options.device].entries


def bench_jobs(paths: Paths, name: str, cases: Sequence[str]) -> Groups:
    """The cases with all pairs in batches, and then those that the preset measures so with some pairs one at a time."""
    pairs = paths.options.pairs
    shared = {**paths.common(paths.classifier), "seconds": EXTRA_S}
    plans = {
        "offline": {"pairs": pairs, "rounds": OFFLINE_ROUNDS},
        "single-stream": {"pairs": pairs or SINGLE_PAIRS, "rounds": SINGLE_ROUNDS},
    }
    jobs = []
    for scenario, plan in plans.items():
        job = f"bench-{name}-{scenario}"
        given = {**shared, **plan, "scenario": scenario}
        usual = [entry.name for entry in entries_of(paths) if entry.name in cases and scenario in entry.scenarios]
        asked = (paths.record(job), usual or cases)
        jobs.append([Job(name=job, work=work.bench_cases, arguments=asked, options=given)])
    return [*weights_jobs(paths), *jobs]


def torch_jobs(paths: Paths) -> Groups:
    """`torch-packed` and Hugging Face."""
    cases = [entry.name for entry in entries_of(paths) if is_torch(entry)]
    return bench_jobs(paths, "torch", cases)


def is_torch(entry: Entry) -> bool:
    """Whether a case runs in torch and compiles nothing."""
    return entry.backend in ("torch", "torch-packed")


def export_jobs(paths: Paths) -> Groups:
    """All graphs at the same time: exports are not timed, and most of one runs on a single core."""
    jobs = []
    for graph in dict.fromkeys(entry.graph for entry in entries_of(paths) if entry.graph):
        command = ["export", *arguments_of(paths.common(paths.classifier)), "--optimize", graph]
        command += ["--results", paths.record(f"export-{graph}")]
        # O3 approximates GELU, so its graph may fail the gate; it is then measured as UNVERIFIED.
        accepts = (ExitStatus.OK, ExitStatus.REGRESSION)
        jobs.append(Job(name=f"export-{graph}", work=work.command, arguments=(command,), accepts=accepts))
    return [*weights_jobs(paths), jobs]


def onnx_jobs(paths: Paths) -> Groups:
    """The graphs that were exported, with the case that gives the reference answers."""
    model = str(paths.classifier)
    exported = [
        entry.name
        for entry in entries_of(paths)
        if entry.backend == "onnx" and entry.graph and (graph_folder(model, entry.graph) / ONNX_FILE).exists()
    ]
    return bench_jobs(paths, "onnx", [entries_of(paths)[0].name, *exported]) if exported else []


def profile_jobs(paths: Paths) -> Groups:
    """Where the time of `torch-packed` and of a packed training step goes."""
    options = paths.options
    steps = min(options.steps, STEPS_TO_PROFILE) if options.steps > 0 else STEPS_TO_PROFILE
    folder = (str(options.output / "profile"),)
    training = {**paths.common(paths.start), "scratch": str(options.scratch / "profiled"), "steps": steps}
    inference = paths.common(paths.classifier)
    return [
        *weights_jobs(paths),
        [Job(name="profile-infer", work=work.profile_inference, arguments=folder, options=inference)],
        [Job(name="profile-train", work=work.profile_training, arguments=folder, options=training)],
    ]


def compile_jobs(paths: Paths) -> Groups:
    """`torch-compile`, which takes a minute to start, with `torch-packed`."""
    entries = entries_of(paths)
    cases = [entry.name for entry in entries if entry.backend in ("torch-compile", "torch-packed")]
    return bench_jobs(paths, "compile", [entries[0].name, *cases])


# In the order in which they run. results/README.md has the seconds that they took on an H200.
STAGES = (
    Stage(name="env", seconds=45, groups=env_jobs),
    Stage(name="tests", seconds=150, groups=test_jobs, only_if_asked=True),
    Stage(name="train", seconds=200, groups=train_jobs),
    Stage(name="bench-torch", seconds=180, groups=torch_jobs),
    Stage(name="export", seconds=240, groups=export_jobs),
    Stage(name="bench-onnx", seconds=180, groups=onnx_jobs),
    Stage(name="profile", seconds=90, groups=profile_jobs),
    Stage(name="compile", seconds=180, groups=compile_jobs),
)


class Measurement:
    """Runs stages, and keeps the results so far in files."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.paths = Paths(options)
        self.options = options
        self.runner = Runner(options.output / "logs")
        self._began = time.monotonic()
        self._status_path = options.output / STATUS_FILE
        self._status: dict[str, str] = {}
        if self._status_path.exists():
            self._status = json.loads(self._status_path.read_text(encoding="utf-8"))

    def say(self, text: str) -> None:
        """Print a line with the time of day and the seconds since the start."""
        print(f"[{time.strftime('%H:%M:%S')} +{time.monotonic() - self._began:.0f} s] {text}", flush=True)

    def left_s(self, seconds: float) -> float:
        """`seconds` for the device, or what is left of `--seconds`."""
        limit = seconds * (CPU_FACTOR if self.options.device == "cpu" else 1)
        spent = time.monotonic() - self._began
        return limit if self.options.seconds is None else min(limit, self.options.seconds - spent)

    def check_processes(self) -> None:
        """Start a first process. If a forked one cannot use the device, later ones import everything again."""
        job = Job(name="start", work=work.probe, arguments=(self.options.device,))
        (outcome,) = self.runner.run([job], self.left_s(60))
        if outcome.result != "ok":
            self.say(f"a forked process cannot use the device ({outcome.result}); starting each one from scratch")
            print("\n".join(outcome.last_lines(LAST_LINES)))
            self.runner.method = "spawn"

    def run(self, stage: Stage) -> None:
        """Run a stage, and show the results so far."""
        limit = self.left_s(stage.seconds)
        if limit <= 0:
            self._status[stage.name] = "not started: --seconds are spent"
            self.say(f"stage {stage.name}: {self._status[stage.name]}")
            return
        self.say(f"stage {stage.name}, at most {limit:.0f} s")
        end, failed, began = time.monotonic() + limit, list[str](), time.monotonic()
        for group in stage.groups(self.paths):
            for outcome in self.runner.run(group, max(0.0, end - time.monotonic())):
                self.say(f"  {outcome.job.name}: {outcome.result}")
                if outcome.result != "ok":
                    failed.append(f"{outcome.job.name} {outcome.result}")
                    print("\n".join(f"    {line}" for line in outcome.last_lines(LAST_LINES)), flush=True)
        result = "; ".join(failed) or "ok"
        self._status[stage.name] = f"{result}, {time.monotonic() - began:.0f} s"
        self.write()

    def write(self) -> None:
        """Write the status of the stages, the goals and the archive; print the goals."""
        write_text(self._status_path, json.dumps(self._status, indent=1) + "\n")
        records, found = goals.read(self.options.output)
        table = "\n".join(goals.lines_of(records))
        lines = [*self._heading(found), "", table, *goals.details_of(records), "", "| stage | result |", "|---|---|"]
        lines += [f"| {name} | {result} |" for name, result in self._status.items()]
        write_text(self.options.output / "goals.md", "\n".join(lines) + "\n")
        self._pack()
        print(table, flush=True)

    def _heading(self, found: Sequence[goals.Record]) -> list[str]:
        for record in found:
            place = record.environment
            commit = f"commit {place.git_commit[:12]}" if place.git_commit else "commit unknown"
            return [f"{place.gpu or place.cpu}; torch {place.packages.get('torch')}; {commit}; {weights_of(record)}"]
        return ["No record yet."]

    def _pack(self) -> None:
        """Write everything in the output folder to one archive beside it."""
        output: Path = self.options.output
        archive = output.with_name(f"{output.name}.tar.gz")
        staged = archive.with_name(f".{archive.name}")
        with tarfile.open(staged, "w:gz") as tar:
            tar.add(output, arcname=output.name)
        staged.replace(archive)


def weights_of(record: goals.Record) -> str:
    """The origin of the weights of a record."""
    return f"{record.model.weights_label} weights" if hasattr(record, "model") else "weights unknown"


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of ModernBERT-base, with or without its weights")
    parser.add_argument("--data", required=True, help="folder of MRPC")
    parser.add_argument("--output", type=Path, default=Path("results/gpu"), help="folder for records and goals.md")
    parser.add_argument(
        "--scratch", type=Path, default=Path(".gpu/scratch"), help="folder for weights and checkpoints, about 8 GB"
    )
    parser.add_argument("--only", action="append", choices=names, metavar="STAGE", help=f"one of {', '.join(names)}")
    parser.add_argument("--seconds", type=float, help="limit for everything; a stage that runs then is stopped")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=-1, help="optimiser steps; default: the recipe's two epochs")
    parser.add_argument("--pairs", type=int, help="pairs of the validation split for bench; default: all")
    return parser.parse_args()


def main() -> None:
    """Run the stages; the exit code is 1 if one of them failed."""
    options = parsed()
    prepare_process()
    for folder in (options.output, options.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    measurement = Measurement(options)
    measurement.say("start")
    measurement.check_processes()
    for stage in STAGES:
        if stage.name in options.only if options.only else not stage.only_if_asked:
            measurement.run(stage)
    print(f"\n{(options.output / 'goals.md').read_text(encoding='utf-8')}")
    measurement.say(f"end; everything is in {options.output.name}.tar.gz")


if __name__ == "__main__":
    main()
