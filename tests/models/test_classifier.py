"""Where --model points, what is refused, and how a model is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from foreign import set_config
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from mrpcbench.errors import MrpcbenchError, UsageError
from mrpcbench.models import classifier, hashes, sources
from mrpcbench.models.sources import weights_source
from mrpcbench.quickstart import CHECKPOINT_DIR
from mrpcbench.schema.requests import DEFAULT_MODEL_DIR

NAMES = ("not_equivalent", "equivalent")


def load(model: Path | str, **options: Any) -> classifier.LoadedModel:
    """The classifier that `--model model` stands for."""
    return classifier.load_classifier(weights_source(str(model)), **options)


@pytest.fixture
def base(checkpoint_dir: Path, tmp_path: Path) -> Path:
    """A copy of the shipped checkpoint that a test may change."""
    return Path(shutil.copytree(checkpoint_dir, tmp_path / "base"))


def test_the_shipped_checkpoint_loads_as_pretrained_with_a_new_head() -> None:
    loaded = load(CHECKPOINT_DIR, label_names=NAMES, new_head=True)
    assert loaded.identity.weights == "pretrained"
    assert loaded.report.missing == ()
    assert loaded.report.unexpected == ()
    assert set(loaded.report.new_head) == {
        "head.dense.weight",
        "head.norm.weight",
        "classifier.weight",
        "classifier.bias",
    }
    assert loaded.model.config.id2label == {0: "NOT_EQUIVALENT", 1: "EQUIVALENT"}
    assert loaded.model.config.reference_compile is False


def test_a_new_head_depends_only_on_the_seed() -> None:
    same = [load(CHECKPOINT_DIR, new_head=True, seed=7).identity.model_sha256 for _ in range(2)]
    other = load(CHECKPOINT_DIR, new_head=True, seed=8).identity.model_sha256
    assert same[0] == same[1] != other


def test_the_hash_of_the_loaded_weights_does_not_depend_on_the_seed(base: Path) -> None:
    same = [load(base, new_head=True, seed=seed).report.loaded_sha256 for seed in (7, 8)]
    assert same[0] is not None
    assert same[0] == same[1]
    weights = load_file(base / "model.safetensors")
    weights["embeddings.norm.weight"] += 1e-3
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    assert load(base, new_head=True, seed=7).report.loaded_sha256 not in same


def test_a_checkpoint_without_a_head_cannot_be_evaluated() -> None:
    with pytest.raises(UsageError, match="no classification head"):
        load(CHECKPOINT_DIR)


def test_the_bundled_model_is_a_checkpoint_to_train_and_a_classifier_for_all_else() -> None:
    assert sources.locate("quickstart", to_train=True) == CHECKPOINT_DIR
    assert load("quickstart").identity.weights == "fine-tuned"


def test_an_architecture_without_weights_is_refused_unless_random_weights_are_requested(base: Path) -> None:
    (base / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="--random-init"):
        load(base, new_head=True)
    loaded = load(base, random_init=True)
    assert loaded.identity.weights == loaded.identity.origin == loaded.identity.weights_label == "random-init"


def test_real_modernbert_without_weights_is_rejected(modernbert_dir: Path) -> None:
    with pytest.raises(UsageError, match="no weights in safetensors"):
        load(modernbert_dir, new_head=True)


def test_pickled_weights_are_rejected(base: Path) -> None:
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(UsageError, match="safetensors"):
        load(base, new_head=True)


def test_damaged_weights_are_a_one_line_error(base: Path) -> None:
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(MrpcbenchError, match=r"model\.safetensors is no safetensors, or truncated") as caught:
        load(base, new_head=True)
    assert "\n" not in str(caught.value)


def test_the_error_names_weights_that_are_not_finite(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    name = sorted(weights)[1]
    weights[name].view(-1)[3] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=f"its weight model.{name} is not finite"):
        load(base, new_head=True)


def test_missing_and_unexpected_weights_are_reported(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    gone = sorted(weights)[0]
    weights["stranger.weight"] = weights.pop(gone)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    report = load(base, new_head=True).report
    assert report.missing == (f"model.{gone}",)
    assert report.unexpected == ("stranger.weight",)


@pytest.mark.parametrize("new_head", [True, False])
def test_layers_that_the_configuration_does_not_use_are_rejected(new_head: bool, base: Path, tuned_model: Path) -> None:
    """A checkpoint of the encoder names its layers without `model.`, a classifier with it."""
    if not new_head:
        shutil.copy(tuned_model / "model.safetensors", base)
        shutil.copy(tuned_model / "config.json", base)
    set_config(base, num_hidden_layers=3)
    first = "layers.3.attn.Wo.weight" if new_head else "model.layers.3.attn.Wo.weight"
    with pytest.raises(UsageError, match=rf"config\.json does not use 6 of its weights \({first}, \.\.\.\)"):
        load(base, new_head=new_head)


@pytest.mark.parametrize(
    ("name", "is_used"),
    [
        ("layers.1.attn.Wqkv.bias", True),
        ("embeddings.norm.bias", True),
        ("layers.0.attn.adapter.weight", True),
        ("layers.0.attn.bias", False),  # as GPT-2 stores its mask
        ("layers.0.attn.masked_bias", False),
        ("pooler.dense.weight", False),
        ("pooler.dense.bias", False),
        ("projection.0.weight", False),
    ],
)
def test_what_a_layer_or_a_module_stores_in_addition_is_rejected(name: str, is_used: bool, base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    save_file({**weights, name: torch.zeros(3)}, base / "model.safetensors", metadata={"format": "pt"})
    if not is_used:
        assert load(base, new_head=True).report.unexpected == (name,)
        return
    with pytest.raises(UsageError, match=rf"config\.json does not use 1 of its weights \({name}, "):
        load(base, new_head=True)


SMALL = {
    "vocab_size": 800,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


@pytest.mark.parametrize(
    "net",
    [
        transformers.BertForPreTraining(transformers.BertConfig(**SMALL)),
        transformers.RobertaForMaskedLM(transformers.RobertaConfig(**SMALL)),
        transformers.RobertaModel(transformers.RobertaConfig(**SMALL)),
        transformers.ElectraForPreTraining(transformers.ElectraConfig(**SMALL, embedding_size=16)),
        transformers.AlbertForMaskedLM(transformers.AlbertConfig(**SMALL, embedding_size=8)),
        transformers.DebertaV2ForMaskedLM(transformers.DebertaV2Config(**SMALL)),
        transformers.ModernBertForMaskedLM(
            transformers.ModernBertConfig(**SMALL, decoder_bias=True, pad_token_id=0, cls_token_id=1, sep_token_id=2)
        ),
    ],
    ids=lambda net: type(net).__name__,
)
def test_the_head_of_another_task_is_no_reason_to_reject_a_checkpoint(
    net: transformers.PreTrainedModel, base: Path
) -> None:
    (base / "model.safetensors").unlink()
    net.save_pretrained(base)
    encoder = f"{net.base_model_prefix}."
    assert not [name for name in load(base, new_head=True).report.unexpected if name.startswith(encoder)]


def test_weights_of_another_model_are_rejected(base: Path) -> None:
    save_file({"stranger.weight": torch.zeros(3)}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="none of its weights"):
        load(base, new_head=True)


def test_a_head_of_three_labels_is_rejected(tuned_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tuned_model, tmp_path / "three"))
    config = json.loads((folder / "config.json").read_text())
    config["id2label"], config["label2id"] = {"0": "A", "1": "B", "2": "C"}, {"A": 0, "B": 1, "C": 2}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="3 labels"):
        load(folder)


def test_a_folder_without_a_configuration_or_a_tokenizer_is_an_error(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"config\.json"):
        load(tmp_path / "empty")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (base / name).unlink()
    with pytest.raises(UsageError, match="tokenizer"):
        load(base, new_head=True)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~nowhere/x", "a/b/c"])
def test_a_missing_path_is_not_looked_up_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrpcbench.hub.snapshots.find", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(UsageError, match="no such folder"):
        sources.locate(name)


def test_a_missing_graph_of_a_local_folder_is_not_looked_up_on_the_hub(tuned_model: Path) -> None:
    name = f"{tuned_model.name}/onnx-nope"
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tuned_model.parent)
        with pytest.raises(UsageError, match="no onnx-nope in model; `mrpcbench export` writes graphs there"):
            sources.locate(name)


def test_a_missing_default_folder_is_an_error_that_names_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="run `mrpcbench train` first"):
        sources.locate(DEFAULT_MODEL_DIR)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="a file"):
        sources.locate(str(tmp_path / "file"))


def test_any_encoder_with_a_sequence_classifier_works(base: Path, tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=800, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / "bert").mkdir(exist_ok=True)
        shutil.copy(base / name, tmp_path / "bert" / name)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    loaded = load(tmp_path / "bert")
    assert loaded.identity.architecture == "BertForSequenceClassification"
    assert loaded.identity.weights == "fine-tuned"
    assert loaded.identity.origin == "unknown"


def test_the_hash_depends_on_the_weights_and_not_on_their_files(tuned_model: Path, tmp_path: Path) -> None:
    first = load(tuned_model)
    first.model.save_pretrained(tmp_path, max_shard_size="1MB")
    first.tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = load(tmp_path)
    assert again.identity.model_sha256 == first.identity.model_sha256
    with torch.no_grad():
        next(again.model.parameters()).view(-1)[0] += 1e-6
    assert hashes.weights_sha256(again.model) != first.identity.model_sha256


def test_the_tokenizers_hash_survives_use_saving_and_loading(tmp_path: Path, checkpoint_dir: Path) -> None:
    tokenizer = sources.load_tokenizer(checkpoint_dir, "quickstart")
    before = hashes.tokenizer_sha256(tokenizer)
    tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=4)
    assert hashes.tokenizer_sha256(tokenizer) == before
    tokenizer.save_pretrained(tmp_path)
    assert hashes.tokenizer_sha256(sources.load_tokenizer(tmp_path, "saved")) == before
    tokenizer.add_tokens(["newword"])
    assert hashes.tokenizer_sha256(tokenizer) != before


def test_weights_changed_after_training_have_unknown_origin(tuned_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tuned_model, tmp_path / "changed", ignore=shutil.ignore_patterns("checkpoint-*")))
    assert load(folder).identity.origin == "pretrained"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.bias += 1
    model.save_pretrained(folder)
    assert load(folder).identity.origin == "unknown"


def test_a_model_with_missing_weights_cannot_be_evaluated(tuned_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tuned_model, tmp_path / "holed", ignore=shutil.ignore_patterns("checkpoint-*")))
    weights = {
        name: weight for name, weight in load_file(folder / "model.safetensors").items() if ".layers.2." not in name
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match="weights of its encoder are missing"):
        load(folder)
