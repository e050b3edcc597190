"""Several processes share each batch of the run of one: the same pairs in every step, and the same losses."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, save_first_pairs
from training_steps import STEPS, trained

from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.schema.records import TrainRecord
from mrpcbench.schema.requests import Engine, TrainRecipe
from mrpcbench.training.arguments import with_batch_sizes
from mrpcbench.training.distributed import Shares, World

ENGINES: tuple[Engine, ...] = ("trainer", "packed")
Steps = list[tuple[int, list[int], float]]


@pytest.mark.parametrize(("pairs", "processes"), [(64, 2), (61, 4), (33, 2), (35, 8)])
def test_the_shares_of_a_batch_are_the_batch_in_its_order(pairs: int, processes: int) -> None:
    order = list(range(pairs))
    shares = [list(Shares(order, 32, World(rank, processes))) for rank in range(processes)]  # type: ignore[arg-type]
    for start, *parts in zip(range(0, pairs, 32), *shares, strict=True):
        batch = order[start : start + 32]
        if len(batch) < processes:
            assert parts == [batch] * processes
        else:
            assert [row for part in parts for row in part] == batch
            assert {len(part) for part in parts} <= {len(batch) // processes, len(batch) // processes + 1}


def test_the_batch_is_divided_by_the_processes_and_a_remainder_is_an_error() -> None:
    sizes = [
        (found.batch_size, found.per_device_train_batch_size)
        for found in (
            with_batch_sizes(TrainRecipe(), 1),
            with_batch_sizes(TrainRecipe(), 2),
            with_batch_sizes(TrainRecipe(batch_size=24), 8),
            with_batch_sizes(TrainRecipe(per_device_train_batch_size=24), 4),
            with_batch_sizes(TrainRecipe(batch_size=96, per_device_train_batch_size=24), 4),
        )
    ]
    assert sizes == [(32, 32), (32, 16), (24, 3), (96, 24), (96, 24)]
    with pytest.raises(UsageError, match="--batch-size 32: 3 processes cannot share it equally; use a multiple of 3"):
        with_batch_sizes(TrainRecipe(), 3)
    with pytest.raises(UsageError, match="--batch-size 32 contradicts --per-device-train-batch-size 8 with 1 process;"):
        with_batch_sizes(TrainRecipe(batch_size=32, per_device_train_batch_size=8), 1)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Steps], dict[str, tuple[Steps, Steps]], Path]:
    """The steps of a run in one process and of a run in two, for each engine; and the folder of the latter's records.

    105 pairs are 3 batches of 32 and one of 9, which two processes share unequally.
    """
    folder = tmp_path_factory.mktemp("distributed")
    data = str(save_first_pairs(folder, {"train": 105, "validation": 41}))
    two = folder / "two"
    two.mkdir()
    # As torchrun starts them, which itself would take seconds to load.
    common = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, str(REPOSITORY / "tests" / "training_steps.py"), str(two), data, *STEPS]
    with subprocess.Popen(command, env=common, stderr=subprocess.PIPE) as process:
        alone = {engine: trained(folder / "one", engine, data) for engine in ENGINES}
        _, problem = process.communicate(timeout=240)
    assert process.returncode == 0, problem.decode()
    ranks = {
        engine: tuple(json.loads((two / f"{engine}-{rank}.steps").read_text()) for rank in (0, 1)) for engine in ENGINES
    }
    return alone, ranks, two  # type: ignore[return-value]


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_train_on_the_pairs_of_one_with_its_losses(
    engine: Engine, runs: tuple[dict[str, Steps], dict[str, tuple[Steps, Steps]], Path]
) -> None:
    alone, ranks, _ = runs
    assert [step for step, _, _ in alone[engine]] == list(range(1, STEPS[engine] + 1))
    assert {len(rows) for _, rows, _ in alone[engine]} == {32, 9}
    for (step, rows, loss), first, second in zip(alone[engine], *ranks[engine], strict=True):
        assert first[0] == second[0] == step
        assert first[1] + second[1] == rows, step
        # The share of each process is weighted, so that their mean is the mean of the batch.
        assert (first[2] + second[2]) / 2 == pytest.approx(loss, abs=1e-4), step


@pytest.mark.parametrize("engine", ENGINES)
def test_the_record_of_two_processes_holds_both_and_the_scores_of_one(
    engine: Engine, runs: tuple[dict[str, Steps], dict[str, tuple[Steps, Steps]], Path]
) -> None:
    _, _, folder = runs
    two = store.load_as(TrainRecord, folder / f"{engine}.json")
    one = store.load_as(TrainRecord, folder.parent / "one" / f"{engine}.json")
    assert (two.train.processes, two.train.devices) == (2, ("cpu", "cpu"))
    assert (two.train.recipe.batch_size, two.train.recipe.per_device_train_batch_size) == (32, 16)
    assert (one.train.processes, one.train.devices, one.train.recipe.per_device_train_batch_size) == (1, ("cpu",), 32)
    assert two.train.real_tokens == one.train.real_tokens
    for was, now in zip(one.train.epochs, two.train.epochs, strict=True):
        assert (now.step, now.eval_accuracy_score) == (was.step, was.eval_accuracy_score)
        assert now.train_loss == pytest.approx(was.train_loss, abs=1e-4)
        assert now.eval_loss == pytest.approx(was.eval_loss, abs=1e-4)
        assert now.train_grad_norm == pytest.approx(was.train_grad_norm, rel=1e-3)


def test_two_processes_resume_with_the_weights_of_a_run_without_interruption(
    runs: tuple[dict[str, Steps], dict[str, tuple[Steps, Steps]], Path],
) -> None:
    _, _, folder = runs
    whole, resumed = (store.load_as(TrainRecord, folder / f"{name}.json") for name in ("packed", "resumed"))
    assert resumed.train.resumed_from_step == STEPS["packed"] - 1
    assert resumed.model.model_sha256 == whole.model.model_sha256
