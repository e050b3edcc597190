"""What `--engine auto` and `--precision auto` choose, and how a run says it."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Listener
from training_runs import RECIPE, run

from mrpcbench.environment.machine import BF16, has_instructions
from mrpcbench.models.classifier import LoadedModel, load_classifier
from mrpcbench.models.sources import weights_source
from mrpcbench.schema.requests import TrainRecipe, TrainRequest
from mrpcbench.training.arguments import resolve_engine, resolve_precision

AUTO = TrainRecipe()


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_classifier(weights_source("quickstart", to_train=True), new_head=True)


def test_precision_is_bf16_on_a_processor_with_its_instructions() -> None:
    assert resolve_precision("auto", "cpu") == ("bf16" if has_instructions(BF16) else "fp32")


def test_engine_is_packed_on_a_cpu_and_the_trainer_on_a_gpu(loaded: LoadedModel) -> None:
    assert resolve_engine(AUTO, loaded.model, "cpu") == "packed"
    assert resolve_engine(AUTO, loaded.model, "cuda") == "trainer"
    assert resolve_engine(replace(AUTO, engine="packed"), loaded.model, "cuda") == "packed"


def test_engine_is_the_trainer_for_what_packed_does_not_support(loaded: LoadedModel) -> None:
    assert resolve_engine(replace(AUTO, optim="adamw_torch_fused"), loaded.model, "cpu") == "packed"
    assert resolve_engine(replace(AUTO, optim="sgd"), loaded.model, "cpu") == "trainer"
    loaded.model.config.mlp_dropout = 0.1
    assert resolve_engine(AUTO, loaded.model, "cpu") == "trainer"
    loaded.model.config.mlp_dropout = 0.0


def test_a_run_first_says_engine_and_precision_and_records_what_was_chosen(training_data: Path, tmp_path: Path) -> None:
    listener = Listener()
    request = TrainRequest(
        model="quickstart", data=str(training_data), output_dir=str(tmp_path / "model"), device="cpu"
    )
    record = run(request, replace(RECIPE, engine="auto", precision="auto", max_steps=1), listener)
    precision = resolve_precision("auto", "cpu")
    assert listener.lines[0] == f"training on cpu in {precision} with engine packed (--precision auto, --engine auto)"
    assert record.train.recipe.engine == "packed"
    assert record.train.recipe.precision == "auto"
    assert record.train.placement.dtype == precision
    explicit = Listener()
    run(replace(request, overwrite=True), replace(RECIPE, max_steps=1), explicit)
    assert explicit.lines[0] == "training on cpu in fp32 with engine trainer"
