"""Whole comparisons for tests: one of every outcome, as `compare` makes them."""

from dataclasses import replace
from typing import Any

from mrpcbench.schema.verdicts import Compared, Comparison, Interval, MetricResult, Outcome, Verdict, overall

BASELINE = Compared(
    name="20250102T030405Z-evaluate.json",
    started_at="2025-01-02T03:04:05+00:00",
    git_commit="0123456789abcdef0123456789abcdef01234567",
    model="tuned (ModernBertForSequenceClassification, 149.6 M, fine-tuned weights)",
    model_sha256="a" * 64,
)
CURRENT = replace(
    BASELINE,
    name="20250109T101112Z-evaluate.json",
    started_at="2025-01-09T10:11:12+00:00",
    git_commit=None,
    model_sha256="b" * 64,
)


def make_metric(outcome: Outcome = "PASS", **changes: Any) -> MetricResult:
    """Accuracy, gated, with every figure that a metric can have; its reason is `found <outcome>`."""
    metric = MetricResult(
        metric="accuracy",
        gated=True,
        verdict=Verdict(outcome=outcome, reason=f"found {outcome}"),
        baseline=0.8603,
        current=0.8578,
        unit="share",
        change=-0.2451,
        change_unit="points",
        interval=Interval(low=-1.7157, high=1.2255, level=0.95, method="bootstrap of the pairs"),
        test="exact McNemar, one-sided",
        p_value=0.41237,
        adjusted_p=0.82474,
        limit="p < 0.05 and a net loss of 1 point or more",
    )
    return replace(metric, **changes)


F1 = make_metric(metric="F1", test="permutation", interval=None, baseline=0.8986, current=0.8991, change=0.05)
SPEED = make_metric(
    metric="onnx offline batch 32",
    unit="pairs/s",
    baseline=1234.56,
    current=1271.43,
    change=2.9865,
    change_unit="%",
    interval=Interval(low=-12.25, high=15.5, level=0.95, method="bootstrap of the rounds"),
)
PRECISION = make_metric(
    "REGRESSION", metric="precision", gated=False, interval=None, test=None, p_value=None, adjusted_p=None,
    limit="", current=None, change=None,
)  # fmt: skip
LATENCY = replace(
    PRECISION, metric="torch single-stream p50", unit="ms", baseline=12.345, current=12.5, change=1.26, change_unit="%"
)


def make_comparison(*metrics: MetricResult, **changes: Any) -> Comparison:
    """A comparison of `metrics` and its verdict."""
    found = Comparison(
        kind="evaluate",
        baseline=(BASELINE,),
        current=(CURRENT,),
        differences=changes.get("differences", ()),
        warnings=("transformers: 4.57.6 against 4.57.7",),
        metrics=metrics,
        verdict=overall(changes.get("differences", ()), metrics),
    )
    return replace(found, **changes)


DIFFERENCES = ("machine: AMD EPYC 9654 against Intel Xeon 8480", "torch: 2.13.0 against 2.12.0")
OF_EACH_OUTCOME: dict[Outcome, Comparison] = {
    "PASS": make_comparison(make_metric(), F1, PRECISION),
    "REGRESSION": make_comparison(make_metric("REGRESSION"), F1, PRECISION),
    "INCONCLUSIVE": make_comparison(make_metric("INCONCLUSIVE"), F1, PRECISION),
    "INCOMPARABLE": make_comparison(PRECISION, differences=DIFFERENCES),
}
# Cases that no outcome above covers.
NO_GATE = make_comparison(PRECISION)
NO_METRIC = make_comparison(differences=DIFFERENCES)
GATE_INCOMPARABLE = make_comparison(make_metric(), replace(F1, verdict=Verdict(outcome="INCOMPARABLE", reason="gone")))
SPEEDS = make_comparison(SPEED, replace(SPEED, metric="torch offline batch 32"), LATENCY, kind="bench")
COMPARISONS: dict[str, Comparison] = {
    **{str(outcome): found for outcome, found in OF_EACH_OUTCOME.items()},
    "no gate": NO_GATE,
    "no metric": NO_METRIC,
    "gate incomparable": GATE_INCOMPARABLE,
    "speeds": SPEEDS,
}
