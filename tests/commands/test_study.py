"""A study: trials that a second call skips, failures that stop no other, and what is refused before any trial."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Listener

from mrpcbench.commands import study as command
from mrpcbench.commands.train import train
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.records import store
from mrpcbench.schema.records import StudyRecord
from mrpcbench.schema.requests import StudyPlan, TrainRecipe, TrainRequest
from mrpcbench.training.study import trial as process

# Stands in for `mrpcbench train`: takes its options, and writes the record of a real run with its own seed and rate.
PRETENDER = """#!{python}
import json, pathlib, sys
options = dict(zip(sys.argv[4::2], sys.argv[5::2]))
folder = pathlib.Path(options["--output-dir"])
print("training seed", options["--seed"], flush=True)
if options["--seed"] == pathlib.Path({failing!r}).read_text():
    print("error: no memory is left", file=sys.stderr)
    sys.exit(1)
record = json.loads(pathlib.Path({template!r}).read_text())
record["train"]["recipe"]["seed"] = int(options["--seed"])
record["train"]["recipe"]["learning_rate"] = float(options.get("--learning-rate", "8e-05"))
folder.joinpath("checkpoint-1").mkdir(parents=True)
folder.joinpath("model.safetensors").write_bytes(b"weights")
pathlib.Path(options["--results"]).write_text(json.dumps(record))
"""
RECIPE = TrainRecipe(max_steps=1, precision="fp32")


@pytest.fixture(scope="module")
def template(training_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a real run of one step."""
    folder = tmp_path_factory.mktemp("template")
    request = TrainRequest(model="quickstart", data=str(training_data), output_dir=str(folder / "model"), device="cpu")
    train(request, RECIPE, folder / "record.json", Listener())
    return folder / "record.json"


@pytest.fixture
def failing(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the seed whose trials fail; the trials are those of the pretender."""
    seed, script = tmp_path / "failing", tmp_path / "python"
    seed.write_text("")
    script.write_text(PRETENDER.format(python=sys.executable, template=str(template), failing=str(seed)))
    script.chmod(0o755)
    monkeypatch.setattr(command.sys, "executable", str(script))
    return seed


def run(plan: StudyPlan, data: Path, listener: Listener | None = None, recipe: TrainRecipe = RECIPE) -> StudyRecord:
    request = TrainRequest(model="quickstart", data=str(data), device="cpu")
    return command.study(plan, request, recipe, listener or Listener())


@pytest.mark.usefixtures("failing")
def test_a_second_call_skips_what_is_finished_and_may_add_seeds(training_data: Path, tmp_path: Path) -> None:
    plan = StudyPlan(seeds="2", set=("learning_rate=5e-5,8e-5",), output_dir=str(tmp_path / "s"))
    first = run(plan, training_data)
    assert first.complete
    assert store.load(tmp_path / "s" / "study.json") == first
    trials = [trial for setting in first.study.settings for trial in setting.trials]
    assert [trial.folder for trial in trials] == [
        f"learning_rate={rate}/seed-{seed}" for rate in ("5e-05", "8e-05") for seed in (42, 43)
    ]
    logs = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("*/*/train.log")}
    assert len(logs) == 4
    listener = Listener()
    second = run(replace(plan, seeds="3"), training_data, listener)
    assert "4 of 6 trials are finished" in listener.lines
    assert {path: path.stat().st_mtime_ns for path in logs} == logs
    assert second.study.seeds == (42, 43, 44)
    assert [step[1:3] for step in listener.steps] == [(5, 6), (6, 6)]
    assert second.study.comparisons[0].seeds == (42, 43, 44)


def test_a_failed_trial_keeps_its_log_and_stops_no_other(training_data: Path, tmp_path: Path, failing: Path) -> None:
    failing.write_text("43")
    plan, listener = StudyPlan(seeds="3", output_dir=str(tmp_path / "s")), Listener()
    found = run(plan, training_data, listener)
    assert not found.complete
    (setting,) = found.study.settings
    assert [trial.record is None for trial in setting.trials] == [False, True, False]
    assert setting.trials[1].error == ("training seed 43", "error: no memory is left")
    log = tmp_path / "s" / "default" / "seed-43" / "train.log"
    assert listener.warnings == [f"default/seed-43 failed: error: no memory is left (log: {log})"]
    failing.write_text("")
    assert run(plan, training_data).complete


@pytest.mark.usefixtures("failing")
@pytest.mark.parametrize(("keep", "kept"), [("best", (True, False)), ("all", (True, True)), ("none", (False, False))])
def test_a_finished_trial_keeps_what_is_asked(
    keep: str, kept: tuple[bool, bool], training_data: Path, tmp_path: Path
) -> None:
    plan = StudyPlan(seeds="1", output_dir=str(tmp_path / "s"), keep=keep)  # type: ignore[arg-type]
    run(plan, training_data)
    folder = tmp_path / "s" / "default" / "seed-42"
    assert ((folder / "model.safetensors").exists(), (folder / "checkpoint-1").exists()) == kept
    assert (folder / "mrpcbench-train.json").exists()


@pytest.mark.usefixtures("failing")
def test_what_train_refuses_and_other_studies_are_refused_before_any_trial(
    training_data: Path, small_data: Path, tmp_path: Path
) -> None:
    plan = StudyPlan(seeds="1", output_dir=str(tmp_path / "s"))
    refused = {
        "optim=adam_none": "transformers rejected an option",
        "max_steps=-2,3": "--max-steps -2: at least 1",
        "batch_size=31": None,
    }
    for text, problem in refused.items():
        changed = replace(plan, set=(text,), nproc=2)
        with pytest.raises(UsageError, match=problem or "--batch-size 31: 2 processes cannot share it"):
            run(changed, training_data)
    assert not (tmp_path / "s").exists()
    run(plan, training_data)
    with pytest.raises(UsageError, match=r"holds another study, with max_steps 1 \(now 2\); name another --output-dir"):
        run(plan, training_data, recipe=replace(RECIPE, max_steps=2))
    with pytest.raises(UsageError, match="holds another study, of quickstart; name another"):
        run(plan, small_data)
    with pytest.raises(UsageError, match="--address: only for --launcher ray"):
        run(replace(plan, address="somewhere:1"), training_data)
    with pytest.raises(UsageError, match=r"default/seed-42 holds another run, with max_steps 1 \(now 3\)"):
        (tmp_path / "s" / "study.json").unlink()
        run(plan, training_data, recipe=replace(RECIPE, max_steps=3))


def test_ray_that_is_missing_or_does_not_answer_is_one_line(
    training_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = StudyPlan(seeds="1", output_dir=str(tmp_path / "s"), launcher="ray", address="127.0.0.1:1")
    monkeypatch.setattr(command.cluster, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"Ray is not installed; install it with pip install 'mrpcbench\[ray\]'"):
        run(plan, training_data)
    monkeypatch.setattr(command.cluster, "find_spec", lambda name: name)
    with pytest.raises(MissingError, match=r"--address 127\.0\.0\.1:1: no Ray cluster answers"):
        run(plan, training_data)


def test_a_trial_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A study that is killed leaves no training behind that a second call would meet."""
    sleeper = [sys.executable, "-S", "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    code = (
        "import pathlib, sys; from mrpcbench.training.study.trial import start\n"
        f"start({sleeper!r}, pathlib.Path({str(tmp_path)!r}), 'log', {{}}).wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    log = tmp_path / "log"
    while not (log.exists() and log.read_text().strip()):
        assert parent.poll() is None
    child = int(log.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(1000):
        status = Path(f"/proc/{child}/stat")
        if not status.exists() or status.read_text().split()[2] == "Z":
            break
        os.sched_yield()
    else:
        pytest.fail("the trial still runs")


def test_stopping_interrupts_a_trial_and_kills_one_that_does_not_end(tmp_path: Path) -> None:
    waiting = "try:\n  print('on', flush=True)\n  time.sleep(60)\nexcept KeyboardInterrupt: print('saved')"
    polite, deaf = (
        [sys.executable, "-S", "-c", f"import signal, time\nsignal.signal(signal.SIGTERM, {handler})\n{waiting}"]
        for handler in ("signal.default_int_handler", "signal.SIG_IGN")
    )
    children = [process.start(one, tmp_path / name, "log", {}) for name, one in (("polite", polite), ("deaf", deaf))]
    logs = [tmp_path / name / "log" for name in ("polite", "deaf")]
    while not all(log.exists() and log.read_text() for log in logs):
        pass
    process.stop(children[:1])
    process.stop(children[1:], grace_s=0.1)
    assert process.last_lines(logs[0]) == ("on", "saved")
    assert [child.returncode for child in children] == [0, -signal.SIGKILL]
    assert json.dumps(process.last_lines(tmp_path / "none")) == "[]"
