"""Engines for tests, each registered under its own name."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrpcbench.backends import registry
from mrpcbench.backends.session import Session, SteppedSession
from mrpcbench.data.batches import Batch
from mrpcbench.instruments.fake_engine import FakeSession
from mrpcbench.models.sources import ModelSource
from mrpcbench.schema.requests import BackendSpec

_MAKERS: dict[str, Callable[[], Session]] = {}


def engine(name: str, make: Callable[[], Session]) -> str:
    """Register an engine whose sessions `make` creates. Returns its name."""
    _MAKERS[name] = make
    registry.register(name, "engines:open_registered")
    return name


def open_registered(spec: BackendSpec, source: ModelSource) -> Session:
    return _MAKERS[spec.backend]()


class Answering(FakeSession):
    """A fake engine whose answers go through `change`."""

    def __init__(self, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        super().__init__()
        self._change = change

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        return self._change(super().infer(batch))


class Stepped(SteppedSession):
    """A fake engine with separate steps."""

    def __init__(self) -> None:
        self.fake = FakeSession()
        self.placement, self.model = self.fake.placement, self.fake.model

    def copy_in(self, batch: Batch) -> Any:
        return batch

    def compute(self, inputs: Batch) -> NDArray[np.float32]:
        return self.fake.infer(inputs)

    def copy_out(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return outputs


class Narrow(Stepped):
    """Prepares for each number of tokens; `seen` are the numbers that it has been called with, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def compute(self, inputs: Batch) -> NDArray[np.float32]:
        self.seen.append(self.shape_of(inputs))
        return super().compute(inputs)

    def shape_of(self, batch: Batch) -> int:
        return batch.inputs["input_ids"].shape[1]
