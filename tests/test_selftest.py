"""`mrpcbench selftest`: how runs are counted, what its slowdowns are, and the cases that must not pass."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Listener

from mrpcbench import selftest as chain
from mrpcbench import store
from mrpcbench.closed_cases import closed_cases
from mrpcbench.duel import Duel, Process, Side, Workload
from mrpcbench.errors import UsageError
from mrpcbench.plans import BackendSpec, SelftestPlan
from mrpcbench.policy import Policy
from mrpcbench.schema import ClosedCase
from mrpcbench.selftest import selftest, trials_of


@pytest.fixture
def plan(small_data: Path, exported_model: Path) -> SelftestPlan:
    return SelftestPlan(
        model=str(exported_model),
        data=str(small_data),
        device="cpu",
        runs=1,
        power_runs=0,
        fake_runs=0,
        process_pairs=5,
    )


def ratios(*slowdowns: float) -> list[float]:
    return [math.log1p(slowdown) for slowdown in slowdowns]


def test_runs_follow_one_another_and_the_next_confirms() -> None:
    five = {"b+5%": ratios(*[0.05] * 5, *[0.0] * 5, *[0.05] * 10)}
    real, replayed = trials_of(five, 5, Policy())
    # slow, not, slow, slow: the first is not confirmed, the second is not slow, the third is confirmed by the last.
    assert (real.kind, real.runs, real.looked_slower, real.alarms) == ("real", 3, 2, 1)
    assert real.slowdown == 0.05
    assert (replayed.kind, replayed.runs) == ("replayed", 11)
    assert real.rate.low < 1 / 3 < real.rate.high
    assert real.median_slowdown == pytest.approx(0.05)


def test_a_side_that_is_no_slower_gives_false_alarms_only() -> None:
    assert list(trials_of({"b": ratios(*[0.01] * 10)}, 10, Policy())) == []  # a run that none confirms is none
    real, _ = trials_of({"b": ratios(*[0.01] * 20)}, 10, Policy())
    assert (real.slowdown, real.runs, real.alarms) == (0.0, 1, 0)
    real, _ = trials_of({"fake b": ratios(*[0.2] * 20)}, 10, Policy())
    assert (real.slowdown, real.alarms) == (0.0, 1)


def test_real_processes_and_every_case_come_to_a_verdict(plan: SelftestPlan, tmp_path: Path) -> None:
    record = selftest(plan, tmp_path / "s.json", Listener())
    assert store.load(tmp_path / "s.json") == record
    assert record.complete
    section = record.selftest
    assert section is not None
    assert {name: len(times) for name, times in section.log_ratios.items()} == {"b": 10}
    assert section.verdict is not None
    assert all(case.holds for case in section.cases), section.cases
    assert str(tmp_path) not in (tmp_path / "s.json").read_text()
    # The same rounds beside a case that lets something through.
    broken = ClosedCase(name="a flip", expected="REGRESSION", outcome="PASS: fine", exit_code=0, holds=False)
    judged = chain._concluded(record, (broken,)).selftest
    assert judged is not None
    assert judged.verdict is not None
    assert judged.verdict.outcome == "REGRESSION"
    assert "a flip" in judged.verdict.reason


def test_every_slowdown_has_a_real_side_and_one_that_sleeps(
    plan: SelftestPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: dict[str, Side] = {}

    class Noted(Duel):
        """Notes who would run, and has nobody run."""

        def __init__(self, between: Mapping[str, Side], workload: Workload) -> None:
            super().__init__(between, workload)
            sides.update(between)

        def rounds(self, count: int) -> Iterator[tuple[list[str], dict[str, Process]]]:
            assert count == 10  # a run and its confirmation
            return iter(())

    monkeypatch.setattr(chain, "Duel", Noted)
    monkeypatch.setattr(chain, "closed_cases", lambda *details: ())
    section = selftest(replace(plan, power_runs=1, fake_runs=1), tmp_path / "s.json", Listener()).selftest
    assert section is not None
    assert section.verdict is not None
    assert section.verdict.outcome == "INCONCLUSIVE"
    names = set(chain.SLOWDOWNS)
    assert set(sides) == {chain.BASE, *names, *(f"fake {name}" for name in names)}
    assert {name: side.wait_share for name, side in sides.items() if name.startswith("fake ")} == {
        f"fake {name}": share for name, share in chain.SLOWDOWNS.items()
    }
    assert {sides[f"fake {name}"].spec.backend for name in names} == {"fake"}
    # 5% of the 20 pairs of a call is one pair run again, and 10% two; 3% is none, and waits.
    assert [(sides[name].repeat, sides[name].wait_share) for name in ("b", "b+3%", "b+5%", "b+10%")] == [
        (0, 0.0),
        (0, 0.03),
        (1, 0.0),
        (2, 0.0),
    ]


@pytest.mark.slow
def test_engines_that_sleep_are_measured_too(plan: SelftestPlan, tmp_path: Path) -> None:
    section = selftest(replace(plan, fake_runs=1), tmp_path / "s.json", Listener()).selftest
    assert section is not None
    assert {len(times) for times in section.log_ratios.values()} == {10}
    assert set(section.log_ratios) == {"b", *(f"fake {name}" for name in chain.SLOWDOWNS)}


def test_every_case_ends_as_it_must_and_only_the_controls_pass(plan: SelftestPlan) -> None:
    cases = closed_cases(BackendSpec(backend="onnx", model=plan.model, device="cpu"), plan, Listener())
    assert all(case.holds for case in cases), [case for case in cases if not case.holds]
    passed = [case.name for case in cases if case.exit_code == 0]
    assert len(passed) == 2
    assert all("(must pass)" in name for name in passed)
    assert len(cases) >= 14


@pytest.mark.parametrize(
    ("change", "words"),
    [({"process_pairs": 4}, "--process-pairs 4"), ({"batches_a_call": 30}, "--batches-a-call 30")],
)
def test_sizes_that_prove_nothing_are_refused(
    plan: SelftestPlan, tmp_path: Path, change: dict[str, int], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        selftest(replace(plan, **change), tmp_path / "s.json", Listener())  # type: ignore[arg-type]
