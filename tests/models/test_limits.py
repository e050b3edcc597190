"""The longest pair is the smallest of what tokenizer, configuration and the model's own tables allow."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from foreign import set_config
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    MPNetConfig,
    PreTrainedTokenizerBase,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)

from mrpcbench.commands.evaluate import classify
from mrpcbench.errors import UsageError
from mrpcbench.models.limits import reader_of
from mrpcbench.models.sources import ModelSource
from mrpcbench.quickstart import CLASSIFIER_DIR
from mrpcbench.schema.requests import BackendSpec

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 700,
}
HUGE = int(1e30)  # what transformers writes for a tokenizer without a limit
BART = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 32, "encoder_attention_heads": 2, "vocab_size": 700}
T5 = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_kv": 16, "d_ff": 64, "vocab_size": 700}


def tokenizer_of(longest: float) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(CLASSIFIER_DIR)
    tokenizer.model_max_length = longest
    return tokenizer


@pytest.mark.parametrize(
    ("config", "tokenizer", "longest"),
    [
        (BertConfig(**SMALL, max_position_embeddings=512), HUGE, 512),
        (BertConfig(**SMALL, max_position_embeddings=512), 128, 128),
        (BertConfig(**SMALL, max_position_embeddings=512), -1, 512),
        (RobertaConfig(**SMALL, max_position_embeddings=514, pad_token_id=1), HUGE, 512),
        (RobertaConfig(**SMALL, max_position_embeddings=514, pad_token_id=1), 514, 512),
        (MPNetConfig(**SMALL, max_position_embeddings=514), HUGE, 512),
        (BartConfig(**BART, max_position_embeddings=64), HUGE, 64),
        (XLNetConfig(vocab_size=700, d_model=32, n_layer=1, n_head=2, d_inner=64), 100, 100),
        (T5Config(**T5), 100, 100),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "model_type") else str(value),
)
def test_the_longest_pair_is_the_smallest_limit(config: Any, tokenizer: float, longest: int) -> None:
    assert reader_of(tokenizer_of(tokenizer), config, "m").longest_allowed == longest


@pytest.mark.parametrize("tokenizer", [HUGE, float("inf"), -1, 0, None])
@pytest.mark.parametrize("positions", [-1, 0, None, HUGE])
def test_a_model_of_relative_positions_without_a_limit_takes_any_length(positions: Any, tokenizer: Any) -> None:
    config = T5Config(**T5, max_position_embeddings=positions)
    assert reader_of(tokenizer_of(tokenizer), config, "m").longest_allowed > 1_000_000


def saved(folder: Path, config: Any, **settings: Any) -> Path:
    """A model of random weights with the bundled tokenizer, whose settings are changed."""
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "special_tokens_map.json", "tokenizer_config.json"):
        shutil.copy(CLASSIFIER_DIR / name, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return folder


def answer(folder: Path, text: str) -> int:
    return classify(BackendSpec(model=str(folder), device="cpu"), text, "the").label


def test_roberta_takes_512_tokens_and_refuses_one_more_by_its_length(tmp_path: Path) -> None:
    config = RobertaConfig(**SMALL, max_position_embeddings=514, pad_token_id=1, type_vocab_size=1)
    folder = saved(tmp_path / "m", config, model_max_length=HUGE)
    one, two = (len(ModelSource("m", folder).tokenizer(text, "the")["input_ids"]) for text in ("the", "the the"))
    words = ["the"] * (1 + (512 - one) // (two - one))
    answer(folder, " ".join(words))
    with pytest.raises(UsageError, match="pair 0 has 513 tokens, but the model takes at most 512"):
        answer(folder, " ".join([*words, "the"]))


def test_a_padding_token_that_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", BertConfig(**{**SMALL, "vocab_size": 1, "pad_token_id": 0}))
    with pytest.raises(UsageError, match=r"padding token is number .*, but the model knows 1 tokens"):
        answer(folder, "the")


def test_the_tables_say_how_many_tokens_and_token_types_the_model_knows() -> None:
    roberta = RobertaConfig(**SMALL, max_position_embeddings=514, pad_token_id=1, type_vocab_size=1)
    assert reader_of(tokenizer_of(512), roberta, "m").known == {"input_ids": 700, "token_type_ids": 1}
    assert reader_of(tokenizer_of(512), T5Config(**T5), "m").known == {"input_ids": 700}


def test_a_configuration_that_no_model_can_be_built_of_is_refused_by_the_engine(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", BertConfig(**SMALL))
    set_config(folder, hidden_size=33)
    with pytest.raises(UsageError, match="cannot load its weights"):
        answer(folder, "the")
