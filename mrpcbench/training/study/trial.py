"""Runs one trial as a process of its own, and waits for it. Standard library only, as a worker of Ray loads it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Becomes the command after it has asked Linux to kill it when its parent has ended: prctl(PR_SET_PDEATHSIG, SIGKILL).
_TIED = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
_ENDS_WITH_PARENT = (sys.executable, "-S", "-c", _TIED) if sys.platform == "linux" else ()
SHOWN_LINES = 5
LINE_WIDTH = 300


def start(command: Sequence[str], folder: Path, log: str, variables: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start `command` with `variables` added to the environment; what it prints is added to the file `log` in `folder`.

    It has a session of its own, so that the Ctrl-C of a terminal does not reach it, and on Linux it ends with this
    process, even if that is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / log).open("ab") as file:
        return subprocess.Popen(
            [*_ENDS_WITH_PARENT, *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            start_new_session=True,
        )


def run(command: Sequence[str], parent: str, folder: str, log: str, variables: dict[str, str]) -> int:
    """Run `command` to its end, and return its exit code. FileNotFoundError if this machine has no folder `parent`."""
    if not Path(parent).is_dir():
        raise FileNotFoundError(f"{parent}: this machine does not see the folder of the study")
    process = start(command, Path(folder), log, variables)
    try:
        return process.wait()
    finally:
        stop([process])


def stop(processes: Sequence["subprocess.Popen[bytes]"], grace_s: float = 30) -> None:
    """Interrupt the running ones of `processes`, so that they save a checkpoint; kill those that take longer."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()  # like Ctrl-C for `train`, but not ignored in a background job of a shell script
    for process in running:
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def last_lines(file: Path) -> tuple[str, ...]:
    """The last lines of a log, without empty ones."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    lines = [line.strip()[:LINE_WIDTH] for line in text.splitlines() if line.strip()]
    return tuple(lines[-SHOWN_LINES:])
