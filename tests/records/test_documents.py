"""Tests of mrpcbench.records.documents: invalid or ambiguous JSON is refused with its place."""

import codecs
from pathlib import Path

import pytest

from mrpcbench.errors import UsageError
from mrpcbench.records.documents import check_json, parse_json, read_json

REPEATED = [
    ('{"a": 1, "a": 2}', "a", 1),
    ('{"a": {"b": 1},\n "c": [{"b": 1,\n  "b": 1}]}', "b", 3),
    ('{"x{": "a", "a": "a",\n"\\u0061": 1}', "a", 2),
    ('{"a\\"}": 1,\n\n"a\\"}": 2}', 'a"}', 3),
]


@pytest.mark.parametrize(("text", "key", "line"), REPEATED)
def test_a_repeated_key_is_refused_with_its_line(text: str, key: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_json(path)
    assert str(caught.value) == f"{path} line {line}: key {key!r} is given twice; remove one"


def test_the_same_key_in_several_objects_is_not_repeated() -> None:
    assert parse_json('[{"a": {"a": "a"}}, {"a": 2}]') == [{"a": {"a": "a"}}, {"a": 2}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_document_is_read_in_any_encoding_of_unicode(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_bytes('{"a": "é"}'.encode(encoding))
    assert read_json(path) == {"a": "é"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "not JSON at line 1"),
        (b"[" * 100_000, "not JSON (nested too deeply)"),
        (b"1" * 5000, "not JSON (Exceeds the limit"),
        (b'{"a": "\xff"}', "cannot be read ("),
    ],
)
def test_content_that_is_not_json_is_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_json(path)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_file_for_a_library_must_not_have_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    check_json(path)
    path.write_bytes(b"{}")
    check_json(path)
    path.write_bytes(codecs.BOM_UTF8 + b"{}")
    with pytest.raises(UsageError, match="begins with a byte-order mark; save it as UTF-8 without one"):
        check_json(path)
