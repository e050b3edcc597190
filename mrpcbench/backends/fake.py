"""An engine of known cost and known answers, for testing what is built on engines."""

import numpy as np
from numpy.typing import NDArray

from mrpcbench.backends.base import Session
from mrpcbench.batches import Batch
from mrpcbench.clock import Clock, WallClock
from mrpcbench.plans import BackendSpec
from mrpcbench.schema import ModelIdentity, Placement
from mrpcbench.sources import ModelSource


class FakeSession(Session):
    """Takes `cost_ms` a call, and answers "equivalent" where the sum of a pair's real tokens is even."""

    def __init__(self, cost_ms: float = 1.0, clock: Clock | None = None) -> None:
        self.cost_ms = cost_ms
        self._clock = clock or WallClock()
        self.placement = Placement(engine="fake", device="cpu", provider="none", dtype="fp32", threads=1)
        self.model = ModelIdentity(
            name="fake",
            architecture="none",
            parameters=0,
            weights="random-init",
            origin="random-init",
            model_sha256="none",
            tokenizer_sha256="none",
        )

    def copy_in(self, batch: Batch) -> Batch:
        """Nothing to copy."""
        return batch

    def compute(self, inputs: Batch) -> NDArray[np.float32]:
        """Logits [B, 2]: +1 for the answer, -1 for the other; padding does not change them."""
        done = self._clock.now() + self.cost_ms / 1e3
        even = (inputs.inputs["input_ids"] * inputs.inputs["attention_mask"]).sum(axis=1) % 2 == 0
        logits = np.where(even[:, None], [-1.0, 1.0], [1.0, -1.0]).astype(np.float32)
        self._clock.sleep_until(done)
        return logits

    def copy_out(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """They are there."""
        return outputs


def open_fake(spec: BackendSpec, source: ModelSource) -> FakeSession:
    """A session that costs 1 ms a call, whatever model is named."""
    return FakeSession()
