"""Runs command lines in copies of one process, which has imported the libraries of the commands and computed nothing.

A copy starts in milliseconds, where a new process imports for seconds. The process is copied before torch, OpenMP or
BLAS start threads, which do not survive a fork.
"""

import atexit
import codecs
import gc
import json
import locale
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
# Changes of the file system, in the names of Python's audit events. `open` counts if it may write.
CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, or minus the number of the signal; its output; its changes of files so far."""

    status: int
    out: str
    err: str
    changes: int


class FaultServer:
    """Starts the process, and asks it for copies. Close it at the end.

    `start` are more variables of the process, which Python reads when it starts.
    """

    def __init__(self, start: Mapping[str, str] | None = None) -> None:
        variables = {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]),
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **variables, **(start or {})},
            encoding="ascii",
        )

    def run(
        self,
        folder: Path,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        at: int = 0,
        send: int = signal.SIGKILL,
        largest: int = 0,
        closed: tuple[int, ...] = (),
        after_s: float = 0.0,
        limit_s: int = 60,
    ) -> Ended:
        """Run `mrpcbench ARGUMENTS` in `folder`, with `env` on top of the environment.

        At its change number `at` below the folder, the command gets the signal `send`. No file may grow beyond
        `largest` bytes. `closed` are the standard streams that are closed. After `after_s` seconds, unless 0, it is
        killed, and after `limit_s` it gets SIGALRM.
        """
        job = {
            "folder": str(folder),
            "arguments": [str(item) for item in arguments],
            "env": dict(env or {}),
            "at": at,
            "send": int(send),
            "largest": largest,
            "closed": list(closed),
            "after_s": after_s,
            "limit_s": limit_s,
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.kill()  # it holds nothing, and takes seconds to unload the libraries
        self._process.wait()
        self._process.stdout.close()


def _import_commands() -> None:
    import mrpcbench.cli.app
    import mrpcbench.cli.terminal
    import mrpcbench.commands.baseline
    import mrpcbench.commands.bench
    import mrpcbench.commands.compare
    import mrpcbench.commands.evaluate
    import mrpcbench.commands.export
    import mrpcbench.commands.report
    import mrpcbench.commands.train  # noqa: F401


def _serve() -> None:
    from mrpcbench.cli.process import prepare_process

    prepare_process()
    # Without docstrings, or where files are read as ASCII, the libraries cannot be imported, as the commands must say.
    if sys.flags.optimize < 2 and (sys.flags.utf8_mode or codecs.lookup(locale.getencoding()).name != "ascii"):
        _import_commands()
    gc.freeze()  # a collection in a copy would write to, and so copy, the memory of all modules
    for line in sys.stdin:
        job, output = json.loads(line), Path(tempfile.mkdtemp())  # an object would remove it at the end of the copy
        process = os.fork()
        if not process:
            _run_and_exit(job, output)
        status = _status_of(process, job["after_s"])
        ended = Ended(
            os.waitstatus_to_exitcode(status),
            *((output / part).read_text(encoding="utf-8", errors="backslashreplace") for part in ("out", "err")),
            changes=(output / "changes").stat().st_size,
        )
        shutil.rmtree(output)
        sys.stdout.write(json.dumps(vars(ended)) + "\n")
        sys.stdout.flush()


def _status_of(process: int, after_s: float) -> int:
    """The status of `process` at its end; it is killed after `after_s` seconds, unless 0."""
    killed_at = time.monotonic() + after_s
    while after_s and time.monotonic() < killed_at:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.001)
    if after_s:
        os.kill(process, signal.SIGKILL)
    return os.waitpid(process, 0)[1]


def _run_and_exit(job: dict[str, Any], output: Path) -> None:
    """Run the command in this copy. It ends here, whatever happens."""
    status = 99
    try:
        signal.alarm(job["limit_s"])
        os.chdir(job["folder"])
        for number, path in ((0, os.devnull), (1, output / "out"), (2, output / "err")):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
            os.dup2(descriptor, number)
            os.close(descriptor)
        _watch(job, output)
        for number in job["closed"]:
            os.close(number)
        os.environ.update(job["env"])
        if job["largest"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest"], job["largest"]))
        sys.argv = ["mrpcbench", *job["arguments"]]
        from mrpcbench.__main__ import main

        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _watch(job: dict[str, Any], output: Path) -> None:
    """Count the changes of files below the working folder, and send the signal of `job` at its number."""
    folder, counted = job["folder"], 0
    descriptor = os.open(output / "changes", os.O_WRONLY | os.O_CREAT)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal counted
        if event not in CHANGES or (event == "open" and not (arguments[2] or 0) & WRITES):
            return
        with suppress(TypeError, ValueError):  # a descriptor has no path
            path = os.fsdecode(arguments[0])
            if not os.path.isabs(path) or path.startswith(folder):  # noqa: PTH117
                counted += 1
                os.write(descriptor, b".")
                if counted == job["at"]:
                    os.kill(os.getpid(), job["send"])

    sys.addaudithook(hook)


if __name__ == "__main__":
    _serve()
