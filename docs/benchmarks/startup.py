"""CPU time of commands that load no engine: `python docs/benchmarks/startup.py`, with mrpcbench installed.

Each command runs in fresh processes; the figure is the smallest user plus system time of the child, because other
programs can only add to it. The records are the committed benchmark of quickstart, and evaluations of the
bundled model.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from mrpcbench.commands.evaluate import evaluate
from mrpcbench.progress import Silent
from mrpcbench.records.store import write_text
from mrpcbench.schema.requests import QUICKSTART, BackendSpec, EvaluatePlan

RUNS = 3
BENCH_RECORD = Path(__file__).parents[2] / "results" / "quickstart" / "bench.json"
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
    """Two records of evaluate, and the committed record of bench with a copy that counts as another run."""
    spec = BackendSpec(model=QUICKSTART, device="cpu")
    for name in ("old", "new"):
        evaluate(spec, EvaluatePlan(data=QUICKSTART), folder / f"evaluate-{name}.json", Silent())
    document = json.loads(BENCH_RECORD.read_text(encoding="utf-8"))
    write_text(folder / "bench-old.json", json.dumps(document))
    document["environment"]["started_at"] = "2030-01-01T00:00:00.000+00:00"
    write_text(folder / "bench-new.json", json.dumps(document))


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
