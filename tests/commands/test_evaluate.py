"""Tests of `mrpcbench evaluate`: the score, the predictions and their hash, one pair, and errors."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Listener, Outcome
from datasets import load_dataset
from engines import engine
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    PretrainedConfig,
    RobertaConfig,
)

from mrpcbench.commands.evaluate import classify, evaluate
from mrpcbench.commands.export import export
from mrpcbench.data.batches import Batch
from mrpcbench.errors import MrpcbenchError, UsageError
from mrpcbench.instruments.fake_engine import FakeSession
from mrpcbench.records import store
from mrpcbench.schema.records import EvaluateRecord
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan, ExportPlan
from mrpcbench.training.glue_metric import paraphrase_metric


@pytest.fixture(scope="module", params=["torch", "onnx"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate") / "record.json"


@pytest.fixture(scope="module")
def record(backend: str, exported_model: Path, small_data: Path, results: Path) -> EvaluateRecord:
    spec = BackendSpec(backend=backend, model=str(exported_model), device="cpu")
    return evaluate(spec, EvaluatePlan(data=str(small_data), batch_size=7), results, Listener())


def test_the_score_agrees_with_scikit_learn_and_the_metric_to_the_last_digit(
    record: EvaluateRecord, results: Path
) -> None:
    rows = [json.loads(line) for line in (results.parent / record.evaluate.predictions_file).read_text().splitlines()]
    labels, said = [row["label"] for row in rows], [row["prediction"] for row in rows]
    score = record.evaluate.score
    assert score.pairs == len(rows) == 40
    assert score.accuracy == accuracy_score(labels, said)
    assert score.f1 == f1_score(labels, said)
    assert score.precision == precision_score(labels, said)
    assert score.recall == recall_score(labels, said)
    assert paraphrase_metric().compute(predictions=said, references=labels) == {
        "accuracy": score.accuracy,
        "f1": score.f1,
    }


def test_the_predictions_are_in_the_datas_order_whatever_the_batches(
    record: EvaluateRecord, results: Path, small_data: Path, exported_model: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (results.parent / record.evaluate.predictions_file).read_text().splitlines()]
    truth = load_dataset(
        "json", data_files=str(small_data / "validation.jsonl"), split="train", cache_dir=str(tmp_path)
    )
    assert [row["label"] for row in rows] == truth["label"]
    assert [row["index"] for row in rows] == list(range(40))
    spec = BackendSpec(backend=record.evaluate.spec.backend, model=str(exported_model), device="cpu")
    answer = classify(spec, truth[3]["sentence1"], truth[3]["sentence2"])
    np.testing.assert_allclose(answer.logits, rows[3]["logits"], atol=1e-4)
    assert answer.label == rows[3]["prediction"]
    assert answer.label_name == ("NOT_EQUIVALENT", "EQUIVALENT")[answer.label]
    assert 0.5 <= answer.probability <= 1


def test_the_record_holds_the_hash_of_the_predictions_and_no_path(
    record: EvaluateRecord, results: Path, exported_model: Path
) -> None:
    file = results.parent / record.evaluate.predictions_file
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record.evaluate.predictions_sha256
    assert store.load(results) == record
    text = results.read_text()
    assert str(exported_model) not in text
    assert str(results.parent) not in text


def test_predictions_go_to_the_output_folder_if_one_is_given(
    tuned_model: Path, small_data: Path, tmp_path: Path
) -> None:
    plan = EvaluatePlan(data=str(small_data), output_dir=str(tmp_path / "out"))
    record = evaluate(BackendSpec(model=str(tuned_model), device="cpu"), plan, tmp_path / "r.json", Listener())
    assert (tmp_path / "out" / record.evaluate.predictions_file).exists()


class Labelled(FakeSession):
    """Gives each pair the label that `answers` holds for it."""

    def __init__(self, answers: list[int]) -> None:
        super().__init__()
        self.answers = np.asarray(answers)

    def infer(self, batch: Batch) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[self.answers[batch.rows]]


@pytest.mark.parametrize("wrong", [0, 40])
def test_a_score_that_does_not_beat_the_majority_class_is_a_warning(
    wrong: int, small_data: Path, listener: Listener, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (small_data / "validation.jsonl").read_text().splitlines()]
    labels = [row["label"] for row in rows]
    majority = int(2 * sum(labels) >= len(labels))
    answers = [majority] * wrong + labels[wrong:]
    spec = BackendSpec(backend=engine("labelled", lambda: Labelled(answers)), model="quickstart")
    record = evaluate(spec, EvaluatePlan(data=str(small_data)), tmp_path / "r.json", listener)
    score = record.evaluate.score
    assert score.accuracy == (score.majority_accuracy if wrong else 1)
    said = f"accuracy {score.accuracy:.4f} does not clearly beat the majority class ({score.majority_accuracy:.4f})"
    assert len(listener.warnings) == (1 if wrong else 0)
    assert all(line.startswith(said) for line in listener.warnings)


def test_a_split_without_labels_is_a_clear_error(tuned_model: Path, tmp_path: Path) -> None:
    line = json.dumps({"sentence1": "A cat sat.", "sentence2": "A cat was sitting.", "label": -1})
    (tmp_path / "test.jsonl").write_text(line + "\n")
    spec = BackendSpec(model=str(tuned_model), device="cpu")
    with pytest.raises(UsageError, match="labels of test are withheld"):
        evaluate(spec, EvaluatePlan(data=str(tmp_path), split="test"), tmp_path / "r.json", Listener())
    assert not (tmp_path / "r.json").exists()


def test_a_pair_that_is_longer_than_the_model_is_refused(tuned_model: Path) -> None:
    spec = BackendSpec(model=str(tuned_model), device="cpu")
    with pytest.raises(UsageError, match="tokens, but the model takes"):
        classify(spec, "the doctor " * 9000, "the doctor")


@pytest.mark.parametrize(("device", "size"), [("cpu", 8), ("cuda of a test", 32)])
def test_the_default_batch_suits_the_device_and_is_in_the_record(device: str, size: int, small_data: Path) -> None:
    session = FakeSession()
    session.placement = replace(session.placement, device=device)
    spec = BackendSpec(backend=engine(f"fake on {device}", lambda: session), model="quickstart")
    found = evaluate(spec, EvaluatePlan(data=str(small_data)), None, Listener())
    assert found.evaluate.batch_size == size


def test_non_finite_logits_are_an_error(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "infer", lambda self, batch: np.full((len(batch.rows), 2), np.nan, np.float32))
    with pytest.raises(MrpcbenchError, match="40 of 40 pairs got non-finite logits"):
        evaluate(
            BackendSpec(backend="fake", model="quickstart"),
            EvaluatePlan(data=str(small_data)),
            tmp_path / "r.json",
            Listener(),
        )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MrpcbenchError, match="--pair: non-finite logits"):
        classify(BackendSpec(backend="fake", model="quickstart"), "One.", "Another.")


def test_a_benchmark_of_logits_that_are_not_finite_shows_its_rows_and_fails(
    mrpcbench: Callable[..., Outcome], small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSession, "infer", lambda self, batch: np.full((len(batch.rows), 2), np.nan, np.float32))
    options = "--backend fake --model quickstart --batch-size 8 --rounds 1 --max-seconds 0 --results r.json".split()
    outcome = mrpcbench("bench", *options, "--data", small_data)
    assert outcome.status == 1
    assert "error: non-finite logits: fake " in outcome.err
    assert store.load(Path("r.json")).complete


@pytest.mark.parametrize("with_types", [True, False])
@pytest.mark.parametrize("kind", [BertConfig, DistilBertConfig, RobertaConfig])
def test_other_encoders_are_scored_and_exported_whatever_inputs_their_tokenizer_makes(
    kind: type[PretrainedConfig], with_types: bool, checkpoint_dir: Path, small_data: Path, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    if kind is DistilBertConfig:
        sizes = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64}
    AutoModelForSequenceClassification.from_config(
        kind(vocab_size=800, type_vocab_size=2, max_position_embeddings=128, pad_token_id=1, **sizes)
    ).save_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_dir)
    tokenizer.model_input_names = ["input_ids", "attention_mask", *(["token_type_ids"] if with_types else [])]
    tokenizer.model_max_length = 120
    tokenizer.save_pretrained(tmp_path / "model")
    scores = []
    for backend in ("torch", "onnx"):
        spec = BackendSpec(backend=backend, model=str(tmp_path / "model"), device="cpu")  # type: ignore[arg-type]
        record = evaluate(spec, EvaluatePlan(data=str(small_data)), tmp_path / "r.json", Listener())
        scores.append(record.evaluate.score.loss)
        if backend == "torch":
            plan = ExportPlan(model=str(tmp_path / "model"), data=str(small_data), device="cpu")
            exported = export(plan, tmp_path / "e.json", Listener()).export
            assert exported is not None
            assert exported.gate is not None
            assert exported.gate.verdict.outcome == "PASS"
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
