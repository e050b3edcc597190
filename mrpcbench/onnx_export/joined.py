"""Pairs of joined sentences, short and long ones in a batch: what the pairs of MRPC do not reach.

MRPC's longest validation pair has about 100 tokens, so its batches hardly pass ModernBERT's window of 128 tokens.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrpcbench.data.batches import Batch, EncodedPairs, Reader, Texts

if TYPE_CHECKING:
    from datasets import Dataset

# Each batch has a short pair and a long one, and the long ones are spaced geometrically over a range of tokens.
BATCH_SIZE, BATCHES = 2, 6
SHORT = 10
SHORTEST_LONG, LONGEST = 100, 1024
SEED = 0


def joined_lengths(longest_allowed: int) -> list[int]:
    """Tokens of each joined pair, short and long in turn; the model takes `longest_allowed`."""
    top = min(LONGEST, longest_allowed)
    longs = np.geomspace(min(SHORTEST_LONG, top), top, BATCHES).round().astype(int).tolist()
    return [length for long in longs for length in (min(SHORT, top), long)]


def joined_pairs(reader: Reader, pairs: "Dataset | Texts", tokens: EncodedPairs) -> EncodedPairs:
    """Joined sentences of `pairs` in a seeded order, of `joined_lengths` tokens; `tokens` are `pairs` encoded.

    A joined pair is cut in its middle, so that it keeps the special tokens at both ends.
    """
    lengths = joined_lengths(reader.longest_allowed)
    rows = cycle(np.random.default_rng(SEED).permutation(len(tokens.lengths)).tolist())
    special = reader.tokenizer.num_special_tokens_to_add(pair=True)
    ones, twos = list(pairs["sentence1"][:]), list(pairs["sentence2"][:])
    joined: dict[str, list[str]] = {"sentence1": [], "sentence2": []}
    for length in lengths:
        drawn: list[int] = []
        found = 0
        for row in islice(rows, length):  # a pair of empty sentences adds no token
            drawn.append(row)
            found += tokens.lengths[row] - special
            if found >= length:
                break
        joined["sentence1"].append(" ".join(ones[row] for row in drawn))
        joined["sentence2"].append(" ".join(twos[row] for row in drawn))
    long = replace(reader, longest_allowed=sys.maxsize).encode(joined)
    columns = {
        name: [_cut(values, length) for values, length in zip(column, lengths, strict=True)]
        for name, column in long.columns.items()
    }
    return EncodedPairs(columns=columns, padding=long.padding)


def _cut(values: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """`values` [L] without their middle, so that at most `length` are left."""
    if len(values) <= length:
        return values
    tail = length // 2
    return np.concatenate([values[: length - tail], values[len(values) - tail :]])


def with_other_padding(tokens: EncodedPairs, batches: Sequence[Batch]) -> list[Batch]:
    """`batches` of `tokens` with seeded tokens of the pairs in place of the padding tokens; their masks stay.

    A token that every pair has is not drawn: it may be a special one, and some models look for those.
    """
    pairs = tokens.columns["input_ids"]
    everywhere = reduce(np.intersect1d, pairs)
    found = np.unique(np.concatenate(pairs))
    drawn_from = np.setdiff1d(found, everywhere)
    if not len(drawn_from):
        drawn_from = found
    draw = np.random.default_rng(SEED)
    changed = []
    for batch in batches:
        ids = batch.inputs["input_ids"]
        other = np.where(batch.inputs["attention_mask"] == 0, draw.choice(drawn_from, ids.shape), ids)
        changed.append(replace(batch, inputs={**batch.inputs, "input_ids": other}))
    return changed
