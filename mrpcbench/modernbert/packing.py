"""Packed sequences: concatenated without padding, or filled up to one of a few shapes for CUDA graphs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

SMALLEST_STEP, LARGEST_STEP = 16, 128


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Number of tokens and segments, and the longest allowed segment. Few shapes mean few CUDA graphs."""

    tokens: int
    segments: int
    longest: int

    @property
    def words(self) -> int:
        """Length of the storage of a `Packed`, in int64 words."""
        return 3 * self.tokens + self.segments + (self.segments + 2) // 2  # a word holds two int32


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Concatenated token sequences. The first `pairs` segments are real; the rest is filler.

    `storage`, int64, holds all arrays, so one copy moves them to a device or into the inputs of a CUDA graph.
    """

    shape: Shape
    pairs: int
    storage: torch.Tensor

    @property
    def ids(self) -> torch.Tensor:
        """Token ids, int64 [T]."""
        return self.storage[: self.shape.tokens]

    @property
    def positions(self) -> torch.Tensor:
        """Position of each token in its segment, int64 [T]; 0 for filler."""
        return self.storage[self.shape.tokens : 2 * self.shape.tokens]

    @property
    def segments(self) -> torch.Tensor:
        """Segment of each token, int64 [T]."""
        return self.storage[2 * self.shape.tokens : 3 * self.shape.tokens]

    @property
    def lengths(self) -> torch.Tensor:
        """Length of each segment in tokens, int64 [S]; 1 for an empty one, because mean pooling divides by it."""
        return self.storage[3 * self.shape.tokens :][: self.shape.segments]

    @property
    def starts(self) -> torch.Tensor:
        """Cumulative lengths, int32 [S + 1], as attention kernels expect them; all but the last are below T."""
        return self.storage[3 * self.shape.tokens + self.shape.segments :].view(torch.int32)[: self.shape.segments + 1]

    def to(self, device: torch.device) -> "Packed":
        """A copy on `device`. From pinned memory, the host does not wait for it."""
        return replace(self, storage=self.storage.to(device, non_blocking=True))


def pack(
    ids: NDArray[np.int64],
    lengths: NDArray[np.int64],
    *,
    shape: Shape | None = None,
    filler: int = 0,
    pinned: bool = False,
) -> Packed:
    """Pack sequences with tokens `ids` [T] and `lengths` [B], none of which is 0.

    With `shape`, they are filled up to it: the last segment holds the remaining tokens, all `filler`, and segments
    between it and the real ones are empty. Raises `ValueError` if the sequences do not fit or leave no room to fill.
    """
    pairs, real, longest = len(lengths), len(ids), int(lengths.max())
    whole = np.zeros(shape.segments if shape else pairs, dtype=np.int64)
    if shape is None:
        shape = Shape(tokens=real, segments=pairs, longest=longest)
    elif not (pairs < shape.segments and real < shape.tokens <= real + shape.longest and longest <= shape.longest):
        raise ValueError(f"{pairs} sequences of {real} tokens, the longest of {longest}, do not fill {shape}")
    whole[:pairs] = lengths
    whole[-1] += shape.tokens - real
    made = Packed(shape=shape, pairs=pairs, storage=torch.empty(shape.words, dtype=torch.int64, pin_memory=pinned))
    starts = np.concatenate(([0], whole.cumsum()))
    made.ids.numpy()[:] = filler
    made.ids.numpy()[:real] = ids
    made.positions.numpy()[:] = np.arange(shape.tokens) - np.repeat(starts[:-1], whole)
    made.positions.numpy()[real:] = 0
    made.segments.numpy()[:] = np.repeat(np.arange(len(whole)), whole)
    made.lengths.numpy()[:] = np.maximum(whole, 1)
    made.starts.numpy()[:] = starts
    return made


class Resident:
    """Sequences that stay on a device. Batches are packed there, from the indices of their sequences.

    Each of `sequences` is token ids [L]; `filler` is the token that fills up a shape. Packing never synchronises with
    the host, so a CUDA graph can contain it.
    """

    def __init__(self, sequences: Sequence[NDArray[np.int64]], device: torch.device, *, filler: int = 0) -> None:
        self.lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
        self._filler = filler
        self._ids = torch.from_numpy(np.concatenate(sequences)).to(device)
        self._lengths = torch.from_numpy(self.lengths).to(device)
        self._offsets = torch.from_numpy(np.concatenate(([0], self.lengths.cumsum()[:-1]))).to(device)

    def pack(self, rows: torch.Tensor, shape: Shape) -> Packed:
        """Pack the sequences `rows`, int64 [S] on the device, into `shape`; -1 is an empty segment.

        All S segments count as pairs, because the host does not know how many are real. As in `pack`, the last segment
        holds the filler; it must be empty if there is any.
        """
        there = rows.clamp(min=0)
        lengths = self._lengths[there] * (rows >= 0)
        ends = lengths.cumsum(0)
        real = ends[-1:].clone()
        ends[-1:].fill_(shape.tokens)
        made = Packed(
            shape=shape,
            pairs=shape.segments,
            storage=torch.empty(shape.words, dtype=torch.int64, device=rows.device),
        )
        made.starts[:1].zero_()
        made.starts[1:].copy_(ends)
        place = torch.arange(shape.tokens, device=rows.device)
        # A token belongs to the first segment that ends after it. Empty segments end where they begin: they have none.
        segments = torch.searchsorted(ends, place, right=True)
        inner = place - torch.cat((ends.new_zeros(1), ends[:-1]))[segments]
        is_real = place < real
        source = (self._offsets[there][segments] + inner).clamp(max=len(self._ids) - 1)
        # `torch.where` would copy a scalar from the host, which synchronises.
        made.ids.copy_(self._ids[source].masked_fill_(~is_real, self._filler))
        made.positions.copy_(inner * is_real)
        made.segments.copy_(segments)
        lengths[-1:] += shape.tokens - real
        made.lengths.copy_(lengths.clamp(min=1))
        return made

    def shape(self, rows: NDArray[np.int64], windowless: int | None) -> Shape:
        """The shape of the sequences `rows` [B]: from `shape_for` with `windowless`, or their exact shape if None."""
        lengths = self.lengths[rows]
        if windowless is not None:
            return shape_for(lengths, windowless)
        return Shape(tokens=int(lengths.sum()), segments=len(rows), longest=int(lengths.max()))


def unpadded(ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens [T] and lengths [B], as `pack` takes them, of a right-padded batch [B, L]."""
    return ids[attention_mask.astype(bool)], attention_mask.sum(axis=1)


def shape_for(lengths: NDArray[np.int64], windowless: int) -> Shape:
    """The shape to which sequences of `lengths` [B] are filled up.

    A local window hides nothing up to `windowless` tokens, so shorter sequences share one limit. The step of about an
    eighth of the tokens keeps shapes few. With 128 tokens or more, the filler (half a step on average) is below a tenth
    of the work. The filler is one segment, so a step is never longer than a segment may be.
    """
    real, longest = int(lengths.sum()), int(lengths.max())
    longest = windowless if longest <= windowless else _power_above(longest)
    # The largest power of two within `longest`.
    within = 1 << (longest.bit_length() - 1)
    step = min(LARGEST_STEP, max(SMALLEST_STEP, _power_above(real) // 8), within)
    return Shape(tokens=(real // step + 1) * step, segments=_power_above(len(lengths)) + 1, longest=longest)


def _power_above(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()
