"""The rule of the export gate, and the comparison of `export` records. Standard library only."""

from collections.abc import Callable, Mapping, Sequence

from mrpcbench.gates.simple_metrics import information
from mrpcbench.schema.results import ExportGate, ExportSection, ParityTrial
from mrpcbench.schema.verdicts import Interval, MetricResult, Verdict


def judge_export(baseline: ExportSection, current: ExportSection) -> tuple[MetricResult, ...]:
    """Judge by the export gate of the current record; the other figures are information."""
    sections = (baseline, current)
    flips = [
        max((trial.flips for trial in section.gate.trials), default=None) if section.gate else None
        for section in sections
    ]
    gate = MetricResult(
        metric="export gate",
        gated=True,
        verdict=_gate_verdict(current.gate),
        baseline=flips[0],
        current=flips[1],
        unit="flips",
        change=None,
        change_unit="",
        test="every pair of the split",
        limit="the export gate of the current record",
    )
    figures: Mapping[str, tuple[str, Callable[[ExportSection], float | None]]] = {
        "largest |delta|": ("logit", lambda section: largest_delta(section.gate.trials) if section.gate else None),
        "margin / error": ("times", lambda section: section.gate.headroom if section.gate else None),
        "file size": ("bytes", lambda section: sum(section.files.values())),
        "nodes": ("nodes", lambda section: section.nodes),
    }
    return (
        gate,
        *(information(name, figure(baseline), figure(current), unit) for name, (unit, figure) in figures.items()),
    )


def _gate_verdict(gate: ExportGate | None) -> Verdict:
    """The verdict of `gate`; INCONCLUSIVE without a gate, and for a PASS that its trials contradict."""
    if gate is None:
        return Verdict(outcome="INCONCLUSIVE", reason="the current record has no gate: the graph was not verified")
    if gate.verdict.outcome != "PASS":
        return gate.verdict
    if gate.pairs < 1 or export_problem(
        gate.trials, gate.pairs, gate.flips_allowed, gate.delta_allowed, gate.f1_allowed
    ):
        return Verdict(outcome="INCONCLUSIVE", reason="the gate of the record is PASS, but its trials contradict it")
    return gate.verdict


def export_problem(
    trials: Sequence[ParityTrial],
    pairs: int,
    flips_allowed: int,
    delta_allowed: float | None,
    f1_allowed: Interval | None,
) -> str | None:
    """Why an export with these `trials` over `pairs` pairs fails; None if it passes.

    This is the rule of the export gate: the worst trial decides, and a non-finite logit never passes. A limit of None
    is not checked.
    """
    worst, flips = largest_delta(trials), max((trial.flips for trial in trials), default=0)
    if worst is None:
        return "a logit is not finite"
    if flips > flips_allowed:
        return f"{flips} of {pairs} labels flip; {flips_allowed} may"
    if delta_allowed is not None and worst > delta_allowed:
        return f"a logit differs by {worst:.2e}; {delta_allowed:.0e} is allowed"
    for trial in trials:
        if f1_allowed and not (trial.f1 is not None and f1_allowed.low <= trial.f1 <= f1_allowed.high):
            f1 = "unknown" if trial.f1 is None else f"{trial.f1:.4f}"
            return f"F1 is {f1}, outside the original's interval {f1_allowed.low:.4f} to {f1_allowed.high:.4f}"
    return None


def largest_delta(trials: Sequence[ParityTrial]) -> float | None:
    """The largest |difference| of a logit over all `trials`; None without a trial, or if a logit is not finite."""
    deltas = [trial.max_abs_delta for trial in trials]
    known = [delta for delta in deltas if delta is not None]
    return max(known) if known and len(known) == len(deltas) else None
