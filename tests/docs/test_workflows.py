"""The workflows for GitHub Actions: they parse, are limited in rights and time, and their commands exist."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import parse
from conftest import REPOSITORY

GATE, CI = REPOSITORY / "docs" / "github-actions.yml", REPOSITORY / ".github" / "workflows" / "ci.yml"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def workflow(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in workflow(path)["jobs"].values():
        yield from job["steps"]


def lines(path: Path) -> list[str]:
    """What the steps of a workflow run."""
    return [line for step in steps(path) for line in step.get("run", "").splitlines()]


def commands(texts: list[str]) -> list[list[str]]:
    """The arguments of each `mrpcbench` among `texts`."""
    return [words[1:] for words in map(shlex.split, texts) if words[:1] == ["mrpcbench"]]


@pytest.mark.parametrize("path", [GATE, CI], ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_ends(path: Path) -> None:
    found = workflow(path)
    assert found[True] == {"push": {"branches": ["main"]}, "pull_request": None}  # YAML 1.1 reads `on` as true
    assert found["permissions"] == {"contents": "read"}
    for name, job in found["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 60, name
        assert "permissions" not in job
    for step in steps(path):
        assert ("run" in step) != bool(re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", ""))), step


def test_every_command_of_the_gate_is_one_that_the_program_accepts() -> None:
    found = commands(lines(GATE))
    assert [arguments[0] for arguments in found] == ["train", "export", "evaluate", "compare"]
    for arguments in found:
        parse(arguments)


def test_the_gate_installs_a_release_and_the_torch_that_the_package_needs() -> None:
    assert workflow(GATE)["env"]["MRPCBENCH"].endswith(f"/mrpcbench@v{PROJECT['version']}")
    (torch,) = (item for item in PROJECT["dependencies"] if item.startswith("torch"))
    assert f'pip install "{torch}" --index-url https://download.pytorch.org/whl/cpu' in lines(GATE)
    (setup,) = (step["with"] for step in steps(GATE) if step.get("uses", "").startswith("actions/setup-python"))
    assert setup == {"python-version": "3.11", "cache": "pip", "cache-dependency-path": ".github/workflows/gate.yml"}


def test_the_gate_keeps_what_a_baseline_is_made_of() -> None:
    *_, kept = steps(GATE)
    evaluate, compare = commands(lines(GATE))[2:]
    record = evaluate[evaluate.index("--results") + 1]
    assert compare[1:4] == ["main", record, "--allow-missing-baseline"]
    assert record.split("/")[0] in kept["with"]["path"].split()
    assert kept["if"] == "always()"


def test_ci_runs_the_checks_of_the_repository_on_the_oldest_and_the_newest_python() -> None:
    (job,) = workflow(CI)["jobs"].values()
    assert lines(CI)[-1] == ".ci/run"
    assert (REPOSITORY / ".ci" / "run").stat().st_mode & 0o111
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert job["container"] == "python:${{ matrix.python }}-bookworm"
    assert PROJECT["requires-python"] == ">=3.11"
    assert any("chromium chromium-driver" in line for line in lines(CI))
