"""Batches: every pair once, padded as little as possible, and back in the caller's order."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mrpcbench.data import loading
from mrpcbench.data.batches import EncodedPairs, Reader, in_order
from mrpcbench.errors import UsageError
from mrpcbench.schema.requests import Order

PAD = 3


def small_tokenizer(model_max_length: int = 8, *, segments: bool = False) -> PreTrainedTokenizerFast:
    """Words w0 to w99, `[CLS] a [SEP] b [SEP]`, and a padding token that is not 0."""
    words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *(f"w{index}" for index in range(100))]
    inner = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        model_max_length=model_max_length,
        model_input_names=["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"],
    )


def pairs_of(*words: int) -> Dataset:
    """Pairs whose sentences together have as many words as the numbers say, the first word naming the pair."""
    return Dataset.from_dict(
        {
            "sentence1": [f"w{row}" for row in range(len(words))],
            "sentence2": [" ".join(["w50"] * (count - 1)) for count in words],
        }
    )


def encoded(*words: int, longest_allowed: int = 100) -> EncodedPairs:
    return Reader(small_tokenizer(), longest_allowed).encode(pairs_of(*words))


WORDS = (9, 2, 5, 2, 12, 7, 3)  # three special tokens more are 12, 5, 8, 5, 15, 10, 6


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_pair_is_tokenised_as_one_sequence_and_never_truncated() -> None:
    tokens = encoded(*WORDS)
    assert tokens.lengths == [12, 5, 8, 5, 15, 10, 6]
    assert list(tokens.columns["input_ids"][1]) == [1, 4 + 1, 2, 4 + 50, 2]
    assert set(tokens.columns) == {"input_ids", "attention_mask"}


def test_the_error_names_the_pair_that_is_too_long() -> None:
    with pytest.raises(UsageError) as caught:
        encoded(*WORDS, longest_allowed=11)
    assert str(caught.value) == "pair 0 has 12 tokens, but the model takes at most 11; shorten it (--data, --pair)"
    with pytest.raises(UsageError, match=r"^pair 4 has 15 tokens, but the model takes at most 14; "):
        encoded(*WORDS, longest_allowed=14)
    assert len(encoded(*WORDS, longest_allowed=15).lengths) == len(WORDS)


def test_the_second_sentence_keeps_its_token_type() -> None:
    tokens = Reader(small_tokenizer(segments=True), 100).encode(pairs_of(3, 2))
    (batch,) = tokens.batches(2, order="given")
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]]


def test_a_token_or_a_token_type_that_the_model_does_not_know_is_refused_by_its_pair() -> None:
    tokenizer = small_tokenizer(segments=True)
    assert Reader(tokenizer, 100, {"input_ids": 55, "token_type_ids": 2}).encode(pairs_of(3, 2)).lengths == [6, 5]
    with pytest.raises(
        UsageError, match=r"^pair 0 has 54 among its input_ids, but the model knows 54 values, from 0; "
    ):
        Reader(tokenizer, 100, {"input_ids": 54}).encode(pairs_of(3, 2))
    with pytest.raises(UsageError, match=r"^pair 0 has 1 among its token_type_ids, but the model knows 1 values"):
        Reader(tokenizer, 100, {"token_type_ids": 1}).encode(pairs_of(3, 2))


# --- batches ----------------------------------------------------------------------------------------------------------


def test_every_pair_is_in_one_batch_with_all_its_tokens() -> None:
    tokens = encoded(*WORDS)
    orders: tuple[Order, ...] = ("length", "given")
    for order, size, multiple_of in product(orders, (1, 2, 3, 7, 100), (1, 8)):
        batches = tokens.batches(size, order=order, multiple_of=multiple_of)
        assert sorted(np.concatenate([batch.rows for batch in batches]).tolist()) == list(range(len(WORDS)))
        assert [len(batch.rows) for batch in batches[:-1]] == [size] * (len(batches) - 1)
        for batch in batches:
            assert {array.dtype for array in batch.inputs.values()} == {np.dtype(np.int64)}
            for line, row in enumerate(batch.rows):
                length = tokens.lengths[row]
                ids, mask = batch.inputs["input_ids"][line], batch.inputs["attention_mask"][line]
                assert ids[:length].tolist() == list(tokens.columns["input_ids"][row])
                assert set(ids[length:].tolist()) <= {PAD}
                assert mask.tolist() == [1] * length + [0] * (len(mask) - length)


def test_pairs_of_similar_length_share_a_batch_unless_the_given_order_is_requested() -> None:
    sorted_batches, given = (encoded(*WORDS).batches(3, order=order) for order in ("length", "given"))
    assert [batch.rows.tolist() for batch in sorted_batches] == [[1, 3, 6], [2, 5, 0], [4]]
    assert [batch.rows.tolist() for batch in given] == [[0, 1, 2], [3, 4, 5], [6]]
    many = WORDS * 10
    (batch,) = encoded(*many).batches(100)
    assert batch.rows.tolist() == sorted(range(70), key=lambda row: (many[row], row)), "ties keep their order"


def test_a_batch_is_as_wide_as_its_longest_pair_rounded_up_to_the_multiple() -> None:
    for multiple_of, widths in ((1, [6, 12, 15]), (8, [8, 16, 16]), (5, [10, 15, 15]), (3, [6, 12, 15])):
        batches = encoded(*WORDS).batches(3, multiple_of=multiple_of)
        shapes = [{array.shape for array in batch.inputs.values()} for batch in batches]
        assert shapes == [{(len(batch.rows), width)} for batch, width in zip(batches, widths, strict=True)]


def test_real_and_padding_tokens_are_counted() -> None:
    for multiple_of, widths in ((1, (6, 12, 15)), (8, (8, 16, 16))):
        batches = encoded(*WORDS).batches(3, multiple_of=multiple_of)
        assert [batch.real_tokens for batch in batches] == [16, 30, 15]
        assert [batch.padding_tokens for batch in batches] == [3 * widths[0] - 16, 3 * widths[1] - 30, widths[2] - 15]


def test_results_return_in_the_callers_order() -> None:
    orders: tuple[Order, ...] = ("length", "given")
    for order, size in product(orders, (1, 3, 7)):
        batches = encoded(*WORDS).batches(size, order=order)
        # Each pair answers with the name that its first word gives it, and with its own length.
        columns = [
            (batch.inputs["input_ids"][:, 1] - 4, batch.inputs["attention_mask"].sum(axis=1)) for batch in batches
        ]
        found = in_order([np.stack(column, axis=1).astype(np.float32) for column in columns], batches)
        assert found.dtype == np.float32
        assert found.tolist() == [[row, length] for row, length in enumerate([12, 5, 8, 5, 15, 10, 6])]


# --- the real corpus --------------------------------------------------------------------------------------------------


def test_sorted_batches_of_mrpc_have_little_padding(mrpc_dir: Path, modernbert_dir: Path) -> None:
    """As evaluate, bench's offline scenario and the reference of the export gate cut them."""
    tokenizer = AutoTokenizer.from_pretrained(modernbert_dir, local_files_only=True)
    for split, pairs in loading.load(str(mrpc_dir)).items():
        tokens = Reader(tokenizer, 8192).encode(pairs)
        processed = {
            order: sum(batch.inputs["input_ids"].size for batch in tokens.batches(32, order=order))
            for order in ("length", "given")
        }
        assert processed["length"] <= 1.05 * sum(tokens.lengths), split
        assert processed["given"] > 1.3 * sum(tokens.lengths), split
