"""The parts of the HTML report: sections, figures, tables and cards, as plain text."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from mrpcbench.display.tables import machine_line
from mrpcbench.records.reports import Named
from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.schema.records import BenchRecord, Record
from mrpcbench.schema.verdicts import Outcome

# How a badge looks; each has a text too, so that no meaning depends on the colour.
T = TypeVar("T")
# A cell that begins with a word.
WORD = re.compile(r"[A-Za-zµ]{2}")
Tone = Literal["good", "bad", "unsure", "plain"]
TONES: dict[Outcome, Tone] = {"PASS": "good", "REGRESSION": "bad", "INCONCLUSIVE": "unsure", "INCOMPARABLE": "unsure"}
# Categories of Unicode that a page must not show: controls, invisible formats such as reversed text, lone surrogates
# and private characters.
HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn"))


def clean(text: str) -> str:
    """`text` on one line, with a replacement character for each control, invisible or invalid character."""
    shown = "".join("\ufffd" if unicodedata.category(one) in HIDDEN and not one.isspace() else one for one in text)
    return " ".join(shown.split())


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A short verdict and its reason."""

    text: str
    tone: Tone
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts. The first `names` columns are left-aligned, the others right-aligned.

    `marked` holds the indexes of rows that are hatched, such as those of INVALID rows.
    """

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1
    marked: frozenset[int] = frozenset()

    @property
    def style(self) -> str:
        """The classes of the columns that hold words, such as l1 for the first; w6 if the sixth has long cells."""
        words = [at for at in range(len(self.headers)) if self._has_words(at)]
        long = [at for at in words if any(len(row[at]) > 24 for row in self.rows)]
        return " ".join((*(f"l{at + 1}" for at in words), *(f"w{at + 1}" for at in long)))

    @property
    def is_wide(self) -> bool:
        """Whether the table needs the whole width of the page; words wrap after about 24 characters."""
        longest = [max(len(row[at]) for row in (self.headers, *self.rows)) for at in range(len(self.headers))]
        return sum(min(size, 24) if self._has_words(at) else size for at, size in enumerate(longest)) > 78

    def _has_words(self, at: int) -> bool:
        return at < self.names or any(WORD.match(row[at]) for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure: its finding, a description of what it shows, its SVG, and its table. `note` explains the marks."""

    id: str
    title: str
    source: str
    description: str
    svg: str
    table: Table
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The counts of a confusion matrix: [true label][predicted label]."""

    caption: str
    detail: str
    labels: tuple[str, str]
    counts: tuple[tuple[int, int], tuple[int, int]]
    shares: tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Card:
    """The answers about one model: figures with their names, verdicts, and notes."""

    title: str
    subtitle: str
    facts: tuple[tuple[str, str, str], ...]
    badges: tuple[Badge, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The origin of results: each step with the names and details of all that were used."""

    steps: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    records: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page. `folded` tables are closed at first."""

    id: str
    title: str
    lead: str = ""
    cards: tuple[Card, ...] = ()
    chains: tuple[Chain, ...] = ()
    figures: tuple[Figure, ...] = ()
    matrices: tuple[Matrix, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()


def of_kind(records: Sequence[Named], kind: type[T]) -> list[tuple[str, T]]:
    """The records of the class `kind`, with their names."""
    return [(name, record) for name, record in records if isinstance(record, kind)]


def moment(record: Record) -> str:
    """When a run started, to the minute, in UTC."""
    return f"{record.environment.started_at[:16].replace('T', ' ')} UTC"


def started(record: Record) -> float:
    """The start of a run in seconds since 1970; 0 if it cannot be read."""
    try:
        return datetime.fromisoformat(record.environment.started_at).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def is_invalid(row: BenchRow) -> bool:
    """Whether a row breaks a rule of validity."""
    return bool(row.broken_rules)


def validity(row: BenchRow) -> str:
    """VALID, UNCHECKED, or INVALID with the rules that the row breaks."""
    if row.broken_rules is None:
        return "UNCHECKED"
    return f"INVALID: {'; '.join(row.broken_rules)}" if row.broken_rules else "VALID"


def benches(records: Sequence[Named]) -> list[tuple[str, BenchRecord]]:
    """The bench records that have rows, with their names."""
    return [(name, record) for name, record in of_kind(records, BenchRecord) if record.rows]


def source(name: str, record: BenchRecord) -> str:
    """Where a figure comes from: the file, the model and the machine."""
    place = machine_line(record.environment, record.rows[0].placement)
    return f"{name}: {record.model.name} ({record.model.weights_label}), {place}"


def rank(row: BenchRow) -> tuple[bool, float]:
    """Sort key: VALID rows first, then the fastest."""
    return is_invalid(row), -((row.summary and row.summary.pairs_per_s) or 0.0)
