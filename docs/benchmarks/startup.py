"""CPU time of commands that load no engine: `python docs/benchmarks/startup.py`, where mrpcbench is installed.

Each command runs in fresh processes; the figure is the smallest user plus system time of the child, because other
programs can only add to it. The records are made up: a bench record and an evaluate record of the bundled model.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from mrpcbench import store
from mrpcbench.bench import bench
from mrpcbench.evaluate import evaluate
from mrpcbench.plans import QUICKSTART, BackendSpec, BenchControl, BenchPlan, EvaluatePlan
from mrpcbench.progress import Silent
from mrpcbench.store import write_text

RUNS = 5
TARGETS_S = {"help": 0.3, "compare, bench": 1.0, "compare, evaluate": 2.0}


def cpu_s(arguments: list[str], folder: Path) -> float:
    """Smallest CPU seconds of `mrpcbench` with `arguments` over `RUNS` processes."""
    found = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "mrpcbench", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode not in (0, 6):
            raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def make_records(folder: Path) -> None:
    """Two records of bench and two of evaluate, of different runs."""
    spec, silent = BackendSpec(model=QUICKSTART, random_init=True), Silent()
    for name in ("old", "new"):
        evaluate(spec, EvaluatePlan(data=QUICKSTART), folder / f"evaluate-{name}.json", silent)
        plan = BenchPlan(data=QUICKSTART, pairs=64, rounds=2)
        record = bench(replace(spec), plan, folder / f"bench-{name}.json", silent, BenchControl())
        store.save(record, folder / f"bench-{name}.json")


def main() -> None:
    """Measure, print and write the times."""
    parser = argparse.ArgumentParser(description="Measure the CPU time of commands that load no engine.")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/startup.json"))
    output = parser.parse_args().output.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_records(folder)
        commands = {
            "help": ["--help"],
            "help, bench": ["bench", "--help"],
            "help, env": ["env", "--help"],
            "compare, bench": ["compare", "bench-old.json", "bench-new.json"],
            "compare, evaluate": ["compare", "evaluate-old.json", "evaluate-new.json"],
            "baseline set": ["baseline", "set", "main", "bench-old.json", "--overwrite"],
        }
        found = {key: round(cpu_s(arguments, folder), 3) for key, arguments in commands.items()}
    for key, seconds in found.items():
        print(f"{key:20} {seconds:.3f} s")
    write_text(output, json.dumps({"cpu_s": found, "targets_s": TARGETS_S, "runs": RUNS}, indent=2) + "\n")


if __name__ == "__main__":
    main()
