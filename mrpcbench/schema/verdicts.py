"""The results of gates: interval, verdict, metric and comparison. Standard library only.

Every outcome has its own exit code. What cannot be judged never passes.
"""

from collections.abc import Sequence
from typing import Literal

from mrpcbench.errors import ExitStatus
from mrpcbench.schema.fields import about, described
from mrpcbench.schema.version import SCHEMA_VERSION

Outcome = Literal["PASS", "REGRESSION", "INCONCLUSIVE", "INCOMPARABLE"]
# The outcome of a comparison is the first of these that any gated metric has.
WORST_FIRST: tuple[Outcome, ...] = ("INCOMPARABLE", "REGRESSION", "INCONCLUSIVE", "PASS")
EXIT_STATUS: dict[Outcome, ExitStatus] = {
    "PASS": ExitStatus.OK,
    "REGRESSION": ExitStatus.REGRESSION,
    "INCONCLUSIVE": ExitStatus.INCONCLUSIVE,
    "INCOMPARABLE": ExitStatus.INCOMPARABLE,
}


@described
class Interval:
    """A confidence interval."""

    low: float = about("Lower end.")
    high: float = about("Upper end.")
    level: float = about("Confidence level.")
    method: str = about("How it was computed.")


@described
class Verdict:
    """The outcome of a gate, and its reason."""

    outcome: Outcome = about("PASS, REGRESSION, INCONCLUSIVE or INCOMPARABLE.")
    reason: str = about("The reason, in one line.")
    advice: str = about("What to do about it, in one line; empty if nothing helps.", default="")

    @property
    def text(self) -> str:
        """The reason and the advice, in one line."""
        return "; ".join(filter(None, (self.reason, self.advice)))


@described
class MetricResult:
    """One metric of a comparison. Only gated metrics decide the verdict."""

    metric: str = about("What is compared, such as accuracy, or 'onnx offline batch 32'.")
    gated: bool = about("Whether the metric is gated; if not, it is information.")
    verdict: Verdict = about("The outcome; for a metric that is not gated, what it would be.")
    baseline: float | None = about("Value of the baseline; null if there is none.")
    current: float | None = about("Value of the current side; null if there is none.")
    unit: str = about("Unit of the two values, such as 'share', 'ms' or 'pairs/s'.")
    change: float | None = about("Change from the baseline to the current side, in `change_unit`; null if unknown.")
    change_unit: str = about("Unit of the change: 'points' of a share, or '%'.")
    interval: Interval | None = about("Interval of the change, in its unit.", default=None)
    test: str | None = about("The test that was applied.", default=None)
    p_value: float | None = about("One-sided p-value for 'worse than the baseline'.", default=None)
    adjusted_p: float | None = about("The p-value after Holm's correction over the gated metrics.", default=None)
    limit: str = about("The limit, as text.", default="")
    slack: float | None = about(
        "How far the value is within the limit, as a share of the limit; negative beyond it; null if unknown.",
        default=None,
    )


@described
class Compared:
    """A record that was compared."""

    name: str = about("The file, with as many folders as make it unique; for ab, the model as given.")
    started_at: str = about("Start of the run in UTC.")
    git_commit: str | None = about("Commit of the mrpcbench source.")
    model: str = about("Model, with the origin of its weights.")
    model_sha256: str = about("Hash of the weights.")
    engine: str | None = about("Engine, precision and device; null for bench, whose rows have them.", default=None)


@described
class Comparison:
    """The result of a comparison."""

    schema_version: str = about("Version of this format: major.minor.", default=SCHEMA_VERSION)
    kind: str = about("What was compared: train, evaluate, export, bench or ab.")
    baseline: tuple[Compared, ...] = about("The reference side; empty without one.", default=())
    current: tuple[Compared, ...] = about("The side that is judged.", default=())
    differences: tuple[str, ...] = about("Forbidden differences; any makes the comparison INCOMPARABLE.", default=())
    warnings: tuple[str, ...] = about("Allowed differences.", default=())
    notes: tuple[str, ...] = about("What a study in the baseline says about the score of a single run.", default=())
    metrics: tuple[MetricResult, ...] = about("The metrics, the gated ones first.", default=())
    missing_baseline: bool = about(
        "Whether the baseline did not exist, and --allow-missing-baseline let the comparison go on without one.",
        default=False,
    )
    verdict: Verdict = about("The outcome of the comparison.")


def overall(differences: Sequence[str], metrics: Sequence[MetricResult]) -> Verdict:
    """The worst outcome of the gated `metrics`; INCOMPARABLE with differences, INCONCLUSIVE without gated metrics."""
    if differences:
        return Verdict(outcome="INCOMPARABLE", reason="; ".join(differences))
    gated = [metric for metric in metrics if metric.gated]
    if not gated:
        return Verdict(outcome="INCONCLUSIVE", reason="no metric was gated")
    worst = next(outcome for outcome in WORST_FIRST if any(metric.verdict.outcome == outcome for metric in gated))
    decisive = [metric for metric in gated if metric.verdict.outcome == worst]
    if worst == "PASS":
        return Verdict(outcome="PASS", reason=_passed(decisive))
    advice = dict.fromkeys(metric.verdict.advice for metric in decisive if metric.verdict.advice)
    return Verdict(outcome=worst, reason=_reasons(decisive), advice="; ".join(advice))


# A verdict gives this many reasons, or names this many metrics that pass; the metrics have the others.
MOST_NAMED = 3


def _passed(metrics: Sequence[MetricResult]) -> str:
    """The metrics that pass; of many, their number, and the one that is closest to its limit."""
    if len(metrics) == 1:
        return f"{metrics[0].metric}: {metrics[0].verdict.reason}"
    if len(metrics) <= MOST_NAMED:
        return ", ".join(metric.metric for metric in metrics)
    known = [(metric.slack, metric) for metric in metrics if metric.slack is not None]
    if not known:
        return f"{len(metrics)} limits met"
    tightest = min(known, key=lambda item: item[0])[1]
    return f"{len(metrics)} limits met; the tightest is {tightest.metric}: {tightest.verdict.reason}"


def _reasons(metrics: Sequence[MetricResult]) -> str:
    """Each reason once, with its metrics; beyond `MOST_NAMED` reasons, the number of the other metrics."""
    named: dict[str, list[str]] = {}
    for metric in metrics:
        named.setdefault(metric.verdict.reason, []).append(metric.metric)
    parts = [f"{', '.join(names)}: {reason}" for reason, names in list(named.items())[:MOST_NAMED]]
    left = sum(len(names) for names in list(named.values())[MOST_NAMED:])
    return "; ".join([*parts, *([f"and {left} more"] if left else [])])
