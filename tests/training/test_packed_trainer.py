"""`--engine packed`: the Trainer's log and checkpoints, by the packed step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captures import Capturer
from datasets import Dataset
from training_runs import RECIPE, SignalAt, run, without_train_loss
from transformers import BertConfig, BertForSequenceClassification

from mrpcbench.errors import InterruptedRunError, UsageError
from mrpcbench.models import classifier, sources
from mrpcbench.models.sources import weights_source
from mrpcbench.progress import Silent
from mrpcbench.schema.records import TrainRecord
from mrpcbench.schema.requests import TrainRecipe, TrainRequest
from mrpcbench.training import packed_trainer, trainer
from mrpcbench.training.arguments import training_arguments
from mrpcbench.training.packed_trainer import PackedTrainer

PACKED = replace(RECIPE, engine="packed", precision="fp32")


@pytest.fixture
def request_(training_data: Path, tmp_path: Path) -> TrainRequest:
    return TrainRequest(model="quickstart", data=str(training_data), output_dir=str(tmp_path / "model"), device="cpu")


@pytest.fixture(scope="module")
def uninterrupted(training_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainRecord:
    folder = tmp_path_factory.mktemp("uninterrupted")
    request = TrainRequest(model="quickstart", data=str(training_data), output_dir=str(folder / "model"), device="cpu")
    return run(request, PACKED)


def losses_of(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Filled with the loss of every step."""
    found: list[float] = []
    real = kind.training_step

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = real(self, *args, **kwargs)
        found.append(float(loss))
        return loss

    monkeypatch.setattr(kind, "training_step", noted)
    return found


def test_it_follows_the_trainers_float32_losses(
    request_: TrainRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(PACKED, max_steps=20, per_device_train_batch_size=5)  # the last batch of an epoch has 3 pairs
    theirs, ours = losses_of(trainer.ObservedTrainer, monkeypatch), losses_of(PackedTrainer, monkeypatch)
    other = run(replace(request_, output_dir=str(tmp_path / "trainer")), replace(recipe, engine="trainer"))
    record = run(request_, recipe)
    assert len(theirs) == len(ours) == 20
    assert max(theirs) - min(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    for one, wanted in zip(record.train.epochs, other.train.epochs, strict=True):
        assert one.train_learning_rate == wanted.train_learning_rate
        assert one.train_grad_norm == pytest.approx(wanted.train_grad_norm, rel=1e-2)
        assert one.eval_loss == pytest.approx(wanted.eval_loss, abs=1e-4)
        assert one.eval_f1_score == pytest.approx(wanted.eval_f1_score, abs=0.05)
    assert record.train.real_tokens == other.train.real_tokens
    assert record.train.padding_tokens == 0 < other.train.padding_tokens


def test_captured_steps_train_like_eager_ones(
    request_: TrainRequest, uninterrupted: TrainRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    capturer = Capturer()
    monkeypatch.setattr(packed_trainer, "capture_on", lambda device: capturer)
    section = run(request_, PACKED).train
    assert 2 <= capturer.made <= 6  # AdamW's, and those of a few shapes for 12 steps
    assert section.padding_tokens > 0
    assert section.cold_s
    for line, wanted in zip(section.epochs, uninterrupted.train.epochs, strict=True):
        assert line.eval_loss == pytest.approx(wanted.eval_loss, abs=1e-4)
        assert line.train_grad_norm == pytest.approx(wanted.train_grad_norm, rel=1e-2)


def test_an_interrupted_run_resumes_to_the_same_weights_and_log(
    request_: TrainRequest, uninterrupted: TrainRecord
) -> None:
    with pytest.raises(InterruptedRunError, match="checkpoint-9 is saved and --resume"):
        run(request_, PACKED, SignalAt(9))
    resumed = run(replace(request_, resume=True), PACKED)
    assert resumed.train.resumed_from_step == 9
    assert resumed.model.model_sha256 == uninterrupted.model.model_sha256
    assert without_train_loss(resumed.train.epochs) == without_train_loss(uninterrupted.train.epochs)


def test_accumulated_batches_train_like_one_large_batch(request_: TrainRequest, tmp_path: Path) -> None:
    recipe = replace(PACKED, max_steps=2)
    parts_request = replace(request_, output_dir=str(tmp_path / "parts"))
    (whole,) = run(request_, recipe).train.epochs
    (parts,) = run(
        parts_request, replace(recipe, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    ).train.epochs
    for name in ("train_loss", "train_grad_norm", "eval_loss"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-3), name


def test_the_record_names_the_engine_that_ran(uninterrupted: TrainRecord) -> None:
    section = uninterrupted.train
    assert section.placement.engine.startswith("torch")
    assert section.placement.provider == "packed, sdpa"
    assert section.placement.dtype == "fp32"
    assert section.recipe.engine == "packed"


def test_in_bf16_it_keeps_float32_master_weights_and_records_it(request_: TrainRequest) -> None:
    record = run(request_, replace(PACKED, precision="bf16", max_steps=2))
    assert record.train.placement.dtype == "bf16"
    loaded = classifier.load_classifier(weights_source(request_.output_dir))
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    assert loaded.identity.model_sha256 == record.model.model_sha256


def test_without_clipping_no_norm_is_logged(request_: TrainRequest) -> None:
    (line,) = run(request_, replace(PACKED, max_steps=1, max_grad_norm=0)).train.epochs
    assert line.train_grad_norm is None


def test_another_optimiser_is_refused_with_the_engine_that_supports_it(request_: TrainRequest) -> None:
    with pytest.raises(UsageError, match=r"--engine packed: supports AdamW only.*--engine trainer for sgd"):
        run(request_, replace(PACKED, optim="sgd"))
    assert not Path(request_.output_dir).exists()


def test_fp16_is_refused_with_the_supported_precisions(tmp_path: Path) -> None:
    loaded = classifier.load_classifier(weights_source("quickstart", to_train=True), new_head=True)
    made = training_arguments(PACKED, tmp_path, device="cpu", precision="fp32", report_to="none")
    nothing = Dataset.from_dict({"input_ids": [], "labels": [], "length": []})
    with pytest.raises(UsageError, match=r"--engine packed: trains in bf16 or fp32.*--engine trainer"):
        PackedTrainer(loaded, made, nothing, nothing, Silent(), "fp16")


def test_another_architecture_is_rejected_by_name(request_: TrainRequest, tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=640, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    sources.load_tokenizer(sources.locate("quickstart"), "quickstart").save_pretrained(tmp_path / "bert")
    with pytest.raises(UsageError, match=r"--engine packed: BertForSequenceClassification.*--engine trainer"):
        run(replace(request_, model=str(tmp_path / "bert")), PACKED)


def test_group_by_length_reduces_padding_and_keeps_the_tokens(request_: TrainRequest, tmp_path: Path) -> None:
    recipe = TrainRecipe(per_device_train_batch_size=4, max_steps=12, engine="trainer", precision="fp32")
    plain = run(request_, recipe).train
    grouped = run(replace(request_, output_dir=str(tmp_path / "grouped")), replace(recipe, group_by_length=True)).train
    assert grouped.real_tokens == plain.real_tokens
    assert grouped.padding_tokens < plain.padding_tokens / 2


def test_group_by_length_gives_the_packed_step_pairs_of_similar_length(
    request_: TrainRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spreads: list[float] = []
    real = PackedTrainer.training_step

    def noted(self: PackedTrainer, model: Any, inputs: Any, *args: Any) -> Any:
        lengths = [self.step.real_tokens(np.array([row])) for row in inputs["row"]]
        spreads.append(max(lengths) - min(lengths))
        return real(self, model, inputs, *args)

    monkeypatch.setattr(PackedTrainer, "training_step", noted)
    recipe = replace(PACKED, per_device_train_batch_size=4, max_steps=12)
    run(request_, recipe)
    run(replace(request_, output_dir=str(tmp_path / "grouped")), replace(recipe, group_by_length=True))
    assert sum(spreads[12:]) < sum(spreads[:12]) / 2


# --- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_on_a_gpu_it_trains_like_the_trainer_within_bf16_precision(
    request_: TrainRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = losses_of(trainer.ObservedTrainer, monkeypatch), losses_of(PackedTrainer, monkeypatch)
    recipe = replace(RECIPE, max_steps=24, learning_rate=1e-4, precision="bf16")
    run(replace(request_, device="cuda", output_dir=str(tmp_path / "trainer")), recipe)
    section = run(replace(request_, device="cuda"), replace(recipe, engine="packed")).train
    assert section.placement.provider == "packed, varlen attention, fused kernels, CUDA graphs"
    assert section.cold_s
    np.testing.assert_allclose(ours, theirs, rtol=0.1, atol=0.05)
