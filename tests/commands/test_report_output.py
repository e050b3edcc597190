"""Tests of `mrpcbench report --output`: what is written, and what is refused before any record is read."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from records import make_record

from mrpcbench.records import store

Run = Callable[..., Outcome]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "export.json"
    store.save(make_record("export"), path)
    return path


def test_the_page_is_written_and_named_on_stderr(mrpcbench: Run, record: Path, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    done = mrpcbench("report", "export.json", "--output", "new/report.html")
    assert done.status == 0, done.err
    assert done.err.strip() == "page: new/report.html"
    page = (tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>\n")
    assert "PASS" in page


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("export.json", "a web page; name a file that ends in .html"),
        ("folder.html", "a folder; name a file in it"),
        ("export.json/report.html", "is a file; name another path"),
    ],
)
def test_a_file_that_cannot_be_the_page_is_refused(
    output: str, reason: str, mrpcbench: Run, record: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder.html").mkdir()
    before = record.read_bytes()
    done = mrpcbench("report", "export.json", "--output", output)
    assert done.status == 2
    assert done.err.startswith(f"error: --output {output}: ")
    assert reason in done.err
    assert len(done.err.splitlines()) == 1
    assert record.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.json", "folder.html"]


def test_without_the_extra_the_error_says_what_to_install(
    mrpcbench: Run, record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    done = mrpcbench("report", "export.json", "--output", "report.html")
    assert done.status == 3
    assert len(done.err.splitlines()) == 1
    assert done.err.endswith("install mrpcbench with its extra: mrpcbench[report]\n")
    assert not (tmp_path / "report.html").exists()
    assert mrpcbench("report", "export.json").status == 0


def test_a_record_with_the_name_of_a_page_is_not_replaced(mrpcbench: Run, record: Path) -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    page = record.rename(record.with_suffix(".html"))
    before = page.read_bytes()
    done = mrpcbench("report", "export.html", "--output", "./export.html")
    assert done.status == 2
    assert "exists, and is not a page of `report`; remove it, or name another file" in done.err
    assert page.read_bytes() == before
