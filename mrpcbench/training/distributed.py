"""Processes that train together under torchrun or accelerate launch: what they exchange, and their shares of a batch.

The processes share the global batch of the recipe, so that a run of several processes is the run of one.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.utils.data import BatchSampler, Sampler

from mrpcbench.errors import InterruptedRunError, MrpcbenchError, ReportedError, reason_of

# How long the processes wait for each other at the start; a machine may still be loading its libraries.
MEETING = timedelta(minutes=5)
# An error that all processes have, such as a wrong option, is reported by rank 0, to which the others leave this time.
FIRST_REPORTS_WITHIN_S = 1.0
# The key under which the store counts the processes that have an error to report.
FAILED = "failed"
# Numbers the groups of a process, which are of the same processes and share a store.
_GROUPS = count()


@dataclass(frozen=True)
class World:
    """The processes of a run; by default, a run of one process."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        return bool(self.totals(int(flag))[0])

    def totals(self, *counts: int) -> list[int]:
        """The sum of each of `counts` over the processes."""
        if self.size == 1:
            return list(counts)
        found = torch.tensor(counts, dtype=torch.int64)
        dist.all_reduce(found)
        return [int(count) for count in found]

    def gather(self, value: Any) -> list[Any]:
        """The `value` of each process, in the order of their ranks."""
        found = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Wait until every process is here."""
        self.totals(0)

    def weight(self, pairs: int) -> float:
        """The factor of the mean loss of this process's `pairs` pairs of a batch.

        The mean of the weighted losses over the processes is the mean loss of all pairs, and so for gradients.
        """
        return pairs * self.size / self.totals(pairs)[0]

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each of `tensors` by its mean over the processes."""
        if self.size == 1:
            return
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
            work.wait()
        torch._foreach_div_(list(tensors), self.size)

    def share(self, rows: list[int]) -> list[int]:
        """This process's part of a batch, consecutive and of the size of the others, or larger by one.

        Every process gets the whole of a batch with fewer rows than processes, because none may stand idle: the mean
        over the processes is still that of the batch.
        """
        if len(rows) < self.size:
            return rows
        return rows[self.rank * len(rows) // self.size : (self.rank + 1) * len(rows) // self.size]


class Shares(BatchSampler):
    """This process's share of each batch of `size` rows, in the order of `sampler`; the last batch may be smaller."""

    def __init__(self, sampler: Sampler[int], size: int, world: World) -> None:
        super().__init__(sampler, size, drop_last=False)
        self._world = world

    def __iter__(self) -> Iterator[list[int]]:
        return (self._world.share(rows) for rows in super().__iter__())


@contextmanager
def joined(rank: int, size: int, *, on_gpu: bool) -> Iterator[World]:
    """Run the body in `size` processes that have met at MASTER_ADDR and MASTER_PORT.

    One process reports an error; in the others, it is a `ReportedError`. Raises `MrpcbenchError` if the processes do
    not meet, or if another one ends.
    """
    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=MEETING))
        store = PrefixStore(f"mrpcbench/{next(_GROUPS)}", store)
        # Numbers are exchanged on the CPU, which does not wait for the GPU.
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=MEETING)
    except (RuntimeError, ValueError) as error:
        where = ":".join(os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise MrpcbenchError(f"the {size} processes did not meet at {where}: {reason_of(error)}") from error
    try:
        yield World(rank, size)
    except (Exception, KeyboardInterrupt) as error:
        raise _reported(error, rank, store) from error
    dist.destroy_process_group()


def _reported(error: BaseException, rank: int, store: Store) -> BaseException:
    """`error` for the process that reports it, which is one, and `ReportedError` for the others."""
    if rank > 0:
        time.sleep(FIRST_REPORTS_WITHIN_S)
    try:
        is_reported = store.add(FAILED, 1) > 1
    except RuntimeError:  # the process that holds the store has ended
        is_reported = True
    status = error.status if isinstance(error, MrpcbenchError) else InterruptedRunError.status
    if isinstance(error, Exception) and not isinstance(error, MrpcbenchError):
        status = MrpcbenchError.status
    if is_reported:
        return ReportedError(status)
    if isinstance(error, InterruptedRunError | KeyboardInterrupt):
        return error
    if _is_lost_connection(error):
        return MrpcbenchError(f"another process of the run has ended ({reason_of(error)})")
    if rank == 0:
        return error
    found = MrpcbenchError(f"rank {rank}: {reason_of(error)}")
    found.status = status
    return found


def _is_lost_connection(error: BaseException) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
