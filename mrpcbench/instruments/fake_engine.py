"""A test double: an engine with a known cost and known answers."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from mrpcbench.data.batches import Batch
from mrpcbench.instruments.clock import Clock, WallClock
from mrpcbench.models.sources import ModelSource
from mrpcbench.schema.identity import ModelIdentity, Placement
from mrpcbench.schema.requests import BackendSpec


class FakeSession:
    """Takes `cost_ms` per call. Answers "equivalent" if the sum of a pair's real tokens is even."""

    placement = Placement(engine="fake", device="cpu", provider="none", dtype="fp32", threads=1)
    model = ModelIdentity(
        name="fake",
        architecture="none",
        parameters=0,
        weights="random-init",
        origin="random-init",
        model_sha256="none",
        tokenizer_sha256="none",
    )

    def __init__(self, cost_ms: float = 1.0, clock: Clock | None = None) -> None:
        self.cost_ms = cost_ms
        self._clock = clock or WallClock()

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2]: +1 for the answer, -1 for the other label. Padding does not change them."""
        done = self._clock.now() + self.cost_ms / 1e3
        even = (batch.inputs["input_ids"] * batch.inputs["attention_mask"]).sum(axis=1) % 2 == 0
        logits = np.where(even[:, None], [-1.0, 1.0], [1.0, -1.0]).astype(np.float32)
        self._clock.sleep_until(done)
        return logits

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """Logits of each batch, in order."""
        return map(self.infer, batches)

    def close(self) -> None:
        """Nothing to free."""


def open_fake(spec: BackendSpec, source: ModelSource) -> FakeSession:
    """A session that takes 1 ms per call. It ignores the model."""
    return FakeSession()
