"""Prints the counts of a log: `python report.py LOG [--top N]`."""

import argparse
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from fakecuda import Log


def plain(names: Counter[str]) -> Counter[str]:
    """The kernels under readable names, without template arguments."""
    filt, given = shutil.which("c++filt"), list(names)
    text = given
    if filt and given:
        done = subprocess.run([filt], input="\n".join(given), capture_output=True, text=True, check=True)
        text = done.stdout.split("\n")
    found: Counter[str] = Counter()
    for name, mangled in zip(text, given, strict=False):
        bare = re.sub(r"\(anonymous namespace\)|_GLOBAL__\w*?::", "", name).split("(")[0].removeprefix("void ")
        functor = re.search(r"([A-Za-z_]+(?:Functor|_kernel_cuda|Op|Ops))\b", name.partition("<")[2])
        found[bare.split("<")[0][:70] + (f" [{functor[1]}]" if functor else "")] += names[mangled]
    return found


def table(title: str, counts: Counter[str], top: int) -> None:
    """Print the most frequent entries of `counts`."""
    if counts:
        print(f"\n{title}: {counts.total()}")
        for name, count in counts.most_common(top):
            print(f"{count:8d}  {name[:150]}")


def main() -> None:
    """Print a log's counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--top", type=int, default=20, help="kernels to name")
    options = parser.parse_args()
    log = Log.read(options.log)
    count = log.counts
    print(f"processes {log.processes}, launches {log.launches} (with those of captures), replays {count['REPLAY']}")
    sets = count["SET"] + count["SET_SYNC"]
    print(f"waits {count['SYNC']}, cudaMalloc {count['MALLOC']}, pinned {count['HOSTALLOC']}, sets {sets}")
    print(f"ILLEGAL {count['ILLEGAL']}, ASIDE (launched beside a capture) {count['ASIDE']}, FORK {count['FORK']}")
    print(f"plans built by cuDNN {count['PLAN']}")
    if log.nodes:
        nodes = ", ".join(f"{nodes} x{times}" for nodes, times in sorted(Counter(log.nodes).items()))
        print(f"graphs {len(log.nodes)}, nodes: {nodes}")
    table("ILLEGAL", log.illegal, 1000)
    table("beside a capture", plain(log.aside), 10)
    table("copies", log.copies, 20)
    table("kernels launched at once", plain(log.kernels), options.top)
    table("kernels captured", plain(log.captured), options.top)
    for part in log.stretches:
        host = f"host {part.ms:.2f} ms ({part.cpu_ms:.2f} ms of CPU)"
        print(f"to {part.name}: {host}, launches {part.launches}, replays {part.replays}")


if __name__ == "__main__":
    main()
