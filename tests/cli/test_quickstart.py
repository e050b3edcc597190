"""The whole `mrpcbench quickstart`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from conftest import Outcome
from pages import example_of, missing_line

from mrpcbench.commands import quickstart
from mrpcbench.records import store
from mrpcbench.schema.requests import TrainRecipe


@pytest.mark.parametrize("epochs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_quickstart_trains_verifies_and_measures(
    epochs: int, mrpcbench: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/quickstart.md shows it, but in the default tests with one epoch, and always with the fewest rounds."""
    assert TrainRecipe().num_train_epochs == 2
    monkeypatch.setattr(quickstart, "TrainRecipe", partial(TrainRecipe, num_train_epochs=epochs))
    monkeypatch.setattr(quickstart, "ROUNDS", 6)
    monkeypatch.setattr(quickstart, "MAX_SECONDS", 0.0)
    example = example_of("quickstart.md")
    assert example
    (step,) = example.steps
    monkeypatch.setenv("COLUMNS", "80")
    done = mrpcbench(*step.arguments)
    assert done.status == 0, done.err
    assert missing_line(step.shown, done.out) is None
    lines = [line for text in (done.out, done.err) for line in text.splitlines()]
    assert sum(-(-len(line) // 80) or 1 for line in lines) <= 45
    results = tmp_path / "mrpcbench_quickstart" / "results"
    records = {name: store.load(results / f"{name}.json") for name in ("train", "evaluate", "export", "bench")}
    for number, name in enumerate(records, start=1):
        assert f"{number}/4 {name}: " in done.err
    score = records["evaluate"].evaluate.score
    assert score.accuracy >= 0.9
    assert score.majority_accuracy == pytest.approx(0.67, abs=0.01)
    assert records["export"].export.gate is not None
    assert records["export"].export.gate.verdict.outcome == "PASS"
    assert {row.spec.backend for row in records["bench"].bench.rows} == {"torch", "onnx"}
    assert all(row.summary.p99_ms for row in records["bench"].bench.rows if row.scenario == "single-stream")
