"""The pages in docs/: each begins with an example, links lead somewhere, and the whole stays short."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from pages import DOCS, PAGES, code, example_of, headings, links, read
from typer.main import get_command

from mrpcbench.cli.app import app
from mrpcbench.records import store
from mrpcbench.schema.requests import DEFAULT_BATCH_SIZE

MOST_WORDS = 9_000
ALL_PAGES = (
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "results/README.md")),
    *DOCS.rglob("*.md"),
)


def test_every_page_begins_with_an_example() -> None:
    examples = {name: example_of(name) for name in PAGES}
    without = {name for name, found in examples.items() if not found or found.language not in ("console", "python")}
    assert not without


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_jq_lines_read_the_figures_of_a_record(tmp_path: Path) -> None:
    store.save(store.load(REPOSITORY / "results" / "quickstart" / "bench.json"), tmp_path / "bench.json")
    lines = re.findall(r"^jq .*$", read(DOCS / "bench.md"), re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        done = subprocess.run(shlex.split(line), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), line
        assert "null" not in done.stdout, line


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    broken = []
    for page in ALL_PAGES:
        for target, file, heading in links(page):
            if not file.exists() or (heading and heading not in headings(file)):
                broken.append(f"{page.relative_to(REPOSITORY)}: {target}")
    assert not broken


def test_every_page_that_the_code_names_exists() -> None:
    files = [path for root in ("mrpcbench", "tests", "docs") for path in (REPOSITORY / root).rglob("*.*")]
    missing = set()
    for path in files:
        if path.suffix in (".py", ".json", ".toml", ".md", ".jinja"):
            for target in re.findall(r"\bdocs/(?!test_)[\w./-]+\.(?:md|py|json)\b", read(path)):
                if not (REPOSITORY / target).exists():
                    missing.add(f"{path.relative_to(REPOSITORY)}: {target}")
    assert not missing


def test_all_pages_together_are_short() -> None:
    pages = list(PAGES.values())
    assert sum(len(read(page).split()) for page in pages) <= MOST_WORDS


def test_no_page_has_a_gap_left_in_it() -> None:
    gaps = {page.name: re.findall(r"^[A-Z_]{4,}$", read(page), re.MULTILINE) for page in ALL_PAGES}
    assert not {name: found for name, found in gaps.items() if found}


# --- options ----------------------------------------------------------------------------------------------------------


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command of the command line by its name, such as `baseline set`."""
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")


COMMANDS = dict(commands(get_command(app)))
NAMES = "|".join(sorted(COMMANDS, reverse=True))
# With the program's name in a line of a shell, or without it between backticks.
COMMAND = re.compile(rf"(?:^|[ /])mrpcbench (?:-[qv] |--traceback )?({NAMES})\b([^|;&)]*)")
SHORT_COMMAND = re.compile(rf"^({NAMES})( .*)$")


def options_of(name: str) -> set[str]:
    takes = ("study", "train") if name == "study" else (name,)  # study hands the options of train on
    return {flag for one in takes for item in COMMANDS[one].params for flag in item.opts} | {"--help", "-h"}


def test_every_option_in_a_command_exists() -> None:
    unknown = set()
    for page in ALL_PAGES:
        for line in code(page):
            for name, rest in (*COMMAND.findall(line), *SHORT_COMMAND.findall(line)):
                flags = set(re.findall(r"(?<= )--?[a-z][\w-]*", rest.split(" #")[0]))
                unknown |= {f"{page.name}: {name} {flag}" for flag in flags - options_of(name)}
    assert not unknown


def test_the_defaults_of_the_recipe_are_those_of_the_command() -> None:
    rows = re.findall(r"^\| `(--[\w-]+)` \| (\S+) \|$", read(DOCS / "train.md"), re.MULTILINE)
    defaults = {flag: item.default for item in COMMANDS["train"].params for flag in item.opts}
    defaults["--batch-size"] = DEFAULT_BATCH_SIZE  # of all processes; the share of one follows from their number
    assert len(rows) > 10
    wrong = set()
    for flag, shown in rows:
        default = defaults[flag]
        if not (float(shown) == default if isinstance(default, int | float) else shown == default):
            wrong.add(f"{flag}: {shown} instead of {default}")
    assert not wrong
