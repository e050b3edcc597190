"""Words that the project no longer uses do not come back (a short list; the rest is a matter of review)."""

import re
from collections.abc import Iterator
from pathlib import Path

from conftest import REPOSITORY

# Whole words, also as parts of a name such as `open_duel` or `Lane`.
RETIRED = re.compile(
    r"(?<![a-z])(?:lanes?|lineups?|contenders?|duels?|doctored|anew|turn about|whole road|cries wolf)(?![a-z])",
    re.IGNORECASE,
)
# Keys of committed records and of schema version 1, which keep their names.
KEYS = re.compile(r"""["'][\w.*]*contenders?["']""")
TEXT = (".py", ".md", ".jinja", ".toml", ".log")


def retired_words(text: str) -> list[tuple[int, str]]:
    """Line number and word of each retired word in `text`."""
    kept = KEYS.sub("", text)
    return [(kept.count("\n", 0, found.start()) + 1, found[0]) for found in RETIRED.finditer(kept)]


def texts() -> Iterator[Path]:
    for folder in ("mrpcbench", "docs", "tests"):
        yield from (file for file in (REPOSITORY / folder).rglob("*") if file.suffix in TEXT and file != Path(__file__))
    yield from (REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "results/README.md"))


def test_no_source_test_or_page_has_a_retired_word() -> None:
    found = [
        f"{file.relative_to(REPOSITORY)}:{line}: {word}"
        for file in texts()
        for line, word in retired_words(file.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_a_retired_word_is_found_in_a_name_but_not_within_a_word_or_a_key() -> None:
    text = "class Duel:\n    def set_anew() # Lineups\n"
    assert retired_words(text) == [(1, "Duel"), (2, "anew"), (2, "Lineups")]
    assert retired_words('planes, row["contenders"], "bench.rows.*.contender"') == []
