"""An engine of known cost and known answers, for testing what is built on engines."""

import time

import numpy as np
from numpy.typing import NDArray

from mrpcbench import models
from mrpcbench.backends.base import Session
from mrpcbench.batches import Batch
from mrpcbench.schema import QUICKSTART, BackendSpec, ModelIdentity, Placement


class FakeSession(Session):
    """Sleeps `cost_ms` a call, and answers "equivalent" where the sum of a pair's real tokens is even."""

    def __init__(self, cost_ms: float = 1.0) -> None:
        self.cost_ms = cost_ms
        self.placement = Placement(engine="fake", device="cpu", provider="none", dtype="fp32", threads=1)
        self.model = ModelIdentity(
            name="fake",
            architecture="none",
            parameters=0,
            weights="random-init",
            origin="random-init",
            model_sha256="none",
            tokenizer_sha256=models.tokenizer_sha256(models.load_tokenizer(models.locate(QUICKSTART), QUICKSTART)),
        )

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2]: +1 for the answer, -1 for the other; padding does not change them."""
        time.sleep(self.cost_ms / 1e3)
        even = (batch.inputs["input_ids"] * batch.inputs["attention_mask"]).sum(axis=1) % 2 == 0
        return np.where(even[:, None], [-1.0, 1.0], [1.0, -1.0]).astype(np.float32)


def open_fake(spec: BackendSpec) -> FakeSession:
    """A session that costs 1 ms a call, whatever model is named."""
    return FakeSession()
