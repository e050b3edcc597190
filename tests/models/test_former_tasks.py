"""Settings of a checkpoint's former task do not reach this one: they are reset, with a line, or refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Listener
from foreign import set_config
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, LlamaConfig
from transformers import LlamaForSequenceClassification as Llama

from mrpcbench.commands.evaluate import evaluate
from mrpcbench.commands.train import train
from mrpcbench.errors import UsageError
from mrpcbench.models.classifier import LoadedModel, load_classifier
from mrpcbench.models.sources import ModelSource
from mrpcbench.quickstart import CLASSIFIER_DIR
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan, TrainRecipe, TrainRequest

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 700,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CLASSIFIER_DIR, tmp_path / "m"))


def with_tokenizer(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(CLASSIFIER_DIR / name, folder)
    return folder


def load(folder: Path, *, new_head: bool = False) -> tuple[LoadedModel, list[str]]:
    source = ModelSource("m", folder)
    return load_classifier(source, new_head=new_head, label_names=("no", "yes") if new_head else None), source.notes


def loss_of(folder: Path, data: Path, listener: Listener) -> float:
    record = evaluate(BackendSpec(model=str(folder), device="cpu"), EvaluatePlan(data=str(data)), None, listener)
    return record.evaluate.score.loss


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
def test_a_problem_type_of_another_task_is_reset_with_a_message(
    kind: str, model: Path, training_data: Path, tmp_path: Path
) -> None:
    """Otherwise training takes the loss of another task, or ends with an internal error."""
    recipe, losses = TrainRecipe(max_steps=1, engine="trainer", precision="fp32"), []
    for name, problem_type in (("a", None), ("b", kind)):
        set_config(model, problem_type=problem_type)
        listener = Listener()
        request = TrainRequest(model=str(model), data=str(training_data), output_dir=str(tmp_path / name), device="cpu")
        losses.append(train(request, recipe, tmp_path / "r.json", listener).model.model_sha256)
        line = f"{model}: problem_type {kind}, from another task, is reset to single_label_classification"
        assert (line in listener.lines) == (problem_type is not None)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("setting", ["return_dict", "torchscript", "output_attentions", "output_hidden_states"])
def test_output_settings_of_another_task_are_reset_with_a_message(setting: str, model: Path, small_data: Path) -> None:
    right = loss_of(model, small_data, Listener())
    set_config(model, **{setting: setting != "return_dict"})
    listener = Listener()
    assert loss_of(model, small_data, listener) == right
    assert any(f"{setting} {setting != 'return_dict'}, from another task, is reset" in line for line in listener.lines)


def test_a_missing_padding_token_is_set_from_the_tokenizer(tmp_path: Path, small_data: Path) -> None:
    """A decoder classifies by its last real token, which it finds by the padding token."""
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, num_labels=2, pad_token_id=None)
    Llama(config).save_pretrained(tmp_path / "m")
    folder, losses = with_tokenizer(tmp_path / "m"), []
    token = ModelSource("m", folder).tokenizer.pad_token_id
    for written in (None, token + 1, token):
        set_config(folder, pad_token_id=written)
        listener = Listener()
        losses.append(loss_of(folder, small_data, listener))
        assert any(f"to {token}, that of the tokenizer" in line for line in listener.lines) == (written != token)
    assert losses[0] == losses[1] == losses[2]
    assert np.isfinite(losses[0])


def test_a_head_with_another_number_of_labels_is_replaced_only_in_training(tmp_path: Path) -> None:
    BertForSequenceClassification(BertConfig(**SMALL, num_labels=3)).save_pretrained(tmp_path / "m")
    folder = with_tokenizer(tmp_path / "m")
    with pytest.raises(UsageError, match="its head has 3 labels"):
        load(folder)
    (first, notes), (again, _) = load(folder, new_head=True), load(folder, new_head=True)
    assert notes == ["m: its head has 3 labels; a new head with 2 takes its place"]
    assert set(first.report.new_head) == {"classifier.weight", "classifier.bias"}
    assert first.report.missing == ()
    assert first.identity.weights == "pretrained"
    assert first.identity.model_sha256 == again.identity.model_sha256
    assert first.model.config.num_labels == 2


def test_a_token_classifier_is_not_a_pair_classifier_even_with_two_labels(tmp_path: Path) -> None:
    BertForTokenClassification(BertConfig(**SMALL, num_labels=2)).save_pretrained(tmp_path / "m")
    folder = with_tokenizer(tmp_path / "m")
    with pytest.raises(UsageError, match="BertForTokenClassification, whose head was trained for another task"):
        load(folder)


def test_an_encoder_with_wrong_sizes_is_rejected_in_training_too(model: Path) -> None:
    set_config(model, vocab_size=700)
    with pytest.raises(UsageError, match=r"has other sizes than config\.json says"):
        load(model, new_head=True)
