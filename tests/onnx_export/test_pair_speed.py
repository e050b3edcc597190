"""Tests of onnx_export.pair_speed: both engines in turn, within the time."""

import time
from typing import Any

import numpy as np
import pytest

from mrpcbench.data.batches import Batch
from mrpcbench.instruments.fake_engine import FakeSession
from mrpcbench.models.sources import ModelSource
from mrpcbench.onnx_export import pair_speed as module
from mrpcbench.onnx_export.pair_speed import pair_speed
from mrpcbench.quickstart import CLASSIFIER_DIR

READER = ModelSource("quickstart", CLASSIFIER_DIR).reader


class Timed(FakeSession):
    """Takes `ms` for a pair, and longer for a pair that it has not seen."""

    def __init__(self, name: str, ms: float, calls: list[str]) -> None:
        super().__init__(cost_ms=0)
        self.name, self.ms, self.calls, self.seen = name, ms, calls, set[int]()

    def infer(self, batch: Batch) -> np.ndarray[Any, Any]:
        self.calls.append(self.name)
        row = int(batch.rows[0])
        time.sleep((self.ms if row in self.seen else 4 * self.ms) / 1e3)
        self.seen.add(row)
        return super().infer(batch)


def pairs(count: int) -> list[Batch]:
    texts = {"sentence1": ["It rains."] * count, "sentence2": ["Rain falls."] * count}
    return READER.encode(texts).batches(1, order="given")


def test_the_second_call_of_each_pair_is_timed_in_both_engines_in_alternating_order() -> None:
    calls: list[str] = []
    found = pair_speed(Timed("graph", 2, calls), Timed("original", 6, calls), pairs(16))
    assert found.pairs == 16
    assert 2 <= found.graph_ms < 8
    assert 6 <= found.original_ms < 24
    assert found.speedup > 1
    assert found.interval.low <= found.speedup <= found.interval.high
    block = 1 + 2 * module.BLOCK
    assert calls == [*["graph"] * block, *["original"] * 2 * block, *["graph"] * block]


def test_no_block_begins_after_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET_S", 0.0)
    assert pair_speed(Timed("graph", 0.1, []), Timed("original", 0.1, []), pairs(32)).pairs == module.BLOCK
