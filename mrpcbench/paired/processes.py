"""The sides of a speed comparison, each in a fresh process, alternating call by call.

One process is one sample. Calls inside a process share its memory layout and threads, so they are not independent.
The processes of a round run at the same time and make their calls one after another, in alternating order. A slow
phase of the machine that lasts longer than a call affects all sides, so it cancels in their ratio. A process that
waits does not compute. docs/ci.md reports the error rates of the gate.
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

# Longer than any model takes to load or to answer. A hanging process must not hang the gate.
TIMEOUT_S = 900
# How long a process may take to exit after its input is closed.
END_S = 30


@dataclass(frozen=True, kw_only=True)
class Side:
    """What the processes of one side run. The device, dtype and threads of `spec` are resolved, not "auto".

    With `from_graph`, the model is an ONNX file. `repeat` and `wait_share` inject a known slowdown; see `worker.serve`.
    """

    spec: BackendSpec
    from_graph: bool = False
    python: str = sys.executable
    repeat: int = 0
    wait_share: float = 0.0


def side_of(spec: BackendSpec, source: ModelSource, placement: Placement) -> Side:
    """The side that runs `spec` from the files in `source`, on the device and threads of `placement`.

    For an ONNX graph on the CPU, the side names the graph file, so its processes load nothing else.
    """
    device = placement.device.split()[0]
    changes: dict[str, Any] = {"device": device, "threads": placement.threads, "model": str(source.folder)}
    if from_graph := spec.backend == "onnx" and device == "cpu":
        changes |= {"model": str(source.folder / ONNX_FILE), "dtype": placement.dtype}
    return Side(spec=replace(spec, **changes), from_graph=from_graph)


@dataclass(frozen=True, kw_only=True)
class Process:
    """The measurements of one process: time per call in ms, and where and with which packages it ran."""

    samples_ms: tuple[float, ...]
    placement: Placement
    python: str
    packages: dict[str, str]
    disturbances: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What every process runs: `warmup` untimed calls, then `calls` timed calls, each of `group` batches."""

    batches: Sequence[Batch]
    calls: int
    warmup: int
    group: int = 1


class PairedProcesses:
    """Runs one process per side on the same batches. A context manager; on exit it deletes its temporary files."""

    def __init__(self, sides: Mapping[str, Side], workload: Workload) -> None:
        self._sides = sides
        self._workload = workload
        self._folder = tempfile.TemporaryDirectory(prefix="mrpcbench-")
        self._path = ""

    def __enter__(self) -> Self:
        folder = Path(self._folder.name)
        save_batches(folder / "batches.npz", self._workload.batches)
        # Only this package goes on PYTHONPATH. Each interpreter uses its own libraries, which are what is measured.
        (folder / "path").mkdir()
        (folder / "path" / "mrpcbench").symlink_to(Path(__file__).parents[1], target_is_directory=True)
        self._path = os.pathsep.join(filter(None, (str(folder / "path"), os.environ.get("PYTHONPATH"))))
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def rounds(self, count: int) -> Iterator[tuple[list[str], dict[str, Process]]]:
        """Run `count` rounds of one fresh process per side. Yields the order of the first calls, and the results.

        The order alternates between rounds and between calls. Raises `MrpcbenchError` with the last line of stderr if a
        process fails, and `MissingError` if an interpreter cannot be started.
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
        for index in range(self._workload.calls):
            for name in order if index % 2 == 0 else reversed(order):
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
        """The cores to which all processes are pinned, one per thread. Empty if the platform cannot pin.

        On other cores than the other side, one side could share a physical core with an unrelated process. Only one
        side computes at a time, so the sides do not compete for these cores.
        """
        if not hasattr(os, "sched_getaffinity"):
            return []
        threads = max(side.spec.threads for side in self._sides.values())
        usable = sorted(os.sched_getaffinity(0))
        return usable[-threads:] if threads else usable


class _Running:
    """A worker process, driven one call at a time over stdin and stdout."""

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
                with suppress(BrokenPipeError):  # the process ended before it read the last request
                    stream.close()

    def wait_until_loaded(self) -> None:
        """Return when the model is loaded and the process waits for its first call."""
        self._placed = self._answer()

    def call(self) -> float:
        """Make one call and return its time in ms."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the process failed; `_answer` raises with the reason
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return float(self._answer()["ms"])

    def end(self, samples: Sequence[float]) -> Process:
        """Close its input, wait until it exits, and return its measurements."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        last = self._answer()
        with suppress(subprocess.TimeoutExpired):  # it has answered; `__exit__` kills it
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
        # An answer is exactly one line, so nothing stays in the buffer, where `select` would not see it.
        if not select.select([self._process.stdout], [], [], TIMEOUT_S)[0]:
            self._process.kill()
        if line := self._process.stdout.readline():
            try:
                return store.from_line(line)
            except ValueError:
                raise MrpcbenchError(
                    f"side {self._name.upper()}: its process printed {line.strip()[:80]!r} instead of an answer"
                ) from None
        status = self._process.wait()
        self._errors.seek(0)
        reason = (self._errors.read().strip() or f"exit status {status}").splitlines()[-1]
        raise MrpcbenchError(f"side {self._name.upper()}: its process failed ({reason})")
