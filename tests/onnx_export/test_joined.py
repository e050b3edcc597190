"""Pairs of joined sentences: their lengths, what they are made of, and other tokens as their padding."""

import numpy as np
import pytest

from mrpcbench.data import loading
from mrpcbench.data.batches import EncodedPairs, Reader, Texts
from mrpcbench.models.sources import ModelSource
from mrpcbench.onnx_export.joined import BATCH_SIZE, joined_lengths, joined_pairs, with_other_padding
from mrpcbench.quickstart import CLASSIFIER_DIR

READER = ModelSource("quickstart", CLASSIFIER_DIR).reader
SPECIAL = READER.tokenizer.all_special_ids


@pytest.fixture(scope="module")
def texts() -> Texts:
    pairs = loading.load("quickstart")["validation"][:40]
    return {name: pairs[name] for name in ("sentence1", "sentence2")}


def joined_of(texts: Texts, reader: Reader = READER) -> EncodedPairs:
    return joined_pairs(reader, texts, reader.encode(texts))


def test_each_batch_has_10_tokens_beside_100_to_1024_or_what_the_model_takes(texts: Texts) -> None:
    assert joined_lengths(8192) == [10, 100, 10, 159, 10, 254, 10, 404, 10, 643, 10, 1024]
    assert joined_lengths(512)[1::2] == [100, 139, 192, 266, 369, 512]
    assert joined_of(texts).lengths == joined_lengths(512)
    assert set(joined_lengths(64)) == {10, 64}
    assert set(joined_lengths(6)) == {6}


def test_joined_pairs_are_the_same_each_time_and_differ_from_each_other(texts: Texts) -> None:
    once, again = (joined_of(texts).columns["input_ids"] for _ in range(2))
    assert all(map(np.array_equal, once, again))
    assert len({tuple(ids[:10]) for ids in once}) == len(once)


def test_joined_pairs_are_sentences_of_the_split(texts: Texts) -> None:
    words = set(" ".join([*texts["sentence1"], *texts["sentence2"]]).split())
    (ids,) = joined_of(texts).columns["input_ids"][-1:]
    found = READER.tokenizer.decode(ids, skip_special_tokens=True).split()
    assert len(found) > 150
    assert len(set(found) - words) <= 4  # what the cut and the border of the sentences leave


def test_a_joined_pair_begins_and_ends_with_the_special_tokens(texts: Texts) -> None:
    for ids in joined_of(texts).columns["input_ids"]:
        assert (ids[0], ids[-1]) == (READER.tokenizer.cls_token_id, READER.tokenizer.sep_token_id)


@pytest.mark.parametrize("sentence", ["", "A cat sat."])
def test_a_split_of_one_pair_can_be_joined_though_it_is_empty(sentence: str) -> None:
    joined = joined_of({"sentence1": [sentence], "sentence2": [sentence]})
    if sentence:
        assert joined.lengths == joined_lengths(512)
    batches = joined.batches(BATCH_SIZE, order="given")
    assert len(with_other_padding(joined, batches)) == len(batches)


def test_other_padding_changes_every_padding_token_and_nothing_else(texts: Texts) -> None:
    joined = joined_of(texts)
    batches = joined.batches(BATCH_SIZE, order="given")
    for batch, changed in zip(batches, with_other_padding(joined, batches), strict=True):
        real = batch.inputs["attention_mask"] == 1
        before, after = batch.inputs["input_ids"], changed.inputs["input_ids"]
        assert np.array_equal(changed.inputs["attention_mask"], batch.inputs["attention_mask"])
        assert np.array_equal(after[real], before[real])
        assert batch.padding_tokens > 80
        assert not np.isin(after[~real], SPECIAL).any()
        assert len(np.unique(after[~real])) > 20
