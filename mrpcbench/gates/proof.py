"""Export records: the gate of the current graph, and figures of both graphs. Standard library only."""

from collections.abc import Callable, Mapping

from mrpcbench.gates.plain import information
from mrpcbench.schema import ExportGate, ExportSection
from mrpcbench.verdicts import MetricResult, Verdict


def judge_export(baseline: ExportSection, current: ExportSection) -> tuple[MetricResult, ...]:
    """The gate of the current record decides; other figures of the two graphs are information."""
    sections = (baseline, current)
    flips = [
        max((trial.flips for trial in section.gate.trials), default=None) if section.gate else None
        for section in sections
    ]
    gate = MetricResult(
        metric="export gate",
        gated=True,
        verdict=_proof(current.gate),
        baseline=flips[0],
        current=flips[1],
        unit="flips",
        change=None,
        change_unit="",
        test="every pair of the split",
        limit="the export gate of the current record",
    )
    figures: Mapping[str, tuple[str, Callable[[ExportSection], float | None]]] = {
        "largest |delta|": ("logit", lambda section: _largest_delta(section.gate)),
        "headroom": ("times", lambda section: section.gate.headroom if section.gate else None),
        "file size": ("bytes", lambda section: sum(section.files.values())),
        "nodes": ("nodes", lambda section: section.nodes),
    }
    return (
        gate,
        *(information(name, figure(baseline), figure(current), unit) for name, (unit, figure) in figures.items()),
    )


def _proof(gate: ExportGate | None) -> Verdict:
    """The verdict of `gate`; INCONCLUSIVE if it is a PASS that its own trials contradict."""
    if gate is None:
        return Verdict(outcome="INCONCLUSIVE", reason="the current record has no gate: the graph was not verified")
    if gate.verdict.outcome != "PASS":
        return gate.verdict
    delta = _largest_delta(gate)
    too_many = any(trial.flips > gate.flips_allowed for trial in gate.trials)
    too_large = delta is None or (gate.delta_allowed is not None and delta > gate.delta_allowed)
    f1 = gate.f1_allowed
    is_f1_off = f1 is not None and not all(
        trial.f1 is not None and f1.low <= trial.f1 <= f1.high for trial in gate.trials
    )
    if gate.pairs < 1 or too_many or too_large or is_f1_off:
        return Verdict(outcome="INCONCLUSIVE", reason="the record says PASS, but its own trials contradict it")
    return gate.verdict


def _largest_delta(gate: ExportGate | None) -> float | None:
    deltas = [trial.max_abs_delta for trial in gate.trials] if gate else []
    known = [delta for delta in deltas if delta is not None]
    return max(known) if known and len(known) == len(deltas) else None
