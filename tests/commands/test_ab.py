"""Tests of `mrpcbench ab`: two sides in fresh processes, the verdict, its exit code, and early errors."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Listener, Outcome
from localhub import LocalHub

from mrpcbench.commands import ab as verb
from mrpcbench.commands.ab import ab
from mrpcbench.errors import InterruptedRunError, MissingError, UsageError
from mrpcbench.paired.processes import PairedProcesses, Process
from mrpcbench.records import store
from mrpcbench.schema.gate_requests import AbPlan
from mrpcbench.schema.identity import Placement

FAKE = Placement(engine="fake", device="cpu", provider="none", dtype="fp32", threads=1)


@pytest.fixture
def plan(small_data: Path) -> AbPlan:
    return AbPlan(a_backend="fake", a_model="quickstart", data=str(small_data), process_pairs=5)


def scripted(monkeypatch: pytest.MonkeyPatch, *slowdowns: float, **changes: Any) -> list[int]:
    """Make side B slower by `slowdowns[i]` in run number i. Returns the requested numbers of rounds."""
    asked: list[int] = []

    def rounds(self: PairedProcesses, count: int) -> Iterator[tuple[list[str], dict[str, Process]]]:
        slowdown = slowdowns[len(asked)]
        asked.append(count)
        for index in range(count):
            times = {"a": 10.0, "b": 10.0 * (1 + slowdown) * (1 + index / 1e4)}
            ran = {
                name: Process(
                    samples_ms=(ms,) * 50, placement=FAKE, python="3.11.7", packages={"numpy": "2.0"}, disturbances=()
                )
                for name, ms in times.items()
            }
            ran["b"] = replace(ran["b"], **changes)
            yield ["a", "b"], ran

    monkeypatch.setattr(PairedProcesses, "rounds", rounds)
    return asked


def test_two_real_sides_of_a_hub_model_look_it_up_once_and_leave_a_record_with_their_samples_and_a_verdict(
    plan: AbPlan, exported_model: Path, local_hub: LocalHub, tmp_path: Path
) -> None:
    local_hub.put("models", "owner/name", exported_model)
    # Processes of a graph on a CPU load no torch, so they start soon.
    plan = replace(plan, a_model="owner/name", a_backend="onnx", a_threads=1, warmup=0)
    record = ab(plan, tmp_path / "ab.json", Listener())
    assert len([line for line in local_hub.requests if "/revision/" in line]) == 1
    assert record == store.load(tmp_path / "ab.json")
    assert record.complete
    assert [pair.first for pair in record.ab.pairs] == ["a", "b", "a", "b", "a"]
    assert all(len(pair.a_samples_ms) == len(pair.b_samples_ms) == 50 for pair in record.ab.pairs)
    assert record.ab.comparison is not None
    assert record.ab.a.packages["numpy"]
    assert record.ab.a.python


@pytest.mark.parametrize(
    ("slowdowns", "outcome", "status"),
    [((0.0,), "PASS", 0), ((0.02,), "PASS", 0), ((0.1, 0.1), "REGRESSION", 5), ((0.1, 0.0), "INCONCLUSIVE", 6)],
)
def test_the_verdict_is_the_exit_code_and_a_slowdown_must_show_twice(
    plan: AbPlan,
    monkeypatch: pytest.MonkeyPatch,
    mrpcbench: Callable[..., Outcome],
    slowdowns: tuple[float, ...],
    outcome: str,
    status: int,
) -> None:
    asked = scripted(monkeypatch, *slowdowns)
    options = (
        "--a-backend",
        "fake",
        "--a-model",
        "quickstart",
        "--data",
        plan.data,
        "--process-pairs",
        "5",
        "--junit",
        "gate.xml",
    )
    done = mrpcbench("ab", *options, "--json")
    assert done.status == status, done.err
    found = json.loads(done.out)["ab"]
    assert found["comparison"]["verdict"]["outcome"] == outcome
    assert asked == [5] * len(slowdowns)
    assert len(found["confirmation"]) == 5 * (len(slowdowns) - 1)
    assert ("<failure" in Path("gate.xml").read_text()) is (outcome != "PASS")


def test_too_few_pairs_to_be_significant_are_refused(plan: AbPlan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--process-pairs 4: too few for p < 0\.05 .* at least 5"):
        ab(replace(plan, process_pairs=4), tmp_path / "ab.json", Listener())


def test_b_has_the_options_of_a_unless_given(plan: AbPlan) -> None:
    whole = replace(plan, a_model="x", a_threads=3, b_backend="onnx", b_threads=0)
    assert verb._spec(whole, "a").backend == "fake"
    found = verb._spec(whole, "b")
    assert (found.model, found.backend, found.threads) == ("x", "onnx", 0)


def test_a_side_that_runs_elsewhere_than_requested_is_an_error(
    plan: AbPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, 0.0, placement=replace(FAKE, device="cuda H200"))
    with pytest.raises(MissingError, match="device: requested cpu, but cuda H200 would be used"):
        ab(plan, tmp_path / "ab.json", Listener())


def test_sides_with_different_tokenizers_are_incomparable_before_any_process(
    plan: AbPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, known = scripted(monkeypatch), verb._prepare

    def other_tokens(plan: AbPlan, name: verb.Name, *rest: Any) -> verb.PreparedSide:
        side = known(plan, name, *rest)
        return replace(side, model=replace(side.model, tokenizer_sha256=name * 64))

    monkeypatch.setattr(verb, "_prepare", other_tokens)
    record = ab(plan, tmp_path / "ab.json", Listener())
    assert record == store.load(tmp_path / "ab.json")
    assert record.complete
    assert record.ab.comparison is not None
    assert record.ab.comparison.verdict.outcome == "INCOMPARABLE"
    assert asked == []


def test_an_interrupt_leaves_a_record_without_a_verdict(
    plan: AbPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, 0.0)
    real, calls = Listener.advance, iter(range(9))

    def stop(self: Listener, *details: Any) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        real(self, *details)

    monkeypatch.setattr(Listener, "advance", stop)
    with pytest.raises(InterruptedRunError):
        ab(plan, tmp_path / "ab.json", Listener())
    kept = store.load(tmp_path / "ab.json")
    assert not kept.complete
    assert kept.ab.comparison is None
    assert len(kept.ab.pairs) == 2


def test_a_batch_larger_than_the_split_is_refused(plan: AbPlan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch-size 41: the validation split has 40 pairs"):
        ab(replace(plan, batch_size=41), tmp_path / "ab.json", Listener())


def test_the_record_names_no_path(plan: AbPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, 0.0)
    ab(replace(plan, a_python=str(tmp_path / "python")), tmp_path / "ab.json", Listener())
    assert str(tmp_path) not in (tmp_path / "ab.json").read_text()
