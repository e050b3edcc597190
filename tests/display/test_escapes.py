"""Nothing that a file holds is obeyed by a terminal or by a CI runner."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome
from records import COMMANDS, make_comparison, make_record
from typer.testing import CliRunner

from mrpcbench.cli.app import app
from mrpcbench.cli.streams import safe_streams
from mrpcbench.cli.terminal import Terminal
from mrpcbench.display.ci import annotations, junit, markdown
from mrpcbench.display.escapes import cleaned, escaped
from mrpcbench.errors import UsageError
from mrpcbench.records import store

Run = Callable[..., Outcome]
# Sets the clipboard, colours the rest, ends a line, and gives commands to the runners of GitHub and Azure.
HOSTILE = "x\n::error::y\r ::error::z ##[error]z\x1b]52;c;aGk=\x07\x9b31m\x00\u202e"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]|##\\[|^\\s*::error::", re.MULTILINE)


def places(document: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where in a document its strings are."""
    if isinstance(document, str):
        yield place
    elif isinstance(document, dict | list):
        for name, item in document.items() if isinstance(document, dict) else enumerate(document):
            yield from places(item, (*place, name))


def strings(document: Any) -> Iterator[str]:
    for place in places(document):
        found = document
        for name in place:
            found = found[name]
        yield found


def spoil(document: Any, place: tuple[str | int, ...]) -> None:
    *above, last = place
    for name in above:
        document = document[name]
    document[last] += HOSTILE


def hostile_record(record: Any, path: Path) -> Path:
    """Write `record` with `HOSTILE` at the end of every string that may be anything."""
    whole = json.loads(store.dumps(record))
    for place in list(places(whole)):
        tried = json.loads(store.dumps(record))
        spoil(tried, place)
        path.write_text(json.dumps(tried), encoding="utf-8")
        try:
            store.load(path)
        except UsageError:
            continue
        spoil(whole, place)
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_record_holds_is_shown_and_not_obeyed(
    command: Any, mrpcbench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    good, bad = tmp_path / "good.json", hostile_record(make_record(command), tmp_path / "bad.json")
    store.save(make_record(command), good)
    for arguments in (("report", bad), ("-q", "report", bad), ("-q", "compare", good, bad), ("compare", bad, bad)):
        files = ("--markdown", "o.md", "--junit", "o.xml") if "compare" in arguments else ()
        done = mrpcbench(*arguments, *files)
        assert not OBEYED.search(done.out + done.err), arguments
        assert "internal error" not in done.err
    for file in tmp_path.glob("o.*"):
        assert not OBEYED.search(file.read_text(encoding="utf-8")), file
    document = mrpcbench("report", bad, "--json").out
    assert not OBEYED.search(document)
    assert any(HOSTILE in text for text in strings(json.loads(document)))


def test_annotations_markdown_and_junit_keep_a_reason_on_one_line() -> None:
    found = make_comparison(differences=(f"python: {HOSTILE}",), warnings=(HOSTILE,))
    for text in (*annotations(found), *markdown(found).splitlines(), *junit(found).splitlines()):
        assert not OBEYED.search(text.replace("##[", "")), text


def test_a_message_stays_on_one_line_and_shows_what_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    with safe_streams():
        terminal = Terminal()
        terminal.starting(HOSTILE)
        terminal.say(HOSTILE)
        terminal.warn(HOSTILE)
        terminal.advance("train", 1, 1, HOSTILE)
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 4
    assert not OBEYED.search(shown.err)
    assert r"\x1b]52;c;aGk=\x07\x9b31m\x00\u202e" in shown.err


@pytest.mark.parametrize("arguments", [("nosuch",), ("bench", "--help"), ()])
def test_errors_and_help_keep_their_colours_on_a_terminal(arguments: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, arguments, color=True).output
    assert "\x1b[" in shown
    assert r"\x1b" not in shown


def test_what_is_clean_stays_the_same_object() -> None:
    record = make_record("bench")
    assert cleaned(record) is record
    assert escaped("a\tb\nc µ") == "a\tb\nc µ"
