"""Scoring: the figures, the predictions and their hash, one pair, and what is refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Listener
from datasets import load_dataset
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from mrpcbench import store
from mrpcbench.errors import UsageError
from mrpcbench.evaluate import classify, evaluate
from mrpcbench.metrics import paraphrase_metric
from mrpcbench.schema import Backend, BackendSpec, EvaluatePlan, RunRecord


@pytest.fixture(scope="module", params=["torch", "onnx"])
def backend(request: pytest.FixtureRequest) -> Backend:
    name: Backend = request.param
    return name


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate") / "record.json"


@pytest.fixture(scope="module")
def record(backend: Backend, exported_model: Path, small_data: Path, results: Path) -> RunRecord:
    spec = BackendSpec(backend=backend, model=str(exported_model), device="cpu")
    return evaluate(spec, EvaluatePlan(data=str(small_data), batch_size=7), results, Listener())


def test_the_score_agrees_with_scikit_learn_and_the_metric_to_the_last_digit(record: RunRecord, results: Path) -> None:
    assert record.evaluate is not None
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
    record: RunRecord, results: Path, small_data: Path, exported_model: Path, tmp_path: Path
) -> None:
    assert record.evaluate is not None
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
    record: RunRecord, results: Path, exported_model: Path
) -> None:
    assert record.evaluate is not None
    file = results.parent / record.evaluate.predictions_file
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record.evaluate.predictions_sha256
    assert store.load(results) == record
    text = results.read_text()
    assert str(exported_model) not in text
    assert str(results.parent) not in text


def test_predictions_go_to_the_output_folder_where_one_is_named(
    tuned_model: Path, small_data: Path, tmp_path: Path
) -> None:
    plan = EvaluatePlan(data=str(small_data), output_dir=str(tmp_path / "out"))
    record = evaluate(BackendSpec(model=str(tuned_model), device="cpu"), plan, tmp_path / "r.json", Listener())
    assert record.evaluate is not None
    assert (tmp_path / "out" / record.evaluate.predictions_file).exists()


def test_a_split_without_labels_is_a_clear_error(tuned_model: Path, tmp_path: Path) -> None:
    line = json.dumps({"sentence1": "A cat sat.", "sentence2": "A cat was sitting.", "label": -1})
    (tmp_path / "test.jsonl").write_text(line + "\n")
    spec = BackendSpec(model=str(tuned_model), device="cpu")
    with pytest.raises(UsageError, match="labels of test are withheld"):
        evaluate(spec, EvaluatePlan(data=str(tmp_path), split="test"), tmp_path / "r.json", Listener())
    assert not (tmp_path / "r.json").exists()


def test_a_pair_that_is_longer_than_the_model_is_refused(tuned_model: Path) -> None:
    spec = BackendSpec(model=str(tuned_model), device="cpu")
    with pytest.raises(UsageError, match="tokens and the model takes"):
        classify(spec, "the doctor " * 9000, "the doctor")
