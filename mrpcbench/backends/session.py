"""The interface of every engine (`Session`: host arrays in, host arrays out), and an optional one (`Probe`).

A host array exists only after the device has finished. So the time of a call always includes the wait for the device
and the copies, as it does for a caller.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrpcbench.data.batches import Batch
from mrpcbench.errors import UsageError
from mrpcbench.models.sources import LABELS
from mrpcbench.schema.identity import ModelIdentity, Placement

K = TypeVar("K", bound=Hashable)


class Session(Protocol):
    """A model loaded into an engine, ready for inference."""

    placement: Placement
    model: ModelIdentity

    @abstractmethod
    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2] of `batch`, on the host."""

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """Logits [B, 2] of each batch, in order. The engine may start a batch before the last one has finished."""
        return map(self.infer, batches)

    def close(self) -> None:
        """Free the engine's resources."""
        return


class Relabelled(Session):
    """A session whose logits are in the order of the data's labels; see `ModelSource.label_order`."""

    def __init__(self, session: Session, order: tuple[int, int]) -> None:
        self.placement = session.placement
        self.model = session.model
        self._session = session
        self._order = order

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2] of `batch`, on the host."""
        return self._session.infer(batch)[:, self._order]

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """Logits [B, 2] of each batch in turn."""
        for logits in self._session.infer_many(batches):
            yield logits[:, self._order]

    def close(self) -> None:
        """Free what the engine holds."""
        self._session.close()


@dataclass(frozen=True, kw_only=True)
class Event:
    """An interval of a trace: `begin_ns` to `end_ns` on the clock `time.perf_counter_ns`, shown on `track`."""

    name: str
    track: str
    begin_ns: int
    end_ns: int


@dataclass(frozen=True, kw_only=True)
class PeakMemory:
    """Peaks of an engine's GPU memory, in bytes; None if the engine does not report it."""

    in_use: int | None = None
    reserved: int | None = None


class Probe(ABC):
    """The steps of an inference, for time breakdowns and traces. A session may implement this too; see `probe_of`."""

    @abstractmethod
    def copy_in(self, batch: Batch) -> Any:
        """Copy the inputs of `batch` to the engine's device."""

    @abstractmethod
    def compute(self, inputs: Any) -> Any:
        """Run the model on the result of `copy_in`. Returns logits on the device, which may still be computing."""

    @abstractmethod
    def copy_out(self, outputs: Any) -> NDArray[np.float32]:
        """Copy the result of `compute` to the host: logits [B, 2]."""

    def wait(self) -> None:
        """Return when the device has finished all its work."""
        return

    def shape_of(self, batch: Batch) -> Hashable:
        """The shape for which the engine compiles, captures or plans at its first call; None if it does not.

        Batches with an equal key share that work.
        """
        return None

    def computed_tokens(self, batch: Batch) -> int:
        """Tokens that the engine computes for `batch`: all of them, unless it removes or adds padding."""
        return batch.inputs["input_ids"].size

    def operators(self) -> AbstractContextManager[list[Event]]:
        """Profile the engine's operators, which slows it down. The list is filled when the context ends."""
        return nullcontext([])

    def peak_memory(self) -> PeakMemory:
        """The peaks of memory since the last reset."""
        return PeakMemory()

    def reset_peak_memory(self) -> None:
        """Reset the peaks of memory."""
        return


class SteppedSession(Session, Probe):
    """A session whose `infer` is the three steps of its `Probe`."""

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2] of `batch`, on the host. Raises `UsageError` if the model gives another number of rows."""
        logits = self.copy_out(self.compute(self.copy_in(batch)))
        if len(logits) != len(batch.rows):
            raise UsageError(f"the graph of {self.model.name} gives {len(logits)} rows for {len(batch.rows)} pairs")
        return logits


def probe_of(session: Session) -> Probe | None:
    """The `Probe` of `session`; None if its engine has none."""
    return session if isinstance(session, Probe) else None


def first_of_each_shape(session: Session, batches: Iterable[Batch]) -> list[Batch]:
    """The first batch of each shape that `session` prepares for; running them warms up all of `batches`."""
    probe = probe_of(session)
    if probe is None:
        return []
    firsts: dict[Hashable, Batch] = {}
    for batch in batches:
        firsts.setdefault(probe.shape_of(batch), batch)
    return [batch for shape, batch in firsts.items() if shape is not None]


def computed_padding(session: Session, batches: Iterable[Batch]) -> int:
    """Tokens that `session` computes for `batches` in addition to the real ones."""
    probe = probe_of(session)
    return sum(probe.computed_tokens(batch) - batch.real_tokens if probe else batch.padding_tokens for batch in batches)


def one_ahead(
    begin: Callable[[Batch], Callable[[], NDArray[np.float32]]], batches: Iterable[Batch]
) -> Iterator[NDArray[np.float32]]:
    """The logits of `batches`, in order. Each batch is enqueued before the previous one is waited for.

    `begin` enqueues a batch on the device and returns a function that waits for its logits.
    """
    wait: Callable[[], NDArray[np.float32]] | None = None
    for batch in batches:
        previous, wait = wait, begin(batch)
        if previous:
            yield previous()
    if wait:
        yield wait()


def graph_inputs(batch: Batch, names: Iterable[str]) -> dict[str, NDArray[np.int64]]:
    """The inputs of an exported graph, by `names`. Without token types, a model takes 0 for each."""
    given = batch.inputs
    return {name: np.zeros_like(given["input_ids"]) if name not in given else given[name] for name in names}


def float_logits(logits: NDArray[Any], graph: str) -> NDArray[np.float32]:
    """`logits` of an exported graph in float32. Raises `UsageError`, with the name of the `graph`, unless [B, 2]."""
    if logits.shape[1:] != (LABELS,):
        shape = ", ".join(map(str, logits.shape))
        raise UsageError(
            f"{graph} gives [{shape}] for a batch, and a paraphrase classifier gives {LABELS} logits a pair"
        )
    return np.asarray(logits, dtype=np.float32)


def tracks(name: str, keys: Iterable[K]) -> dict[K, str]:
    """A track for each thread or stream in `keys`. The first is called `name`; the others are numbered from 2."""
    return {key: f"{name} {place}" if place > 1 else name for place, key in enumerate(dict.fromkeys(keys), 1)}


class Unmetered:
    """A stand-in for `telemetry.Meter` that measures nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def resources(self) -> None:
        """None: nothing was measured."""
        return
