"""Tests of what `compare`, `ab` and `export` leave for CI with each exit code: JUnit, Markdown, summary, annotation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from comparisons import OF_EACH_OUTCOME
from conftest import Outcome
from records import make_export, make_record

from mrpcbench.commands import ab as ab_command
from mrpcbench.commands import export as export_command
from mrpcbench.display.ci import publish as publish_verdict
from mrpcbench.errors import InterruptedRunError, MissingError, MrpcbenchError
from mrpcbench.gates.export import comparison_of
from mrpcbench.records import store
from mrpcbench.schema.gate_requests import Publish
from mrpcbench.schema.verdicts import EXIT_STATUS, Verdict

Run = Callable[..., Outcome]
FILES = ("--junit", "gate.xml", "--markdown", "gate.md")
LEVELS = {0: "notice", 5: "error", 6: "warning"}


@dataclass(frozen=True)
class Published:
    """What a command left for CI."""

    done: Outcome
    faults: list[str]
    markdown: str
    summary: str


@pytest.fixture
def publish(mrpcbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Published]:
    """Run a command as in GitHub Actions, where an earlier run left a report that is all green."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    publish_verdict(
        OF_EACH_OUTCOME["PASS"], Publish(junit=str(tmp_path / "gate.xml"), markdown=str(tmp_path / "gate.md")), {}
    )

    def run(*arguments: str) -> Published:
        done = mrpcbench(*arguments, *FILES)
        suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
        faults = [fault.attrib["type"] for case in suite.iter("testcase") for fault in case]
        texts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("gate.md", "summary.md")]
        return Published(done, faults, *texts)

    return run


def check(found: Published, status: int, level: str) -> None:
    """The four ways of telling CI agree on the exit code."""
    assert found.done.status == status
    assert f"::{level} title=mrpcbench " in found.done.err
    assert bool(found.faults) == (status != 0)
    assert f"(exit code {status})" in found.markdown.splitlines()[0]
    assert found.summary == f"\n{found.markdown}"


def returning(record: Any, error: BaseException | None = None) -> Callable[..., Any]:
    def run(*_: Any, **__: Any) -> Any:
        if error:
            raise error
        return record

    return run


def exported(outcome: str) -> Any:
    section = make_export()
    assert section.gate
    gate = replace(section.gate, verdict=Verdict(outcome=outcome, reason=f"found {outcome}"))  # type: ignore[arg-type]
    return make_record("export", export=replace(section, gate=gate))


@pytest.mark.parametrize(("outcome", "status"), [("PASS", 0), ("REGRESSION", 5)])
def test_each_verdict_of_export_is_published(
    outcome: str, status: int, publish: Callable[..., Published], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_command, "export", returning(exported(outcome)))
    found = publish("export", "--model", "quickstart")
    check(found, status, LEVELS[status])
    assert "| export gate, flips | 0 | at most 0 |" in found.markdown


def test_the_gate_of_an_export_as_a_comparison_has_its_verdict_and_its_graph() -> None:
    record = exported("REGRESSION")
    found = comparison_of(record, "export.json")
    assert found.verdict.outcome == "REGRESSION"
    assert found.verdict.reason == "export gate: found REGRESSION"
    assert [item.name for item in found.current] == ["export.json"]
    assert found.current[0].model_sha256 == record.model.model_sha256


@pytest.mark.parametrize("outcome", OF_EACH_OUTCOME)
def test_each_verdict_of_ab_is_published(
    outcome: Any, publish: Callable[..., Published], monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = replace(OF_EACH_OUTCOME[outcome], kind="ab")
    record = make_record("ab")
    monkeypatch.setattr(ab_command, "ab", returning(replace(record, ab=replace(record.ab, comparison=comparison))))
    status = int(EXIT_STATUS[outcome])
    check(publish("ab"), status, LEVELS.get(status, "error"))


def test_each_verdict_of_compare_is_published(publish: Callable[..., Published], tmp_path: Path) -> None:
    record = make_record("export")
    later = replace(record, environment=replace(record.environment, started_at="2025-02-02T00:00:00+00:00"))
    for name, item in (
        ("old", record),
        ("new", later),
        ("other", replace(later, data=(replace(later.data[0], pairs=7),))),
    ):
        store.save(item, tmp_path / f"{name}.json")
    for arguments, status, level in (
        (("old.json", "new.json"), 0, "notice"),
        (("new.json", "--max", "nodes=1"), 5, "error"),
        (("old.json", "other.json"), 4, "error"),
        (("old.json", "old.json"), 4, "error"),
        (("none", "new.json"), 2, "error"),
    ):
        check(publish("compare", *arguments), status, level)
        (tmp_path / "summary.md").unlink()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MrpcbenchError("no\nspace"), 1),
        (MissingError("--device cuda: none"), 3),
        (InterruptedRunError("interrupted"), 130),
        (ValueError("a bug"), 1),
    ],
)
@pytest.mark.parametrize("command", ["ab", "export"])
def test_an_error_is_published_in_place_of_a_verdict(
    command: str, error: BaseException, status: int, publish: Callable[..., Published], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"ab": ab_command, "export": export_command}[command]
    monkeypatch.setattr(module, command, returning(None, error))
    found = publish(command, *(("--model", "quickstart") if command == "export" else ()))
    check(found, status, "error")
    assert found.done.err.splitlines()[-1].startswith(f"::error title=mrpcbench {command}::")
    assert found.done.err.splitlines()[-2].startswith("error: ")


def test_other_commands_annotate_their_errors(mrpcbench: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "::" not in mrpcbench("bench", "--model", "none").err
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert "\n::error title=mrpcbench bench::" in mrpcbench("bench", "--model", "none").err
    assert mrpcbench("--nothing").err.splitlines()[-1].startswith("::error title=mrpcbench::No such option")


def test_a_report_that_cannot_be_written_hides_no_error(mrpcbench: Run, tmp_path: Path) -> None:
    done = mrpcbench("compare", "none", "none.json", "--junit", str(tmp_path / "file" / "gate.xml"))
    assert done.status == 2
    (tmp_path / "wall").touch()
    done = mrpcbench("compare", "none", "none.json", "--junit", str(tmp_path / "wall" / "gate.xml"))
    assert (done.status, len(done.err.splitlines())) == (2, 1)
