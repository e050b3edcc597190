"""What cannot be written, or would replace something else, is known before the work."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from comparisons import OF_EACH_OUTCOME
from records import COMMANDS, make_record

from mrpcbench.commands.evaluate import prediction_rows
from mrpcbench.commands.report import report
from mrpcbench.display.ci import publish, publish_error
from mrpcbench.errors import ExitStatus, UsageError
from mrpcbench.instruments import trace
from mrpcbench.progress import Silent
from mrpcbench.records import store
from mrpcbench.records.outputs import (
    CSV,
    JUNIT,
    MARKDOWN,
    PAGE,
    PREDICTIONS,
    TRACE,
    Form,
    check_distinct,
    check_file,
    check_space,
    check_writable,
    record_of,
)
from mrpcbench.schema.gate_requests import Publish, ReportPlan


def test_a_path_that_can_be_made_is_fine_and_is_not_made(tmp_path: Path) -> None:
    check_writable("--results", None)
    check_writable("--results", tmp_path / "a" / "b.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=r"--results .*no permission to write"):
        check_writable("--results", tmp_path / "r.json")
    tmp_path.chmod(0o700)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is a file"):
        check_writable("--results", tmp_path / "file" / "deep" / "r.json")


def test_too_little_space_is_refused_with_both_figures(tmp_path: Path) -> None:
    check_space("--output-dir", tmp_path / "new", 1)
    with pytest.raises(UsageError, match=r"--output-dir .*needs about 1000000000\.0 GB, and \d+\.\d GB are free"):
        check_space("--output-dir", tmp_path / "new", 10**18)


def _verdict(option: str) -> Callable[[Path], object]:
    return lambda path: publish(OF_EACH_OUTCOME["REGRESSION"], Publish(**{option: str(path)}), {})


def _error(option: str) -> Callable[[Path], object]:
    return lambda path: publish_error("compare", "no such file", ExitStatus.USAGE, Publish(**{option: str(path)}), {})


def _report(**options: str) -> None:
    store.save(make_record("bench"), Path("bench.json"))
    report([Path("bench.json")], ReportPlan(**options), Silent())  # type: ignore[arg-type]


def _predictions(path: Path) -> None:
    numbers = np.array([[0.5, -1.0], [0.0, 1.0]], dtype=np.float32)
    store.write_jsonl(path, prediction_rows(numbers, np.array([1, 0])))


# What writes a file of each form.
WRITERS: list[tuple[Form, Callable[[Path], object]]] = [
    *((record_of(name), lambda path, name=name: store.save(make_record(name), path)) for name in COMMANDS),
    (MARKDOWN, _verdict("markdown")),
    (MARKDOWN, _error("markdown")),
    (JUNIT, _verdict("junit")),
    (JUNIT, _error("junit")),
    (TRACE, lambda path: trace.write(path, {})),
    (CSV, lambda path: _report(csv=str(path))),
    (PREDICTIONS, _predictions),
]


def test_a_file_is_replaced_only_by_one_of_the_same_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (form, write) in enumerate(WRITERS):
        path = tmp_path / f"{number}.html"
        write(path)
        check_file("--results", path, form)
        for other in {item.name: item for item, _ in WRITERS}.values():
            if other.name != form.name:
                with pytest.raises(UsageError, match=f"--results .*: exists, and is not {other.name}; remove it"):
                    check_file("--results", path, other)


def test_a_page_replaces_a_page_and_no_other_file_that_ends_in_html(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="the extra report is not installed")
    store.save(make_record("export"), tmp_path / "export.json")
    page = tmp_path / "report.html"
    plan = ReportPlan(output=str(page))
    page.touch()
    for _ in range(2):
        report([tmp_path / "export.json"], plan, Silent())
    page.write_text("<!doctype html><title>Home</title>")
    with pytest.raises(UsageError, match="exists, and is not a page"):
        report([tmp_path / "export.json"], plan, Silent())
    assert page.read_text() == "<!doctype html><title>Home</title>"
    check_file("--output", tmp_path / "new.html", PAGE)


def test_no_pipe_and_no_device_is_replaced_or_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UsageError, match="not a regular file; name another path"):
            check_file("--results", path, record_of("bench"))


def test_a_link_is_judged_by_its_target(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to("notes.txt")
    with pytest.raises(UsageError, match="exists, and is not a trace"):
        check_file("--profile", tmp_path / "link", TRACE)


def test_two_options_cannot_name_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_distinct({"--results": "a", "--profile": None, "--junit": "b"})
    with pytest.raises(UsageError, match=r"--profile \./a: the same file as --results; name another"):
        check_distinct({"--results": tmp_path / "a", "--profile": "./a"})
