"""Sides of a speed comparison in fresh processes that take turns.

A process is one sample: the calls inside of one share its memory layout and its threads, and are not independent of
each other. Its neighbours are alive at the same time and take turns with it, call by call, in an order that alternates:
whatever the machine does for longer than a call, it does to all of them, and it cancels in their ratio.
Who waits for a turn does not compute. docs/ci.md has the error rates of the gate.
"""

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from mrpcbench.backends.registry import engine_of
from mrpcbench.data.batches import Batch
from mrpcbench.errors import MissingError, MrpcbenchError
from mrpcbench.models.sources import ONNX_FILE, ModelSource
from mrpcbench.paired.worker import save_batches
from mrpcbench.records import store
from mrpcbench.schema.identity import Placement
from mrpcbench.schema.requests import BackendSpec

# Longer than any model takes to load, or to answer; a process that hangs must not hang the gate.
TIMEOUT_S = 900
# A process that is told to end has nothing left to do.
END_S = 30


@dataclass(frozen=True, kw_only=True)
class Side:
    """What the processes of one side run. `spec` names what was resolved: cpu or cuda, an arithmetic, threads.

    With `from_graph` its model is an ONNX file. `repeat` and `wait_share` are slowdowns put in on purpose (`worker`).
    """

    spec: BackendSpec
    from_graph: bool = False
    python: str = sys.executable
    repeat: int = 0
    wait_share: float = 0.0


def side_of(spec: BackendSpec, source: ModelSource, placement: Placement) -> Side:
    """What the processes of `spec` run: the files in `source`, placed as a session of it was.

    A graph on the CPU is given as a file, so that its processes load nothing else.
    """
    device = placement.device.split()[0]
    changes: dict[str, Any] = {"device": device, "threads": placement.threads, "model": str(source.folder)}
    if from_graph := spec.backend == "onnx" and device == "cpu":
        changes |= {"model": str(source.folder / ONNX_FILE), "dtype": placement.dtype}
    return Side(spec=replace(spec, **changes), from_graph=from_graph)


@dataclass(frozen=True, kw_only=True)
class Process:
    """What one process has left behind."""

    samples_ms: tuple[float, ...]
    placement: Placement
    python: str
    packages: dict[str, str]
    disturbances: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What every process runs: `calls` timed calls of `group` batches each, after `warmup` untimed ones."""

    batches: Sequence[Batch]
    calls: int
    warmup: int
    group: int = 1


class Duel:
    """Runs processes of its sides on the same batches. A context manager: its files go when it ends."""

    def __init__(self, sides: Mapping[str, Side], workload: Workload) -> None:
        self._sides = sides
        self._workload = workload
        self._folder = tempfile.TemporaryDirectory(prefix="mrpcbench-")
        self._path = ""

    def __enter__(self) -> Self:
        folder = Path(self._folder.name)
        save_batches(folder / "batches.npz", self._workload.batches)
        # The package is lent to the interpreters, and nothing beside it: theirs are the libraries that are measured.
        (folder / "lent").mkdir()
        (folder / "lent" / "mrpcbench").symlink_to(Path(__file__).parents[1], target_is_directory=True)
        self._path = os.pathsep.join(filter(None, (str(folder / "lent"), os.environ.get("PYTHONPATH"))))
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def rounds(self, count: int) -> Iterator[tuple[list[str], dict[str, Process]]]:
        """`count` times a fresh process of every side: the order of their first turns, and what each has left.

        The order alternates from round to round and from turn to turn. Raises `MrpcbenchError` with the last words of
        a process that fails, `MissingError` where an interpreter cannot be run.
        """
        for index in range(count):
            order = list(self._sides) if index % 2 == 0 else list(self._sides)[::-1]
            with ExitStack() as stack:
                yield order, self._round(order, stack)

    def _round(self, order: list[str], stack: ExitStack) -> dict[str, Process]:
        running = {
            name: stack.enter_context(_Running(name, self._sides[name].python, self._write_job(name), self._path))
            for name in order
        }
        for name in order:
            running[name].wait_until_loaded()
        samples: dict[str, list[float]] = {name: [] for name in order}
        for turn in range(self._workload.calls):
            for name in order if turn % 2 == 0 else reversed(order):
                samples[name].append(running[name].call())
        return {name: running[name].end(samples[name]) for name in order}

    def _write_job(self, name: str) -> Path:
        side, folder = self._sides[name], Path(self._folder.name)
        job = {
            "arrays": str(folder / "batches.npz"),
            "spec": asdict(side.spec),
            "engine": asdict(engine_of(side.spec.backend)),
            "from_graph": side.from_graph,
            "group": self._workload.group,
            "repeat": side.repeat,
            "wait_share": side.wait_share,
            "warmup": self._workload.warmup,
            "cores": self._cores(),
        }
        store.save_json(folder / f"{name}.json", job)
        return folder / f"{name}.json"

    def _cores(self) -> list[int]:
        """The cores that all processes share, one for each thread: or one side would sit beside a busy neighbour.

        Only one side computes at a time, so that they take nothing from each other. Empty where cores cannot be chosen.
        """
        if not hasattr(os, "sched_getaffinity"):
            return []
        threads = max(side.spec.threads for side in self._sides.values())
        usable = sorted(os.sched_getaffinity(0))
        return usable[-threads:] if threads else usable


class _Running:
    """A worker that has loaded its model and waits for its turn."""

    def __init__(self, name: str, python: str, job: Path, path: str) -> None:
        self._name = name
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [python, "-P", "-m", "mrpcbench.paired.worker", str(job)],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        except OSError as error:
            self._errors.close()
            raise MissingError(f"--{name}-python {python}: cannot be run ({error.strerror})") from error
        self._placed: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with suppress(BrokenPipeError):  # it did not read what it was told last
                    stream.close()

    def wait_until_loaded(self) -> None:
        """Return once it waits for its first turn."""
        self._placed = self._answer()

    def call(self) -> float:
        """Milliseconds of its next call."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has failed, and its answer says how
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return float(self._answer()["ms"])

    def end(self, samples: Sequence[float]) -> Process:
        """Let it end, and give what it has left behind."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        last = self._answer()
        with suppress(subprocess.TimeoutExpired):  # it has answered; `__exit__` ends it
            self._process.wait(END_S)
        return Process(
            samples_ms=tuple(samples),
            placement=Placement(**self._placed["placement"]),
            python=self._placed["python"],
            packages=self._placed["packages"],
            disturbances=tuple(last["disturbances"]),
        )

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        # An answer is one whole line, so that nothing is left in the buffer that `select` does not see.
        if not select.select([self._process.stdout], [], [], TIMEOUT_S)[0]:
            self._process.kill()
        if line := self._process.stdout.readline():
            try:
                return store.from_line(line)
            except ValueError:
                raise MrpcbenchError(f"side {self._name.upper()}: its process said {line.strip()[:80]!r}") from None
        status = self._process.wait()
        self._errors.seek(0)
        words = (self._errors.read().strip() or f"exit status {status}").splitlines()[-1]
        raise MrpcbenchError(f"side {self._name.upper()}: its process failed ({words})")
