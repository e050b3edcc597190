"""Tests of `mrpcbench compare` where the baseline does not exist yet: the command that creates it, and exit code 0."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Outcome
from records import make_record

from mrpcbench.records import store

Run = Callable[..., Outcome]
MAIN = "results/baselines/main"
CREATE = "mrpcbench baseline set main current.json"


@pytest.fixture
def record(tmp_path: Path) -> str:
    """A record of `export` in the working folder."""
    store.save(make_record("export"), tmp_path / "current.json")
    return "current.json"


def command_in(line: str) -> list[str]:
    """The arguments of the command at the end of `line`."""
    program, *arguments = shlex.split(line.rstrip().removesuffix("`").rsplit("`", 1)[1])
    assert program == "mrpcbench"
    return arguments


def test_without_a_baseline_the_error_ends_with_the_command_that_creates_it(mrpcbench: Run, record: str) -> None:
    done = mrpcbench("compare", MAIN, record)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert done.err.rstrip().endswith(f"--allow-missing-baseline goes on without it; to create it: `{CREATE}`")
    alone = mrpcbench("compare", record)
    assert alone.status == 2
    assert f"`{CREATE}` creates {MAIN}" in alone.err


def test_with_the_option_the_command_is_the_last_line_and_the_exit_code_0(mrpcbench: Run, record: str) -> None:
    done = mrpcbench("compare", MAIN, record, "--allow-missing-baseline", "--junit", "gate.xml")
    assert done.status == 0
    assert f"warning: {MAIN}: no such baseline, so nothing was compared with it" in done.out
    last = " ".join(done.out.split("PASS")[1].split())
    assert last == f"(exit code 0): nothing was compared; to create the baseline: `{CREATE}`"
    suite = ElementTree.parse("gate.xml").getroot()
    assert [[fault.tag for fault in case] for case in suite.iter("testcase")] == [["skipped"]]


def test_the_command_works_and_then_the_option_changes_nothing(mrpcbench: Run, record: str) -> None:
    assert mrpcbench(*command_in(mrpcbench("compare", MAIN, record).err)).status == 0
    for options in ((), ("--allow-missing-baseline",)):
        # The record is the baseline itself, which never passes.
        assert mrpcbench("compare", MAIN, record, *options).status == 4


def test_a_baseline_is_found_by_its_name_unless_a_path_has_it(mrpcbench: Run, record: str, tmp_path: Path) -> None:
    missing = mrpcbench("compare", "main", record)
    assert (missing.status, f"{MAIN}: no such baseline" in missing.err) == (2, True)
    assert missing.err.rstrip().endswith(f"`{CREATE}`")
    made = mrpcbench(*command_in(missing.err))
    assert made.out.splitlines()[0] == f"baseline main: 1 record of export, saved in {MAIN}"
    assert mrpcbench("compare", "main", record).status == 4  # the record is the baseline itself
    (tmp_path / "main").write_text("{}", encoding="utf-8")
    assert "error: main: " in mrpcbench("compare", "main", record).err


@pytest.mark.parametrize(
    ("baseline", "created"),
    [
        ("results/baselines/speed", "speed current.json"),
        ("other place/speed", "speed current.json --folder 'other place'"),
        ("before.json", "main current.json"),
        ("results/baselines/Not-A-Name", "main current.json"),
    ],
)
def test_the_command_creates_the_baseline_that_was_named_if_it_can_be_one(
    baseline: str, created: str, mrpcbench: Run, record: str
) -> None:
    done = mrpcbench("compare", baseline, record)
    assert f"`mrpcbench baseline set {created}`" in done.err
    assert mrpcbench(*command_in(done.err)).status == 0


def test_an_empty_folder_is_no_baseline_and_a_broken_one_is_an_error(
    mrpcbench: Run, record: str, tmp_path: Path
) -> None:
    folder = tmp_path / MAIN
    folder.mkdir(parents=True)
    assert mrpcbench("compare", MAIN, record, "--allow-missing-baseline").status == 0
    (folder / "broken.json").write_text("{", encoding="utf-8")
    assert mrpcbench("compare", MAIN, record, "--allow-missing-baseline").status == 2


def test_limits_apply_without_the_baseline(mrpcbench: Run, record: str) -> None:
    allowed = ("compare", MAIN, record, "--allow-missing-baseline")
    assert mrpcbench(*allowed, "--max", "flips=0").status == 0
    done = mrpcbench(*allowed, "--max", "nodes=1", "--json")
    assert done.status == 5
    found = json.loads(done.out)
    assert found["missing_baseline"] is True
    assert found["verdict"]["reason"].endswith(f"to create the baseline: `{CREATE}`")


def test_a_record_that_cannot_be_read_is_an_error_all_the_same(mrpcbench: Run, record: str) -> None:
    assert "name the baseline before" in mrpcbench("compare", record, "--allow-missing-baseline").err
    Path(record).write_text("{}", encoding="utf-8")
    assert mrpcbench("compare", MAIN, record, "--allow-missing-baseline").status == 2


def test_github_shows_a_warning(mrpcbench: Run, record: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    done = mrpcbench("compare", MAIN, record, "--allow-missing-baseline")
    assert f"::warning title=mrpcbench export%3A warning::{MAIN}: no such baseline" in done.err
    assert "::notice title=mrpcbench export%3A PASS::nothing was compared" in done.err
