"""Labels of a model are matched with those of the data by name, in every command that scores."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Listener, Outcome
from safetensors.torch import load_file, save_file

from mrpcbench.commands.evaluate import classify, evaluate
from mrpcbench.commands.export import export
from mrpcbench.errors import UsageError
from mrpcbench.models.sources import weights_source
from mrpcbench.records import store
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan, ExportPlan

GLUE = ("not_equivalent", "equivalent")


def named(folder: Path, names: tuple[str, ...], **more: Any) -> Path:
    """The model in `folder` with other names for its labels."""
    config = json.loads((folder / "config.json").read_text())
    labels = {
        "id2label": {str(label): name for label, name in enumerate(names)},
        "label2id": {name: label for label, name in enumerate(names)},
    }
    (folder / "config.json").write_text(json.dumps({**config, **labels, **more}))
    return folder


@pytest.fixture
def exchanged(tuned_model: Path, tmp_path: Path) -> Path:
    """The tuned model with both outputs exchanged: its label 0 is `equivalent`, with a space in the other name."""
    folder = tmp_path / "exchanged"
    shutil.copytree(tuned_model, folder, ignore=shutil.ignore_patterns("checkpoint-*"))
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return named(folder, ("Equivalent", "Not equivalent"))


def score_of(model: Path, data: Path, listener: Listener | None = None, **options: Any) -> Any:
    spec = BackendSpec(model=str(model), device="cpu", **options)
    return evaluate(spec, EvaluatePlan(data=str(data)), None, listener or Listener()).evaluate.score


def test_a_model_with_the_other_order_scores_as_the_same_model_with_glues(
    exchanged: Path, tuned_model: Path, small_data: Path
) -> None:
    listener, expected = Listener(), score_of(tuned_model, small_data)
    assert score_of(exchanged, small_data, listener) == expected
    assert f"{exchanged}: its labels are Equivalent, Not equivalent; read in the order of the data" in listener.lines
    for model in (exchanged, tuned_model):
        answer = classify(BackendSpec(model=str(model), device="cpu"), "The cat sat.", "A dog ran.")
        assert answer.label_name.lower().replace(" ", "_") == GLUE[answer.label]
        assert np.argmax(answer.logits) == answer.label


def test_the_graph_of_such_a_model_and_its_benchmark_score_as_it_does(
    exchanged: Path, small_data: Path, mrpcbench: Callable[..., Outcome]
) -> None:
    expected = score_of(exchanged, small_data)
    plan = ExportPlan(model=str(exchanged), data=str(small_data), device="cpu", optimize="int8")
    gate = export(plan, None, Listener()).export.gate
    assert gate is not None
    assert gate.f1_allowed is not None
    assert gate.f1_allowed.low <= expected.f1 <= gate.f1_allowed.high
    export(ExportPlan(model=str(exchanged), data=str(small_data), device="cpu"), None, Listener())
    assert score_of(exchanged, small_data, backend="onnx").confusion == expected.confusion
    options = "--backend torch --backend onnx --batch-size 8 --rounds 1 --max-seconds 0 --device cpu --results r.json"
    mrpcbench("bench", *options.split(), "--model", exchanged, "--data", small_data)
    assert {(row.accuracy, row.f1) for row in store.load(Path("r.json")).bench.rows} == {
        (expected.accuracy, expected.f1)
    }


def test_names_that_are_not_those_of_the_data_are_refused_until_a_map_says_what_they_mean(
    exchanged: Path, small_data: Path
) -> None:
    expected = score_of(exchanged, small_data)
    named(exchanged, ("same", "different"))
    with pytest.raises(
        UsageError, match=r"its labels are same, different, .* --label-map 0=not_equivalent,1=equivalent"
    ):
        score_of(exchanged, small_data)
    label_map = "0=equivalent,1=not-equivalent"
    assert score_of(exchanged, small_data, label_map=label_map) == expected
    with pytest.raises(UsageError, match="--label-map 0=a,1=b: its labels are a, b"):
        score_of(exchanged, small_data, label_map="0=a,1=b")
    plan = ExportPlan(model=str(exchanged), data=str(small_data), device="cpu", label_map=label_map)
    export(plan, None, Listener())
    assert score_of(exchanged, small_data, backend="onnx").confusion == expected.confusion, "the graph has the names"


def test_labels_without_names_keep_the_order_of_glue_with_a_message(tuned_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tuned_model, tmp_path / "m", ignore=shutil.ignore_patterns("checkpoint-*")))
    source = weights_source(str(named(folder, ("LABEL_0", "LABEL_1"))))
    assert source.label_order(GLUE) == (0, 1)
    assert source.notes == [
        f"{folder}: its labels are called LABEL_0 and LABEL_1; read as not_equivalent and equivalent "
        "(--label-map changes that)"
    ]
    assert source.label_order(GLUE, "0=equivalent,1=not_equivalent") == (1, 0)


def test_a_configuration_that_contradicts_itself_is_refused(tuned_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tuned_model, tmp_path / "m", ignore=shutil.ignore_patterns("checkpoint-*")))
    named(folder, ("NOT_EQUIVALENT", "EQUIVALENT"), label2id={"EQUIVALENT": 0, "NOT_EQUIVALENT": 1})
    with pytest.raises(UsageError, match="NOT_EQUIVALENT is label 0"):
        weights_source(str(folder)).label_order(GLUE)
    assert weights_source(str(folder)).label_order(GLUE, "0=not_equivalent,1=equivalent") == (0, 1)
