"""What every engine offers (`Session`): host arrays in, host arrays out; and what some tell of themselves (`Probe`).

A host array cannot exist before the device is done. So no engine can be timed without waiting for it, and the copies
are inside the time: that is what a caller pays.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrpcbench.data.batches import Batch
from mrpcbench.schema.identity import ModelIdentity, Placement

K = TypeVar("K", bound=Hashable)


class Session(Protocol):
    """A model loaded into an engine, ready to answer."""

    placement: Placement
    model: ModelIdentity

    @abstractmethod
    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2] of `batch`, on the host."""

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """Logits [B, 2] of each batch in turn; the engine may begin with a batch before the last one is done."""
        return map(self.infer, batches)

    def close(self) -> None:
        """Free what the engine holds."""
        return


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that ran from `begin_ns` to `end_ns`, on the clock of `time.perf_counter_ns`, on a track of its own."""

    name: str
    track: str
    begin_ns: int
    end_ns: int


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Peaks of an engine's GPU memory in bytes; None where the engine cannot tell."""

    in_use: int | None = None
    reserved: int | None = None


class Probe(ABC):
    """How an engine answers, step by step. A session that can tell is one itself: see `probe_of`."""

    @abstractmethod
    def copy_in(self, batch: Batch) -> Any:
        """The inputs of `batch` where the engine computes."""

    @abstractmethod
    def compute(self, inputs: Any) -> Any:
        """Logits of what `copy_in` gave, where the engine computes; the device need not be done with them."""

    @abstractmethod
    def copy_out(self, outputs: Any) -> NDArray[np.float32]:
        """Logits [B, 2] of what `compute` gave, on the host."""

    def wait(self) -> None:
        """Return once the device is done with all that it was given."""
        return

    def shape_of(self, batch: Batch) -> Hashable:
        """What `batch` has in common with the batches that the engine is ready for once it has run one of them.

        An engine that compiles or records at its first sight of a shape names that shape; any other says None.
        """
        return None

    def operators(self) -> AbstractContextManager[list[Event]]:
        """Watch the engine's operators; the list is filled at the end. It slows the engine down."""
        return nullcontext([])

    def peak_memory(self) -> PeakMemory:
        """The peaks since the last reset."""
        return PeakMemory()

    def reset_peak_memory(self) -> None:
        """Forget the peaks so far."""
        return


class SteppedSession(Session, Probe):
    """An engine that answers by its three steps."""

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2] of `batch`, on the host."""
        return self.copy_out(self.compute(self.copy_in(batch)))


def probe_of(session: Session) -> Probe | None:
    """What `session` tells of itself; None for an engine that only answers."""
    return session if isinstance(session, Probe) else None


def first_of_each_shape(session: Session, batches: Iterable[Batch]) -> list[Batch]:
    """The first batch of each shape that `session` must have run to be ready for all of `batches`."""
    probe = probe_of(session)
    if probe is None:
        return []
    firsts: dict[Hashable, Batch] = {}
    for batch in batches:
        firsts.setdefault(probe.shape_of(batch), batch)
    return [batch for shape, batch in firsts.items() if shape is not None]


def one_ahead(
    begin: Callable[[Batch], Callable[[], NDArray[np.float32]]], batches: Iterable[Batch]
) -> Iterator[NDArray[np.float32]]:
    """The answers to `batches` in turn; each is begun before the one before it is waited for.

    `begin` gives a batch to the device, and gives what waits for its answer.
    """
    answer: Callable[[], NDArray[np.float32]] | None = None
    for batch in batches:
        last, answer = answer, begin(batch)
        if last:
            yield last()
    if answer:
        yield answer()


def tracks(name: str, keys: Iterable[K]) -> dict[K, str]:
    """A track for each thread or stream in `keys`: the first is `name` itself, the next are numbered from 2."""
    return {key: f"{name} {place}" if place > 1 else name for place, key in enumerate(dict.fromkeys(keys), 1)}


class Unmetered:
    """A `sensors.Meter` without a sensor."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def resources(self) -> None:
        """Nothing is known."""
        return
