"""Runs trials on this machine, a bounded number at a time."""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence

from mrpcbench.training.study import trial as process
from mrpcbench.training.study.plan import LOG_FILE, Trial

POLL_S = 0.2


def run(trials: Sequence[Trial], jobs: int, gpus: Sequence[str]) -> Iterator[tuple[Trial, int | str]]:
    """Run `trials`, `jobs` at a time; yields each as it ends, with its exit code.

    With `gpus`, the names of the visible ones, each trial gets an equal number of them for itself. If the caller stops,
    the running trials are interrupted, and save a checkpoint.
    """
    share = len(gpus) // jobs
    free = [",".join(gpus[slot * share : (slot + 1) * share]) for slot in range(jobs)]
    waiting = list(trials)
    running: dict[subprocess.Popen[bytes], tuple[Trial, str]] = {}
    try:
        while waiting or running:
            while waiting and free:
                trial, slot = waiting.pop(0), free.pop(0)
                variables = trial.variables | ({"CUDA_VISIBLE_DEVICES": slot} if slot else {})
                running[process.start(trial.command, trial.path, LOG_FILE, variables)] = (trial, slot)
            for child in [child for child in running if child.poll() is not None]:
                trial, slot = running.pop(child)
                free.append(slot)
                yield trial, child.returncode
            time.sleep(POLL_S)
    finally:
        process.stop(list(running))


def visible_gpus(count: int) -> tuple[str, ...]:
    """The names of the `count` GPUs that torch sees, as CUDA_VISIBLE_DEVICES takes them."""
    named = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    return tuple(named[:count]) if len(named) >= count else tuple(map(str, range(count)))
