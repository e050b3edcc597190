"""What the trace viewers need of a trace, and that a file holds it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mrpcbench.backends.session import Event, tracks
from mrpcbench.instruments import trace
from mrpcbench.records import store

ORIGIN = 86_400_000_000_000  # a day, as the clock may say


def event(name: str, track: str, begin_us: float, end_us: float) -> Event:
    begin, end = (ORIGIN + round(moment * 1000) for moment in (begin_us, end_us))
    return Event(name=name, track=track, begin_ns=begin, end_ns=end)


PROCESSES: dict[str, Sequence[Event]] = {
    "torch offline batch 8": [
        event("before any span", "torch operators", 11, 11.5),
        event("matmul", "torch operators", 12.25, 14),
        event("linear", "torch operators", 12.25, 15.5),
        event("gemm", "cuda kernels", 13, 20),
        event("compute", "spans", 12, 21),
    ],
    "onnx offline batch 8": [
        event("MatMul (/layer)", "onnxruntime operators", 5, 5),
        event("compute", "spans", 4.5, 6),
    ],
    "fake offline batch 8": [],
}


def entries(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry for entry in document["traceEvents"] if entry["ph"] == kind]


def said(document: dict[str, Any], what: str) -> dict[Any, Any]:
    """What the metadata `what` say of each process or thread."""
    keys = ("pid",) if what.startswith("process") else ("pid", "tid")
    found = [
        (tuple(entry[key] for key in keys), *entry["args"].values())
        for entry in entries(document, "M")
        if entry["name"] == what
    ]
    assert len({key for key, _ in found}) == len(found), "named twice"
    return dict(found)


def check(document: dict[str, Any]) -> None:
    """The rules of the Trace Event Format for what is used of it."""
    assert document["displayTimeUnit"] == "ms"
    assert {entry["ph"] for entry in document["traceEvents"]} <= {"M", "X"}
    for entry in entries(document, "M"):
        assert set(entry) == {"ph", "name", "pid", "tid", "args"}
        assert entry["name"] in {"process_name", "process_sort_index", "thread_name", "thread_sort_index"}
        assert isinstance(entry["args"][entry["name"].split("_", 1)[1]], str if "_name" in entry["name"] else int)
    for entry in entries(document, "X"):
        assert set(entry) == {"ph", "name", "pid", "tid", "ts", "dur"}
        assert (entry["pid"],) in said(document, "process_name")
        assert (entry["pid"],) in said(document, "process_sort_index")
        assert (entry["pid"], entry["tid"]) in said(document, "thread_name")
        assert (entry["pid"], entry["tid"]) in said(document, "thread_sort_index")
        assert math.isfinite(entry["ts"])
        assert math.isfinite(entry["dur"])
        assert entry["ts"] >= 0
        assert entry["dur"] >= 0


def test_a_trace_follows_the_format() -> None:
    document = trace.document(PROCESSES)
    check(document)
    assert len(entries(document, "X")) == 7


def test_every_event_has_its_process_its_track_and_its_time_since_the_first() -> None:
    document = trace.document(PROCESSES)
    processes, threads = said(document, "process_name"), said(document, "thread_name")
    found = {
        (processes[entry["pid"],], threads[entry["pid"], entry["tid"]], entry["name"], entry["ts"], entry["dur"])
        for entry in entries(document, "X")
    }
    assert found == {
        ("torch offline batch 8", "spans", "compute", 7.5, 9),
        ("torch offline batch 8", "torch operators", "before any span", 6.5, 0.5),
        ("torch offline batch 8", "torch operators", "linear", 7.75, 3.25),
        ("torch offline batch 8", "torch operators", "matmul", 7.75, 1.75),
        ("torch offline batch 8", "cuda kernels", "gemm", 8.5, 7),
        ("onnx offline batch 8", "spans", "compute", 0, 1.5),
        ("onnx offline batch 8", "onnxruntime operators", "MatMul (/layer)", 0.5, 0),
    }


def test_spans_come_first_and_the_other_tracks_follow_by_start_time() -> None:
    document = trace.document(PROCESSES)
    names, places = said(document, "thread_name"), said(document, "thread_sort_index")
    shown = [names[thread] for thread in sorted(names, key=lambda thread: (thread[0], places[thread]))]
    assert shown == ["spans", "torch operators", "cuda kernels", "spans", "onnxruntime operators"]


def test_processes_are_shown_in_the_order_given() -> None:
    document = trace.document(PROCESSES)
    names, places = said(document, "process_name"), said(document, "process_sort_index")
    assert [names[process] for process in sorted(names, key=lambda process: places[process])] == list(PROCESSES)


def test_thread_numbers_are_unique() -> None:
    numbers = [thread for _, thread in said(trace.document(PROCESSES), "thread_name")]
    assert len(set(numbers)) == len(numbers)


def test_an_outer_event_comes_before_its_inner_ones() -> None:
    ordered = [entry["name"] for entry in entries(trace.document(PROCESSES), "X")]
    assert ordered.index("linear") < ordered.index("matmul")


def test_the_input_order_of_events_does_not_matter() -> None:
    backwards = {name: list(reversed(events)) for name, events in PROCESSES.items()}
    assert json.dumps(trace.document(backwards)) == json.dumps(trace.document(PROCESSES))


def test_no_events_make_an_empty_trace() -> None:
    assert trace.document({}) == {"displayTimeUnit": "ms", "traceEvents": []}


def test_a_file_holds_the_document_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "trace.json"
    trace.write(path, PROCESSES)
    assert store.load_json(path) == trace.document(PROCESSES)
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") == 1
    assert '": ' not in text
    assert [file.name for file in path.parent.iterdir()] == ["trace.json"]


def test_a_number_that_json_lacks_is_an_error_and_the_old_file_stays(tmp_path: Path) -> None:
    store.save_json(tmp_path / "x.json", [1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.save_json(tmp_path / "x.json", [math.nan])
    assert store.load_json(tmp_path / "x.json") == [1]


def test_tracks_are_numbered_from_the_second_on() -> None:
    assert tracks("operators", [7, 7, 3, 7, 9]) == {7: "operators", 3: "operators 2", 9: "operators 3"}
    assert tracks("operators", []) == {}
