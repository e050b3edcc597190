"""Tests of mrpcbench.records.store: strict reading, atomic writing, and the published format."""

import dataclasses
import hashlib
import json
import math
import os
import re
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import REPOSITORY
from records import (
    COMMANDS,
    ENVIRONMENT,
    MODEL,
    given_away,
    make_bench,
    make_evaluate,
    make_record,
    make_row,
    make_score,
    make_train,
)

from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.records.upgrade import upgrade
from mrpcbench.schema.identity import Command, Lineage
from mrpcbench.schema.records import RECORDS, BenchRecord, TrainRecord
from mrpcbench.schema.requests import TrainRecipe
from mrpcbench.schema.version import MAJOR, MINOR, SCHEMA_VERSION

# results/gate holds the output of a script, and no records.
GATE = sorted((REPOSITORY / "results" / "gate").glob("*.json"))
PUBLISHED = sorted(set((REPOSITORY / "results").rglob("*.json")) - set(GATE))


def written(tmp_path: Path, command: Command = "evaluate") -> tuple[Path, dict[str, Any]]:
    """A file with a record of `command`, and its document."""
    path = tmp_path / "record.json"
    store.save(make_record(command), path)
    return path, json.loads(path.read_text(encoding="utf-8"))


def refusal(path: Path, document: object) -> str:
    """The one line with which `load` refuses `document`."""
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        store.load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


# --- reading and writing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("complete", [True, False])
def test_a_record_of_each_command_survives_writing_and_reading(
    command: Command, complete: bool, tmp_path: Path
) -> None:
    record = make_record(command, complete=complete)
    store.save(record, tmp_path / "record.json")
    assert store.load(tmp_path / "record.json") == record


def test_every_digit_of_a_number_survives(tmp_path: Path) -> None:
    row = make_row(samples_ms=(1 / 3, math.pi * 1e-9, 123456.78901234567), accuracy=2 / 3, f1=422 / 558)
    record = make_record("bench", bench=make_bench(rows=(row,)))
    store.save(record, tmp_path / "record.json")
    assert store.load(tmp_path / "record.json") == record


def test_non_ascii_text_survives(tmp_path: Path) -> None:
    record = make_record("evaluate", model=replace(MODEL, name="modèle-モデル"))
    store.save(record, tmp_path / "record.json")
    assert store.load(tmp_path / "record.json") == record


def test_what_is_printed_is_what_is_saved(tmp_path: Path) -> None:
    record = make_record("bench")
    store.save(record, tmp_path / "record.json")
    assert (tmp_path / "record.json").read_text(encoding="utf-8") == store.dumps(record)


def test_a_lineage_survives_writing_and_reading_and_is_none_if_absent(tmp_path: Path) -> None:
    assert store.load_lineage(tmp_path) is None
    lineage = Lineage(model=MODEL, base_model="base", recipe=TrainRecipe(seed=7))
    store.save_lineage(lineage, tmp_path)
    assert (tmp_path / "mrpcbench.json").exists()
    assert store.load_lineage(tmp_path) == lineage


def test_a_damaged_lineage_is_an_error(tmp_path: Path) -> None:
    store.save_lineage(Lineage(model=MODEL), tmp_path)
    path = tmp_path / store.LINEAGE_FILE
    path.write_text(path.read_text(encoding="utf-8").replace('"origin"', '"orgin"'), encoding="utf-8")
    with pytest.raises(UsageError, match=r"mrpcbench\.json: not a valid Lineage: model\.orig?in: "):
        store.load_lineage(tmp_path)


NEWER_MINOR = f"{MAJOR}.{MINOR + 1}"


def test_a_newer_minor_version_may_have_unknown_fields(tmp_path: Path) -> None:
    path, document = written(tmp_path)
    known = store.load(path)
    document["schema_version"] = NEWER_MINOR
    for where in ("surprise", "evaluate.surprise", "evaluate.score.accuracy_interval.surprise", "data.0.surprise"):
        put(document, where, {"any": "thing"})
    path.write_text(json.dumps(document), encoding="utf-8")
    # Equal, because a rewritten record has the version of the writer.
    assert store.load(path) == known


def test_a_newer_minor_version_is_otherwise_read_as_strictly(tmp_path: Path) -> None:
    for where, value in (("evaluate.batch_size", "3"), ("model.weights", "trained"), ("complete", 1)):
        path, document = written(tmp_path)
        document["schema_version"] = NEWER_MINOR
        put(document, where, value)
        assert f"not a valid EvaluateRecord: {where}: " in refusal(path, document)


def test_a_field_that_an_older_minor_version_lacks_has_its_default(tmp_path: Path) -> None:
    path, document = written(tmp_path)
    del document["environment"]["source_sha256"]
    path.write_text(json.dumps(document), encoding="utf-8")
    assert store.load(path).environment.source_sha256 is None


def test_a_lineage_of_version_1_can_be_read(tmp_path: Path) -> None:
    lineage = Lineage(model=MODEL, base_model="base", recipe=TrainRecipe(seed=7))
    document = {**json.loads(store.dumps(lineage)), "schema_version": 1}
    (tmp_path / store.LINEAGE_FILE).write_text(json.dumps(document), encoding="utf-8")
    assert store.load_lineage(tmp_path) == lineage


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_before_anything_is_written(value: float, tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    before = path.read_bytes()
    broken = make_record("evaluate", evaluate=make_evaluate(score=make_score(accuracy=value)))
    with pytest.raises(ValueError, match="accuracy"):
        store.save(broken, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_value_of_the_wrong_type_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    broken = make_record("train", train=make_train(recipe=TrainRecipe(seed="42")))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed"):
        store.save(broken, tmp_path / "record.json")
    assert list(tmp_path.iterdir()) == []


def test_a_record_without_its_section_or_with_another_cannot_be_made() -> None:
    for command in COMMANDS:
        record = make_record(command)
        fields = {item.name: getattr(record, item.name) for item in dataclasses.fields(record)}
        with pytest.raises(TypeError, match=f"missing 1 required keyword-only argument: '{command}'"):
            RECORDS[command](**{name: value for name, value in fields.items() if name != command})
        for other in set(COMMANDS) - {command}:
            with pytest.raises(TypeError, match=f"unexpected keyword argument '{other}'"):
                RECORDS[command](**fields, **{other: getattr(make_record(other), other)})


def test_a_command_that_needs_one_kind_of_record_refuses_another_by_name(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "bench")
    assert store.load_as(BenchRecord, path) == make_record("bench")
    with pytest.raises(UsageError, match=r"record\.json: a record of bench; name one of train"):
        store.load_as(TrainRecord, path)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        store.load(tmp_path / "absent.json")
    assert str(caught.value) == f"{tmp_path / 'absent.json'}: no such file"


def test_a_folder_is_not_a_record(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \("):
        store.load(tmp_path)


def test_bytes_that_are_not_text_are_not_a_record(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b'{"schema_version": "\xff"}')
    with pytest.raises(UsageError, match=r"record\.json: cannot be read \("):
        store.load(tmp_path / "record.json")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_record_is_reported_as_truncated(share: float, tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    text = path.read_text(encoding="utf-8")
    line = refusal(path, text[: int(len(text) * share)])
    assert "not JSON at line" in line
    assert "truncated?" in line


def test_another_major_version_or_no_version_is_refused_by_name(tmp_path: Path) -> None:
    path, document = written(tmp_path)
    for found in ("3.0", "1.0", "0.9", "2", "2.x", "20.0", "two", "", 0, 2, 2.0, 1.0, True, None, [2, 0]):
        document["schema_version"] = found
        assert refusal(path, document).endswith(f"schema version {found!r}; this mrpcbench reads 1 and 2.x")


def test_a_record_without_a_version_is_refused(tmp_path: Path) -> None:
    path, document = written(tmp_path)
    del document["schema_version"]
    assert "schema version None" in refusal(path, document)


@pytest.mark.parametrize("document", [[], "text", 3, None, [{"schema_version": SCHEMA_VERSION}]])
def test_a_document_that_is_not_an_object_is_not_a_record(document: object, tmp_path: Path) -> None:
    assert "schema version None" in refusal(tmp_path / "record.json", json.dumps(document))


def put(document: Any, where: str, value: object) -> None:
    """Set the field of `document` at the dotted path `where`."""
    *parents, last = where.split(".")
    for part in parents:
        document = document[int(part) if part.isdigit() else part]
    document[last] = value


@pytest.mark.parametrize(
    "where", ["surprise", "evaluate.surprise", "evaluate.score.accuracy_interval.surprise", "data.0.surprise"]
)
def test_an_unknown_field_is_named_with_its_place(where: str, tmp_path: Path) -> None:
    path, document = written(tmp_path)
    put(document, where, 1)
    line = refusal(path, document)
    assert f"not a valid EvaluateRecord: {where}: " in line
    assert "nexpected" in line


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("evaluate.batch_size", "3"),
        ("evaluate.batch_size", 3.0),
        ("evaluate.batch_size", True),
        ("evaluate.batch_size", None),
        ("evaluate.score.accuracy", "0.5"),
        ("complete", 1),
        ("complete", "true"),
        ("model.name", 3),
        ("model.weights", "trained"),
        ("environment.argv", "mrpcbench"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_place(where: str, value: object, tmp_path: Path) -> None:
    path, document = written(tmp_path)
    put(document, where, value)
    assert f"not a valid EvaluateRecord: {where}: " in refusal(path, document)


def test_a_pipe_is_written_to_and_a_link_keeps_its_place(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    store.write_text(pipe, "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    link.symlink_to("target")
    for text in ("new", "newer"):
        store.write_text(link, text)
        assert (tmp_path / "target").read_text(encoding="utf-8") == text
        assert link.is_symlink()


@pytest.mark.parametrize("where", ["model", "complete", "evaluate.score.f1", "environment.machine_sha256"])
def test_a_missing_field_is_named_with_its_place(where: str, tmp_path: Path) -> None:
    path, document = written(tmp_path)
    *parents, last = where.split(".")
    holder = document
    for part in parents:
        holder = holder[part]
    del holder[last]
    assert f"not a valid EvaluateRecord: {where}: " in refusal(path, document)


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_not_read(token: str, tmp_path: Path) -> None:
    path, document = written(tmp_path)
    put(document, "evaluate.score.accuracy", "@")
    assert "evaluate.score.accuracy" in refusal(path, json.dumps(document).replace('"@"', token))


def test_several_errors_are_one_line_with_their_number(tmp_path: Path) -> None:
    path, document = written(tmp_path)
    put(document, "one", 1)
    put(document, "two", 2)
    assert refusal(path, document).endswith(" (and 1 more)")


def test_a_section_that_its_command_does_not_name_is_refused(tmp_path: Path) -> None:
    path, document = written(tmp_path)
    other = json.loads(store.dumps(make_record("bench")))
    assert "not a valid EvaluateRecord: bench: " in refusal(path, {**document, "bench": other["bench"]})
    # Fields for another command's result are refused even if they are null, as in version 1.
    assert "not a valid EvaluateRecord: bench: " in refusal(path, {**document, "bench": None})
    assert "not a valid BenchRecord: bench: " in refusal(path, {**document, "command": "bench"})


def test_a_command_without_records_is_refused_with_those_that_have_some(tmp_path: Path) -> None:
    path, document = written(tmp_path)
    for command in ("compare", "selftest", "", None, 3, ["bench"]):
        line = refusal(path, {**document, "command": command})
        assert line.endswith(f"not a valid record: command {command!r} is none of {', '.join(COMMANDS)}")


# --- writing in one step ----------------------------------------------------------------------------------------------


class BrokenError(Exception):
    """An error that only a test raises."""


def breaks(*_: object, **__: object) -> None:
    raise BrokenError


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.chmod", "pathlib.Path.replace"])
def test_a_failure_while_writing_leaves_the_old_file_and_no_other(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    store.write_text(path, "old")
    with monkeypatch.context() as broken:
        broken.setattr(step, breaks)
        with pytest.raises(BrokenError):
            store.write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    store.write_text(path, "old")
    seen = []
    replace_file = Path.replace

    def spy(self: Path, target: Path) -> Path:
        seen.append((path.read_text(encoding="utf-8"), self.read_text(encoding="utf-8"), self.parent, target))
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    store.write_text(path, "new")
    # Beside the target, since a file moves in one step only within a file system.
    assert seen == [("old", "new", tmp_path, path)]
    assert path.read_text(encoding="utf-8") == "new"


def test_an_interruption_while_writing_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write_text(tmp_path / "record.json", "new")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def umask() -> Any:
    """Set the umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_file_has_the_permissions_of_the_umask(
    mask: int, mode: int, tmp_path: Path, umask: Callable[[int], int]
) -> None:
    umask(mask)
    store.write_text(tmp_path / "record.json", "text")
    store.write_folder(tmp_path / "model", fill_privately)
    store.replace_folder(tmp_path / "other", fill)
    for name in ("record.json", "model/weights", "model/sub/config", "other/weights"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode, name
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == mode | (0o111 & ~mask)
    assert umask(mask) == mask


def test_the_folder_of_a_file_is_made(tmp_path: Path) -> None:
    store.save(make_record("train"), tmp_path / "a" / "b" / "record.json")
    assert store.load(tmp_path / "a" / "b" / "record.json").command == "train"


# --- folders ----------------------------------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, str]:
    """Every file below `folder` with its text."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def fill(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "weights").write_text("new")
    (folder / "sub" / "config").write_text("new")


def fill_privately(folder: Path) -> None:
    """Write private files, like libraries that use temporary files."""
    fill(folder)
    for path in (folder / "weights", folder / "sub" / "config"):
        path.chmod(0o600)


def fill_half(folder: Path) -> None:
    (folder / "weights").write_text("new")
    raise BrokenError


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    """A folder with files of an earlier run."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    (folder / "card").write_text("old")
    return folder


@pytest.mark.parametrize("write", [store.write_folder, store.replace_folder])
def test_a_folder_is_unchanged_if_writing_fails(
    write: Callable[[Path, Callable[[Path], None]], None], old_folder: Path
) -> None:
    with pytest.raises(BrokenError):
        write(old_folder, fill_half)
    assert tree(old_folder.parent) == {"model/card": "old", "model/weights": "old"}
    assert list(old_folder.parent.iterdir()) == [old_folder]


@pytest.mark.parametrize("write", [store.write_folder, store.replace_folder])
def test_a_folder_is_unchanged_until_all_its_files_are_written(
    write: Callable[[Path, Callable[[Path], None]], None], old_folder: Path
) -> None:
    def fill_and_look(folder: Path) -> None:
        fill(folder)
        assert (old_folder / "weights").read_text() == "old"
        assert not (old_folder / "sub").exists()

    write(old_folder, fill_and_look)
    assert (old_folder / "weights").read_text() == "new"


def test_write_folder_keeps_the_files_that_it_does_not_write(old_folder: Path) -> None:
    store.write_folder(old_folder, fill)
    assert tree(old_folder.parent) == {"model/card": "old", "model/sub/config": "new", "model/weights": "new"}
    assert sorted(path.name for path in old_folder.iterdir()) == ["card", "sub", "weights"]


def test_replace_folder_keeps_no_file_of_the_old_folder(old_folder: Path) -> None:
    store.replace_folder(old_folder, fill)
    assert tree(old_folder.parent) == {"model/sub/config": "new", "model/weights": "new"}
    assert list(old_folder.parent.iterdir()) == [old_folder]


@pytest.mark.parametrize("write", [store.write_folder, store.replace_folder])
def test_a_new_folder_is_made_with_its_parents(
    write: Callable[[Path, Callable[[Path], None]], None], tmp_path: Path
) -> None:
    write(tmp_path / "a" / "model", fill)
    assert tree(tmp_path) == {"a/model/sub/config": "new", "a/model/weights": "new"}


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(old_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def refuse_the_new(self: Path, target: Path) -> Path:
        # Only moving the new folder in fails; moving the old one away, or back, works.
        if target == old_folder and (self / "sub").exists():
            raise BrokenError
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    monkeypatch.setattr(sys, "platform", "other")  # one that cannot exchange two folders
    with pytest.raises(BrokenError):
        store.replace_folder(old_folder, fill)
    assert tree(old_folder.parent) == {"model/card": "old", "model/weights": "old"}


# --- names and lines --------------------------------------------------------------------------------------------------


class Noon:
    """A clock that stands still."""

    @staticmethod
    def now(zone: tzinfo) -> datetime:
        return datetime(2025, 1, 2, 12, tzinfo=zone)


def test_two_commands_of_one_moment_write_to_two_default_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "datetime", Noon)
    names = {str(store.default_path("bench")) for _ in range(99)}
    assert len(names) == 99
    assert all(re.fullmatch(r"results/20250102T120000Z-bench-[0-9a-f]{6}\.json", name) for name in names)


def test_lines_are_written_as_json_and_hashed_as_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    digest = store.write_jsonl(path, [{"pair": 1, "text": "café"}, {"pair": 2, "text": "a\nb"}])
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"pair": 1, "text": "café"},
        {"pair": 2, "text": "a\nb"},
    ]


def test_a_canonical_hash_is_that_of_the_content_and_not_of_its_layout() -> None:
    one = store.canonical_sha256('{"a": 1, "b": {"c": [1, 2], "d": null}}')
    assert store.canonical_sha256('{\n "b": {"d": null, "c": [1, 2]},\n "a": 1}') == one
    assert store.canonical_sha256('{"a": 1, "b": {"c": [2, 1], "d": null}}') != one
    assert store.canonical_sha256('{"a": 1, "b": {"c": [1, 2], "d": null}, "e": 5}', without=["e"]) == one
    assert store.canonical_sha256('{"a": 1, "b": {"c": [1, 2], "d": null}}', without=["a"]) != one


def test_a_result_that_is_not_a_record_is_one_json_document() -> None:
    assert json.loads(store.to_json(ENVIRONMENT)) == json.loads(json.dumps(dataclasses.asdict(ENVIRONMENT)))
    assert json.loads(store.to_json([1, "two"])) == [1, "two"]


# --- the published format ---------------------------------------------------------------------------------------------


def test_the_json_schema_in_the_package_is_the_generated_one() -> None:
    path = REPOSITORY / "mrpcbench" / "records" / "results.schema.json"
    assert path.exists(), "run `python -m mrpcbench.records.store`"
    assert json.loads(path.read_text(encoding="utf-8")) == store.json_schema(), "stale: generate it again"


def test_the_page_of_the_format_is_the_generated_one() -> None:
    path = REPOSITORY / "docs" / "results-format.md"
    assert path.exists(), "run `python -m mrpcbench.records.store`"
    assert path.read_text(encoding="utf-8") == store.format_page(), "stale: generate it again"


@cache
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(store.json_schema())


def test_the_schema_itself_is_valid_and_describes_every_field() -> None:
    schema = store.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, body in schema["$defs"].items():
        assert body["description"], name
        assert body["additionalProperties"] is False, name
        for field, meaning in body["properties"].items():
            assert meaning["description"], f"{name}.{field}"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("complete", [True, False])
def test_a_record_of_each_command_is_valid_by_the_schema(command: Command, complete: bool) -> None:
    validator().validate(json.loads(store.dumps(make_record(command, complete=complete))))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("surprise", 1),
        ("evaluate.batch_size", "3"),
        ("model.weights", "trained"),
        ("data.0.label_names", ["one"]),
        *(("schema_version", version) for version in (1, "1", "2", "3.0", "2.x", "12.0")),
    ],
)
def test_a_record_that_cannot_be_read_is_not_valid_by_the_schema(where: str, value: object) -> None:
    document = json.loads(store.dumps(make_record("evaluate")))
    put(document, where, value)
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(document)


def test_every_minor_version_of_the_current_format_is_valid_by_the_schema() -> None:
    document = json.loads(store.dumps(make_record("ab")))
    for version in ("2.0", "2.17"):
        document["schema_version"] = document["ab"]["comparison"]["schema_version"] = version
        validator().validate(document)


@pytest.mark.parametrize("kind", ["RunRecord", "BenchRecord", "BenchRow", "TrainRecipe", "Interval", "BackendSpec"])
def test_the_page_shows_every_class_of_the_format(kind: str) -> None:
    assert f"\n## {kind}\n" in store.format_page()


def test_every_row_of_the_page_has_three_cells() -> None:
    rows = [line for line in store.format_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    for row in rows:
        assert len(row.replace("\\|", "").split("|")) == 5, row
        assert "typing." not in row
        assert "mrpcbench.schema.records." not in row


# --- records that are published ---------------------------------------------------------------------------------------


def test_every_published_record_is_readable_complete_valid_and_without_private_names() -> None:
    assert len(PUBLISHED) >= 16
    faults = {}
    for path in PUBLISHED:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = [error.json_path for error in validator().iter_errors(upgrade(document))]
        found += given_away(document)
        if found or not store.load(path).complete:
            faults[path] = found
    faults |= {path: found for path in GATE if (found := given_away(json.loads(path.read_text(encoding="utf-8"))))}
    assert not faults


@pytest.mark.parametrize(
    "text",
    [
        "/data/models/tuned",
        "--model=/data/tuned",
        "~/tuned",
        "~ann/tuned",
        "file:///data",
        "C:\\models",
        "cannot open '/data/x'",
        "../home/ann/tuned",
        "ann",
        "host of ann:",
    ],
)
def test_a_path_or_a_name_in_a_record_is_found(text: str) -> None:
    assert given_away({"model": [{"name": text}]}, "ann") == [text]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_ordinary_record_has_no_private_names(command: Command) -> None:
    assert given_away(json.loads(store.dumps(make_record(command))), "ann") == []
    assert given_away(["answerdotai/ModernBERT-base", "planning", "results/x.json", "pairs/s", "--data=mrpc"]) == []


def test_a_score_that_its_own_counts_contradict_is_refused(tmp_path: Path) -> None:
    for where, value in (
        ("evaluate.score.accuracy", 0.95),
        ("evaluate.score.accuracy", 1.5),
        ("evaluate.score.f1", 1e308),
        ("evaluate.score.precision", 0.9),
        ("evaluate.score.recall", 1.0),
        ("evaluate.score.majority_f1", 0.1),
        ("evaluate.score.pairs", 409),
        ("evaluate.score.confusion.true_positive", 254),
        ("evaluate.score.confusion.false_negative", -1),
        ("evaluate.score.loss", -0.1),
        ("evaluate.score.f1_interval.high", 1.5),
    ):
        path, document = written(tmp_path)
        put(document, where, value)
        assert "it was edited or damaged, so run the command again" in refusal(path, document), where


@pytest.mark.parametrize(
    ("command", "where", "value"),
    [
        ("train", "train.epochs.1.eval_accuracy_score", 1.5),
        ("train", "train.epochs.1.eval_f1_score", -0.1),
        ("train", "train.epochs.1.eval_loss", 1e308),
        ("bench", "bench.rows.1.f1", 1.5),
        ("export", "model.proven", False),
    ],
)
def test_a_result_that_cannot_be_is_refused(command: Any, where: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    store.save(make_record(command), path)
    document = json.loads(path.read_text(encoding="utf-8"))
    store.load(path)
    *parents, last = (int(part) if part.isdigit() else part for part in where.split("."))
    holder = document
    for part in parents:
        holder = holder[part]
    holder[last] = value
    assert "it was edited or damaged, so run the command again" in refusal(path, document)
