"""Variables of launchers: refused where they contradict the options, out of the way otherwise."""

import os
from pathlib import Path

import pytest
from conftest import Listener
from training_runs import RECIPE, run

from mrpcbench.errors import MissingError, UsageError
from mrpcbench.schema.requests import TrainRecipe, TrainRequest
from mrpcbench.training.launch import PREFIXES, SIZES, launched

REQUEST = TrainRequest(device="cpu")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIXES) or name in SIZES:
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "variable",
    "WORLD_SIZE=2 WORLD_SIZE=two RANK=1 LOCAL_RANK=1 OMPI_COMM_WORLD_SIZE=4 PMI_RANK=3 LOCAL_WORLD_SIZE=8".split(),
)
def test_one_of_several_processes_that_cannot_meet_is_rejected(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*variable.split("="))
    with pytest.raises(UsageError, match=f"{variable}: one of several processes, but not started by torchrun"):
        enter()


def enter(request: TrainRequest | None = None, recipe: TrainRecipe | None = None) -> None:
    with launched(request or REQUEST, recipe or RECIPE, Listener()):
        pass


def test_a_process_without_a_gpu_of_its_own_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    launch = "WORLD_SIZE=2 RANK=0 LOCAL_WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=nowhere MASTER_PORT=1".split()
    for variable in launch:
        monkeypatch.setenv(*variable.split("="))
    with pytest.raises(MissingError, match="2 processes on this machine, and 1 GPU: each needs its own"):
        enter(TrainRequest(device="cuda"))


def test_one_process_on_a_machine_with_several_gpus_says_that_it_uses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    listener = Listener()
    with launched(TrainRequest(), RECIPE, listener) as (world, shown):
        assert (world.size, shown) == (1, listener)
    assert listener.lines == ["training on one of 4 GPUs; torchrun --nproc-per-node 4 would use all"]


def asked(request: TrainRequest = REQUEST, recipe: TrainRecipe = RECIPE) -> tuple[TrainRequest, TrainRecipe, Listener]:
    return request, recipe, Listener()


@pytest.mark.parametrize(
    "variable",
    (
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=8 ACCELERATE_GRADIENT_ACCUMULATION_STEPS=many "
        "ACCELERATE_GRADIENT_CLIPPING=0.5 ACCELERATE_MIXED_PRECISION=fp8 ACCELERATE_DYNAMO_BACKEND=INDUCTOR "
        "ACCELERATE_USE_FSDP=true ACCELERATE_USE_DEEPSPEED=1"
    ).split(),
)
def test_a_variable_that_changes_the_recipe_is_rejected(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*variable.split("="))
    with pytest.raises(UsageError, match=variable), launched(*asked()):
        pass


def test_a_precision_or_device_that_contradicts_its_option_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with (
        pytest.raises(UsageError, match="contradicts --precision fp32"),
        launched(*asked(recipe=TrainRecipe(precision="fp32"))),
    ):
        pass
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(UsageError, match="contradicts --device cuda"), launched(*asked(TrainRequest(device="cuda"))):
        pass


def test_variables_of_a_launcher_are_removed_and_restored_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "nowhere",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "ACCELERATE_MIXED_PRECISION": "no",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    request, recipe, listener = asked()
    with launched(request, recipe, listener):
        assert not set(given) & set(os.environ)
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"  # as the Trainer does
    assert {name: os.environ[name] for name in given} == given
    assert listener.lines == [f"ignored variables of a launcher: {', '.join(sorted(given))}"]


def test_a_launch_of_one_process_trains_like_no_launch(
    training_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_step = TrainRecipe(max_steps=1, engine="trainer", precision="fp32")
    plain, launched = (
        TrainRequest(model="quickstart", data=str(training_data), output_dir=str(tmp_path / name), device="cpu")
        for name in ("plain", "launched")
    )
    expected = run(plain, one_step).train.epochs
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    assert run(launched, one_step).train.epochs == expected
