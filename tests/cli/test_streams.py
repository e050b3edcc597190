"""Tests of mrpcbench.cli.streams: closed, broken and full streams, and encodings that lack characters."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from mrpcbench.cli.streams import SafeStream, printable, printable_json

BENCH = REPOSITORY / "results" / "quickstart" / "bench.json"
SAME_RUN = 4  # what `compare` says of a record and itself
NO_FULL_DEVICE = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


def run(
    redirection: str, *arguments: str | Path, folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as `mrpcbench ARGUMENTS REDIRECTION` in a shell."""
    command = ["bash", "-c", f'set -o pipefail; "$0" -m mrpcbench "$@" {redirection}', sys.executable, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(environment or {})}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, check=False)


@pytest.mark.parametrize("redirection", [">&-", "2>&-"])
def test_with_closed_streams_the_record_is_written_and_the_exit_code_is_0(redirection: str, tmp_path: Path) -> None:
    done = run(redirection, "baseline", "set", "main", BENCH, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    (kept,) = tmp_path.rglob("bench.json")
    assert kept.read_bytes() == BENCH.read_bytes()


def test_an_evaluation_with_closed_streams_writes_its_record(small_data: Path, tmp_path: Path) -> None:
    arguments = ("evaluate", "--model", "quickstart", "--random-init", "--data", small_data, "--device", "cpu")
    done = run("<&- >&- 2>&-", *arguments, "--results", "out.json", folder=tmp_path)
    assert done.returncode == 0
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["complete"] is True


@pytest.mark.parametrize("redirection", ["<&- >&- 2>&-", "2>&1 | true", "| true"])
def test_the_exit_code_is_the_verdict_whoever_reads(redirection: str, tmp_path: Path) -> None:
    done = run(redirection, "compare", BENCH, BENCH, folder=tmp_path)
    assert (done.returncode, done.stderr) == (SAME_RUN, b"")


@NO_FULL_DEVICE
def test_a_result_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    done = run("> /dev/full", "--help", folder=tmp_path)
    assert (done.returncode, done.stderr) == (1, b"error: standard output: No space left on device\n")
    done = run("> /dev/full", "compare", BENCH, BENCH, folder=tmp_path)
    assert (done.returncode, done.stderr) == (SAME_RUN, b"error: standard output: No space left on device\n")
    assert run("2> /dev/full", "compare", BENCH, BENCH, folder=tmp_path).returncode == SAME_RUN


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_help_and_results_are_shown_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    environment = {"PYTHONIOENCODING": f"{encoding}:strict"}
    for arguments, status in ((("bench", "--help"), 0), (("compare", BENCH, BENCH), SAME_RUN)):
        done = run("", *arguments, folder=tmp_path, environment=environment)
        assert (done.returncode, done.stderr) == (status, b"")
        assert "?" not in done.stdout.decode(encoding)


def test_what_an_encoding_lacks_has_a_replacement() -> None:
    text = "µs ±5% 2×3 …°C Δ ─│╭╮ → ≤ é \udcff"
    assert printable(text, "ascii") == r"us +/-5% 2x3 ...degC d -|++ -> <= \xe9 \udcff"
    assert printable(text, "latin-1") == r"µs ±5% 2×3 ...°C d -|++ -> <= é \udcff"
    assert printable(text, "utf-8") == text.replace("\udcff", r"\udcff")


def test_every_character_that_the_source_holds_can_be_shown_in_ascii() -> None:
    found = {letter for path in (REPOSITORY / "mrpcbench").rglob("*.py") for letter in path.read_text(encoding="utf-8")}
    assert [letter for letter in sorted(found) if "\\" in printable(letter, "ascii") and letter != "\\"] == []


def test_json_in_an_encoding_that_lacks_characters_says_the_same() -> None:
    document = {"name": "µ", "letters": "😀 é \\"}
    text = json.dumps(document, ensure_ascii=False)
    assert printable_json(text, "utf-8") == text
    control = json.dumps({"name": "\x9b31m\u202e ##[error]"}, ensure_ascii=False)
    assert printable_json(control, "utf-8") == r'{"name": "\u009b31m\u202e #\u0023[error]"}'
    escaped = printable_json(text, "ascii")
    assert escaped.isascii()
    assert json.loads(escaped) == document


class OnATerminal(io.StringIO):
    """A stream on a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_line_that_a_runner_would_obey_is_broken_whatever_the_writes() -> None:
    inner = io.StringIO()
    stream = SafeStream(inner)
    for text in (
        "a\n",
        "  ",
        "::error::x\nname: ::b\n::stop",
        "-commands::\n",
        "c ::d\rx\r::e\n##[group]\n##vso[task]",
    ):
        stream.write(text)
    shown = inner.getvalue()
    assert shown == "a\n  \\::error::x\nname: ::b\n\\::stop-commands::\nc ::d\\rx\\r::e\n#\\#[group]\n#\\#vso[task]"
    assert not re.search(r"(?m)^\s*::|##\w*\[", shown)
    stream.write_command("\n::error::ours\n")
    assert inner.getvalue().endswith("\n::error::ours\n")


def test_a_progress_bar_of_a_library_moves_on_a_terminal_but_nothing_else_does() -> None:
    inner = OnATerminal()
    SafeStream(inner).write("50%\r60%\x1b[A\x1b]0;title\x07")
    assert inner.getvalue() == "50%\r60%\\x1b[A\\x1b]0;title\\x07"


class Broken(io.StringIO):
    """A stream whose writes fail with `number`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


def test_a_write_that_fails_raises_nothing_and_is_remembered_if_someone_reads() -> None:
    for number, remembered in ((32, False), (9, False), (5, False), (28, True)):
        stream = SafeStream(Broken(number))
        stream.write("text")
        stream.flush()
        assert (stream.error is not None) is remembered, number
    closed = io.StringIO()
    closed.close()
    SafeStream(closed).write("text")
