"""The batches that are computed before training on a GPU: they change nothing, and leave no new shape to a step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Listener, save_first_pairs
from datasets import Dataset

from mrpcbench.data import loading
from mrpcbench.models.classifier import load_classifier
from mrpcbench.models.sources import weights_source
from mrpcbench.schema.requests import TrainRecipe
from mrpcbench.training.arguments import LENGTH, ROW, training_arguments
from mrpcbench.training.trainer import LABELS, ObservedTrainer

# 23 pairs: 5 batches per epoch, of which the last has 3 pairs.
BATCH = 5
RECIPES: list[dict[str, Any]] = [
    {},
    {"max_steps": 7},
    {"gradient_accumulation_steps": 4},
    {"gradient_accumulation_steps": 4, "group_by_length": True},
]


class NotingTrainer(ObservedTrainer):
    """A Trainer that notes the shape of each training batch that it computes, and before which step."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if model.training:
            vars(self).setdefault("computed", []).append((self.step_now, tuple(inputs["input_ids"].shape)))
        return super().compute_loss(model, inputs, *args, **kwargs)


def ready(data: Path, folder: Path, recipe: Mapping[str, Any]) -> NotingTrainer:
    """A trainer of the bundled model with dropout."""
    source = weights_source("quickstart", to_train=True)
    loaded = load_classifier(source, label_names=("not_equivalent", "equivalent"), seed=42, new_head=True)
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    columns = {}
    for name, split in loading.load(str(data), Listener()).items():
        tokens = source.reader.encode(split)
        rows = list(range(len(tokens.lengths)))
        columns[name] = Dataset.from_dict({**tokens.columns, LABELS: split["label"], LENGTH: tokens.lengths, ROW: rows})
    made = training_arguments(
        TrainRecipe(learning_rate=1e-3, per_device_train_batch_size=BATCH, engine="trainer", **recipe),
        folder,
        device="cpu",
        precision="fp32",
        report_to="none",
    )
    return NotingTrainer(loaded, made, columns["train"], columns["validation"], Listener())


@pytest.fixture(scope="module")
def few_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_first_pairs(tmp_path_factory.mktemp("data"), {"train": 23, "validation": 16})


@pytest.fixture(scope="module", params=RECIPES, ids=str)
def plain_and_warm(
    request: pytest.FixtureRequest, few_pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[NotingTrainer, NotingTrainer]:
    """Two trainers after the same run, the second with warm-up."""
    tmp_path = tmp_path_factory.mktemp("warm_up")
    plain = ready(few_pairs, tmp_path / "plain", request.param)
    plain.train()
    warm = ready(few_pairs, tmp_path / "warm", request.param)  # which sets the seed
    warm.warms_up = True
    warm.train()
    return plain, warm


def log_of(trainer: ObservedTrainer) -> list[dict[str, float]]:
    """The Trainer's log without times."""
    times = ("runtime", "per_second")
    return [
        {key: value for key, value in line.items() if not key.endswith(times)} for line in trainer.state.log_history
    ]


def test_weights_log_and_tokens_are_the_same_to_the_bit(plain_and_warm: tuple[NotingTrainer, NotingTrainer]) -> None:
    plain, warm = plain_and_warm
    assert len(warm.computed) > len(plain.computed)
    assert log_of(warm) == log_of(plain)
    wanted = dict(plain.model.named_parameters())
    assert all(torch.equal(weight, wanted[name]) for name, weight in warm.model.named_parameters())
    tokens = [(trainer.counted.real_tokens, trainer.counted.padding_tokens) for trainer in plain_and_warm]
    assert tokens[0] == tokens[1]
    assert warm.stopwatch.seconds["cold_s"] > plain.stopwatch.seconds["cold_s"]


def test_no_step_meets_a_new_shape_and_each_is_computed_once_more(
    plain_and_warm: tuple[NotingTrainer, NotingTrainer],
) -> None:
    plain, warm = plain_and_warm
    more = len(warm.computed) - len(plain.computed)
    if not warm.args.group_by_length:  # its order is not known before; a new shape is then computed before its step
        assert warm.computed[more:] == plain.computed
        assert {step for step, _ in warm.computed[:more]} == {1}
    assert more == len({shape for _, shape in warm.computed})
    assert {shape for _, shape in plain.computed} <= {shape for _, shape in warm.computed}


def test_on_a_cpu_there_is_no_warm_up(few_pairs: Path, tmp_path: Path) -> None:
    assert not ready(few_pairs, tmp_path, {}).warms_up
