"""docs/benchmarks/packed_equality.py: paired differences, its verdict, and the results in docs/train.md."""

import json
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from conftest import REPOSITORY

FOLDER = REPOSITORY / "docs" / "benchmarks"
RECORD: dict[str, Any] = json.loads((FOLDER / "packed-equality.json").read_text(encoding="utf-8"))
NAME = "packed bf16 minus trainer bf16"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    sys.modules.pop("packed_equality", None)
    return import_module("packed_equality")


def sides(script: ModuleType, by_seed: list[float]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Figures of one run a seed: the second side's vary much more than the differences."""
    theirs = [dict.fromkeys(script.MARGINS, seed / 10) for seed in range(len(by_seed))]
    ours = [{name: value + shift for name, value in run.items()} for run, shift in zip(theirs, by_seed, strict=True)]
    return ours, theirs


def test_the_interval_is_of_differences_within_seeds(script: ModuleType) -> None:
    found = script.differences(*sides(script, [0.001, 0.002, 0.003]))[1]
    assert found.by_seed == pytest.approx((0.001, 0.002, 0.003))
    assert found.mean == pytest.approx(0.002)
    # The 97.5% point of Student's t with 2 degrees of freedom is 4.3027; the standard error is 0.001 / sqrt(3).
    assert (found.low, found.high) == pytest.approx((0.002 - 0.0024842, 0.002 + 0.0024842), abs=1e-6)
    assert found.equal


@pytest.mark.parametrize("by_seed", [[0.0, 0.0, 0.03], [0.011, 0.011, 0.0111]], ids=["too few", "a real difference"])
def test_an_interval_that_leaves_the_margin_is_not_called_equal(script: ModuleType, by_seed: list[float]) -> None:
    assert not script.differences(*sides(script, by_seed))[1].equal


def test_the_record_holds_the_differences_of_its_own_runs(script: ModuleType) -> None:
    for title, recorded in RECORD["differences"].items():
        one, other = (RECORD["runs"][name] for name in title.split(" minus "))
        for found, wanted in zip(script.differences(one, other), recorded, strict=True):
            assert found.by_seed == pytest.approx(wanted["by_seed"])
            assert (found.low, found.high) == pytest.approx((wanted["low"], wanted["high"]))
            assert found.equal
    assert len(RECORD["seeds"]) == 6
    assert RECORD["environment"]["cpu"]


def test_the_page_states_the_recorded_difference_of_accuracy() -> None:
    page = " ".join((REPOSITORY / "docs" / "train.md").read_text(encoding="utf-8").split())
    _, accuracy, _ = RECORD["differences"][NAME]
    mean, low, high = (100 * accuracy[part] for part in ("mean", "low", "high"))
    assert f"accuracy {mean:+.2f} points ({low:+.2f} to {high:+.2f})" in page
