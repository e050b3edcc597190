"""Tests of mrpcbench.display.ci: the output for CI, which looks like a pass only if the verdict is PASS."""

import re
import socket
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from comparisons import (
    BASELINE,
    COMPARISONS,
    CURRENT,
    DIFFERENCES,
    F1,
    GATE_INCOMPARABLE,
    NO_GATE,
    NO_METRIC,
    OF_EACH_OUTCOME,
    PRECISION,
    SPEEDS,
    make_comparison,
    make_metric,
)

from mrpcbench.cli.terminal import Terminal
from mrpcbench.display.ci import annotations, check_publish, junit, markdown, publish, publish_error
from mrpcbench.display.escapes import one_line
from mrpcbench.errors import ExitStatus, UsageError
from mrpcbench.schema.gate_requests import Publish
from mrpcbench.schema.verdicts import EXIT_STATUS, Comparison, Outcome, Verdict

NOTHING = Publish()
# Every string that a comparison takes from outside, with characters that could break a format.
HOSTILE = 'a|b\nc <b>d</b> & "e" `f` *g* [h](i) 100% x:y,z\x00\x1b\x0b\ufffe\ud800 $j$ ~k~'


def hostile() -> Comparison:
    metric = make_metric(
        "REGRESSION", metric=HOSTILE, verdict=Verdict(outcome="REGRESSION", reason=HOSTILE), unit=HOSTILE,
        change_unit=HOSTILE, test=HOSTILE, limit=HOSTILE,
    )  # fmt: skip
    record = replace(BASELINE, name=HOSTILE, model=HOSTILE, started_at=HOSTILE, git_commit=HOSTILE)
    return make_comparison(
        metric, replace(metric, gated=False), baseline=(record,), warnings=(HOSTILE,), differences=(HOSTILE,),
        kind=HOSTILE, verdict=Verdict(outcome="INCOMPARABLE", reason=HOSTILE),
    )  # fmt: skip


# --- JUnit ------------------------------------------------------------------------------------------------------------

# The part of Ant's JUnit schema (JUnit.xsd of windyroad/JUnit-Schema) for a report of one suite, in its order: the
# required attributes with their patterns, and the children as (name, minimum, maximum). Jenkins' junit-10.xsd requires
# less, and allows all of these attributes.
TOKEN, ANY, COUNT, DECIMAL = r"\S+( \S+)*", r"[\s\S]*", r"\d+", r"\d+(\.\d+)?"
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
MANY = 10**9
ATTRIBUTES = {
    "testsuite": {"name": TOKEN, "timestamp": MOMENT, "hostname": TOKEN, "tests": COUNT, "failures": COUNT}
    | {"errors": COUNT, "time": DECIMAL},
    "properties": {},
    "property": {"name": TOKEN, "value": ANY},
    "testcase": {"name": TOKEN, "classname": TOKEN, "time": DECIMAL},
    "failure": {"type": ANY, "message": ANY},
    "error": {"type": ANY, "message": ANY},
    "skipped": {"message": ANY},
    "system-out": {},
    "system-err": {},
}
CHILDREN = {
    "testsuite": (("properties", 1, 1), ("testcase", 0, MANY), ("system-out", 1, 1), ("system-err", 1, 1)),
    "properties": (("property", 0, MANY),),
    "testcase": (("failure|error|skipped", 0, 1),),
}
WITH_TEXT = {"failure", "error", "system-out", "system-err"}


def schema_faults(node: Element) -> list[str]:
    """The violations of the schema by `node` and its descendants."""
    faults = []
    attributes = ATTRIBUTES[node.tag]
    if set(node.attrib) != set(attributes):
        faults.append(f"{node.tag}: attributes {sorted(node.attrib)}")
    faults += [
        f"{node.tag}: {name} {node.attrib[name]!r}"
        for name, form in attributes.items()
        if name in node.attrib and not re.fullmatch(form, node.attrib[name])
    ]
    names = "".join(f"<{child.tag}>" for child in node)
    order = "".join(
        f"(<({name})>){{{least},{'' if most == MANY else most}}}" for name, least, most in CHILDREN.get(node.tag, ())
    )
    if not re.fullmatch(order, names):
        faults.append(f"{node.tag}: children {names}")
    if (node.tag not in WITH_TEXT and (node.text or "").strip()) or (node.tail or "").strip():
        faults.append(f"{node.tag}: text")
    return faults + [fault for child in node for fault in schema_faults(child)]


def suite_of(found: Comparison) -> Element:
    return ElementTree.fromstring(junit(found).encode())


def shown_by(suite: Element) -> dict[str, str]:
    """Each case and what it shows."""
    return {
        case.attrib["name"]: f"{case[0].tag} {case[0].attrib.get('type', '')}".strip() if len(case) else "pass"
        for case in suite.findall("testcase")
    }


def test_a_report_is_valid_by_the_schema() -> None:
    for name, found in COMPARISONS.items():
        suite = suite_of(found)
        assert schema_faults(suite) == [], name
        cases = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(cases) > 0, name
        assert int(suite.attrib["failures"]) == sum(len(case.findall("failure")) for case in cases), name
        assert int(suite.attrib["errors"]) == sum(len(case.findall("error")) for case in cases), name


def test_exactly_the_gated_metrics_are_test_cases() -> None:
    assert shown_by(suite_of(OF_EACH_OUTCOME["PASS"])) == {"accuracy": "pass", "F1": "pass"}
    suite = suite_of(SPEEDS)
    assert shown_by(suite) == {"onnx offline batch 32": "pass", "torch offline batch 32": "pass"}
    assert suite.attrib["name"] == "mrpcbench bench"
    assert {case.attrib["classname"] for case in suite.findall("testcase")} == {"mrpcbench.bench"}


def test_each_outcome_has_its_own_element() -> None:
    assert shown_by(suite_of(OF_EACH_OUTCOME["REGRESSION"])) == {"accuracy": "failure REGRESSION", "F1": "pass"}
    assert shown_by(suite_of(OF_EACH_OUTCOME["INCONCLUSIVE"])) == {"accuracy": "failure INCONCLUSIVE", "F1": "pass"}
    assert shown_by(suite_of(GATE_INCOMPARABLE)) == {
        "accuracy": "pass",
        "F1": "error INCOMPARABLE",
        "comparable": "error INCOMPARABLE",
    }
    (failure,) = suite_of(OF_EACH_OUTCOME["REGRESSION"]).findall("testcase/failure")
    assert failure.attrib["message"] == "found REGRESSION"
    assert failure.text == (
        "baseline 0.8603, current 0.8578, change -0.25 points, 95% interval -1.72 to +1.23, p 0.4124, adj. p 0.8247, "
        "outcome REGRESSION"
    )


@pytest.mark.parametrize("found", [NO_GATE, NO_METRIC, OF_EACH_OUTCOME["INCOMPARABLE"]])
def test_without_a_gate_one_error_shows_that_there_is_no_verdict(found: Comparison) -> None:
    assert shown_by(suite_of(found)) == {"comparable": f"error {found.verdict.outcome}"}
    (error,) = suite_of(found).findall("testcase/error")
    assert error.attrib["message"] == found.verdict.reason
    assert (error.text or "").splitlines() == list(found.differences)


@pytest.mark.parametrize("outcome", [outcome for outcome in EXIT_STATUS if outcome != "PASS"])
def test_a_report_is_all_green_only_if_the_verdict_is_pass(outcome: Outcome) -> None:
    """Whatever the metrics are, even if they contradict the verdict."""
    verdict = Verdict(outcome=outcome, reason="for a reason")
    for metrics in ((), (PRECISION,), (make_metric(),), (make_metric(), F1), (make_metric("REGRESSION"), F1)):
        suite = suite_of(make_comparison(*metrics, verdict=verdict))
        assert int(suite.attrib["failures"]) + int(suite.attrib["errors"]) > 0, metrics
        assert schema_faults(suite) == []


def test_a_pass_without_a_gate_is_not_green() -> None:
    found = make_comparison(PRECISION, verdict=Verdict(outcome="PASS", reason="nothing was asked"))
    assert suite_of(found).attrib["errors"] == "1"


def test_a_missing_baseline_that_was_allowed_is_skipped_and_limits_decide() -> None:
    verdict = Verdict(outcome="PASS", reason="nothing was compared; to create the baseline: `...`")
    suite = suite_of(make_comparison(verdict=verdict, baseline=(), missing_baseline=True))
    assert shown_by(suite) == {"baseline": "skipped"}
    assert schema_faults(suite) == []
    limits = make_comparison(make_metric("REGRESSION"), baseline=(), missing_baseline=True)
    assert shown_by(suite_of(limits)) == {"accuracy": "failure REGRESSION", "baseline": "skipped"}


def test_a_report_has_every_metric_the_records_and_the_warnings() -> None:
    suite = suite_of(make_comparison(PRECISION, make_metric(), differences=DIFFERENCES))
    lines = (suite.findtext("system-out") or "").splitlines()
    assert [line.split(":")[0] for line in lines] == ["accuracy", "precision"]
    assert lines[1] == "precision: baseline 0.8603, outcome info"
    assert (suite.findtext("system-err") or "").splitlines() == [*DIFFERENCES, "transformers: 4.57.6 against 4.57.7"]
    properties = [(item.attrib["name"], item.attrib["value"]) for item in suite.iter("property")]
    assert properties[:2] == [("verdict", "INCOMPARABLE"), ("exit code", "4")]
    assert [name for name, _ in properties[2:]] == ["baseline", "current"]
    assert BASELINE.name in properties[2][1]
    assert CURRENT.name in properties[3][1]


def test_a_report_names_no_host() -> None:
    text = junit(OF_EACH_OUTCOME["PASS"])
    assert 'hostname="localhost"' in text
    assert socket.gethostname() in {"", "localhost"} or socket.gethostname() not in text


def test_characters_that_xml_does_not_allow_are_escaped_or_omitted() -> None:
    suite = suite_of(hostile())
    assert schema_faults(suite) == []
    clean = 'a|b c <b>d</b> & "e" `f` *g* [h](i) 100% x:y,z\\x00\\x1b\\x0b $j$ ~k~'
    assert suite.findall("testcase")[0].attrib["name"] == clean
    assert suite.findall("testcase/failure")[0].attrib["message"] == clean
    assert suite.findall("testcase/error")[0].text == clean


# --- Markdown ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", OF_EACH_OUTCOME)
def test_markdown_begins_with_the_verdict_and_its_reason(outcome: Outcome) -> None:
    lines = markdown(OF_EACH_OUTCOME[outcome]).splitlines()
    assert lines[0] == f"## {outcome} (exit code {int(EXIT_STATUS[outcome])}): evaluate"
    assert lines[2] == OF_EACH_OUTCOME[outcome].verdict.reason


def test_markdown_has_a_table_of_the_metrics_the_gated_ones_first() -> None:
    text = markdown(make_comparison(PRECISION, make_metric(), F1))
    assert (
        "\n\n| metric | baseline | current | change | 95% interval | p | adj. p | outcome |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"
        "| accuracy | 0.8603 | 0.8578 | -0.25 points | -1.72 to +1.23 | 0.4124 | 0.8247 | PASS |\n"
        "| F1 | 0.8986 | 0.8991 | +0.05 points | - | 0.4124 | 0.8247 | PASS |\n"
        "| precision | 0.8603 | - | - | - | - | - | info |\n\n"
    ) in text
    assert "|" not in markdown(NO_METRIC)


def test_markdown_lists_gates_differences_warnings_and_records() -> None:
    text = markdown(make_comparison(make_metric("REGRESSION"), differences=DIFFERENCES, current=(CURRENT, CURRENT)))
    for part in (
        "\n\n**Gates**\n\n- accuracy: found REGRESSION; limit: p \\< 0.05 and a net loss of 1 point or more; test: ",
        f"\n\n**Differences**\n\n- {DIFFERENCES[0]}\n- {DIFFERENCES[1]}\n\n",
        "\n\n**Warnings**\n\n- transformers: 4.57.6 against 4.57.7\n\n",
        "\n\n**Compared**\n\n- baseline: 20250102T030405Z-evaluate.json, 2025-01-02 03:04 UTC, commit 0123456789ab; ",
        "\n- current: 20250109T101112Z-evaluate.json, 2025-01-09 10:11 UTC, no commit; tuned",
    ):
        assert part in text, part
    assert text.count("\n- current: ") == 2
    bare = markdown(make_comparison(make_metric(limit="", test=None), warnings=()))
    assert [title for title in ("Gates", "Differences", "Warnings", "Compared") if f"**{title}**" in bare] == [
        "Compared"
    ]


def test_a_name_cannot_change_the_layout_of_markdown() -> None:
    text = markdown(hostile())
    escaped = r'a\|b c \<b>d\</b> \& "e" \`f\` \*g\* \[h\](i) 100% x:y,z\\x00\\x1b\\x0b \$j\$ \~k\~'
    assert text.splitlines()[0] == f"## INCOMPARABLE (exit code 4): {escaped}"
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [9] * 4
    # Every special character has a backslash.
    assert not re.search(r"(?<!\\)[`*\[\]<&$~]", re.sub(r"(?m)^\*\*\w+\*\*$", "", text))
    text.encode()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("aai_ModernBERT_mrpc_ft", "aai_ModernBERT_mrpc_ft"),
        ("__init__", r"\_\_init\_\_"),
        ("_tuned_", r"\_tuned\_"),
        ("a\\b", r"a\\b"),
    ],
)
def test_an_underscore_is_escaped_where_it_could_be_emphasis(name: str, shown: str) -> None:
    assert markdown(make_comparison(make_metric(metric=name))).count(f"\n| {shown} | ") == 1


# --- annotations ------------------------------------------------------------------------------------------------------


def read_command(line: str) -> tuple[str, str, str]:
    """Level, title and message of a workflow command, as GitHub's runner reads one."""
    found = re.fullmatch(r"::(\w+) title=(.*?)::(.*)", line)
    assert found, line
    level, title, message = found.groups()
    assert not set(title) & set(":,\r\n")
    for code, char in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        title = title.replace(code, char)
        message = message.replace(code, char) if char not in ":," else message
    return level, title, message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PASS", [("notice", "mrpcbench evaluate: PASS", "accuracy, F1")]),
        ("REGRESSION", [("error", "mrpcbench evaluate accuracy: REGRESSION", "found REGRESSION")]),
        ("INCONCLUSIVE", [("warning", "mrpcbench evaluate accuracy: INCONCLUSIVE", "found INCONCLUSIVE")]),
        ("INCOMPARABLE", [("error", "mrpcbench evaluate: INCOMPARABLE", "; ".join(DIFFERENCES))]),
        ("no gate", [("warning", "mrpcbench evaluate: INCONCLUSIVE", "no metric was gated")]),
        ("gate incomparable", [("error", "mrpcbench evaluate F1: INCOMPARABLE", "gone")]),
    ],
)
def test_an_annotation_has_the_outcome_and_the_reason(name: str, expected: list[tuple[str, str, str]]) -> None:
    *found, warning = map(read_command, annotations(COMPARISONS[name]))
    assert found == expected
    assert warning == ("warning", "mrpcbench evaluate: warning", "transformers: 4.57.6 against 4.57.7")


def test_for_incomparable_records_the_verdict_comes_before_the_gates() -> None:
    found = make_comparison(make_metric("REGRESSION"), differences=DIFFERENCES, warnings=())
    assert [read_command(line)[:2] for line in annotations(found)] == [
        ("error", "mrpcbench evaluate: INCOMPARABLE"),
        ("error", "mrpcbench evaluate accuracy: REGRESSION"),
    ]


def test_an_annotation_survives_its_escapes() -> None:
    lines = annotations(hostile())
    assert all("\n" not in line and "\r" not in line for line in lines)
    assert {read_command(line)[2] for line in lines} == {one_line(HOSTILE)}
    assert read_command(lines[0])[1] == f"mrpcbench {one_line(HOSTILE)}: INCOMPARABLE"
    tricky = make_metric(metric="%0A\r", verdict=Verdict(outcome="REGRESSION", reason="%25\r\n%3A"))
    assert read_command(annotations(make_comparison(tricky))[0]) == (
        *("error", "mrpcbench evaluate %0A : REGRESSION", "%25 %3A"),
    )


def test_an_annotation_is_one_line_of_stderr_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    long = make_metric("REGRESSION", verdict=Verdict(outcome="REGRESSION", reason="very [bold]long " * 50))
    lines = annotations(make_comparison(long))
    Terminal().annotate(lines)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "\n".join(lines) + "\n"


# --- where it all goes ------------------------------------------------------------------------------------------------


def test_nothing_is_written_or_annotated_unless_requested(tmp_path: Path) -> None:
    assert publish(SPEEDS, NOTHING, {"GITHUB_STEP_SUMMARY": "", "GITHUB_ACTIONS": "false"}) == []
    assert publish(SPEEDS, NOTHING, {}) == []
    assert list(tmp_path.iterdir()) == []


def test_a_job_summary_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (line,) = publish(SPEEDS, NOTHING, {"GITHUB_STEP_SUMMARY": str(tmp_path)})
    assert line == f"warning: GITHUB_STEP_SUMMARY={tmp_path}: Is a directory; the job has no summary"


def test_existing_output_files_are_replaced(tmp_path: Path) -> None:
    request = Publish(markdown=str(tmp_path / "new" / "verdict.md"), junit=str(tmp_path / "junit.xml"))
    (tmp_path / "junit.xml").write_text("old", encoding="utf-8")
    for _ in range(2):
        publish(SPEEDS, request, {})
    assert (tmp_path / "new" / "verdict.md").read_text(encoding="utf-8") == markdown(SPEEDS)
    assert schema_faults(ElementTree.parse(tmp_path / "junit.xml").getroot()) == []
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["junit.xml", "verdict.md"]


@pytest.mark.parametrize("name", [None, "verdict.md"])
def test_the_summary_of_a_job_is_appended_to(name: str | None, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("an earlier step, without an end", encoding="utf-8")
    request = Publish(markdown=str(tmp_path / name) if name else None)
    for found in (SPEEDS, NO_GATE):
        publish(found, request, {"GITHUB_STEP_SUMMARY": str(summary)})
    assert summary.read_text(encoding="utf-8") == (
        f"an earlier step, without an end\n{markdown(SPEEDS)}\n{markdown(NO_GATE)}"
    )
    if name:
        assert (tmp_path / name).read_text(encoding="utf-8") == markdown(NO_GATE)


def test_a_summary_that_is_also_the_markdown_file_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("summary.md").write_text("earlier\n", encoding="utf-8")
    publish(SPEEDS, Publish(markdown="summary.md"), {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")})
    assert Path("summary.md").read_text(encoding="utf-8") == f"earlier\n\n{markdown(SPEEDS)}"


def test_annotations_are_only_for_github() -> None:
    assert publish(SPEEDS, NOTHING, {"GITHUB_ACTIONS": "true"}) == annotations(SPEEDS) != []
    for other in ("false", "", "1"):
        assert publish(SPEEDS, NOTHING, {"GITHUB_ACTIONS": other}) == []


@pytest.mark.parametrize("option", ["markdown", "junit"])
def test_a_folder_is_refused_before_any_work(option: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--{option} .*: a folder; name a file in it"):
        check_publish(Publish(**{option: str(tmp_path)}))
    check_publish(Publish(**{option: str(tmp_path / "new.file")}))
    check_publish(NOTHING)


def test_an_error_is_published_like_a_verdict(tmp_path: Path) -> None:
    request = Publish(markdown=str(tmp_path / "verdict.md"), junit=str(tmp_path / "junit.xml"))
    publish(OF_EACH_OUTCOME["PASS"], request, {})
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    (line,) = publish_error("compare", f"r.json: {HOSTILE}", ExitStatus.USAGE, request, environ)
    assert read_command(line)[:2] == ("error", "mrpcbench compare")
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert schema_faults(suite) == []
    assert shown_by(suite) == {"verdict": "error USAGE"}
    text = (tmp_path / "verdict.md").read_text(encoding="utf-8")
    assert text.startswith("## ERROR (exit code 2): mrpcbench compare\n\nr.json: a\\|b c ")
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == f"\n{text}"


def test_one_file_cannot_be_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--junit one: the same file as --markdown; name another"):
        check_publish(Publish(markdown=str(tmp_path / "one"), junit="one"))
    check_publish(Publish(markdown="one", junit="two"))
