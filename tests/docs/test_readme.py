"""README.md matches the results, the files and the commands."""

import re
import tomllib

import pytest
from conftest import REPOSITORY
from pages import example_of

from mrpcbench.records import store
from mrpcbench.schema.records import Record
from mrpcbench.statistics import quantile

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
# Records that are not of an end-to-end run: error rates of the gates, cases of the preset, goals on a GPU, seeds.
OTHERS = {"gate", "peers-cpu", "h200", "study-quickstart"}
RUNS = ("quickstart", "modernbert-4x256-from-scratch", "modernbert-base-random-init")


def record(run: str, command: str) -> Record:
    return store.load(REPOSITORY / "results" / run / f"{command}.json")


def row(run: str) -> str:
    """The line of README's table that the records of `run` make."""
    evaluated, exported, benched = (record(run, command) for command in ("evaluate", "export", "bench"))
    assert evaluated.evaluate
    assert exported.export
    assert exported.export.gate
    assert benched.bench
    score, gate = evaluated.evaluate.score, exported.export.gate
    delta = max(trial.max_abs_delta or float("inf") for trial in gate.trials)
    p50 = {
        item.spec.backend: quantile(item.samples_ms, 0.5)
        for item in benched.bench.rows
        if item.scenario == "single-stream"
    }
    rate = {
        name: max(
            item.pairs * 1e3 / quantile(item.samples_ms, 0.5)
            for item in benched.bench.rows
            if item.spec.backend == name and item.scenario == "offline"
        )
        for name in p50
    }
    model = evaluated.model
    return (
        f"| [{run}](results/{run}) | {model.parameters / 1e6:.1f} M, {model.weights_label} "
        f"| {score.accuracy:.4f} / {score.f1:.4f} ({score.majority_accuracy:.4f}) "
        f"| {max(trial.flips for trial in gate.trials)} of {gate.pairs}, {delta:.1e} "
        f"| {p50['torch']:.2f} / {p50['onnx']:.2f} | {rate['torch']:.0f} / {rate['onnx']:.0f} |"
    )


@pytest.mark.parametrize("run", RUNS)
def test_the_table_of_results_is_made_of_the_records(run: str) -> None:
    assert row(run) in README


def test_every_run_under_results_is_in_the_table() -> None:
    assert {path.name for path in (REPOSITORY / "results").iterdir() if path.is_dir()} == {*RUNS, *OTHERS}


def test_the_full_run_on_real_mrpc_took_the_published_steps_and_learning_rates() -> None:
    section = record("modernbert-4x256-from-scratch", "train").train
    assert section
    assert section.total_steps == 230
    assert [f"{line.train_learning_rate:.6e}" for line in section.epochs] == ["4.034783e-05", "3.478261e-07"]
    assert section.aligned_tokens == {"eos_token_id": None, "bos_token_id": None}


def test_every_command_is_in_the_table_of_commands() -> None:
    from typer.main import get_command

    from mrpcbench.cli.app import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `mrpcbench (\w+)`", README, re.MULTILINE)) == commands


def test_the_page_is_short_and_its_program_is_one_that_is_tested() -> None:
    assert len(README.splitlines()) < 120
    example = example_of("python.md")
    assert example
    assert f"```python\n{example.text}```" in README


def test_the_torch_to_install_is_the_one_that_the_package_needs() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (torch,) = (item for item in project["dependencies"] if item.startswith("torch"))
    assert f"pip install '{torch}' --index-url https://download.pytorch.org/whl/cpu" in README
