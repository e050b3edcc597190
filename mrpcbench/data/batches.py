"""Tokenises pairs and makes batches. Padding is per batch, and results return in the caller's order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrpcbench.errors import UsageError
from mrpcbench.schema.requests import Order

if TYPE_CHECKING:
    # Each takes seconds to import, and the worker processes of `ab` need neither.
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# Pairs in one forward pass, by device. On a CPU, ModernBERT-base classifies more pairs/s at 8 than at 32
# (docs/performance.md). On a GPU, larger batches are faster.
BATCH_SIZES = {"cpu": 8, "cuda": 32}
Texts = Mapping[str, Sequence[str]]  # sentence1 and sentence2 of some pairs


@dataclass(frozen=True)
class Batch:
    """Host arrays of one forward pass.

    `inputs` maps each input name of the model to int64 [B, L]. `rows`, int64 [B], are indices of the caller's pairs.
    `real_tokens` counts the tokens that are not padding.
    """

    inputs: Mapping[str, NDArray[np.int64]]
    rows: NDArray[np.int64]
    real_tokens: int

    @property
    def padding_tokens(self) -> int:
        """Tokens of the batch that are padding."""
        return self.inputs["input_ids"].size - self.real_tokens


@dataclass(frozen=True)
class EncodedPairs:
    """Tokenised pairs: `columns[name][i]` are the values of pair i, [L], and `padding[name]` is the padding value."""

    columns: Mapping[str, Sequence[NDArray[np.int64]]]
    padding: Mapping[str, int]

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each pair, including special tokens."""
        return [len(ids) for ids in self.columns["input_ids"]]

    def batches(self, size: int, *, order: Order = "length", multiple_of: int = 1) -> list[Batch]:
        """Batches of `size` pairs that cover every pair once. Each is padded as in `padded`.

        With order `length`, a batch has pairs of similar length. On MRPC's validation split, padding then adds 4% to
        the real tokens instead of 44%.
        """
        lengths = np.asarray(self.lengths)
        rows = np.argsort(lengths, kind="stable") if order == "length" else np.arange(len(lengths))
        return [self.batch_of(rows[start : start + size], multiple_of) for start in range(0, len(rows), size)]

    def drawn(self, size: int, at_most: int, seed: int) -> list[Batch]:
        """Up to `at_most` batches of `size` different pairs in a seeded order; none if there are fewer pairs."""
        order = np.random.default_rng(seed).permutation(len(self.lengths))
        count = min(at_most, len(order) // size)
        return [self.batch_of(rows) for rows in order[: count * size].reshape(count, size)]

    def of_length(self, length: int) -> "EncodedPairs":
        """The pairs repeated or cut to exactly `length` tokens: a fixed shape without padding, but meaningless text."""
        columns = {name: [np.resize(values, length) for values in column] for name, column in self.columns.items()}
        return EncodedPairs(columns=columns, padding=self.padding)

    def batch_of(self, rows: NDArray[np.int64], multiple_of: int = 1) -> Batch:
        """The pairs `rows` [B] as one batch."""
        pairs: list[int] = rows.tolist()
        columns = {name: [column[pair] for pair in pairs] for name, column in self.columns.items()}
        lengths = [len(ids) for ids in columns["input_ids"]]
        return Batch(inputs=padded(columns, self.padding, multiple_of), rows=rows, real_tokens=sum(lengths))


@dataclass(frozen=True)
class Reader:
    """Encodes pairs for a model, with its tokenizer and its limit of tokens per pair.

    `known` is, for some inputs, the number of values that the model knows: those from 0 to one less.
    """

    tokenizer: "PreTrainedTokenizerBase"
    longest_allowed: int
    known: Mapping[str, int] = field(default_factory=dict)

    def encode(self, pairs: "Dataset | Texts") -> EncodedPairs:
        """Tokenise `sentence1` and `sentence2` of every pair, without truncation.

        Raises `UsageError`, with the number of the first pair that has too many tokens, or one that the model does not
        know.
        """
        ones, twos = (list(pairs[name][:]) for name in ("sentence1", "sentence2"))  # [:] reads a whole column at once
        encoded = self.tokenizer(ones, twos, truncation=False, return_attention_mask=True, verbose=False)
        for row, ids in enumerate(encoded["input_ids"]):
            if len(ids) > self.longest_allowed:
                raise UsageError(
                    f"pair {row} has {len(ids)} tokens, but the model takes at most {self.longest_allowed}; "
                    "shorten it (--data, --pair)"
                )
        for name, count in self.known.items():
            for row, values in enumerate(encoded.get(name, ())):
                if max(values) >= count:
                    raise UsageError(
                        f"pair {row} has {max(values)} among its {name}, but the model knows {count} values, from 0; "
                        "use the tokenizer that the model was trained with (--model)"
                    )
        padding = padding_of(self.tokenizer)
        return EncodedPairs(
            columns={name: [np.array(values, dtype=np.int64) for values in encoded[name]] for name in encoded},
            padding={name: padding.get(name, 0) for name in encoded},
        )


def padding_of(tokenizer: "PreTrainedTokenizerBase") -> Mapping[str, int]:
    """The padding value of each input; inputs that are not listed are padded with 0."""
    return {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}


def padded(
    columns: Mapping[str, Sequence[Sequence[int] | NDArray[np.int64]]], padding: Mapping[str, int], multiple_of: int = 1
) -> dict[str, NDArray[np.int64]]:
    """Pad pairs on the right to the longest one: int64 [B, L] for each input.

    `columns[name][i]` are the values of pair i, and `padding` is from `padding_of`. L is rounded up to a multiple of
    `multiple_of`. Training, evaluation, export and benchmark all pad here.
    """
    width = -(-max(len(ids) for ids in columns["input_ids"]) // multiple_of) * multiple_of
    inputs = {}
    for name, column in columns.items():
        inputs[name] = np.full((len(column), width), padding.get(name, 0), dtype=np.int64)
        for line, values in zip(inputs[name], column, strict=True):
            line[: len(values)] = values
    return inputs


def in_order(outputs: Sequence[NDArray[np.float32]], batches: Sequence[Batch]) -> NDArray[np.float32]:
    """Join the logits [B, 2] of `batches` into one float32 [N, 2] in the order of the pairs."""
    rows = np.concatenate([batch.rows for batch in batches])
    stacked = np.concatenate(outputs)
    ordered = np.empty_like(stacked)
    ordered[rows] = stacked
    return ordered
