"""Ray runs the same trials as this machine: the same seed gives the same weights."""

from pathlib import Path

import pytest
from conftest import Listener

from mrpcbench.commands.study import study
from mrpcbench.errors import MissingError
from mrpcbench.schema.requests import Launcher, StudyPlan, TrainRecipe, TrainRequest
from mrpcbench.training.study import cluster

pytestmark = pytest.mark.ray


def test_the_same_seed_gives_the_same_weights_in_both_launchers(training_data: Path, tmp_path: Path) -> None:
    hashes = {}
    for launcher in ("local", "ray"):
        name: Launcher = launcher  # type: ignore[assignment]
        plan = StudyPlan(seeds="2", output_dir=str(tmp_path / launcher), launcher=name, jobs=2)
        request = TrainRequest(model="quickstart", data=str(training_data), device="cpu")
        found = study(plan, request, TrainRecipe(max_steps=3, precision="fp32"), Listener())
        assert found.complete
        records = [trial.record for setting in found.study.settings for trial in setting.trials if trial.record]
        hashes[launcher] = [record.model.model_sha256 for record in records]
        assert {record.train.placement.threads for record in records} == {found.study.threads}
    assert hashes["ray"] == hashes["local"]
    assert len(set(hashes["ray"])) == 2


def test_a_trial_that_no_machine_can_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no machine of the cluster has the 9999 CPUs and 0 GPUs of a trial"):
        list(cluster.run([], None, tmp_path, cpus=9999, gpus=0))
