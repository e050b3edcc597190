"""The built-in corpus and the shipped tiny checkpoint."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mrpcbench.tiny import CHECKPOINT_DIR, corpus

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pretrain = pytest.importorskip("mrpcbench.tiny.pretrain")

#: SHA-256 of the three splits as JSON; changes if and only if the built-in data set changes.
SPLITS_SHA256 = "02cc7da895b9d576a6988cc1b939e8101d5de076387839493325f2e9d451df13"


@pytest.fixture(scope="module")
def labelled() -> dict[str, list[corpus.LabelledPair]]:
    return {
        name: corpus.labelled_split(name, count, corpus.QUICKSTART_SEED)
        for name, count in corpus.QUICKSTART_SIZES.items()
    }


@pytest.fixture(scope="module")
def splits(labelled: dict[str, list[corpus.LabelledPair]]) -> dict[str, list[corpus.Pair]]:
    return {name: [item.pair for item in items] for name, items in labelled.items()}


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(CHECKPOINT_DIR)


def facts_of(items: list[corpus.LabelledPair]) -> set[corpus.Fact]:
    return {fact for item in items for fact in (item.fact1, item.fact2)}


def digest(splits: dict[str, list[corpus.Pair]]) -> str:
    rows = {name: [[p.sentence1, p.sentence2, p.label] for p in pairs] for name, pairs in splits.items()}
    return hashlib.sha256(json.dumps(rows).encode("utf-8")).hexdigest()


def test_the_splits_have_the_promised_sizes(splits: dict[str, list[corpus.Pair]]) -> None:
    assert {name: len(pairs) for name, pairs in splits.items()} == {"train": 3200, "validation": 400, "test": 400}


def test_two_thirds_of_every_split_are_equivalent(splits: dict[str, list[corpus.Pair]]) -> None:
    for pairs in splits.values():
        assert sum(pair.label for pair in pairs) / len(pairs) == pytest.approx(0.67)
        assert {pair.label for pair in pairs} == {0, 1}


def test_the_splits_are_always_the_same(splits: dict[str, list[corpus.Pair]]) -> None:
    assert digest(splits) == SPLITS_SHA256


def test_the_quickstart_function_returns_the_labelled_splits_without_their_facts(
    splits: dict[str, list[corpus.Pair]],
) -> None:
    assert corpus.quickstart_splits() == splits


def test_pretraining_pairs_depend_on_the_seed_alone() -> None:
    first, again, other = (list(corpus.pretraining_pairs(50, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_no_pair_occurs_twice_and_no_sentence_is_paired_with_itself(splits: dict[str, list[corpus.Pair]]) -> None:
    texts = [frozenset((pair.sentence1, pair.sentence2)) for pairs in splits.values() for pair in pairs]
    assert len(set(texts)) == len(texts)
    assert all(len(text) == 2 for text in texts)


def test_no_fact_is_shared_between_splits_or_with_pretraining(
    labelled: dict[str, list[corpus.LabelledPair]],
) -> None:
    groups = {name: facts_of(items) for name, items in labelled.items()}
    groups["pretraining"] = facts_of(list(corpus.pretraining_pairs(3000, seed=0)))
    groups["heldout"] = facts_of(list(corpus.pretraining_pairs(300, seed=0, partition="heldout")))
    for name, facts in groups.items():
        assert {corpus.partition_of(fact) for fact in facts} == {name}
        assert all(facts.isdisjoint(others) for other, others in groups.items() if other != name)


def test_the_partitions_share_out_all_buckets() -> None:
    buckets = [bucket for partition in corpus.PARTITIONS.values() for bucket in partition]
    assert sorted(buckets) == list(range(20))


def test_labels_follow_from_the_facts(labelled: dict[str, list[corpus.LabelledPair]]) -> None:
    for items in labelled.values():
        for item in items:
            assert (item.fact1 == item.fact2) == (item.pair.label == corpus.EQUIVALENT)
            assert bool(item.kinds) == (item.pair.label == corpus.NOT_EQUIVALENT)


def test_words_are_marked_as_mismatching_in_negatives_only() -> None:
    for item in corpus.pretraining_pairs(500, seed=3):
        marked = sum(item.mismatch1) + sum(item.mismatch2)
        assert (marked > 0) == (item.pair.label == corpus.NOT_EQUIVALENT)
        assert len(item.words1) == len(item.mismatch1) and len(item.words2) == len(item.mismatch2)
        assert corpus.text_of(item.words1) == item.pair.sentence1


def test_every_kind_of_negative_occurs_with_high_word_overlap(
    labelled: dict[str, list[corpus.LabelledPair]],
) -> None:
    for kind in corpus.KINDS:
        overlaps = [
            corpus.word_overlap(item.pair.sentence1, item.pair.sentence2)
            for item in labelled["train"]
            if item.kinds == (kind,)
        ]
        assert len(overlaps) >= 40
        assert sum(overlaps) / len(overlaps) > 0.45
        assert max(overlaps) > 0.65


def test_no_threshold_on_word_overlap_beats_the_majority_by_much(splits: dict[str, list[corpus.Pair]]) -> None:
    scored = [(corpus.word_overlap(p.sentence1, p.sentence2), p.label) for p in splits["train"]]
    best = 0.0
    for threshold in (step / 50 for step in range(52)):
        agreeing = sum((overlap >= threshold) == (label == 1) for overlap, label in scored) / len(scored)
        best = max(best, agreeing, 1 - agreeing)
    assert best < 0.70


def test_sentences_are_capitalised_and_end_with_a_full_stop(splits: dict[str, list[corpus.Pair]]) -> None:
    for pairs in splits.values():
        for sentence in (text for pair in pairs for text in (pair.sentence1, pair.sentence2)):
            assert sentence[0].upper() == sentence[0]
            assert sentence.endswith(".") and " ," not in sentence and "  " not in sentence


def test_the_tokenizer_has_modernberts_special_tokens_and_template(
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> None:
    assert tokenizer.special_tokens_map == {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
        "unk_token": "[UNK]",
    }
    assert tokenizer.bos_token is None and tokenizer.eos_token is None
    encoded = tokenizer("A nurse.", "A pilot.")
    assert set(encoded) == {"input_ids", "attention_mask"}
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("A nurse.", "A pilot."))
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert encoded["input_ids"] == [cls, *first, sep, *second, sep]
    assert len(tokenizer) <= 768


def test_any_text_survives_a_round_trip_without_unknown_tokens(
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> None:
    for text in ("Ærlig talt, 10 € naïve café?", "日本語のテキスト", "emoji 🙂\tand\nlines"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_the_configuration_mirrors_the_real_models(tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    config = transformers.AutoConfig.from_pretrained(CHECKPOINT_DIR)
    assert config.architectures == ["ModernBertModel"]
    assert config.vocab_size == len(tokenizer)
    assert config.bos_token_id == config.cls_token_id == tokenizer.cls_token_id
    assert config.eos_token_id == config.sep_token_id == tokenizer.sep_token_id
    assert config.pad_token_id == tokenizer.pad_token_id
    assert config.classifier_pooling == "mean"
    assert config.global_attn_every_n_layers == 3 and config.local_attention == 32


def test_only_the_head_is_new_in_a_classifier_made_from_the_checkpoint() -> None:
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        CHECKPOINT_DIR, num_labels=2, output_loading_info=True
    )
    assert {key.split(".")[0] for key in report["missing_keys"]} == {"head", "classifier"}
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_the_checkpoint_is_small_and_complete() -> None:
    names = {path.name for path in CHECKPOINT_DIR.iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in CHECKPOINT_DIR.iterdir()) <= 4_000_000
    assert (CHECKPOINT_DIR.parent / "pretrain.log").stat().st_size > 0


def test_the_log_is_that_of_a_run_with_the_scripts_defaults() -> None:
    lines = (CHECKPOINT_DIR.parent / "pretrain.log").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0].removeprefix("settings ")) == dataclasses.asdict(pretrain.Settings())
    assert any(line.startswith(f"held-out  step {pretrain.Settings().steps:5d}") for line in lines)


def test_looked_up_words_give_the_same_tokens_as_the_whole_sentence(
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> None:
    encoder = pretrain.WordEncoder(tokenizer)
    for item in corpus.pretraining_pairs(200, seed=4):
        expected = tokenizer(item.pair.sentence1, item.pair.sentence2)["input_ids"]
        assert [row.token for row in encoder.pair(item)] == expected


def test_the_throw_away_pair_head_has_the_shape_of_modernberts_own() -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(CHECKPOINT_DIR, num_labels=2)
    own = [tuple(value.shape) for key, value in model.state_dict().items() if key.startswith(("head", "classifier"))]
    head = pretrain.PairHead(model.config)
    assert sorted(own) == sorted(tuple(value.shape) for value in head.state_dict().values())


def test_many_pairs_are_longer_than_the_local_attention_window(
    splits: dict[str, list[corpus.Pair]], tokenizer: transformers.PreTrainedTokenizerBase
) -> None:
    config = transformers.AutoConfig.from_pretrained(CHECKPOINT_DIR)
    for pairs in splits.values():
        encoded = tokenizer([pair.sentence1 for pair in pairs], [pair.sentence2 for pair in pairs])["input_ids"]
        longer = sum(len(ids) > config.local_attention + 1 for ids in encoded)
        assert longer / len(pairs) > 0.3


def test_the_encoder_carries_what_a_fresh_head_needs(
    splits: dict[str, list[corpus.Pair]], tokenizer: transformers.PreTrainedTokenizerBase
) -> None:
    """A closed-form linear probe on the mean-pooled states of frozen layers is far above the majority rate."""
    encoder = transformers.AutoModel.from_pretrained(CHECKPOINT_DIR).eval()

    def features(pairs: list[corpus.Pair]) -> torch.Tensor:
        inputs = tokenizer(
            [pair.sentence1 for pair in pairs],
            [pair.sentence2 for pair in pairs],
            padding=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            states = encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        pooled = (states * mask).sum(1) / mask.sum(1)
        return torch.cat([pooled, torch.ones(len(pairs), 1)], dim=1).double()

    train, validation = splits["train"][:1000], splits["validation"]
    inputs, targets = features(train), torch.tensor([2.0 * pair.label - 1.0 for pair in train]).double()
    ridge = 1e-2 * torch.eye(inputs.shape[1]).double()
    weights = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets)
    predictions = (features(validation) @ weights > 0).long()
    accuracy = (predictions == torch.tensor([pair.label for pair in validation])).double().mean().item()
    assert accuracy > 0.85


def test_the_pretraining_script_runs_end_to_end(tmp_path: Path) -> None:
    options = ["--steps", "2", "--batch-size", "4", "--log-every", "1", "--evaluation-pairs", "8", "--threads", "1"]
    command = [sys.executable, "-m", "mrpcbench.tiny.pretrain", "--output-dir", str(tmp_path), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "model.safetensors").is_file()
    log = (tmp_path / "pretrain.log").read_text(encoding="utf-8")
    assert "step     2" in log and "held-out" in log and str(tmp_path) not in log
    assert transformers.AutoModel.from_pretrained(tmp_path).config.local_attention == 32
