"""The HTML report: one file without scripts that loads nothing."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mrpcbench.display.report.accuracy import accuracy
from mrpcbench.display.report.content import Section, clean, started
from mrpcbench.display.report.history import history
from mrpcbench.display.report.latency import latencies
from mrpcbench.display.report.origins import lineage, raw
from mrpcbench.display.report.speed import breakdowns, speedups
from mrpcbench.display.report.tradeoff import tradeoffs
from mrpcbench.display.report.training import training
from mrpcbench.display.report.verdicts import verdicts
from mrpcbench.records.reports import Report

TEMPLATE = Path(__file__).with_name("page.html.jinja")
STYLE = Path(__file__).with_name("page.css")
# After the verdicts, in the order of the page.
SECTIONS = (lineage, accuracy, training, latencies, tradeoffs, speedups, breakdowns, history, raw)


def html_report(report: Report) -> str:
    """The page of a report: a section appears if a record has something for it.

    The same records give the same text, in whatever order they are. Every text of a record is escaped.
    """
    ordered = sorted(report.records, key=lambda named: (started(named[1]), named[0]))
    found = (build(ordered) for build in SECTIONS)
    sections = [verdicts(ordered, report), *(section for section in found if section is not None)]
    style = STYLE.read_text(encoding="utf-8")
    text: str = _template().render(
        sections=sections,
        title=_title(sections),
        style=Markup(style),
        # The browser applies this style and no other, and loads nothing.
        policy=f"default-src 'none'; style-src 'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'",
    )
    return text


def _title(sections: Sequence[Section]) -> str:
    names = dict.fromkeys(card.title for section in sections for card in section.cards)
    return f"mrpcbench report: {', '.join(names)}"


def _template() -> Any:
    made = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, finalize=_finalized
    )
    made.filters["svg"] = Markup  # only for the text of drawing.render, which has escaped it
    made.filters["breakable"] = lambda text: Markup("_<wbr>").join(clean(text).split("_"))
    return made.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _finalized(value: Any) -> Any:
    """A text of a record without control characters; HTML as it is."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value
