"""The worker process of one side: `python -m mrpcbench.paired.worker JOB`, started by `paired.processes`.

The process may use another Python interpreter with other libraries; this package reaches it through PYTHONPATH. It
reads prepared batches from a file, so an ONNX graph on the CPU starts in half a second, without torch.
"""

import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from mrpcbench.backends.registry import gpu_meter, open_graph, open_session, register
from mrpcbench.backends.session import Session, first_of_each_shape
from mrpcbench.benchmark.validity import disturbances
from mrpcbench.data.batches import Batch
from mrpcbench.environment.versions import installed_versions
from mrpcbench.errors import MrpcbenchError
from mrpcbench.instruments.clock import WallClock, timed
from mrpcbench.models.sources import ModelSource
from mrpcbench.records import store
from mrpcbench.schema.requests import BackendSpec


def serve(job: dict[str, Any], requests: Iterable[str], answer: Callable[[dict[str, Any]], None]) -> None:
    """Load the model of `job`, answer with its placement, then answer each line of `requests` with the ms of one call.

    A call runs `group` batches. Two options inject a known slowdown, to test a gate: the first `repeat` batches run
    twice, and the call waits for `wait_share` of its own duration. The last answer lists the disturbances that the
    sensors saw. Raises `MrpcbenchError` if a logit is not finite.
    """
    if job["cores"]:
        os.sched_setaffinity(0, job["cores"])
    batches = load_batches(Path(job["arrays"]))
    register(job["spec"]["backend"], **job["engine"])
    spec = BackendSpec(**job["spec"])
    # `processes.side_of` has replaced the model of the spec with the path of a file or folder.
    session = open_graph(spec) if job["from_graph"] else open_session(spec, ModelSource(spec.model, Path(spec.model)))
    group = job["group"]
    calls = cycle([batches[start : start + group] for start in range(0, len(batches), group)])
    work = partial(_call, session, repeat=job["repeat"], wait_share=job["wait_share"])
    for batch in first_of_each_shape(session, batches):
        session.infer(batch)
    for _ in range(job["warmup"]):
        work(next(calls))
    meter = gpu_meter(session.placement.device)
    placed = {"placement": asdict(session.placement), "python": platform.python_version()}
    answer({**placed, "packages": installed_versions()})
    with meter:
        for _ in requests:
            finite, milliseconds = timed(partial(work, next(calls)))
            if not finite:
                raise MrpcbenchError(f"{session.placement} returned logits that are not finite")
            answer({"ms": milliseconds})
    session.close()
    answer({"disturbances": list(disturbances(meter.resources()))})


def _call(session: Session, batches: Sequence[Batch], *, repeat: int, wait_share: float) -> bool:
    """Make one call; True if all its logits are finite."""
    finite, clock = True, WallClock()
    begin = clock.now()
    for batch in (*batches, *batches[:repeat]):
        finite = bool(np.isfinite(session.infer(batch)).all()) and finite
    if wait_share:
        now = clock.now()
        clock.sleep_until(now + wait_share * (now - begin))
    return finite


def save_batches(path: Path, batches: Sequence[Batch]) -> None:
    """Write the inputs of `batches` to one file of arrays."""
    arrays = {f"{index}/{name}": array for index, batch in enumerate(batches) for name, array in batch.inputs.items()}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_batches(path: Path) -> list[Batch]:
    """The batches of `save_batches`."""
    inputs: dict[int, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            index, name = key.split("/")
            inputs.setdefault(int(index), {})[name] = arrays[key]
    return [
        Batch(inputs=found, rows=np.arange(len(found["input_ids"])), real_tokens=int(found["attention_mask"].sum()))
        for found in inputs.values()
    ]


def main(path: Path) -> None:
    """Serve the job in the file `path`: each line on stdin requests a call; each line on stdout is a JSON answer."""
    # Libraries may print to stdout. Send that to stderr, so that the parent process reads only answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def answer(found: dict[str, Any]) -> None:
            answers.write(store.to_line(found) + "\n")
            answers.flush()

        serve(store.load_json(path), sys.stdin, answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
