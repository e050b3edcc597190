"""One side of a live comparison in a process of its own: `python -m mrpcbench.paired.worker JOB`, which `duel` starts.

The process may be that of another Python interpreter with other libraries, to which this package is lent by its path;
it is given its batches, so that a graph on the CPU is measured half a second after the start, without torch.
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


def serve(job: dict[str, Any], turns: Iterable[str], answer: Callable[[dict[str, Any]], None]) -> None:
    """Load what `job` says, answer with what runs, and then each line of `turns` with the time of one call.

    A call is one pass over `group` batches; the first `repeat` of them are run once more, and `wait_share` of the time
    that it took is waited, inside of the call: known slowdowns, with which a gate is tested. The last answer is what
    disturbed the turns. Raises `MrpcbenchError` where a logit is not finite.
    """
    if job["cores"]:
        os.sched_setaffinity(0, job["cores"])
    batches = load_batches(Path(job["arrays"]))
    register(job["spec"]["backend"], **job["engine"])
    spec = BackendSpec(**job["spec"])
    # The model of the spec is a file or a folder here: `duel.side_of` has put it there.
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
        for _ in turns:
            finite, milliseconds = timed(partial(work, next(calls)))
            if not finite:
                raise MrpcbenchError(f"{session.placement} gave logits that are not finite")
            answer({"ms": milliseconds})
    session.close()
    answer({"disturbances": list(disturbances(meter.resources()))})


def _call(session: Session, batches: Sequence[Batch], *, repeat: int, wait_share: float) -> bool:
    """Whether all logits of a call are finite."""
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
    """Serve the job in the file `path`: a line on stdin is a turn, a JSON document a line on stdout its answer."""
    # Libraries print what they like; only answers may reach whoever reads them.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def answer(found: dict[str, Any]) -> None:
            answers.write(store.to_line(found) + "\n")
            answers.flush()

        serve(store.load_json(path), sys.stdin, answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
