"""Starts programs on the stand-in for CUDA, marks and reads its log, and prints the verdict of a check."""

import ctypes
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[2]


def model() -> str:
    """The folder of ModernBERT-base's config.json and tokenizer; weights are not needed."""
    return _given("FAKECUDA_MODEL", "a folder with the config.json and the tokenizer of ModernBERT-base")


def data() -> str:
    """The folder of MRPC."""
    return _given("FAKECUDA_DATA", "a folder with MRPC")


def _given(name: str, what: str) -> str:
    if not (found := os.environ.get(name)):
        sys.exit(f"{name} is not set: it names {what}")
    return found


def environment(**settings: str) -> dict[str, str]:
    """The variables of this process, with the checkout first on PYTHONPATH, and `settings` as FAKECUDA_*."""
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path} | {f"FAKECUDA_{name.upper()}": value for name, value in settings.items()}


def library() -> ctypes.CDLL:
    """The stand-in's runtime in this process, which run.sh started."""
    found = ctypes.CDLL("libcudart.so.13")
    for name in ("launches", "replays", "illegal"):
        getattr(found, f"fakecuda_{name}").restype = ctypes.c_long
    return found


def mark(name: str) -> None:
    """Write a line to the log, with the time and the counts so far."""
    library().fakecuda_mark(name.encode())


def quiet() -> None:
    """Act as with FAKECUDA_QUIET=1 from here on, so that only the host's own time is left."""
    library().fakecuda_quiet(1)


@dataclass(frozen=True)
class Mark:
    """A point in a program: wall clock, CPU time of the process, and lines of each kind in the log until then."""

    name: str
    ms: float
    cpu_ms: float
    launches: int
    replays: int
    lines: Counter[str]


class Stretch(Mark):
    """What lies between two marks, in the same fields; it has the name of the later one. CPU time is of all threads."""


@dataclass
class Log:
    """Counts of a log."""

    kernels: Counter[str] = field(default_factory=Counter)
    captured: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    illegal: Counter[str] = field(default_factory=Counter)
    aside: Counter[str] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)
    nodes: list[int] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    processes: int = 0
    launches: int = 0

    @property
    def stretches(self) -> list[Stretch]:
        """What lies between each mark and the next."""
        return [
            Stretch(
                *(end.name, end.ms - begin.ms, end.cpu_ms - begin.cpu_ms),
                *(end.launches - begin.launches, end.replays - begin.replays, end.lines - begin.lines),
            )
            for begin, end in zip(self.marks, self.marks[1:], strict=False)
        ]

    @classmethod
    def read(cls, path: Path | str) -> "Log":
        """Read a log."""
        log = cls()
        with Path(path).open(errors="replace") as lines:
            for entry in lines:
                what, _, detail = entry.rstrip("\n").partition("\t")
                log.add(what, detail)
        return log

    def add(self, what: str, detail: str) -> None:
        """Count one line."""
        self.counts[what] += 1
        if what == "KERNEL":
            self.kernels[detail] += 1
        elif what == "CAPTURED KERNEL":
            self.captured[detail] += 1
        elif what in ("COPY", "COPY_SYNC", "CAPTURED COPY"):
            self.copies[f"{what.lower()}, {detail.partition(',')[0]}"] += 1
        elif what == "ILLEGAL":
            self.illegal[detail] += 1
        elif what == "ASIDE":
            self.aside[detail] += 1
        elif what == "READS":
            self.reads[detail] += 1
        elif what == "END":
            self.nodes.append(int(detail.split()[3]))
        elif what == "MARK":
            name, ms, cpu, launches, replays = detail.split("\t")
            self.marks.append(Mark(name, float(ms), float(cpu), int(launches), int(replays), self.counts.copy()))
        elif what == "EXIT":
            self.processes += 1
            self.launches += int(detail.split()[3])


@dataclass(frozen=True)
class Done:
    """A program that ran on the stand-in."""

    code: int
    output: str
    log: Log


def run(command: Sequence[str], /, *, ort: bool = False, **settings: str) -> Done:
    """Run this Python with `command` on the stand-in; `settings` are sm, cudnn, quiet and arguments (see run.sh)."""
    with tempfile.TemporaryDirectory(prefix="fakecuda-") as folder:
        log = Path(folder, "log")
        whole = [str(HERE / "run.sh"), *(["--ort"] if ort else []), sys.executable, *command]
        given = environment(**settings, log=str(log))
        done = subprocess.run(whole, env=given, capture_output=True, text=True, errors="replace", check=False)
        if not log.exists():
            sys.exit(done.stderr.strip())
        return Done(done.returncode, done.stdout + done.stderr, Log.read(log))


def verdict(name: str, faults: Sequence[str], summary: str, done: Sequence[Done] = ()) -> None:
    """Print the verdict, and exit with 1 if it is FAIL; the end of the output of what failed goes to stderr."""
    faults = [*faults]
    for program in done:
        faults += [f"ILLEGAL x{count}: {what}" for what, count in program.log.illegal.items()]
        if program.code < 0:
            faults.append(f"killed by signal {-program.code}")
    if faults:
        for program in done:
            print(program.output[-3000:], file=sys.stderr)
    print(f"{name}: {'FAIL, ' + '; '.join(faults) if faults else 'ok'}; {summary}")
    sys.exit(1 if faults else 0)
