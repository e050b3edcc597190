"""Tests of cli.quickstart: the panel and the last line."""

from dataclasses import replace
from io import StringIO

import pytest
from records import make_bench, make_record, make_row
from rich.console import Console

from mrpcbench.cli.quickstart import last_line, panel
from mrpcbench.schema.records import Record
from mrpcbench.schema.requests import BackendSpec


def records(onnx_ms: float, *, torch_ms: float = 10.0, onnx_rules: tuple[str, ...] = ()) -> list[Record]:
    """The records of a quickstart whose rows have 680 equal samples, in six rounds."""

    def row(backend: str, ms: float, rules: tuple[str, ...] = ()) -> object:
        spec = BackendSpec(backend=backend, model="tuned")
        made = make_row("single-stream", spec=spec, pairs=120, samples_ms=(ms,) * 720)
        return replace(made, broken_rules=rules)

    section = make_bench(rows=(row("torch", torch_ms), row("onnx", onnx_ms, onnx_rules)))
    return [make_record("train"), make_record("evaluate"), make_record("export"), make_record("bench", bench=section)]


def shown(found: list[Record]) -> str:
    stream = StringIO()
    Console(file=stream, width=80).print(panel(found, "out[1]", "out[1]/tiny model"))
    return stream.getvalue()


def test_the_panel_answers_what_the_model_scores_what_is_fastest_and_what_to_run_next() -> None:
    lines = shown(records(2.5)).splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    for part in (
        "accuracy 0.8603 (95% CI 0.8233 to 0.8906); majority class 0.6838",
        "F1 0.8988 (95% CI 0.8700 to 0.9241); majority class 0.8122",
        "ONNX export PASS: 0 of 408 labels flip",
        "onnx is 4.00x faster than torch (95% CI 4.00 to 4.00)",
        "one pair, torch p50 10.00 ms, p99 10.00 ms",
        "one pair, onnx p50 2.50 ms, p99 2.50 ms",
        "records out[1]/results",
        r"mrpcbench evaluate --model 'out[1]/tiny model' \ --pair ",
    ):
        assert part in text, part
    assert "INVALID" not in text


def test_an_invalid_row_makes_the_claim_invalid() -> None:
    found = records(2.5, onnx_rules=("unsteady: the time is known to ±8%",))
    text = " ".join(shown(found).split())
    assert "faster than torch (95% CI 4.00 to 4.00), INVALID" in text
    assert "one pair, torch p50 10.00 ms, p99 10.00 ms one pair" in text
    assert "1 of 2 rows is INVALID: " in text
    assert last_line(found).endswith("onnx is 4.00x faster than torch, INVALID")


@pytest.mark.parametrize("torch_ms", [10.0, 20.0])
def test_the_last_line_has_the_scores_the_verdict_and_the_fastest(torch_ms: float) -> None:
    assert last_line(records(5.0, torch_ms=torch_ms)) == (
        "accuracy 0.8603; F1 0.8988; ONNX export PASS: 0 of 408 labels flip; "
        f"onnx is {torch_ms / 5:.2f}x faster than torch"
    )


def test_without_a_benchmark_the_panel_shows_the_rest() -> None:
    """As after an export that failed."""
    text = shown(records(5.0)[:3])
    assert "ONNX export" in text
    assert "fastest" not in text
