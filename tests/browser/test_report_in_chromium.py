"""The HTML report in a real browser: it loads nothing, reports no error, and fits a phone and a desktop.

Needs Debian's packages `chromium` and `chromium-driver`.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Listener
from reports import SHOWN, every_kind, hostile, report_of

from mrpcbench.commands.report import report
from mrpcbench.display.report.page import html_report
from mrpcbench.schema.gate_requests import ReportPlan

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver"),
]
pytest.importorskip("selenium", reason="the extra test is not installed")
pytest.importorskip("vl_convert", reason="the extra report is not installed")

WIDTHS = (360, 1280)
LIMIT_BYTES = 400_000
PAGES = ("results", "every_kind", "hostile")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    report([REPOSITORY / "results"], ReportPlan(output=str(folder / "results.html")), Listener())
    for name, records in (("every_kind", every_kind()), ("hostile", hostile())):
        (folder / f"{name}.html").write_text(html_report(report_of(records)), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield found
    found.quit()


def opened(browser: Any, page: Path, width: int = 1280) -> None:
    """Show a page at a width with all tables open."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true })")


def requested(browser: Any) -> set[str]:
    """The addresses that the browser asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    }


def test_the_page_of_the_committed_records_is_small(pages: dict[str, Path]) -> None:
    assert 100_000 < pages["results"].stat().st_size < LIMIT_BYTES


@pytest.mark.parametrize("name", PAGES)
def test_the_browser_asks_for_the_file_alone_and_has_nothing_to_report(
    name: str, pages: dict[str, Path], browser: Any
) -> None:
    requested(browser)
    browser.get_log("browser")
    opened(browser, pages[name])
    assert requested(browser) == {pages[name].as_uri()}
    assert browser.get_log("browser") == []


def test_these_checks_see_what_a_page_should_not_have(tmp_path: Path, browser: Any) -> None:
    page = tmp_path / "bad.html"
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    page.write_text(f"{policy}<p style='color:red'>a</p><img src=other.png><div style='width:2000px'>b")
    requested(browser)
    opened(browser, page, 360)
    assert browser.get_log("browser")
    page.write_text("<img src=other.png><div style='width:2000px'>b</div>")
    opened(browser, page, 360)
    assert (tmp_path / "other.png").as_uri() in requested(browser)
    assert overflow(browser) > 1000
    browser.get_log("browser")


def overflow(browser: Any) -> int:
    """By how many pixels the page is wider than its window."""
    found = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return int(found)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_no_page_is_wider_than_its_window(name: str, width: int, pages: dict[str, Path], browser: Any) -> None:
    opened(browser, pages[name], width)
    assert overflow(browser) == 0
    cut = browser.execute_script(
        "return [...document.querySelectorAll('main :is(h3,p,figure,svg,dd,li,summary)')].filter("
        "one => one.getBoundingClientRect().right > innerWidth || one.scrollWidth > one.clientWidth + 1)"
        ".map(one => one.outerHTML.slice(0, 200))"
    )
    assert cut == []


@pytest.mark.parametrize("width", WIDTHS)
def test_no_text_of_a_figure_leaves_it_or_is_too_small_to_read(
    width: int, pages: dict[str, Path], browser: Any
) -> None:
    opened(browser, pages["results"], width)
    outside, smallest = browser.execute_script(
        "const found = [...document.querySelectorAll('svg')].flatMap(svg => {"
        " const frame = svg.getBoundingClientRect();"
        " return [...svg.querySelectorAll('text')].map(text => [text, text.getBoundingClientRect(), frame]) });"
        "return [found.filter(([, box, frame]) => box.left < frame.left - 1 || box.right > frame.right + 1)"
        ".map(([text, , ]) => text.textContent), Math.min(...found.map(([, box]) => box.height))]"
    )
    assert outside == []
    assert smallest >= 10


def test_every_figure_has_its_finding_in_the_accessibility_tree(pages: dict[str, Path], browser: Any) -> None:
    opened(browser, pages["every_kind"])
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""), node.get("description", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and "role" in node
    ]
    images = [(name, text) for role, name, text in named if role in ("image", "img")]
    headings = {name for role, name, _ in named if role == "heading"}
    assert len(images) == len(browser.find_elements("css selector", "svg")) > 8
    assert all(name in headings and text for name, text in images)
    regions = {name for role, name, _ in named if role == "region"}
    assert {"Verdicts", "Lineage", "Accuracy", "Latency", "Records"} <= regions
    # What is within a figure is one image, and no list of marks.
    assert not [role for role, _, _ in named if role.startswith(("graphics", "Svg"))]


def test_the_texts_of_a_hostile_record_are_shown_and_not_run(pages: dict[str, Path], browser: Any) -> None:
    opened(browser, pages["hostile"])
    assert browser.execute_script("return document.scripts.length + document.images.length") == 0
    text = browser.execute_script("return document.body.textContent")
    assert text.count(SHOWN) > 20
    assert browser.execute_script("return document.querySelectorAll('svg').length") > 5
    assert browser.execute_script("return document.querySelectorAll('main > section:last-child details').length") > 3
