"""README's picture shows what `bench` prints of the committed record."""

from html import unescape
from importlib import util
from types import ModuleType
from xml.etree import ElementTree

import pytest
from conftest import REPOSITORY

from mrpcbench.records import store

SCRIPT = REPOSITORY / "docs" / "picture.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = util.spec_from_file_location("picture", SCRIPT)
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_what_the_script_draws(script: ModuleType) -> None:
    assert script.PICTURE.read_text(encoding="utf-8") == script.picture(), f"run python {SCRIPT.name}"


def test_the_picture_shows_the_figures_of_every_row_of_the_record(script: ModuleType) -> None:
    words = shown(script.PICTURE.read_text(encoding="utf-8")).split()
    rows = store.load(script.RECORD).bench.rows
    assert len(rows) == 6
    for row in rows:
        assert row.summary
        assert row.spec.backend in words
        assert f"{row.summary.pairs_per_s:.1f}" in words, row.id
        if row.scenario == "single-stream":
            assert {f"{row.summary.p50_ms:.2f}", f"{row.summary.p99_ms:.2f}"} <= set(words), row.id


def shown(svg: str) -> str:
    """The text of an SVG, a line for each of its lines."""
    root = ElementTree.fromstring(svg)
    return "\n".join(
        unescape(node.text or "").replace("\xa0", " ") for node in root.iter() if node.tag.endswith("}text")
    )


def test_the_picture_loads_nothing(script: ModuleType) -> None:
    root = ElementTree.fromstring(script.PICTURE.read_text(encoding="utf-8"))
    for node in root.iter():
        assert node.tag.rpartition("}")[2] in {"svg", "style", "defs", "clipPath", "rect", "g", "text", "circle"}
        assert not any(name.endswith("href") for name in node.attrib)
        assert not any(word in (node.text or "") for word in ("@import", "@font-face", "url(", "http"))
