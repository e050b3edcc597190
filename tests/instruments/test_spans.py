"""Where the time goes: each part timed by itself, to the end of the device's work, on the pairs of the row."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mrpcbench.backends.session import Event, SteppedSession
from mrpcbench.data.batches import Batch, EncodedPairs
from mrpcbench.instruments import spans
from mrpcbench.instruments.spans import CALLS, PROFILED_CALLS, Pipeline
from mrpcbench.schema.bench_results import Span

MS = 1_000_000  # nanoseconds


@dataclass
class Scripted(SteppedSession):
    """An engine whose parts take known times; what it was asked to compute takes 5 ms more on the device."""

    now: list[int]
    pending_ms: int = 0
    seen: list[NDArray[np.int64]] = field(default_factory=list)

    def copy_in(self, batch: Batch) -> Batch:
        self.now[0] += 1 * MS
        self.seen.append(batch.inputs["input_ids"][:, 0])
        return batch

    def compute(self, inputs: Batch) -> Any:
        self.now[0] += 2 * MS
        self.pending_ms += 5
        return inputs

    def copy_out(self, outputs: Batch) -> NDArray[np.float32]:
        self.now[0] += 3 * MS
        return np.zeros((len(outputs.rows), 2), dtype=np.float32)

    def wait(self) -> None:
        self.now[0] += self.pending_ms * MS
        self.pending_ms = 0

    @contextmanager
    def operators(self) -> Iterator[list[Event]]:
        found: list[Event] = []
        yield found
        found.append(Event(name="MatMul", track="operators", begin_ns=0, end_ns=1))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    moment = [0]
    monkeypatch.setattr(spans.time, "perf_counter_ns", lambda: moment[0])
    return moment


def pairs_of(rows: NDArray[np.int64]) -> EncodedPairs:
    """Pair i is token i + 1, i + 1 times."""
    ids = [np.full(row + 1, row + 1) for row in rows]
    return EncodedPairs(
        columns={"input_ids": ids, "attention_mask": [np.ones_like(line) for line in ids]},
        padding={"input_ids": 0, "attention_mask": 0},
    )


def pipeline_of(
    session: SteppedSession, cut: list[list[int]], *, whole: bool, now: list[int] | None = None
) -> Pipeline:
    """A way that takes 7 ms for each pair that it tokenises; without `now` there is nothing to tokenise."""

    def tokenise(rows: NDArray[np.int64]) -> EncodedPairs:
        assert now is not None
        now[0] += 7 * MS * len(rows)
        return pairs_of(rows)

    rows = [np.array(part) for part in cut]
    every = pairs_of(np.arange(1 + max(max(part) for part in cut)))
    return Pipeline(session, every, None if now is None else tokenise, rows, whole)


def times(found: tuple[Span, ...]) -> dict[str, tuple[float, ...]]:
    return {span.name: span.samples_ms for span in found}


def test_each_step_is_timed_until_the_device_has_finished_it(now: list[int]) -> None:
    found = times(pipeline_of(Scripted(now), [[0], [1]], whole=False, now=now).spans())
    assert found["tokenise"] == (7, 7)
    assert found["copy in"] == (1, 1)
    assert found["compute"] == (7, 7)  # 2 on the host, 5 on the device
    assert found["copy out"] == (3, 3)
    assert found["batch"] == (0, 0)
    assert list(found) == ["tokenise", "batch", "copy in", "compute", "copy out"]


def test_sorted_pairs_are_tokenised_at_once(now: list[int]) -> None:
    session = Scripted(now)
    found = times(pipeline_of(session, [[2, 0], [3, 1]], whole=True, now=now).spans())
    assert found["tokenise"] == (4 * 7,)
    assert len(found["compute"]) == 2
    assert [list(first) for first in session.seen[-2:]] == [[3, 1], [4, 2]]


def test_each_batch_is_made_of_its_own_pairs(now: list[int]) -> None:
    session = Scripted(now)
    pipeline_of(session, [[2, 0], [3, 1]], whole=False, now=now).spans()
    assert [list(first) for first in session.seen[-2:]] == [[3, 1], [4, 2]]


def test_a_fixed_shape_is_not_tokenised(now: list[int]) -> None:
    session = Scripted(now)
    found = times(pipeline_of(session, [[2, 0], [3, 1]], whole=True).spans())
    assert "tokenise" not in found
    assert [list(first) for first in session.seen[-2:]] == [[3, 1], [4, 2]]


@pytest.mark.parametrize(("whole", "calls"), [(False, CALLS), (True, CALLS + 5)])
def test_only_single_pairs_are_limited_in_number(now: list[int], whole: bool, calls: int) -> None:
    found = times(pipeline_of(Scripted(now), [[row] for row in range(CALLS + 5)], whole=whole, now=now).spans())
    assert len(found["compute"]) == calls


def test_the_first_call_is_not_timed(now: list[int]) -> None:
    session = Scripted(now)
    real, first = session.compute, [True]

    def compute(inputs: Batch) -> Any:
        now[0] += 1000 * MS * first[0]
        first[0] = False
        return real(inputs)

    session.compute = compute  # type: ignore[method-assign]
    assert times(pipeline_of(session, [[0], [1]], whole=False, now=now).spans())["compute"] == (7, 7)


@pytest.mark.parametrize("count", [1, PROFILED_CALLS, PROFILED_CALLS + 1, 5 * PROFILED_CALLS])
def test_a_profile_is_of_a_few_calls_spread_over_all_with_the_operators_in_them(now: list[int], count: int) -> None:
    session = Scripted(now)
    events = pipeline_of(session, [[row] for row in range(count)], whole=True, now=now).events()
    calls = [event for event in events if event.name == "compute"]
    assert min(count, PROFILED_CALLS) / 2 < len(calls) <= PROFILED_CALLS
    assert len(session.seen) == len(calls)
    assert session.seen[-1][0] > count * 0.8
    assert events[-1].name == "MatMul"
    assert {event.track for event in events[:-1]} == {"spans"}


def test_spans_follow_one_another_without_overlap(now: list[int]) -> None:
    events = pipeline_of(Scripted(now), [[0], [1]], whole=False, now=now).events()[:-1]
    ends = [event.end_ns for event in events]
    assert all(begin >= end for begin, end in zip([event.begin_ns for event in events[1:]], ends, strict=False))


def test_every_engine_is_measured_the_same_way_as_a_timed_call() -> None:
    """So the time breakdown covers the same code as a timed call."""
    calls: list[str] = []

    class Watched(Scripted):
        def __getattribute__(self, name: str) -> Any:
            if name in {"copy_in", "compute", "copy_out"}:
                calls.append(name)
            return super().__getattribute__(name)

    Watched([0]).infer(pairs_of(np.arange(2)).batch_of(np.arange(2)))
    assert sorted(calls) == ["compute", "copy_in", "copy_out"]
