"""Runs trials with Ray, on a cluster or on a local Ray. Scheduling, retries and placement are Ray's."""

import os
import socket
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mrpcbench.errors import MissingError, first_line
from mrpcbench.training.study import trial as process
from mrpcbench.training.study.plan import LOG_FILE, Trial

CONNECT_WITHIN_S = 5
# A trial saves a checkpoint in this time.
STOP_WITHIN_S = 30
# After the loss of a machine or a worker.
MAX_RETRIES = 3


def check(address: str | None) -> None:
    """Raise `MissingError` if Ray is not installed, or if nothing answers at `address`."""
    if find_spec("ray") is None:
        raise MissingError("--launcher ray: Ray is not installed; install it with pip install 'mrpcbench[ray]'")
    address = address or os.environ.get("RAY_ADDRESS")
    host, sign, port = (address or "").removeprefix("ray://").rpartition(":")
    if not address or not sign:  # "auto" finds a running Ray by itself
        return
    try:
        with socket.create_connection((host, int(port)), CONNECT_WITHIN_S):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> MissingError:
    return MissingError(
        f"--address {address}: no Ray cluster answers ({first_line(error)}); start one with ray start --head, or leave "
        "--address out for a local Ray"
    )


def run(
    trials: Sequence[Trial], address: str | None, parent: Path, *, cpus: int, gpus: int
) -> Iterator[tuple[Trial, int | str]]:
    """Run `trials` as tasks of Ray, each with `cpus` and `gpus`; yields each as it ends, with its exit code.

    A task that Ray could not run has its reason instead. All machines must see the folder `parent`. Raises
    `MissingError` if there is no cluster at `address`.
    """
    ray = import_module("ray")
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, TimeoutError) as error:
        raise _unreachable(address or os.environ.get("RAY_ADDRESS", ""), error) from error
    try:
        _check_resources(ray, cpus, gpus)
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=MAX_RETRIES)(process.run)
        waiting = {
            remote.remote(trial.command, str(parent), trial.folder, LOG_FILE, trial.variables): trial
            for trial in trials
        }
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), num_returns=1, timeout=1)
                for task in done:
                    yield waiting.pop(task), _result(ray, task)
        finally:
            for task in waiting:
                ray.cancel(task)  # raises KeyboardInterrupt in the worker, which interrupts its trial
            ray.wait(list(waiting), num_returns=len(waiting), timeout=STOP_WITHIN_S) if waiting else None
    finally:
        ray.shutdown()


def _check_resources(ray: Any, cpus: int, gpus: int) -> None:
    """Raise `MissingError` if no machine can run a trial: Ray would wait for one without end."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        raise MissingError(
            f"--launcher ray: no machine of the cluster has the {cpus} CPUs and {gpus} GPUs of a trial; use more "
            "--jobs, or set OMP_NUM_THREADS"
        )


def _result(ray: Any, task: Any) -> int | str:
    try:
        return int(ray.get(task))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        return first_line(cause)
