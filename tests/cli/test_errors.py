"""Tests of mrpcbench.errors and mrpcbench.cli.errors: an exception becomes one line and an exit code."""

import errno
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, Outcome

from mrpcbench.backends import registry
from mrpcbench.commands import env
from mrpcbench.errors import (
    ExitStatus,
    InterruptedRunError,
    MissingError,
    MrpcbenchError,
    ReportedError,
    UsageError,
)

Run = Callable[..., Outcome]


@pytest.fixture
def failing(mrpcbench: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run `mrpcbench env` and raise the given exception in it."""

    def run(error: BaseException, *arguments: str, options: tuple[str, ...] = ()) -> Outcome:
        def work() -> None:
            raise error

        monkeypatch.setattr(env, "env", work)
        return mrpcbench(*options, "env", *arguments)

    return run


def test_the_exit_codes_are_the_documented_ones() -> None:
    assert {status.name: int(status) for status in ExitStatus} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "MISSING": 3,
        "INCOMPARABLE": 4,
        "REGRESSION": 5,
        "INCONCLUSIVE": 6,
        "INTERRUPTED": 130,
    }


def below(kind: type[MrpcbenchError]) -> Iterator[type[MrpcbenchError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from below(child)


def test_every_error_class_has_its_own_failing_exit_code() -> None:
    kinds = (kind for kind in below(MrpcbenchError) if kind.__module__ == MrpcbenchError.__module__)
    statuses = {kind: kind.status for kind in kinds}
    assert statuses == {
        MrpcbenchError: ExitStatus.FAILED,
        UsageError: ExitStatus.USAGE,
        InterruptedRunError: ExitStatus.INTERRUPTED,
        MissingError: ExitStatus.MISSING,
        ReportedError: ExitStatus.FAILED,  # or that of the error that another process reports
    }


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (MrpcbenchError("the work failed"), 1, "error: the work failed"),
        (UsageError("--data x: no such folder"), 2, "error: --data x: no such folder"),
        (MissingError("--device cuda: none"), 3, "error: --device cuda: none"),
        (InterruptedRunError("stopped after step 3"), 130, "error: stopped after step 3"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "out.json"), 1, "error: out.json: No space left on device"),
        (OSError("the pipe broke"), 1, "error: input or output: the pipe broke"),
        (
            ModuleNotFoundError("No module named 'absent.part'", name="absent.part"),
            3,
            "error: the Python package 'absent' is missing, which this command needs; "
            "install mrpcbench without --no-deps",
        ),
        (
            # A part of an installed package is absent: its version does not fit.
            ModuleNotFoundError("No module named 'json.absent'", name="json.absent"),
            1,
            "error: internal error: ModuleNotFoundError: No module named 'json.absent' "
            "(`mrpcbench --traceback` shows where)",
        ),
        (
            ValueError("first line\n  second line"),
            1,
            "error: internal error: ValueError: first line second line (`mrpcbench --traceback` shows where)",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    error: BaseException, status: int, line: str, failing: Callable[..., Outcome]
) -> None:
    found = failing(error)
    assert found.status == status
    assert found.err == f"{line}\n"
    assert found.out == ""


@pytest.mark.parametrize("kind", [UsageError, OSError, ValueError])
def test_an_error_of_several_lines_is_shown_on_one(kind: type[Exception], failing: Callable[..., Outcome]) -> None:
    found = failing(kind("one\n\n  two\r\nthree"))
    assert "one two three" in found.err
    assert len(found.err.splitlines()) == 1


def test_of_several_processes_one_reports_an_error(
    failing: Callable[..., Outcome], mrpcbench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = failing(ReportedError(ExitStatus.USAGE))
    assert (found.status, found.out, found.err) == (2, "", "")
    assert "No such option" in mrpcbench("env", "--nothing").err
    monkeypatch.setenv("RANK", "1")
    found = mrpcbench("env", "--nothing")
    assert (found.status, found.out, found.err) == (2, "", "")


def test_an_error_longer_than_the_terminal_stays_one_line(failing: Callable[..., Outcome]) -> None:
    message = "a long reason " * 40 + "ends"
    assert failing(UsageError(message)).err == f"error: {message}\n"


@pytest.mark.parametrize(
    "message", ["tuned[v2]: no such folder", "[bold]: no", "x[/red]: no", "dev.tsv:100: no label", "dev.tsv:1234: none"]
)
def test_an_error_is_shown_word_for_word(message: str, failing: Callable[..., Outcome]) -> None:
    assert failing(UsageError(message)).err == f"error: {message}\n"


def test_a_traceback_is_shown_only_on_request(failing: Callable[..., Outcome]) -> None:
    asked = failing(ValueError("deep"), options=("--traceback",))
    assert asked.status == 1
    assert "Traceback (most recent call last)" in asked.err
    assert "in work" in asked.err
    assert asked.err.splitlines()[-1].startswith("error: internal error: ValueError: deep")
    assert "Traceback" not in failing(ValueError("deep")).err


def test_an_error_leaves_stdout_to_the_results_also_with_json(failing: Callable[..., Outcome]) -> None:
    found = failing(MissingError("none"), "--json")
    assert (found.status, found.out, found.err) == (3, "", "error: none\n")


@pytest.mark.parametrize(
    "arguments",
    [("train", "--surprise"), ("surprise",), ("bench", "--rounds", "many"), ("evaluate", "--device", "tpu")],
)
def test_an_option_that_is_not_one_is_a_usage_error(arguments: tuple[str, ...], mrpcbench: Run) -> None:
    found = mrpcbench(*arguments)
    assert found.status == ExitStatus.USAGE
    assert found.out == ""
    (line,) = found.err.splitlines()
    assert line.startswith("error: ")
    assert " (see `mrpcbench " in line


@pytest.mark.parametrize(("option", "count"), [("--batch-size", "0"), ("--batch-size", "-1"), ("--threads", "-1")])
def test_an_invalid_count_is_a_usage_error_that_names_its_option(option: str, count: str, mrpcbench: Run) -> None:
    found = mrpcbench("evaluate", "--model", "quickstart", "--random-init", "--data", "quickstart", option, count)
    assert found.status == ExitStatus.USAGE
    assert found.err.startswith(f"error: Invalid value for '{option}': {count} is not in the range")


def test_the_environment_is_one_json_document_and_exits_with_0(mrpcbench: Run) -> None:
    found = mrpcbench("env", "--json")
    assert found.status == 0
    document = json.loads(found.out)
    expected = [f"{name} on {device}" for name in registry.BACKENDS for device in ("cpu", "cuda")]
    assert [name for name, _ in document["problems"]] == expected
    assert document["environment"]["argv"]


def test_an_argument_whose_bytes_are_not_utf_8_is_a_usage_error(mrpcbench: Run) -> None:
    remedy = "bytes that are not UTF-8; rename the file, or convert the text to UTF-8"
    cases = {
        ("evaluate", "--model", "m\udcff"): f"--model m\\xff: {remedy}",
        ("evaluate", "--model=m\udcff"): f"--model=m\\xff: {remedy}",
        ("evaluate", "--pair", "a \udce9", "b"): f"--pair a \\xe9: {remedy}",
        ("compare", "\udcff.json", "b.json"): f"\\xff.json: {remedy}",
    }
    for arguments, line in cases.items():
        found = mrpcbench(*arguments)
        assert (found.status, found.err) == (ExitStatus.USAGE, f"error: {line}\n"), arguments


def test_a_failure_to_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ImportError('no typer')", encoding="utf-8")
    path = os.pathsep.join((str(tmp_path), str(REPOSITORY)))
    command = [sys.executable, "-m", "mrpcbench", "env"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: mrpcbench cannot start (ImportError: no typer); install it again\n"


@pytest.mark.parametrize(("value", "colour"), [(None, True), ("", True), ("1", False)])
def test_the_label_of_an_error_has_a_colour_unless_no_color_is_set(
    value: str | None, colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_COLOR", value)
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mrpcbench", "compare", "a.json", "b.json"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, check=False)
    os.close(theirs)
    shown = os.read(ours, 65536)
    os.close(ours)
    assert b"error:" in shown
    assert (b"\x1b[31m" in shown) == colour


def test_python_without_docstrings_is_refused_because_transformers_reads_them() -> None:
    for arguments in (["--help"], ["report", "none.json"]):
        command = [sys.executable, "-OO", "-m", "mrpcbench", *arguments]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (ExitStatus.USAGE, "")
        assert done.stderr.startswith("error: PYTHONOPTIMIZE=2 and python -OO remove docstrings")
        assert len(done.stderr.splitlines()) == 1
