"""The pages in docs/ as the tests read them: examples, commands, links and words.

The first fenced block of a page is its example. It stands before the first `##` heading.

- ```console: a line `$ mrpcbench ...` is a command; a backslash at its end continues it. The lines after it are output.
  Each must occur in what the command prints, in this order. Numbers, spaces and the lines of tables are not compared.
  `...` stands for lines that are left out. A command must end with exit code 0, unless `$ echo $?` and a code follow.
- ```python: a program that must not raise.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
GENERATED = "results-format.md"
PAGES = {page.name: page for page in sorted(DOCS.glob("*.md")) if page.name != GENERATED}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Step:
    """A command of an example, the lines that it prints according to the page, and its exit code."""

    arguments: tuple[str, ...]
    shown: tuple[str, ...]
    status: int = 0


@dataclass(frozen=True)
class Example:
    """The first fenced block of a page."""

    language: str
    text: str

    @property
    def steps(self) -> list[Step]:
        """The commands of a console block. ValueError for one that is not `mrpcbench` or `echo $?`."""
        found: list[Step] = []
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, *lines = part.replace("\\\n", " ").strip().split("\n")
            if command == "echo $?":
                found[-1] = Step(found[-1].arguments, found[-1].shown, int(lines[0]))
                continue
            program, *arguments = shlex.split(command, comments=True)
            if program != "mrpcbench":
                raise ValueError(f"$ {command}: only mrpcbench and echo $? are run")
            found.append(Step(tuple(arguments), tuple(line for line in lines if line.strip(" .│"))))
        return found


def example_of(page: str) -> Example | None:
    """The example of a page; None without a fenced block before its first `##` heading."""
    found = FENCE.search(read(PAGES[page]).split("\n## ")[0] + "\n")
    return Example(found[1], found[2]) if found else None


def normalised(text: str) -> str:
    """`text` without what differs from run to run and from terminal to terminal: numbers, spaces, lines of tables."""
    text = re.sub(r"[\u2500-\u257f]", " ", text)
    text = re.sub(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?", "0", text)
    return " ".join(text.split())


def missing_line(shown: tuple[str, ...], printed: str) -> str | None:
    """The first of the lines that a page shows that was not `printed` after those before it; None if all were."""
    rest = normalised(printed)
    for line in shown:
        _, found, rest = rest.partition(normalised(line))
        if not found:
            return line
    return None


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Each relative link of a page as it is written, the file that it names, and the heading in that file, or ""."""
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", read(page))):
        if "://" not in target:
            name, _, heading = target.partition("#")
            yield target, page.parent / name if name else page, heading


def headings(page: Path) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    found = re.findall(r"^#+ (.+)$", FENCE.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def code(page: Path) -> Iterator[str]:
    """What a page sets as code: each line of its fenced blocks, and each span between backticks."""
    text = read(page)
    for _, block in FENCE.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text)))
