"""Training pads pairs as evaluation does, whatever the tokenizer says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Listener
from transformers import XLNetConfig

from mrpcbench.commands.evaluate import evaluate
from mrpcbench.commands.train import train
from mrpcbench.errors import UsageError
from mrpcbench.models.classifier import load_classifier
from mrpcbench.models.sources import weights_source
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan, TrainRecipe, TrainRequest
from mrpcbench.training.trainer import PairCollator

TEXTS = {"sentence1": ["A short one.", "Another sentence that is longer."], "sentence2": ["Short.", "Some more words."]}


@pytest.fixture
def left(checkpoint_dir: Path, tmp_path: Path) -> Path:
    """A checkpoint that classifies by its first token, with a tokenizer that pads on the left."""
    folder = Path(shutil.copytree(checkpoint_dir, tmp_path / "left"))
    for name, key, value in (
        ("config.json", "classifier_pooling", "cls"),
        ("tokenizer_config.json", "padding_side", "left"),
    ):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, key: value}))
    return folder


def test_every_command_pads_on_the_right_whatever_the_tokenizer_does(
    left: Path, training_data: Path, tmp_path: Path
) -> None:
    listener, model = Listener(), tmp_path / "model"
    request = TrainRequest(model=str(left), data=str(training_data), output_dir=str(model), device="cpu")
    recipe = TrainRecipe(
        learning_rate=1e-9, max_steps=1, per_device_eval_batch_size=4, engine="trainer", precision="fp32"
    )
    (line,) = train(request, recipe, None, listener).train.epochs
    assert f"{left}: its tokenizer pads on the left; pairs are padded on the right" in listener.lines
    scored = evaluate(
        BackendSpec(model=str(model), device="cpu"), EvaluatePlan(data=str(training_data)), None, listener
    )
    assert line.eval_loss == pytest.approx(scored.evaluate.score.loss, abs=1e-5)
    assert json.loads((model / "tokenizer_config.json").read_text())["padding_side"] == "right"


def test_training_and_evaluation_batches_are_equal(left: Path) -> None:
    source = weights_source(str(left))
    loaded = load_classifier(source, new_head=True)
    tokens = source.reader.encode(TEXTS)
    features = [{name: list(column[row]) for name, column in tokens.columns.items()} for row in (0, 1)]
    collator = PairCollator(loaded, with_rows=True)
    batch = collator([{**feature, "labels": 1 - row, "row": row, "length": 9} for row, feature in enumerate(features)])
    expected = tokens.batch_of(np.arange(2))
    assert batch.pop("labels").tolist() == [1, 0]
    assert batch.pop("row").tolist() == [0, 1]
    assert {name: values.tolist() for name, values in batch.items()} == {
        name: values.tolist() for name, values in expected.inputs.items()
    }
    assert (collator.real_tokens, collator.padding_tokens) == (expected.real_tokens, expected.padding_tokens)


def test_a_classifier_that_reads_the_last_position_is_rejected(left: Path) -> None:
    XLNetConfig(summary_type="last").save_pretrained(left)
    with pytest.raises(UsageError, match="it classifies by the last position"):
        _ = weights_source(str(left)).reader
