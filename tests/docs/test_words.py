"""Words that the project no longer uses do not come back (a short list; the rest is a matter of review)."""

import re
from pathlib import Path

from conftest import REPOSITORY

RETIRED = re.compile(
    r"(?<![a-z])(?:lanes?|lineups?|contenders?|duels?|doctored|anew|turn about|whole road|cries wolf)(?![a-z])",
    re.IGNORECASE,
)
# Keys of committed records and of schema version 1, which keep their names.
KEYS = re.compile(r"""["'][\w.*]*contenders?["']""")


def retired_words(text: str) -> list[str]:
    return RETIRED.findall(KEYS.sub("", text))


def test_no_source_test_or_page_has_a_retired_word() -> None:
    files = [
        file
        for folder in ("mrpcbench", "docs", "tests")
        for file in (REPOSITORY / folder).rglob("*")
        if file.suffix in (".py", ".md", ".toml") and file != Path(__file__)
    ]
    files += [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "results/README.md")]
    found = {str(file.relative_to(REPOSITORY)): retired_words(file.read_text(encoding="utf-8")) for file in files}
    assert {name: words for name, words in found.items() if words} == {}


def test_a_retired_word_is_found_in_a_name_but_not_within_a_word_or_a_key() -> None:
    assert retired_words("class Duel: def set_anew() # Lineups") == ["Duel", "anew", "Lineups"]
    assert retired_words('planes, row["contenders"], "bench.rows.*.contender"') == []
