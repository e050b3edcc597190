"""Records for the HTML report in tests, hostile ones among them, and a reader of its HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any

from records import ENVIRONMENT, MODEL, ONNX, make_bench, make_data, make_record, make_row

from mrpcbench.records.recommendation import recommend
from mrpcbench.records.reports import Named, Report
from mrpcbench.schema.bench_results import BenchRow, LoadPoint, ServerResult, Span
from mrpcbench.schema.gate_requests import ReportPlan
from mrpcbench.schema.records import BenchRecord

# What a record may hold: markup, the end of an element, a terminal's escape, reversed text, an entity.
HOSTILE = "<script>alert(1)</script></svg></title>\x1b[31m\u202e&amp;\"'<img src=x onerror=alert(2)>"
# What a page may show of it.
SHOWN = "<script>alert(1)</script></svg></title>\ufffd[31m\ufffd&amp;\"'<img src=x onerror=alert(2)>"
PLAN = ReportPlan()
RULE = "unsteady: the rounds vary by 14%"
SPANS = (Span(name="tokenise", samples_ms=(2.0,) * 13), Span(name="compute", samples_ms=(8.0,) * 13))


def at(day: int, command: str, **changes: Any) -> Any:
    """A record of `command` that started on a day of January."""
    return make_record(
        command, environment=replace(ENVIRONMENT, started_at=f"2025-01-{day:02d}T03:04:05+00:00"), **changes
    )  # type: ignore[arg-type]


def rows() -> tuple[BenchRow, ...]:
    """Three cases with enough rounds for intervals: one VALID and faster, one INVALID."""
    quick = tuple(5.0 + index / 10 for index in range(8))
    alone = tuple(2.0 + (index % 100) / 100 for index in range(8 * 408))
    common = {"spans": SPANS, "broken_rules": ()}
    return (
        make_row("offline", samples=8, **common),
        make_row("single-stream", samples=8 * 408, **{**common, "samples_ms": tuple(4 + one for one in alone)}),
        make_row("offline", case="onnx", placement=ONNX, **{**common, "samples_ms": quick}),
        make_row("single-stream", case="onnx", placement=ONNX, **{**common, "samples_ms": alone}),
        make_row("offline", case="int8", samples=8, **{**common, "broken_rules": (RULE,)}),
        make_row("single-stream", case="int8", **{**common, "samples_ms": alone, "broken_rules": (RULE,)}),
    )


def server_row() -> BenchRow:
    """A row of the server scenario with two loads, of which the smaller met the target."""
    loads = tuple(
        LoadPoint(
            rate_per_s=rate,
            sent=1000,
            failed=0,
            latencies_ms=tuple(low + index / 100 for index in range(1000)),
            batch_sizes=(4,) * 250,
            duration_s=10.0,
            meets_slo=meets,
        )
        for rate, low, meets in ((100.0, 3.0, True), (200.0, 30.0, False))
    )
    result = ServerResult(slo_ms=20.0, window_ms=2.0, max_batch=8, seed=0, curve=loads, best_rate_per_s=100.0)
    return make_row("server", samples=0, server=result, batch_size=8, broken_rules=())


def benched(day: int, factor: float = 1.0, case: str = "torch") -> Named:
    """A bench record of one VALID row whose times are `factor` times those of `make_row`."""
    samples = tuple(factor * (10.0 + index / 100) for index in range(8))
    row = make_row("offline", case=case, samples_ms=samples, broken_rules=())
    return f"{day}.json", at(day, "bench", bench=make_bench(rows=(row,)))


def every_kind() -> tuple[Named, ...]:
    """A record of each kind, with all that the page has figures for."""
    return (
        ("train.json", at(1, "train")),
        ("evaluate.json", at(2, "evaluate")),
        ("export.json", at(3, "export")),
        ("bench.json", at(4, "bench", bench=make_bench(rows=rows()))),
        ("server.json", at(5, "bench", bench=make_bench(rows=(server_row(),)))),
        ("ab.json", at(6, "ab")),
        ("study.json", at(6, "study")),
        ("later.json", at(7, "bench", bench=make_bench(rows=rows()))),
    )


def hostile() -> tuple[Named, ...]:
    """Records whose texts are `HOSTILE` wherever a page could show them."""
    model = replace(MODEL, name=HOSTILE, architecture=HOSTILE)
    shared = {"model": model, "data": (make_data(source=HOSTILE, label_names=(HOSTILE, HOSTILE)),)}
    broken = tuple(replace(row, model=model, broken_rules=(HOSTILE,)) for row in rows())
    return (
        (f"{HOSTILE}.json", at(1, "bench", bench=make_bench(rows=broken), **shared)),
        ("evaluate.json", at(2, "evaluate", **shared)),
        ("export.json", at(3, "export", **shared)),
        (f"{HOSTILE}-2.json", at(4, "train", model=model)),
    )


def report_of(records: Sequence[Named], plan: ReportPlan = PLAN) -> Report:
    """What `report` makes of records."""
    found = (recommend(record, plan) if isinstance(record, BenchRecord) else None for _, record in records)
    return Report(records=tuple(records), recommendations=tuple(found), plan=plan)


@dataclass
class Element:
    """An element of a page: its tag, attributes, and all text in it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """The elements of a page in the order of their start tags."""

    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self._imply(tag)
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(made)
        if tag not in ("meta", "wbr", "br"):
            self._open.append(made)

    def _imply(self, tag: str) -> None:
        """Close the cells and rows that HTML closes before `tag` begins, or before it ends if that is tbody."""
        ended = {"td": ("td", "th"), "th": ("td", "th"), "tr": ("td", "th", "tr"), "tbody": ("td", "th", "tr")}
        while self._open and self._open[-1].tag in ended.get(tag, ()):
            self._open.pop()

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag == "tbody":
            self._imply(tag)
        assert self._open, tag
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def of(self, tag: str) -> list[Element]:
        """The elements with a tag."""
        return [element for element in self.elements if element.tag == tag]

    def named(self, name: str) -> Element:
        """The element with an id."""
        (found,) = [element for element in self.elements if element.attributes.get("id") == name]
        return found


def parsed(html: str) -> Page:
    """The elements of `html`, whose tags are closed in order."""
    page = Page()
    page.feed(html)
    page.close()
    assert not page._open
    return page
