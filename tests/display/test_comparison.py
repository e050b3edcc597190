"""Tests of mrpcbench.display.comparison: a comparison as text, for every outcome and width."""

import json
import re
from dataclasses import asdict, replace
from io import StringIO
from typing import Literal

import pytest
from comparisons import (
    BASELINE,
    COMPARISONS,
    CURRENT,
    DIFFERENCES,
    F1,
    LATENCY,
    OF_EACH_OUTCOME,
    PRECISION,
    SPEED,
    SPEEDS,
    make_comparison,
    make_metric,
)
from rich.console import Console

from mrpcbench.cli.terminal import Terminal
from mrpcbench.display import comparison, numbers
from mrpcbench.gates.simple_metrics import limit_metric
from mrpcbench.schema.verdicts import EXIT_STATUS, Comparison, Interval, MetricResult, Verdict, overall

ESCAPE = re.compile(r"\x1b\[([\d;]*)m")


def text_of(found: Comparison, width: int = 100) -> str:
    """The text for a pipe of `width` columns."""
    stream = StringIO()
    Console(file=stream, width=width, color_system=None).print(comparison.comparison(found))
    return stream.getvalue()


def words_of(found: Comparison, width: int = 100) -> str:
    """The text without frames and line breaks."""
    return " ".join(re.sub("[│┌┐└┘─]", " ", text_of(found, width)).split())


def line_of(found: Comparison, start: str, width: int = 100) -> str:
    """The one line of the table that begins with `start`, with single spaces."""
    (line,) = [line for line in text_of(found, width).splitlines() if line.startswith(start)]
    return " ".join(line.split())


def cells_of(metric: MetricResult, *others: MetricResult) -> dict[str, str]:
    return {name: cell(metric) for name, cell in comparison.columns(make_comparison(metric, *others))}


# --- the layout -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 110, 200])
def test_a_comparison_fits_the_terminal_and_no_number_is_cut(width: int) -> None:
    for name, found in COMPARISONS.items():
        shown = text_of(found, width)
        assert max(map(len, shown.splitlines())) <= width, name
        assert "…" not in shown, name
        for metric in found.metrics:
            for header, cell in comparison.columns(found):
                # A figure with its unit stays in one piece; only the metric's name may be folded.
                assert header == "metric" or cell(metric) in " ".join(shown.split("\n")), (header, cell(metric))


def test_a_metric_has_one_line_on_a_wide_terminal_and_two_on_a_narrow_one() -> None:
    found = OF_EACH_OUTCOME["PASS"]
    wide = "accuracy 0.8603 0.8578 -0.25 points -1.72 to +1.23 0.4124 0.8247 PASS"
    assert line_of(found, "accuracy  ") == wide
    narrow = [" ".join(line.split()) for line in text_of(found, 70).splitlines()]
    start = narrow.index("accuracy 0.8603 0.8578 -0.25 points 0.4124 PASS")
    assert narrow[start + 1] == "-1.72 to +1.23 0.8247"


def test_an_absent_value_takes_no_second_line_on_a_narrow_terminal() -> None:
    narrow = text_of(OF_EACH_OUTCOME["PASS"], 70).splitlines()
    (place,) = [index for index, line in enumerate(narrow) if line.startswith("precision")]
    assert narrow[place].split() == ["precision", "0.8603", "-", "-", "-", "info"]
    assert not narrow[place + 1].strip()
    assert line_of(OF_EACH_OUTCOME["PASS"], "precision") == "precision 0.8603 - - - - - info"


def test_the_gated_metrics_come_first_and_the_rest_is_marked_as_information() -> None:
    shown = text_of(make_comparison(PRECISION, make_metric(), LATENCY, F1))
    places = [shown.index(f"\n{name}") for name in ("accuracy", "F1", "precision", "torch single-stream p50, ms")]
    assert places == sorted(places)
    assert shown.count(" info") == 2
    # An ungated metric has no outcome.
    assert "REGRESSION" not in shown


def test_information_is_dim_and_no_meaning_depends_on_colour_alone() -> None:
    stream = StringIO()
    Console(file=stream, width=100, force_terminal=True, color_system="standard", no_color=False).print(
        comparison.comparison(OF_EACH_OUTCOME["REGRESSION"])
    )
    shown = stream.getvalue()
    assert "\x1b[2mprecision" in shown
    # In the table and in the verdict.
    assert shown.count("\x1b[1;31mREGRESSION") == 2
    assert ESCAPE.sub("", shown) == text_of(OF_EACH_OUTCOME["REGRESSION"])


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    found = make_comparison(make_metric(metric="run[bold]"), baseline=(replace(BASELINE, name="[red]:100:.json"),))
    assert "run[bold]" in words_of(found)
    assert "[red]:100:.json" in words_of(found)


def test_a_line_break_in_a_name_or_a_reason_breaks_no_line() -> None:
    metric = make_metric(metric="one\ntwo", verdict=Verdict(outcome="REGRESSION", reason="three\nfour"))
    found = make_comparison(metric, warnings=("five\nsix",), current=(replace(CURRENT, name="seven\neight"),))
    shown = text_of(found, 200)
    for words in ("one two", "three four", "five six", "seven eight"):
        assert words in shown, words


# --- the cells --------------------------------------------------------------------------------------------------------


def test_a_share_changes_by_points_and_anything_else_by_per_cent() -> None:
    share, speed = cells_of(make_metric()), cells_of(SPEED)
    assert [share[name] for name in ("metric", "baseline", "change", "95% interval")] == [
        *("accuracy", "0.8603", "-0.25 points", "-1.72 to +1.23")
    ]
    assert [speed[name] for name in ("metric", "baseline", "change", "95% interval")] == [
        *("onnx offline batch 32, pairs/s", "1234.6", "+2.99%", "-12.25 to +15.50%")
    ]


def test_a_value_has_about_four_digits_and_a_share_four_decimals() -> None:
    cases: dict[tuple[float | None, str], str] = {
        (0.860294, "share"): "0.8603",
        (1.0, "share"): "1.0000",
        (0.0001, "share"): "0.0001",
        (-1.55e-06, "logit"): "-1.55e-06",
        (0.12345, "ms"): "0.1235",
        (12.345, "ms"): "12.35",
        (100.02, "ms"): "100.0",
        (64477237, "bytes"): "64477237",
        (0.0, "flips"): "0",
        (None, "ms"): "-",
        (float("nan"), "ms"): "nan",
    }
    assert {case: numbers.measured(*case) for case in cases} == cases


def test_a_small_p_is_never_shown_as_zero() -> None:
    cases = {None: "-", 0.0: "<0.0001", 0.00009: "<0.0001", 0.0001: "0.0001", 0.05: "0.0500", 1.0: "1.0000"}
    assert {p: numbers.probability(p) for p in cases} == cases


def test_every_absent_value_is_a_dash() -> None:
    cells = cells_of(replace(PRECISION, baseline=None), make_metric())
    assert cells.pop("metric") == "precision"
    assert cells.pop("outcome") == "info"
    assert set(cells.values()) == {"-"}


def test_adjusted_p_values_have_a_column_only_where_one_differs() -> None:
    same = make_metric(adjusted_p=make_metric().p_value)
    assert "adj. p" not in cells_of(same)
    assert "adj. p" not in cells_of(replace(same, adjusted_p=None))
    assert cells_of(same, F1)["adj. p"] == "0.4124"
    assert "adj. p" not in text_of(make_comparison(same))


def test_an_interval_of_another_level_shows_its_level() -> None:
    narrow = Interval(low=-1.0, high=1.0, level=0.9, method="bootstrap")
    assert cells_of(make_metric(interval=narrow))["90% interval"] == "-1.00 to +1.00"
    assert cells_of(make_metric(interval=replace(narrow, level=0.975)))["97.5% interval"] == "-1.00 to +1.00"
    mixed = cells_of(make_metric(interval=narrow), make_metric())
    assert mixed["interval"] == "-1.00 to +1.00 (90%)"


def test_a_unit_is_shown_once() -> None:
    assert comparison.name_with_unit(LATENCY) == "torch single-stream p50, ms"
    assert comparison.name_with_unit(replace(LATENCY, metric="p50 ms")) == "p50 ms"
    assert comparison.name_with_unit(replace(PRECISION, metric="one\ntwo")) == "one two"


# --- what stands below ------------------------------------------------------------------------------------------------


def test_the_last_line_is_the_verdict_with_its_reason_and_exit_code() -> None:
    for found in COMPARISONS.values():
        verdict = found.verdict
        last = text_of(found, 200).splitlines()[-1]
        assert last == f"{verdict.outcome} (exit code {int(EXIT_STATUS[verdict.outcome])}): {verdict.reason}"


def test_differences_and_warnings_are_all_shown() -> None:
    shown = words_of(OF_EACH_OUTCOME["INCOMPARABLE"])
    for difference in DIFFERENCES:
        assert shown.count(difference) == 1
    assert "warning: transformers: 4.57.6 against 4.57.7" in shown
    assert "differs:" not in words_of(OF_EACH_OUTCOME["PASS"])
    assert "warning:" not in words_of(make_comparison(make_metric(), warnings=()))


def test_each_record_is_named_with_its_side_date_commit_model_and_weights() -> None:
    model = "tuned (ModernBertForSequenceClassification, 149.6 M, fine-tuned weights), sha256"
    shown = words_of(make_comparison(make_metric(), current=(CURRENT, replace(CURRENT, name="second.json"))), 120)
    assert (
        f"baseline 20250102T030405Z-evaluate.json, 2025-01-02 03:04 UTC, commit 0123456789ab {model} aaaaaaaaaaaa "
        f"current 20250109T101112Z-evaluate.json, 2025-01-09 10:11 UTC, no commit {model} bbbbbbbbbbbb "
        f"current second.json, 2025-01-09 10:11 UTC, no commit {model} bbbbbbbbbbbb"
    ) in shown


def test_a_gate_shows_its_limit_and_any_reason_that_the_verdict_lacks() -> None:
    found = make_comparison(make_metric("REGRESSION"), F1, PRECISION)
    assert list(comparison.gate_lines(found)) == [
        "accuracy: limit: p < 0.05 and a net loss of 1 point or more; test: exact McNemar, one-sided",
        "F1: found PASS; limit: p < 0.05 and a net loss of 1 point or more; test: permutation",
    ]
    for line in comparison.gate_lines(found):
        assert line in words_of(found, 200)
    alike = make_comparison(SPEED, replace(SPEED, metric="torch offline batch 32"))
    assert list(comparison.gate_lines(alike)) == [
        "onnx offline batch 32, torch offline batch 32: found PASS; limit: p < 0.05 and a net loss of 1 point or more; "
        "test: exact McNemar, one-sided"
    ]
    bare = make_metric(limit="", test=None)
    assert list(comparison.gate_lines(make_comparison(bare))) == []


def test_a_limit_in_the_reason_is_not_repeated() -> None:
    verdict = Verdict(outcome="PASS", reason="1.0% slower; limit 10% (--max-slowdown)")
    found = make_comparison(make_metric(verdict=verdict, limit="10% (--max-slowdown)", test=None), F1)
    assert next(iter(comparison.gate_lines(found))) == f"accuracy: {verdict.reason}"


def test_a_reason_is_shown_unless_the_verdict_gives_it_for_that_metric() -> None:
    found = make_comparison(make_metric("REGRESSION"), replace(F1, verdict=Verdict(outcome="PASS", reason="found")))
    assert [line.split(";")[0] for line in comparison.gate_lines(found)][1] == "F1: found"


# --- on the terminal --------------------------------------------------------------------------------------------------


def test_the_terminal_shows_it_on_stdout(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    Terminal().comparison(SPEEDS)
    out, err = capsys.readouterr()
    assert "onnx offline batch 32, pairs/s" in out
    assert "PASS (exit code 0)" in out
    assert err == ""


def test_as_json_it_is_one_document_with_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().print_json(SPEEDS)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(asdict(SPEEDS)))


def test_a_verdict_gives_each_reason_and_its_advice_once_and_counts_the_rest() -> None:
    def row(name: str, reason: str) -> MetricResult:
        verdict = Verdict(outcome="INCONCLUSIVE", reason=reason, advice="rerun it")
        return make_metric("INCONCLUSIVE", metric=name, verdict=verdict)

    same = [row(name, "the row is INVALID: busy machine") for name in ("a", "b")]
    assert overall((), same).text == "a, b: the row is INVALID: busy machine; rerun it"
    many = [row(f"row{index}", f"reason {index}") for index in range(6)]
    assert overall((), many).text == "row0: reason 0; row1: reason 1; row2: reason 2; and 3 more; rerun it"
    shown = words_of(make_comparison(*many))
    assert all(shown.count(f"reason {index}") == 1 for index in range(6))
    assert shown.count("rerun it") == 1


def test_a_pass_over_many_limits_names_their_number_and_the_tightest() -> None:
    def met(name: str, slack: float | None) -> MetricResult:
        return make_metric("PASS", metric=name, slack=slack, verdict=Verdict(outcome="PASS", reason=f"{name} is met"))

    few = [met("a", 0.5), met("b", 0.1), met("c", None)]
    assert overall((), few).reason == "a, b, c"
    assert overall((), [*few, met("d", 0.3)]).reason == "4 limits met; the tightest is b: b is met"
    assert overall((), [met(name, None) for name in "abcd"]).reason == "4 limits met"


@pytest.mark.parametrize(("side", "value", "slack"), [("min", 1.5, 0.5), ("min", 0.5, -0.5), ("max", 0.9, 0.1)])
def test_the_slack_of_a_limit_is_a_share_of_it(side: Literal["min", "max"], value: float, slack: float) -> None:
    assert limit_metric("x", value, 1.0, side, "ms").slack == pytest.approx(slack)
    assert limit_metric("x", value, 0.0, side, "ms").slack is None
