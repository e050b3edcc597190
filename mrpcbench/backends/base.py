"""What every engine offers: host arrays in, host arrays out.

A host array cannot exist before the device is done, so no engine can be timed without waiting for it, and the copies
are inside the time: that is what a caller pays.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mrpcbench.batches import Batch
from mrpcbench.schema import ModelIdentity, Placement


class Session(Protocol):
    """A model loaded into an engine, ready to answer."""

    placement: Placement
    model: ModelIdentity

    @abstractmethod
    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2] of `batch`, on the host."""

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """Logits of each batch in turn; an engine may overlap the copies of one with the compute of another."""
        return map(self.infer, batches)

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak of the engine's own GPU memory, or None where it cannot tell."""
        return None

    def reset_peak_memory(self) -> None:
        """Forget the peak so far."""
        return

    def close(self) -> None:
        """Free what the engine holds."""
        return
