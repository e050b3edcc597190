"""Tests of the HTML report: what the page holds, and what no record can put there."""

import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

import pytest
from conftest import REPOSITORY
from records import make_ab, make_bench, make_epoch, make_export, make_record, make_row, make_train
from reports import HOSTILE, RULE, SHOWN, Page, at, every_kind, hostile, parsed, report_of

from mrpcbench.display.report.content import Table, clean
from mrpcbench.display.report.page import html_report
from mrpcbench.records.reports import Named
from mrpcbench.schema.bench_results import LoadPoint, ServerResult, Span

pytest.importorskip("vl_convert", reason="the extra report is not installed")

SECTIONS = "verdicts lineage accuracy training latency tradeoff speedup breakdown history records".split()
# Attributes by which a page loads something, or by which a text could become code.
LOADING = ("src", "srcset", "action", "formaction", "data", "poster", "style", "background", "xlink:href")


def html_of(records: tuple[Named, ...]) -> str:
    return html_report(report_of(records))


@pytest.fixture(scope="module")
def html() -> str:
    return html_of(every_kind())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return parsed(html)


@pytest.fixture(scope="module")
def hostile_html() -> str:
    return html_of(hostile())


def sections(page: Page) -> list[str]:
    return [element.attributes["id"] for element in page.of("section")]


def test_the_same_records_give_the_same_page_in_any_order(html: str) -> None:
    assert html_of(every_kind()[::-1]) == html


def test_the_sections_stand_in_the_order_of_the_questions(page: Page) -> None:
    assert sections(page) == SECTIONS
    assert [element.attributes["href"] for element in page.of("a")] == [f"#{name}" for name in SECTIONS]


def test_a_section_appears_only_if_a_record_has_something_for_it() -> None:
    found = parsed(html_of((("export.json", make_record("export")),)))
    assert sections(found) == ["verdicts", "lineage", "records"]
    unfinished = make_record("bench", complete=False, bench=make_bench(rows=()))
    found = parsed(html_of((("bench.json", unfinished),)))
    assert sections(found) == ["verdicts", "lineage", "records"]
    assert "INCOMPLETE, the run did not end" in found.named("verdicts").text


def test_the_first_section_has_accuracy_verdict_and_speed(page: Page) -> None:
    text = " ".join(page.named("verdicts").text.split())
    for answer in (
        "Accuracy0.8603 95% CI 0.8233 to 0.8906; above the majority class, 0.6838",
        "PASS Export, export.json: 0 of 408 labels flip",
        "PASS Compared live, ab.json",
        "onnx offline batch 32: 2.5",
        "over torch, batch 32 (95% CI",
        "One pair2.49 ms p50 of onnx; p99 2.98 ms",
        "INVALID benchmark rows: 4 of 13.",
        "Deployonnx 76262 pairs/s (offline batch 32); one pair p50 2.49 ms",
    ):
        assert answer in text


def test_every_figure_has_a_finding_a_text_alternative_and_a_table(page: Page) -> None:
    figures, titles = page.of("svg"), [element.text for element in page.of("title")][1:]
    assert len(figures) == len(page.of("figure")) == len(titles) > 8
    headings = {element.text for element in page.of("h3")}
    for figure, title in zip(figures, titles, strict=True):
        name = figure.attributes["aria-labelledby"].removesuffix("-title")
        assert figure.attributes["role"] == "img"
        assert title in headings
        assert page.named(f"{name}-title").text == title
        assert len(page.named(figure.attributes["aria-describedby"]).text) > 20
    assert len([element for element in page.of("article") if "finding" in element.attributes["class"]]) == len(figures)
    assert all("table" in text for text in (element.text for element in page.of("desc")))


def test_a_valid_row_has_its_percentiles_and_an_invalid_one_its_rule_and_a_hatch(page: Page, html: str) -> None:
    hatched = [element for element in page.of("tr") if element.attributes.get("class") == "x"]
    assert hatched
    assert (
        sum(RULE in element.text for element in hatched) == sum(f"INVALID: {RULE}" in one.text for one in hatched) > 3
    )
    text = page.named("latency").text
    assert "p50 2.49 · p90 2.89 · p99 2.98" in text
    assert text.count("· p99") == 2 * 2 + 1, "two VALID rows of two records, and a server row"
    latency = re.search(r'<section id="latency".*?</section>', html, re.DOTALL)
    assert latency
    assert latency[0].count('id="latency-0-single-stream-hatch"') == 1
    assert 'fill="url(#latency-0-single-stream-hatch)"' in latency[0]


def test_a_figure_without_an_invalid_row_has_no_hatch(page: Page) -> None:
    patterns = {element.attributes["id"] for element in page.of("pattern")}
    assert patterns
    assert not {name for name in patterns if "server" in name}


@pytest.mark.parametrize("records", [every_kind, hostile])
def test_the_page_loads_and_runs_nothing(records: Any, html: str, hostile_html: str) -> None:
    text = html if records is every_kind else hostile_html
    page = parsed(text)
    assert not [
        element for element in page.elements if element.tag in ("script", "link", "img", "iframe", "object", "base")
    ]
    names = {name for element in page.elements for name in element.attributes}
    assert not {name for name in names if name in LOADING or name.startswith("on")}
    assert not [element for element in page.elements if not element.attributes.get("href", "#").startswith("#")]
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_the_policy_allows_the_style_of_the_page_and_nothing_else(page: Page) -> None:
    (policy,) = [one.attributes["content"] for one in page.of("meta") if "http-equiv" in one.attributes]
    (style,) = page.of("style")
    expected = b64encode(sha256(style.text.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{expected}'"


def test_a_text_of_a_record_stays_text(hostile_html: str) -> None:
    page = parsed(hostile_html)
    assert not page.of("script")
    for section in sections(page):
        if section not in ("speedup", "tradeoff"):
            assert SHOWN in page.named(section).text, section
    assert HOSTILE not in hostile_html
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", hostile_html)


def test_ids_are_unique_and_every_reference_has_its_target(html: str, hostile_html: str) -> None:
    for text in (html, hostile_html):
        page = parsed(text)
        ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
        assert len(ids) == len(set(ids))
        used = set(re.findall(r"url\(#([^)]*)\)", text))
        for element in page.elements:
            used |= {
                element.attributes[name]
                for name in ("aria-labelledby", "aria-describedby")
                if name in element.attributes
            }
        assert used <= set(ids)


def test_no_path_and_no_time_of_today_is_in_the_page(html: str) -> None:
    assert str(REPOSITORY) not in html
    assert not re.search(r"20(2[6-9]|[3-9]\d)-", html)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mb", "a\ufffd[31mb"),
        ("a\n  b\t", "a b"),
        ("a\u202eb\x00", "a\ufffdb\ufffd"),
        ("±5% µs |Δ|", "±5% µs |Δ|"),
    ],
)
def test_a_text_is_one_line_without_characters_that_hide(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_columns_of_words_are_left_aligned_and_a_table_of_many_is_wide() -> None:
    table = Table(
        caption="", headers=("row", "ms", "validity"), rows=(("onnx", "1.5", "VALID"), ("int8", "n<64", "x" * 30))
    )
    assert table.style == "l1 l3 w3"
    assert not table.is_wide
    assert Table(caption="", headers=("row",) * 9, rows=(("1234567890",) * 9,)).is_wide


def test_a_class_that_the_page_uses_has_a_style(html: str, page: Page) -> None:
    (style,) = page.of("style")
    used = {name for element in page.elements for name in element.attributes.get("class", "").split()}
    assert not {name for name in used if not re.search(rf"\.{name}\b", style.text)}


def test_a_model_with_random_weights_says_that_its_accuracy_means_nothing() -> None:
    record = at(1, "export")
    model = record.model
    changed = at(1, "export", model=type(model)(**{**vars(model), "weights": "random-init"}))
    assert "accuracy has no meaning" in parsed(html_of((("export.json", changed),))).named("verdicts").text


def test_records_in_which_little_was_measured_give_a_page_too() -> None:
    still = make_row("single-stream", samples_ms=(0.0,) * 700, spans=(Span(name="compute", samples_ms=(0.0,)),))
    load = LoadPoint(rate_per_s=9.0, sent=1, failed=1, latencies_ms=(), batch_sizes=(), duration_s=1.0, meets_slo=False)
    server = ServerResult(slo_ms=1.0, window_ms=1.0, max_batch=1, seed=0, curve=(load,), best_rate_per_s=None)
    lost = make_row("server", samples=0, server=server)
    page = parsed(
        html_of(
            (
                ("a.json", at(1, "bench", bench=make_bench(rows=(still, lost, make_row("offline", samples=1))))),
                ("b.json", at(2, "export", export=make_export(gate=None), complete=False)),
                ("c.json", at(3, "ab", ab=make_ab(comparison=None), complete=False)),
                ("d.json", at(4, "train", train=make_train(epochs=(), best_step=None), complete=False)),
                ("e.json", at(5, "train", train=make_train(epochs=(make_epoch(1), make_epoch(2, eval_loss=None))))),
            )
        )
    )
    assert sections(page) == "verdicts lineage training latency records".split()
    assert page.named("verdicts").text.count("NO VERDICT") == 2
