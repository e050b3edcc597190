"""Tests of mrpcbench.display.recommendation: the lines for the case to deploy and for the others."""

from dataclasses import replace
from io import StringIO
from typing import Any

from conftest import REPOSITORY
from records import make_record
from rich.console import Console

from mrpcbench.display import render
from mrpcbench.display.recommendation import recommendation, short_recommendation
from mrpcbench.records import store
from mrpcbench.records.recommendation import Candidate, Knee, Recommendation

BEST = Candidate(case="onnx", outcome="PASS", reason="", row="onnx offline batch 8", pairs_per_s=120.0, batch_size=8)
SLOWER = Candidate(
    case="torch",
    outcome="PASS",
    reason="",
    row="torch offline batch 32",
    pairs_per_s=100.0,
    slowdown=1.2,
    slowdown_low=1.1,
    slowdown_high=1.3,
)
LOST = Candidate(case="openvino", outcome="INCONCLUSIVE", reason="offline batch 8 is INVALID: drift")
KNEE = Knee(case="onnx", batch_size=8, pairs_per_s=120.0, share=0.95, best_batch_size=32, memory_bytes=3 * 2**20)


def made(*candidates: Candidate, **changes: Any) -> Recommendation:
    chosen = candidates[0].case if candidates[0].outcome == "PASS" else None
    found = Recommendation(
        chosen=chosen, reference="torch", scenario="offline", candidates=candidates, front=(), front_of=0, knee=None
    )
    return replace(found, **changes)


def lines(found: Recommendation) -> list[str]:
    shown = StringIO()
    Console(file=shown, width=200).print(recommendation(found))
    return [" ".join(line.split()) for line in shown.getvalue().splitlines()]


def test_each_case_has_a_line() -> None:
    assert lines(made(BEST, SLOWER, LOST)) == [
        "deploy onnx: 120.0 pairs/s (offline batch 8)",
        "not torch 100.0 pairs/s (offline batch 32); onnx is 1.20x faster (95% CI 1.10 to 1.30)",
        "not openvino offline batch 8 is INVALID: drift",
    ]


def test_a_case_that_may_be_as_fast_is_named() -> None:
    close = replace(SLOWER, slowdown_low=0.9)
    assert lines(made(BEST, close))[0].endswith("; cannot tell whether it is faster than torch")
    unknown = lines(made(BEST, replace(SLOWER, slowdown_low=None, slowdown_high=None)))
    assert unknown[0].endswith("; cannot tell whether it is faster than torch")
    assert unknown[1].endswith("onnx is 1.20x faster (no interval: too few rounds)")


def test_the_drop_of_f1_is_shown_with_its_bound() -> None:
    def shown(drop: float, bound: float) -> str:
        return lines(made(replace(BEST, f1=0.9, f1_drop=drop, f1_drop_bound=bound)))[0].partition("; ")[2]

    assert shown(0.0, 0.0) == "F1 0.9000, as torch"
    assert shown(0.5, 1.25) == "F1 0.9000, 0.50 points below torch; a drop of at most 1.25, by its 95% interval"
    assert shown(-0.5, 0.3) == "F1 0.9000, 0.50 points above torch; a drop of at most 0.30, by its 95% interval"


def test_latency_and_cost_are_shown_where_they_are_known() -> None:
    full = replace(BEST, p50_ms=2.0, p99_ms=3.5, cost_per_million=6.92)
    assert lines(made(full))[0].endswith("; one pair p50 2.00 ms, p99 3.50 ms; costs 6.92 per million pairs")
    assert lines(made(replace(full, p99_ms=None)))[0].endswith("; one pair p50 2.00 ms; costs 6.92 per million pairs")
    assert lines(made(BEST, replace(SLOWER, cost_per_million=8.3)))[1].endswith("), costs 8.30 per million pairs")
    assert lines(made(replace(full, cost_per_million=0.0371)))[0].endswith("; costs 0.04 per million pairs")
    assert lines(made(replace(full, cost_per_million=1234.5)))[0].endswith("; costs 1234 per million pairs")


def test_without_an_eligible_case_the_line_says_why() -> None:
    assert lines(made(LOST))[0] == "deploy no case: every case is INVALID"
    missing = replace(LOST, reason="no single-stream row, which --max-p99-ms needs")
    assert lines(made(LOST, missing))[0] == "deploy no case: none is known to be eligible"
    missed = replace(LOST, outcome="REGRESSION")
    assert lines(made(missed))[0] == "deploy no case: every case misses a limit"
    assert short_recommendation(made(missed)) == ["No case to deploy: every case misses a limit"]
    assert short_recommendation(made(LOST)) == ["No case to deploy: every case is INVALID"]


def test_a_front_needs_two_cases_with_both_figures() -> None:
    assert not any("Pareto" in line for line in lines(made(BEST, front=("onnx",), front_of=1)))
    text = "Pareto front onnx: pairs/s against the median time of one pair, of 2 cases with both figures VALID"
    assert text in lines(made(BEST, SLOWER, front=("onnx",), front_of=2))


def test_the_knee_names_its_share_and_its_memory() -> None:
    memory = "takes at most 3 MiB of GPU memory"
    text = f"8 has 95% of the pairs/s of 32 and {memory} (the smallest with at least 90% of the best)"
    assert lines(made(BEST, knee=KNEE))[-1] == f"batch size {text}"
    alone = replace(KNEE, best_batch_size=8, share=1.0, memory_bytes=None)
    assert lines(made(BEST, knee=alone))[-1].startswith("batch size 8 is the fastest (the smallest")


def test_the_short_form_has_at_most_three_lines() -> None:
    assert short_recommendation(made(BEST, SLOWER)) == ["Deploy onnx: 120.0 pairs/s (offline batch 8)"]
    deploy, excluded, size = short_recommendation(made(BEST, SLOWER, LOST, knee=KNEE))
    assert deploy == "Deploy onnx: 120.0 pairs/s (offline batch 8)"
    assert excluded == "Not eligible: openvino; `mrpcbench report` says why"
    assert size.startswith("Batch size: 8 has 95%")
    repeated = replace(KNEE, best_batch_size=8, memory_bytes=None)
    assert len(short_recommendation(made(BEST, SLOWER, knee=repeated))) == 1


def test_a_benchmark_of_several_cases_ends_with_the_case_to_deploy() -> None:
    def shown(name: str) -> list[str]:
        text = StringIO()
        Console(file=text, width=80).print(render.render(store.load(REPOSITORY / "results" / name / "bench.json")))
        return text.getvalue().strip().splitlines()

    several = shown("quickstart")
    (at,) = (at for at, line in enumerate(several) if line.startswith("Deploy "))
    assert several[at] == "Deploy onnx: 4652 pairs/s (offline batch 32); one pair p50 0.46 ms, p99 0.61 ms"
    assert several[at - 1].startswith("Fastest: ")
    assert at == len(several) - 1


def test_a_benchmark_of_one_case_has_no_recommendation() -> None:
    text = StringIO()
    Console(file=text).print(render.render(make_record("bench")))
    assert "Deploy" not in text.getvalue()
