"""Runs work in fresh processes that start quickly: the slow imports are done once, in a server that forks them.

Each process has its own CUDA context, its own log, a time limit, and a process group that is killed at the limit.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# None of these initialises CUDA when it is imported; a forked process could not use CUDA otherwise. `gpu.py` checks it.
PRELOADED = ["mrpcbench.commands.train", "mrpcbench.commands.bench"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A function with its arguments. `accepts` are the exit codes that are no failure."""

    name: str
    work: Callable[..., None]
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    accepts: tuple[int, ...] = (0,)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended: "ok", "exit code N", "killed by signal N" or "timed out"."""

    job: Job
    result: str
    log: Path

    def last_lines(self, count: int) -> list[str]:
        """The last lines that the job printed."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return [line[:300] for line in text.splitlines() if line.strip()][-count:]


@dataclass
class Runner:
    """Starts jobs, each with a log in `logs`. `method` is forkserver, or spawn, which imports everything again."""

    logs: Path
    method: str = "forkserver"
    _running: list[Any] = field(default_factory=list)

    def run(self, jobs: Sequence[Job], seconds: float) -> list[Outcome]:
        """Run `jobs` at the same time, and kill those that take longer than `seconds`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        context: Any = multiprocessing.get_context(self.method)
        if self.method == "forkserver":
            context.set_forkserver_preload(PRELOADED)
        end = time.monotonic() + seconds
        started = []
        try:
            for job in jobs:
                log = self.logs / f"{job.name}.log"
                process = context.Process(target=_begin, args=(str(log), job))
                process.start()
                self._running.append(process)
                started.append((job, process, log))
            return [Outcome(job=job, result=_result(job, process, end), log=log) for job, process, log in started]
        finally:
            for process in self._running:
                _kill(process)
            self._running.clear()


def _begin(log: str, job: Job) -> None:
    """In the new process: lead a process group, write to `log`, and work."""
    os.setsid()
    there = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(there, 1)
    os.dup2(there, 2)
    os.environ["COLUMNS"] = "160"
    job.work(*job.arguments, **job.options)


def _result(job: Job, process: Any, end: float) -> str:
    process.join(max(0.0, end - time.monotonic()))
    code = process.exitcode
    if code is None:
        _kill(process)
        return "timed out"
    if code < 0:
        return f"killed by signal {-code}"
    return "ok" if code in job.accepts else f"exit code {code}"


def _kill(process: Any) -> None:
    """End `process` and the processes that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        process.kill()
    process.join()
