"""A verdict or an error for CI: Markdown, JUnit XML and GitHub annotations. Prints nothing.

Each of the three looks like a pass only if the verdict is PASS.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from mrpcbench.display.comparison import columns, compared, gate_lines, headline, ordered, sides
from mrpcbench.display.escapes import escaped, one_line
from mrpcbench.display.numbers import ABSENT
from mrpcbench.errors import ExitStatus
from mrpcbench.records.outputs import JUNIT, MARKDOWN, check_distinct, check_file
from mrpcbench.records.store import write_text
from mrpcbench.schema.gate_requests import Publish
from mrpcbench.schema.verdicts import EXIT_STATUS, Comparison, MetricResult, Outcome, Verdict

# Characters that GitHub's Markdown reads as layout, a link, HTML or mathematics; not an underscore inside a word.
MARKUP = re.compile(r"[\\`*\[\]<|~&$]|(?<![^\W_])_|_(?![^\W_])")
# Every character that XML 1.0 does not allow.
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LEVELS: dict[Outcome, Literal["notice", "warning", "error"]] = {
    "PASS": "notice",
    "INCONCLUSIVE": "warning",
    "REGRESSION": "error",
    "INCOMPARABLE": "error",
}


def check_publish(request: Publish) -> None:
    """Raise `UsageError` for an output file that cannot be written; called before a command does any work."""
    check_distinct({"--markdown": request.markdown, "--junit": request.junit})
    check_file("--markdown", request.markdown, MARKDOWN)
    check_file("--junit", request.junit, JUNIT)


def publish(found: Comparison, request: Publish, environ: Mapping[str, str]) -> list[str]:
    """Write the requested files and, in GitHub Actions, the job's summary. Returns the annotations to print there.

    Print them on stderr, which the runner reads too, because with `--json` stdout is one document.
    """
    return _write(markdown(found), junit(found), annotations(found), request, environ)


def publish_error(
    command: str, message: str, status: ExitStatus, request: Publish, environ: Mapping[str, str]
) -> list[str]:
    """`publish` for a command that ended without a verdict, so that no file of an earlier run passes for its result."""
    title, text = f"mrpcbench {command}".strip(), _clean(message)
    suite = _suite(title, {"exit code": f"{status:d}"})
    case = SubElement(suite, "testcase", name="verdict", classname=title.replace(" ", "."), time="0")
    SubElement(case, "error", type=status.name, message=text)
    return _write(
        f"## ERROR (exit code {status:d}): {_escaped(title)}\n\n{_escaped(text)}\n",
        _finished(suite, (), ()),
        [f"::error title={_property(title)}::{_data(text)}"],
        request,
        environ,
    )


def _write(text: str, xml: str, commands: list[str], request: Publish, environ: Mapping[str, str]) -> list[str]:
    """Write the files that `request` and `environ` name. Returns what to print: `commands` are for GitHub only."""
    lines: list[str] = []
    summary = environ.get("GITHUB_STEP_SUMMARY")
    if request.markdown is not None and not (summary and _same(request.markdown, summary)):
        write_text(Path(request.markdown), text)
    if request.junit is not None:
        write_text(Path(request.junit), xml)
    if summary:
        # Other steps write there too, so append. An empty line ends any paragraph or table that they left open.
        # The runner asks for it, not the user: a failure must not take the place of the verdict.
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(f"\n{text}")
        except OSError as error:
            lines.append(f"warning: GITHUB_STEP_SUMMARY={summary}: {error.strerror}; the job has no summary")
    return lines + (commands if environ.get("GITHUB_ACTIONS") == "true" else [])


def _same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(found: Comparison) -> str:
    """The verdict, its reason, the metrics as a table, and what was compared."""
    lines = [f"## {headline(found.verdict)}: {_escaped(found.kind)}", "", _escaped(found.verdict.text)]
    if found.metrics:
        cells = columns(found)
        lines += ["", _row(_escaped(name) for name, _ in cells), _row(["---", *["---:"] * (len(cells) - 2), "---"])]
        lines += [_row(_escaped(cell(metric)) for _, cell in cells) for metric in ordered(found)]
    for title, items in (
        ("Gates", tuple(gate_lines(found))),
        ("Differences", found.differences),
        ("Warnings", found.warnings),
        ("Compared", tuple(f"{side}: {'; '.join(compared(record))}" for side, record in sides(found))),
    ):
        if items:
            lines += ["", f"**{title}**", "", *(f"- {_escaped(item)}" for item in items)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """`text` on one line, with the special characters of Markdown escaped."""
    return MARKUP.sub(r"\\\g<0>", _clean(text))


# --- JUnit ------------------------------------------------------------------------------------------------------------


def junit(found: Comparison) -> str:
    """A test suite with a test case per gated metric, in the schema of Ant's JUnit reports.

    REGRESSION and INCONCLUSIVE are failures, INCOMPARABLE is an error. If no test case shows that the verdict is not
    PASS, one more is added: without a gated metric, or if the records cannot be compared. A missing baseline that was
    allowed is a skipped test case.
    """
    suite = _suite(
        f"mrpcbench {_clean(found.kind)}",
        {"verdict": found.verdict.outcome, "exit code": f"{EXIT_STATUS[found.verdict.outcome]:d}"},
        [(side, "; ".join(compared(record))) for side, record in sides(found)],
    )
    gated = [metric for metric in ordered(found) if metric.gated]
    for metric in gated:
        case = _case(suite, found, metric.metric)
        if metric.verdict.outcome != "PASS":
            kind = "error" if metric.verdict.outcome == "INCOMPARABLE" else "failure"
            _fault(case, kind, metric.verdict, [_figures(found, metric)])
    if found.missing_baseline:
        SubElement(_case(suite, found, "baseline"), "skipped", message=_clean(found.verdict.text))
    shown = bool(gated or found.missing_baseline) and (
        found.verdict.outcome == "PASS" or any(item.verdict.outcome != "PASS" for item in gated)
    )
    if found.verdict.outcome == "INCOMPARABLE" or not shown:
        _fault(_case(suite, found, "comparable"), "error", found.verdict, found.differences)
    out = [f"{item.metric}: {_figures(found, item)}" for item in ordered(found)]
    return _finished(suite, out, (*found.differences, *found.warnings))


def _suite(name: str, properties: Mapping[str, str], records: Iterable[tuple[str, str]] = ()) -> Element:
    suite = Element("testsuite", name=name)
    about = SubElement(suite, "properties")
    for key, value in (*properties.items(), *records):
        SubElement(about, "property", name=key, value=_clean(value))
    return suite


def _finished(suite: Element, out: Iterable[str], err: Iterable[str]) -> str:
    """The text of `suite`, with the lines of its output and its counts."""
    SubElement(suite, "system-out").text = "\n".join(_clean(line) for line in out)
    SubElement(suite, "system-err").text = "\n".join(_clean(line) for line in err)
    _count(suite)
    indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(suite, encoding="unicode") + "\n"


def _case(suite: Element, found: Comparison, name: str) -> Element:
    return SubElement(suite, "testcase", name=_clean(name), classname=f"mrpcbench.{_clean(found.kind)}", time="0")


def _fault(case: Element, kind: str, verdict: Verdict, lines: Iterable[str]) -> None:
    fault = SubElement(case, kind, type=verdict.outcome, message=_clean(verdict.text))
    fault.text = "\n".join(_clean(line) for line in lines)


def _count(suite: Element) -> None:
    """Set the attributes that the schema requires. It allows no time zone, and the host name stays private."""
    suite.set("timestamp", f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}")
    suite.set("hostname", "localhost")
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    suite.set("time", "0")


def _figures(found: Comparison, metric: MetricResult) -> str:
    """The table cells of a metric, on one line."""
    cells = [(name, cell(metric)) for name, cell in columns(found)[1:]]
    return ", ".join(f"{name} {text}" for name, text in cells if text != ABSENT)


def _clean(text: str) -> str:
    """`text` on one line, without the characters that XML does not allow."""
    return one_line(NOT_XML.sub("", escaped(text)))


# --- GitHub annotations -----------------------------------------------------------------------------------------------


def annotations(found: Comparison) -> list[str]:
    """Workflow commands for each gated metric that did not pass, and for the warnings.

    If no such metric has the outcome of the verdict, the first command is the verdict.
    """
    faults = [metric for metric in ordered(found) if metric.gated and metric.verdict.outcome != "PASS"]
    lines = [_command(found, metric.verdict, f" {metric.metric}") for metric in faults]
    if all(metric.verdict.outcome != found.verdict.outcome for metric in faults):
        lines.insert(0, _command(found, found.verdict))
    warning = _property(f"mrpcbench {found.kind}: warning")
    return lines + [f"::warning title={warning}::{_data(text)}" for text in found.warnings]


def _command(found: Comparison, verdict: Verdict, name: str = "") -> str:
    title = _property(f"mrpcbench {found.kind}{name}: {verdict.outcome}")
    return f"::{LEVELS[verdict.outcome]} title={title}::{_data(verdict.text)}"


def _data(text: str) -> str:
    return one_line(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
