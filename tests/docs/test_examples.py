"""The example of each page in docs/ works, and prints what the page shows."""

from pathlib import Path

import pytest
from pages import PAGES, Example, example_of, missing_line, normalised
from typer.testing import CliRunner

from mrpcbench.cli.app import app

# tests/cli/test_quickstart.py runs this one, because it takes as long as all others together.
RUN_ELSEWHERE = {"quickstart.md"}


def invoke(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    done = CliRunner().invoke(app, list(arguments), prog_name="mrpcbench")
    return done.exit_code, done.stdout + done.stderr


def problem_of(example: Example) -> str | None:
    """What is wrong with `example`, run in the working folder; None if it works as the page says."""
    if example.language == "python":
        try:
            exec(compile(example.text, "example", "exec"), {"__name__": "__main__"})
        except Exception as error:  # whatever it raises, the page is wrong
            return f"{type(error).__name__}: {error}"
        return None
    for step in example.steps:
        status, output = invoke(*step.arguments)
        command = f"mrpcbench {' '.join(step.arguments)}"
        if status != step.status:
            return f"{command}: exit code {status} instead of {step.status}\n{output}"
        if line := missing_line(step.shown, output):
            return f"{command}: does not print {line!r}, but\n{output}"
    return None


@pytest.mark.parametrize("page", sorted(name for name in PAGES.keys() - RUN_ELSEWHERE if example_of(name)))
def test_the_example_of_a_page_works(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.chdir(tmp_path)
    example = example_of(page)
    assert example
    assert problem_of(example) is None


def test_an_example_is_compared_except_for_numbers_spaces_and_lines_of_tables() -> None:
    printed = "┃ accuracy ┃ 0.9700 ┃\n│ F1 │ 97.81% │\nPASS: 0 of 400 labels flip"
    assert missing_line(("accuracy  0.1", "PASS: 3 of 4 labels flip"), printed) is None
    assert missing_line(("PASS: 3 of 4 labels flip", "accuracy  0.1"), printed) == "accuracy  0.1"
    assert missing_line(("F2 97%",), printed) == "F2 97%"
    assert normalised("fp32 3.9e-06 -1") == "fp32 0 0"


def test_a_failing_example_is_a_problem() -> None:
    assert problem_of(Example("python", "1 / 0")) == "ZeroDivisionError: division by zero"
    assert "exit code 2 instead of 0" in (problem_of(Example("console", "$ mrpcbench train --nothing\n")) or "")
    assert problem_of(Example("console", "$ mrpcbench train --nothing\n$ echo $?\n2\n")) is None
