"""The bundled pairs and checkpoint, and the scripts that made them."""

import importlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import transformers
from conftest import REPOSITORY
from datasets import DatasetDict

import mrpcbench
from mrpcbench.data import loading
from mrpcbench.quickstart import CHECKPOINT_DIR, CLASSIFIER_DIR, DATA_DIR
from mrpcbench.records import store

SCRIPTS = REPOSITORY / "docs" / "quickstart-model"
Tokenizer = transformers.PreTrainedTokenizerBase


@pytest.fixture(scope="module")
def splits() -> DatasetDict:
    return loading.load("quickstart")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return transformers.AutoTokenizer.from_pretrained(CHECKPOINT_DIR)


@pytest.fixture(scope="module")
def corpus() -> ModuleType:
    """The grammar, imported as `pretrain.py` does, from its own folder."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        module = importlib.import_module("corpus")
    finally:
        sys.path.remove(str(SCRIPTS))
    module.labelled_split = cache(module.labelled_split)  # type: ignore[attr-defined]  # it takes seconds
    return module


@pytest.fixture(scope="module")
def labelled(corpus: ModuleType) -> dict[str, list]:
    """The bundled pairs with the facts that they state."""
    return {
        name: corpus.labelled_split(name, count, corpus.QUICKSTART_SEED)
        for name, count in corpus.QUICKSTART_SIZES.items()
    }


# --- the pairs --------------------------------------------------------------------------------------------------------


def test_the_grammar_writes_the_bundled_files_byte_for_byte(tmp_path: Path, corpus: ModuleType) -> None:
    corpus.write_splits(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in DATA_DIR.iterdir()
    }


def test_the_splits_are_those_that_the_committed_records_name(splits: DatasetDict) -> None:
    compared = set()
    for path in sorted((REPOSITORY / "results" / "quickstart").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for named in record["data"]:
            pairs = splits[named["split"]]
            if record["command"] == "bench":  # it draws its pairs in an order of its own
                plan = record["bench"]["plan"]
                pairs = pairs.select(np.random.default_rng(plan["seed"]).permutation(len(pairs))[: plan["pairs"]])
            found = loading.identity(pairs, "quickstart", named["split"])
            assert (found.data_sha256, found.pairs) == (named["data_sha256"], named["pairs"]), path.name
            compared.add(f"{record['command']} {named['split']}")
    assert {"train train", "train validation", "evaluate validation", "bench validation"} <= compared


def test_the_splits_have_the_promised_sizes_and_two_thirds_are_equivalent(splits: DatasetDict) -> None:
    found = {name: (len(split), sum(split["label"])) for name, split in splits.items()}
    assert found == {"train": (3200, 2144), "validation": (400, 268), "test": (400, 268)}


def test_no_pair_occurs_twice_and_no_sentence_is_paired_with_itself(splits: DatasetDict) -> None:
    pairs = [
        frozenset(pair)
        for split in splits.values()
        for pair in zip(split["sentence1"], split["sentence2"], strict=True)
    ]
    assert len(set(pairs)) == len(pairs)
    assert all(len(pair) == 2 for pair in pairs)


def test_sentences_are_capitalised_and_end_with_a_full_stop(splits: DatasetDict) -> None:
    for sentence in (text for split in splits.values() for side in ("sentence1", "sentence2") for text in split[side]):
        assert sentence[0].upper() == sentence[0], sentence
        assert sentence.endswith(".") and " ," not in sentence and "  " not in sentence, sentence


def test_no_threshold_on_word_overlap_beats_the_majority_by_much(splits: DatasetDict, corpus: ModuleType) -> None:
    train = splits["train"]
    columns = zip(train["sentence1"], train["sentence2"], strict=True)
    overlaps = np.array([corpus.word_overlap(*pair) for pair in columns])
    labels = np.array(train["label"]) == 1
    agreeing = [float(((overlaps >= step / 50) == labels).mean()) for step in range(52)]
    assert max(*agreeing, *(1 - share for share in agreeing)) < 0.70


def test_many_pairs_are_longer_than_the_local_attention_window(splits: DatasetDict, tokenizer: Tokenizer) -> None:
    window = transformers.AutoConfig.from_pretrained(CHECKPOINT_DIR).local_attention
    for split in splits.values():
        encoded = tokenizer(list(split["sentence1"]), list(split["sentence2"]))["input_ids"]
        assert sum(len(ids) > window + 1 for ids in encoded) / len(split) > 0.3


# --- the grammar ------------------------------------------------------------------------------------------------------


def test_no_fact_is_shared_between_splits_or_with_pretraining_and_labels_follow_from_the_facts(
    corpus: ModuleType, labelled: dict[str, list]
) -> None:
    groups = dict(labelled)
    groups["pretraining"] = list(corpus.pretraining_pairs(1000, seed=0))
    groups["heldout"] = list(corpus.pretraining_pairs(300, seed=0, partition="heldout"))
    for name, items in groups.items():
        for item in items:
            assert {corpus.partition_of(fact) for fact in (item.fact1, item.fact2)} == {name}
            assert (item.fact1 == item.fact2) == (item.pair.label == 1) == (not item.kinds)
            assert (sum(item.mismatch1) + sum(item.mismatch2) == 0) == (item.pair.label == 1)
    buckets = [bucket for partition in corpus.PARTITIONS.values() for bucket in partition]
    assert sorted(buckets) == list(range(20)), "partitions overlap, or leave a bucket out"


def test_every_kind_of_negative_occurs_with_high_word_overlap(corpus: ModuleType, labelled: dict[str, list]) -> None:
    for kind in corpus.KINDS:
        pairs = [(item.pair.sentence1, item.pair.sentence2) for item in labelled["train"] if item.kinds == (kind,)]
        overlaps = [corpus.word_overlap(*pair) for pair in pairs]
        assert len(overlaps) >= 40 and sum(overlaps) / len(overlaps) > 0.45 and max(overlaps) > 0.65, kind


# --- the checkpoint ---------------------------------------------------------------------------------------------------


def test_the_tokenizer_has_the_special_tokens_and_the_template_of_modernbert(tokenizer: Tokenizer) -> None:
    tokens = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "mask", "unk")}
    assert tokenizer.special_tokens_map == tokens
    assert tokenizer.bos_token is None and tokenizer.eos_token is None
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("A nurse.", "A pilot."))
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    encoded = tokenizer("A nurse.", "A pilot.")
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert encoded["input_ids"] == [cls, *first, sep, *second, sep]


def test_any_text_survives_a_round_trip_without_unknown_tokens(tokenizer: Tokenizer) -> None:
    for text in ("Ærlig talt, 10 € naïve café?", "日本語のテキスト", "emoji 🙂\tand\nlines"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text


def test_the_configuration_matches_modernbert_base(tokenizer: Tokenizer) -> None:
    config = transformers.AutoConfig.from_pretrained(CHECKPOINT_DIR)
    assert config.architectures == ["ModernBertModel"]
    assert config.vocab_size == len(tokenizer) <= 768
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


def test_the_bundled_files_are_small_and_complete() -> None:
    expected = "README.md config.json model.safetensors special_tokens_map.json tokenizer.json tokenizer_config.json"
    assert {path.name for path in CHECKPOINT_DIR.iterdir()} == set(expected.split())
    assert {path.name for path in DATA_DIR.iterdir()} == {"train.csv", "validation.csv", "test.csv"}
    assert {path.name for path in CLASSIFIER_DIR.iterdir()} == {*expected.split(), "mrpcbench.json"}
    files = [*CHECKPOINT_DIR.iterdir(), *CLASSIFIER_DIR.iterdir(), *DATA_DIR.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 7_000_000


def test_the_bundled_classifier_is_that_of_the_committed_run_and_has_its_score() -> None:
    results = REPOSITORY / "results" / "quickstart"
    trained, evaluated = store.load(results / "train.json"), store.load(results / "evaluate.json")
    record = mrpcbench.evaluate(model="quickstart", data="quickstart", device="cpu")
    assert record.model.model_sha256 == trained.model.model_sha256
    assert record.evaluate.score.accuracy == evaluated.evaluate.score.accuracy


def test_a_new_head_learns_quickly_on_the_bundled_encoder(splits: DatasetDict, tokenizer: Tokenizer) -> None:
    """A closed-form linear probe on the mean-pooled states of frozen layers is far above the majority rate."""
    encoder = transformers.AutoModel.from_pretrained(CHECKPOINT_DIR).eval()

    def features(rows: dict[str, list[str]]) -> torch.Tensor:
        inputs = tokenizer(list(rows["sentence1"]), list(rows["sentence2"]), padding=True, return_tensors="pt")
        mask = inputs["attention_mask"]
        parts = zip(inputs["input_ids"].split(50), mask.split(50), strict=True)  # all at once would not fit the caches
        with torch.no_grad():
            states = torch.cat([encoder(input_ids=ids, attention_mask=seen).last_hidden_state for ids, seen in parts])
        pooled = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return torch.cat([pooled, torch.ones(len(pooled), 1)], dim=1).double()

    train, validation = splits["train"][:1000], splits["validation"][:]
    inputs, targets = features(train), 2 * torch.tensor(train["label"]).double() - 1
    ridge = 1e-2 * torch.eye(inputs.shape[1]).double()
    weights = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets)
    predictions = (features(validation) @ weights > 0).long()
    assert (predictions == torch.tensor(validation["label"])).double().mean().item() > 0.85


# --- the pretraining script -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_pretraining_script_runs_and_its_defaults_are_those_of_the_committed_log(tmp_path: Path) -> None:
    options = ["--steps", "2", "--batch-size", "4", "--log-every", "1", "--evaluation-pairs", "8", "--threads", "1"]
    command = [sys.executable, str(SCRIPTS / "pretrain.py"), "--output-dir", str(tmp_path), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert transformers.AutoModel.from_pretrained(tmp_path).config.local_attention == 32
    log = (tmp_path / "pretrain.log").read_text(encoding="utf-8")
    assert "step     2" in log and "held-out" in log and str(tmp_path) not in log
    changed = {"steps": 2, "batch_size": 4, "log_every": 1, "evaluation_pairs": 8, "threads": 1}
    defaults, ran = (
        json.loads(text.splitlines()[0].removeprefix("settings "))
        for text in ((SCRIPTS / "pretrain.log").read_text(encoding="utf-8"), log)
    )
    assert {**defaults, **changed} == ran
    assert (tmp_path / "tokenizer.json").read_bytes() == (CHECKPOINT_DIR / "tokenizer.json").read_bytes()
