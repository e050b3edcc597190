"""Traces for ui.perfetto.dev and chrome://tracing, in the Trace Event Format.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Google, "Trace Event Format").
"""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from mrpcbench.backends.session import Event
from mrpcbench.records import store

TOP = "spans"


def document(processes: Mapping[str, Sequence[Event]]) -> dict[str, Any]:
    """The trace of each process, in microseconds since the first event. The track "spans" comes first.

    Events on one track must be disjoint or nested; otherwise the viewers draw them wrongly.
    """
    origin = min((event.begin_ns for events in processes.values() for event in events), default=0)
    numbers = count(1)  # unique across processes, because Perfetto takes equal numbers for one thread
    entries: list[dict[str, Any]] = []
    for pid, (process, events) in enumerate(processes.items(), 1):
        entries += _named("process", process, pid, pid=pid, tid=0)
        ordered = sorted(events, key=lambda event: (event.track != TOP, event.begin_ns, -event.end_ns, event.name))
        for place, track in enumerate(dict.fromkeys(event.track for event in ordered)):
            tid = next(numbers)
            entries += _named("thread", track, place, pid=pid, tid=tid)
            entries += [_complete(event, origin, pid, tid) for event in ordered if event.track == track]
    return {"displayTimeUnit": "ms", "traceEvents": entries}


def write(path: Path, processes: Mapping[str, Sequence[Event]]) -> None:
    """Write the `document` of `processes` to `path` atomically. Missing folders are created."""
    store.save_json(path, document(processes))


def _named(kind: str, name: str, place: int, *, pid: int, tid: int) -> list[dict[str, Any]]:
    metadata = {f"{kind}_name": {"name": name}, f"{kind}_sort_index": {"sort_index": place}}
    return [{"ph": "M", "name": key, "pid": pid, "tid": tid, "args": args} for key, args in metadata.items()]


def _complete(event: Event, origin: int, pid: int, tid: int) -> dict[str, Any]:
    begin, length = (event.begin_ns - origin) / 1e3, (event.end_ns - event.begin_ns) / 1e3
    return {"ph": "X", "name": event.name, "pid": pid, "tid": tid, "ts": begin, "dur": length}
