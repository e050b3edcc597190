"""What every engine offers: host arrays in, host arrays out.

A host array cannot exist before the device is done, so no engine can be timed without waiting for it, and the copies
are inside the time: that is what a caller pays.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrpcbench.batches import Batch
from mrpcbench.schema import ModelIdentity, Placement

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that ran from `begin_ns` to `end_ns`, on the clock of `time.perf_counter_ns`, on a track of its own."""

    name: str
    track: str
    begin_ns: int
    end_ns: int


def tracks(name: str, keys: Iterable[K]) -> dict[K, str]:
    """A track for each thread or stream in `keys`: the first is `name` itself, the next are numbered from 2."""
    return {key: f"{name} {place}" if place > 1 else name for place, key in enumerate(dict.fromkeys(keys), 1)}


def unlike(session: "Session", batches: Iterable[Batch]) -> list[Batch]:
    """The first batch of each shape that `session` must have run to be ready for all of `batches`."""
    firsts: dict[Hashable, Batch] = {}
    for batch in batches:
        firsts.setdefault(session.shape_of(batch), batch)
    return [batch for shape, batch in firsts.items() if shape is not None]


class Unmetered:
    """A `sensors.Meter` without a sensor."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def resources(self) -> None:
        """Nothing is known."""
        return


class Session(Protocol):
    """A model loaded into an engine, ready to answer."""

    placement: Placement
    model: ModelIdentity
    # How many batches may be on the device at once. More than one only where `compute` returns before the device is
    # done, and where a batch has memory of its own: a recording whose next batch takes the place of the last has not.
    in_flight: int = 1

    @abstractmethod
    def copy_in(self, batch: Batch) -> Any:
        """The inputs of `batch` where the engine computes."""

    @abstractmethod
    def compute(self, inputs: Any) -> Any:
        """Logits of what `copy_in` gave, where the engine computes; the device need not be done with them."""

    @abstractmethod
    def copy_out(self, outputs: Any) -> NDArray[np.float32]:
        """Logits [B, 2] of what `compute` gave, on the host."""

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2] of `batch`, on the host."""
        return self.copy_out(self.compute(self.copy_in(batch)))

    def begin(self, batch: Batch) -> Callable[[], NDArray[np.float32]]:
        """What gives the logits [B, 2] of `batch` when it is called.

        An engine with several batches in flight has its device begin with this one, and does not wait for it.
        """
        return partial(self.infer, batch)

    def infer_many(self, batches: Iterable[Batch]) -> Generator[NDArray[np.float32], None, None]:
        """Logits of each batch in turn; up to `in_flight` are begun before the logits of the first are waited for."""
        begun: deque[Callable[[], NDArray[np.float32]]] = deque()
        for batch in batches:
            begun.append(self.begin(batch))
            if len(begun) == self.in_flight:
                yield begun.popleft()()
        while begun:
            yield begun.popleft()()

    def shape_of(self, batch: Batch) -> Hashable:
        """What `batch` has in common with those that the engine is ready for once it has run one of them.

        An engine that compiles or records at its first sight of a shape names that shape; any other says None.
        """
        return None

    def wait(self) -> None:
        """Return once the device is done with all that it was given."""
        return

    def operators(self) -> AbstractContextManager[list[Event]]:
        """Watch the engine's operators; the list is filled at the end. It slows the engine down."""
        return nullcontext([])

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak of the engine's own GPU memory in use, or None where it cannot tell."""
        return None

    @property
    def peak_reserved_bytes(self) -> int | None:
        """Peak of the GPU memory that the engine held, in use or not, or None where it cannot tell."""
        return None

    def reset_peak_memory(self) -> None:
        """Forget the peak so far."""
        return

    def close(self) -> None:
        """Free what the engine holds."""
        return
