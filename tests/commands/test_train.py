"""Tests of `mrpcbench train`: the log, the files, interruption, resuming and errors."""

import ast
import csv
import inspect
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Listener
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from training_runs import RECIPE, SignalAt, run, without_train_loss
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import mrpcbench
from mrpcbench.commands.train import train
from mrpcbench.errors import InterruptedRunError, MissingError, MrpcbenchError, UsageError
from mrpcbench.models.classifier import load_classifier
from mrpcbench.models.hashes import weights_sha256
from mrpcbench.models.sources import weights_source
from mrpcbench.records import store
from mrpcbench.schema.records import TrainRecord
from mrpcbench.schema.requests import Engine, TrainRecipe, TrainRequest
from mrpcbench.training.arguments import resolve_precision, training_arguments
from mrpcbench.training.checkpoints import RUN_FILE


@pytest.fixture
def request_(training_data: Path, tmp_path: Path) -> TrainRequest:
    return TrainRequest(model="quickstart", data=str(training_data), output_dir=str(tmp_path / "model"), device="cpu")


@pytest.fixture(scope="module")
def uninterrupted(training_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainRecord:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return run(
        TrainRequest(model="quickstart", data=str(training_data), output_dir=str(folder / "model"), device="cpu")
    )


def test_a_run_logs_each_epoch_with_the_rate_of_its_last_step(uninterrupted: TrainRecord) -> None:
    section = uninterrupted.train
    assert section.total_steps == 12
    assert [line.step for line in section.epochs] == [6, 12]
    assert [line.train_learning_rate for line in section.epochs] == pytest.approx([1e-3 * 7 / 12, 1e-3 / 12])
    assert section.best_step == min(section.epochs, key=lambda line: line.eval_loss or 9).step
    assert section.aligned_tokens == {"eos_token_id": None, "bos_token_id": None}
    assert uninterrupted.complete


def test_the_record_has_the_time_breakdown(uninterrupted: TrainRecord) -> None:
    section = uninterrupted.train
    parts = (section.cold_s, section.evaluate_s, section.save_s)
    assert all(part is not None and part > 0 for part in parts)
    assert sum(part or 0 for part in parts) < (section.train_s or 0)


def test_training_counts_its_tokens_and_not_those_of_the_evaluations(
    uninterrupted: TrainRecord, training_data: Path, checkpoint_dir: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_dir)
    rows = [json.loads(line) for line in (training_data / "train.jsonl").read_text().splitlines()]
    tokens = sum(len(tokenizer(row["sentence1"], row["sentence2"])["input_ids"]) for row in rows)
    assert uninterrupted.train.real_tokens == 2 * tokens
    assert uninterrupted.train.padding_tokens > 0


def test_the_folder_has_a_model_that_loads_everywhere_with_its_lineage(tuned_model: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tuned_model)
    assert model.config.id2label == {0: "NOT_EQUIVALENT", 1: "EQUIVALENT"}
    assert model.config.bos_token_id is None
    assert AutoTokenizer.from_pretrained(tuned_model).sep_token == "[SEP]"
    assert not list(tuned_model.glob("*.bin"))
    lineage = store.load_lineage(tuned_model)
    assert lineage is not None
    assert lineage.model.model_sha256 == weights_sha256(model)
    assert lineage.model.weights == "fine-tuned"
    assert lineage.model.origin == "pretrained"
    assert lineage.base_model == "quickstart"
    assert lineage.recipe == TrainRecipe(
        batch_size=32, per_device_train_batch_size=32, learning_rate=1e-3, engine="trainer", precision="fp32"
    )


def test_the_saved_weights_are_those_of_the_best_epoch_also_in_a_moved_folder(
    request_: TrainRequest, tmp_path: Path
) -> None:
    # Far too high and never lower, so that the loss rises after the first epoch.
    recipe = replace(RECIPE, learning_rate=0.02, lr_scheduler_type="constant", num_train_epochs=3)
    record = run(request_, recipe)
    best_step = record.train.best_step
    assert best_step != record.train.total_steps
    moved = Path(request_.output_dir).rename(tmp_path / "moved")
    best = load_classifier(weights_source(str(moved / f"checkpoint-{best_step}"))).identity.model_sha256
    assert load_classifier(weights_source(str(moved))).identity.model_sha256 == best == record.model.model_sha256
    (moved / "model.safetensors").unlink()  # the state after a kill before the last save
    again = run(replace(request_, output_dir=str(moved), resume=True), recipe)
    assert again.model.model_sha256 == best


def test_metrics_csv_is_the_log(tuned_model: Path) -> None:
    rows = list(csv.DictReader((tuned_model / "metrics.csv").open(encoding="utf-8")))
    training = "step train_loss train_grad_norm train_learning_rate train_epoch"
    assert list(rows[0]) == f"{training} eval_loss eval_accuracy_score eval_f1_score".split()
    assert [row["step"] for row in rows] == ["3", "6"]


def test_the_model_card_has_the_hubs_metadata(tuned_model: Path) -> None:
    card = ModelCard.load(tuned_model / "README.md")
    assert card.data.eval_results is not None
    assert {result.metric_type for result in card.data.eval_results} == {"accuracy", "f1"}
    assert {result.dataset_split for result in card.data.eval_results} == {"validation"}
    assert card.data.pipeline_tag == "text-classification"
    assert "pretrained weights" in card.text
    record = store.load(tuned_model / "mrpcbench-train.json")
    epochs = record.train.epochs
    assert [f"| {line.train_epoch:g} | {line.step} |" in card.text for line in epochs] == [True, True]
    assert f"`{record.model.model_sha256}`" in card.text


def test_the_observer_gets_the_start_every_step_and_the_alignment_and_the_record_is_on_disk(
    request_: TrainRequest,
) -> None:
    listener = Listener()
    record = run(request_, replace(RECIPE, max_steps=2), listener)
    (began,) = listener.records
    assert not began.complete
    assert began.train.total_steps == 2
    assert [(task, done, total) for task, done, total, _ in listener.steps] == [("train", 1, 2), ("train", 2, 2)]
    assert re.fullmatch(r"loss \d\.\d{4}  lr 5\.00e-04  \d+ pairs/s", listener.steps[-1][3])
    assert store.load(Path(request_.output_dir).parent / "model.json") == record


def test_a_folder_with_a_run_is_overwritten_only_on_request(request_: TrainRequest) -> None:
    run(request_, replace(RECIPE, max_steps=1))
    with pytest.raises(UsageError, match="--overwrite"):
        run(request_)
    again = run(replace(request_, overwrite=True), replace(RECIPE, max_steps=2))
    assert again.train.total_steps == 2
    assert [path.name for path in Path(request_.output_dir).glob("checkpoint-*")] == ["checkpoint-2"]


def test_resume_and_overwrite_exclude_each_other(request_: TrainRequest) -> None:
    with pytest.raises(UsageError, match="exclude"):
        run(replace(request_, resume=True, overwrite=True))


def test_resume_without_a_run_is_an_error(request_: TrainRequest) -> None:
    with pytest.raises(UsageError, match="no run was started"):
        run(replace(request_, resume=True))
    assert not Path(request_.output_dir).exists()


def test_resume_refuses_another_run_and_names_what_changed(
    request_: TrainRequest, training_data: Path, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, max_steps=1)
    run(request_, recipe)
    data = {}
    for split in ("train", "validation"):
        data[split] = Path(shutil.copytree(training_data, tmp_path / split))
        lines = (training_data / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (data[split] / f"{split}.jsonl").write_text("".join(lines[1:]))
    changes = {
        r"learning_rate 0\.001 \(now 0\.002\)": (request_, replace(recipe, learning_rate=2e-3)),
        r"engine trainer \(now packed\)": (request_, replace(recipe, engine="packed")),
        "max_steps 1": (request_, replace(recipe, max_steps=2)),
        "other training pairs": (replace(request_, data=str(data["train"])), recipe),
        "other validation pairs": (replace(request_, data=str(data["validation"])), recipe),
    }
    for message, (request, changed) in changes.items():
        with pytest.raises(UsageError, match=message):
            run(replace(request, resume=True), changed)


@pytest.mark.parametrize("step", [6, 9, 12])
def test_an_interrupted_run_resumes_to_the_same_weights_and_log(
    step: int, request_: TrainRequest, uninterrupted: TrainRecord
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    message = rf"step {step} of 12; checkpoint-{step} is saved and --resume"
    with pytest.raises(InterruptedRunError, match=message) as caught:
        run(request_, listener=SignalAt(step))
    assert caught.value.status == 130
    assert signal.getsignal(signal.SIGINT) is handler
    # Earlier versions wrote this file into a checkpoint.
    (Path(request_.output_dir) / f"checkpoint-{step}" / "mrpcbench-loss.json").write_text("{}")
    resumed = run(replace(request_, resume=True))
    found, wanted = resumed.train, uninterrupted.train
    assert found.resumed_from_step == step
    assert found.best_step == wanted.best_step
    assert without_train_loss(found.epochs) == without_train_loss(wanted.epochs)
    assert resumed.model.model_sha256 == uninterrupted.model.model_sha256


def test_a_resumed_epoch_logs_the_mean_loss_of_its_steps_since_the_resume(request_: TrainRequest) -> None:
    with pytest.raises(InterruptedRunError):
        run(request_, listener=SignalAt(5))
    listener = Listener()
    (line, _) = run(replace(request_, resume=True), RECIPE, listener).train.epochs
    (_, step, _, figures) = listener.steps[0]
    assert (line.step, step) == (6, 6)
    assert f"loss {line.train_loss:.4f} " in figures


class DiesAt(Listener):
    """An observer that ends the run at the end of a step and bypasses all error handlers, like a kill."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def advance(self, task: str, done: int, total: int, detail: str = "") -> None:
        if done == self.step:
            raise GeneratorExit


def test_a_killed_run_resumes_to_the_same_weights(
    request_: TrainRequest, uninterrupted: TrainRecord, tmp_path: Path
) -> None:
    with pytest.raises(GeneratorExit):
        run(request_, listener=DiesAt(9))
    half = store.load(tmp_path / "model.json")
    assert not half.complete
    assert [line.step for line in half.train.epochs] == [6]
    # A kill in the middle of a save leaves a newer checkpoint that is not complete.
    (Path(request_.output_dir) / "checkpoint-9").mkdir()
    resumed = run(replace(request_, resume=True))
    assert resumed.train.resumed_from_step == 6
    assert [line.step for line in resumed.train.epochs] == [6, 12]
    assert resumed.model.model_sha256 == uninterrupted.model.model_sha256


def test_a_run_that_only_lacks_its_last_save_is_finished_without_a_step(request_: TrainRequest) -> None:
    recipe = replace(RECIPE, max_steps=2, lr_scheduler_type="constant")
    first = run(request_, recipe)
    (Path(request_.output_dir) / "model.safetensors").unlink()  # the state after a kill before the last save
    again = run(replace(request_, resume=True), recipe)
    assert again.model.model_sha256 == first.model.model_sha256
    for name in ("epochs", "best_step", "aligned_tokens"):
        assert getattr(again.train, name) == getattr(first.train, name), name
    assert again.train.train_s is None  # without a step there is no training time
    assert (Path(request_.output_dir) / "model.safetensors").exists()


def test_resuming_a_finished_run_returns_its_record_and_reports_it(request_: TrainRequest, tmp_path: Path) -> None:
    recipe, listener = replace(RECIPE, max_steps=1), Listener()
    first = run(request_, recipe)
    shutil.rmtree(Path(request_.output_dir) / "checkpoint-1")  # they are large
    again = train(replace(request_, resume=True), recipe, tmp_path / "elsewhere.json", listener)
    assert again == first
    assert store.load(tmp_path / "elsewhere.json") == first
    assert any(line.startswith(f"the run in {request_.output_dir} is finished") for line in listener.lines)


def test_a_finished_run_with_replaced_weights_does_not_count_as_finished(request_: TrainRequest) -> None:
    recipe = replace(RECIPE, max_steps=1)
    run(request_, recipe)
    path = Path(request_.output_dir, "model.safetensors")
    weights = load_file(path)
    weights["classifier.bias"] += 1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"model\.safetensors is not what the run wrote"):
        run(replace(request_, resume=True), recipe)
    path.unlink()
    assert run(replace(request_, resume=True), recipe).train.best_step == 1


def test_a_best_checkpoint_that_is_gone_or_damaged_is_reported_before_the_first_step(request_: TrainRequest) -> None:
    recipe = replace(RECIPE, learning_rate=1e-12, num_train_epochs=3, metric_for_best_model="accuracy")
    with pytest.raises(InterruptedRunError):
        run(request_, recipe, SignalAt(14))
    weights = Path(request_.output_dir) / "checkpoint-6" / "model.safetensors"
    whole = weights.read_bytes()
    for damage in (lambda: weights.write_bytes(whole[:999]), weights.unlink):
        damage()
        listener = Listener()
        with pytest.raises(UsageError, match=r"--resume: checkpoint-6 .* missing or damaged .* --overwrite"):
            run(replace(request_, resume=True), recipe, listener)
        assert not listener.steps
    weights.write_bytes(whole)
    assert run(replace(request_, resume=True), recipe).train.best_step == 6


def test_what_the_end_needs_is_checked_before_the_first_step(request_: TrainRequest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cases = {
        "--output-dir .*file is a file": (replace(request_, output_dir=str(tmp_path / "file" / "model")), None),
        "--results .*file is a file": (request_, tmp_path / "file" / "r.json"),
        "--push-to-hub a/b/c: not a repository": (replace(request_, push_to_hub="a/b/c"), None),
        "--private: applies to --push-to-hub": (replace(request_, private=True), None),
    }
    for message, (request, results) in cases.items():
        listener = Listener()
        with pytest.raises(UsageError, match=message):
            train(request, RECIPE, results, listener)
        assert not listener.steps


def test_a_run_that_replaced_a_finished_one_is_not_confused_with_it(request_: TrainRequest) -> None:
    recipe = replace(RECIPE, max_steps=3)
    run(request_, recipe)
    with pytest.raises(InterruptedRunError):
        run(replace(request_, overwrite=True), recipe, SignalAt(2))
    assert run(replace(request_, resume=True), recipe).train.resumed_from_step == 2


def test_accumulated_batches_train_like_one_large_batch(request_: TrainRequest, tmp_path: Path) -> None:
    recipe = replace(RECIPE, max_steps=2)
    parts_request = replace(request_, output_dir=str(tmp_path / "parts"))
    (whole,) = run(request_, recipe).train.epochs
    (parts,) = run(
        parts_request, replace(recipe, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    ).train.epochs
    assert parts.train_loss == pytest.approx(whole.train_loss, rel=1e-3)
    assert parts.train_grad_norm == pytest.approx(whole.train_grad_norm, rel=1e-3)


def test_the_precision_that_runs_is_the_recipes_whatever_the_environment_says(
    request_: TrainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    section = run(request_, replace(RECIPE, precision="auto", max_steps=1)).train
    assert section.placement.dtype == resolve_precision("auto", "cpu")
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "fp16", "the caller's own is back"


def test_zero_steps_are_refused(request_: TrainRequest) -> None:
    for steps in (0, -5):
        with pytest.raises(UsageError, match=f"--max-steps {steps}: at least 1, or -1"):
            run(request_, replace(RECIPE, max_steps=steps))


def test_a_tracker_that_is_unknown_or_not_installed_is_one_line(
    request_: TrainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="--report-to nonsense: not a tracker that transformers knows; use none"):
        run(replace(request_, report_to="nonsense"))
    monkeypatch.setattr("mrpcbench.training.arguments.get_available_reporting_integrations", list)
    monkeypatch.setattr("mrpcbench.commands.train.load_classifier", None)  # the model is not loaded before
    with pytest.raises(MissingError, match=r"--report-to comet_ml: its package is missing; .* pip install comet-ml"):
        run(replace(request_, report_to="comet_ml"))


def test_a_run_that_was_never_checkpointed_resumes_at_step_0(request_: TrainRequest) -> None:
    listener = Listener()
    run(request_, replace(RECIPE, max_steps=1))
    folder = Path(request_.output_dir)
    shutil.rmtree(folder / "checkpoint-1")
    (folder / "model.safetensors").unlink()
    assert (folder / RUN_FILE).exists()
    run(replace(request_, resume=True), replace(RECIPE, max_steps=1), listener)
    assert "no checkpoint yet: starting at step 0" in listener.lines


def test_fp16_training_on_the_cpu_is_refused(request_: TrainRequest) -> None:
    with pytest.raises(MissingError, match="--precision fp16"):
        run(request_, replace(RECIPE, precision="fp16"))


def test_bf16_training_runs_on_the_cpu_and_is_recorded(
    request_: TrainRequest, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrpcbench.commands.train.has_instructions", lambda names: False)
    record = train(request_, replace(RECIPE, precision="bf16", max_steps=1), None, listener)
    assert record.train.placement.dtype == "bf16"
    assert [line for line in listener.warnings if "no bf16 instructions" in line] == listener.warnings
    assert len(listener.warnings) == 1


def test_a_name_that_transformers_lacks_is_a_usage_error(request_: TrainRequest) -> None:
    for option in ("optim", "lr_scheduler_type"):
        with pytest.raises(UsageError, match="nonsense"):
            run(request_, replace(RECIPE, **{option: "nonsense"}))  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["trainer", "packed"])
def test_a_run_that_diverges_ends_with_the_step_and_its_pairs_and_publishes_nothing(
    engine: Engine, request_: TrainRequest
) -> None:
    message = r"diverged at step 2: the (loss|gradient norm) is (nan|inf) \(training pairs (\d+, ){5}\.{3} \(8\)"
    with pytest.raises(MrpcbenchError, match=message) as caught:
        run(request_, replace(RECIPE, learning_rate=1e30, max_steps=6, engine=engine))
    assert caught.value.status == 1
    assert not list(Path(request_.output_dir).rglob("*.safetensors"))


def test_a_run_whose_last_step_diverges_publishes_nothing(request_: TrainRequest) -> None:
    for steps in (1, 2):
        recipe = replace(RECIPE, learning_rate=1e30, max_steps=steps, max_grad_norm=0.0)
        with pytest.raises(MrpcbenchError, match=f"diverged at step {steps}"):
            run(replace(request_, overwrite=True), recipe)
        assert not list(Path(request_.output_dir).rglob("*.safetensors"))


def test_real_mrpc_takes_230_steps_with_the_published_learning_rates(
    mrpc_dir: Path, modernbert_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole default recipe on all pairs, with a minimal model and ModernBERT's tokenizer."""
    folder = tmp_path / "base"
    folder.mkdir()
    for file in modernbert_dir.glob("*token*"):
        shutil.copy(file, folder)
    config = AutoConfig.from_pretrained(modernbert_dir)
    config.update({"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2})
    config.save_pretrained(folder)
    request = TrainRequest(
        model=str(folder), data=str(mrpc_dir), output_dir=str(tmp_path / "out"), device="cpu", random_init=True
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # faster for so small a model
    record = run(request, TrainRecipe(engine="trainer", precision="fp32"))
    section = record.train
    assert section.total_steps == 230
    assert [line.step for line in section.epochs] == [115, 230]
    assert [f"{line.train_learning_rate:.6e}" for line in section.epochs] == ["4.034783e-05", "3.478261e-07"]
    assert section.aligned_tokens == {"eos_token_id": None, "bos_token_id": None}
    assert record.model.weights_label == "fine-tuned from random-init"
    assert [item.pairs for item in record.data] == [3668, 408]


# --- the Trainer's interface ------------------------------------------------------------------------------------------


def private_names(source: Path) -> set[str]:
    """Names with one leading underscore that a module reads or sets as attributes, or defines in a class."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.ClassDef):
            names |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_no_module_uses_a_private_name_of_the_trainer() -> None:
    """A private name of this project must not exist there either, because it would silently override it."""
    theirs = set[str]()
    for kind in (Trainer, TrainingArguments, TrainerCallback):
        theirs |= private_names(Path(inspect.getfile(kind)))
    assert {"_n_gpu", "_save_checkpoint"} <= theirs
    theirs -= {"_attn_implementation"}  # of a model's config
    modules = sorted(Path(mrpcbench.__file__).parent.rglob("*.py"))
    offenders = {path.name: names for path in modules if (names := private_names(path) & theirs)}
    assert offenders == {}


def test_one_of_several_gpus_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 4))
    made = training_arguments(RECIPE, tmp_path, device="cpu", precision="fp32", report_to="none")
    assert made.n_gpu == 1
    assert made.train_batch_size == RECIPE.per_device_train_batch_size


@pytest.mark.gpu
def test_training_on_a_gpu_takes_bf16_by_itself(request_: TrainRequest) -> None:
    section = run(replace(request_, device="cuda"), replace(RECIPE, max_steps=2)).train
    assert section.placement.dtype == "bf16"
    assert section.placement.device.startswith("cuda")
    assert torch.cuda.max_memory_allocated() > 0


def test_weights_missing_from_the_checkpoint_are_a_warning_and_unexpected_ones_a_note(
    request_: TrainRequest, checkpoint_dir: Path, tmp_path: Path
) -> None:
    base, listener = Path(shutil.copytree(checkpoint_dir, tmp_path / "base")), Listener()
    weights = load_file(base / "model.safetensors")
    gone = sorted(weights)[0]
    weights["stranger.weight"] = weights.pop(gone)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    run(replace(request_, model=str(base)), replace(RECIPE, max_steps=1), listener)
    assert f"1 weights missing from the checkpoint base: model.{gone}" in listener.warnings
    assert "1 weights unexpected in the checkpoint base: stranger.weight" in listener.lines
