"""Tests of cli.terminal: headings, the spinner, and what `quiet` and `brief` leave out."""

import time
from typing import Literal

import pytest

from mrpcbench.cli.terminal import Terminal


def test_on_a_terminal_a_spinner_runs_until_the_next_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    terminal = Terminal()
    terminal.starting("evaluate: m[1]")
    terminal.say("training")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.index("evaluate: m[1]") < shown.err.index("loading") < shown.err.index("training")
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("detail", "shown"), [("normal", "evaluate: m\n"), ("quiet", ""), ("verbose", "evaluate: m\n")]
)
def test_without_a_terminal_there_is_a_heading_and_no_spinner(
    detail: Literal["quiet", "normal", "verbose"], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(detail)
    terminal.starting("evaluate: m")
    terminal.close()
    assert capsys.readouterr().err == shown


def test_a_brief_terminal_shows_warnings_but_no_messages_and_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    terminal.brief = True
    terminal.say("opening torch")
    terminal.advance("train", 1, 1, "loss 0.5")
    terminal.warn("noisy" * 40)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [f"warning: {'noisy' * 40}"]
