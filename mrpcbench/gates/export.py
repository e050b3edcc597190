"""The rule of the export gate, and the comparison of `export` records. Standard library only."""

from collections.abc import Callable, Mapping, Sequence

from mrpcbench.gates.comparability import compared_of
from mrpcbench.gates.simple_metrics import information
from mrpcbench.schema.records import ExportRecord
from mrpcbench.schema.results import ExportGate, ExportSection, ParityTrial
from mrpcbench.schema.verdicts import Comparison, Interval, MetricResult, Verdict, overall


def judge_export(baseline: ExportSection, current: ExportSection) -> tuple[MetricResult, ...]:
    """Judge by the export gate of the current record; the other figures are information."""
    sections = (baseline, current)
    flips = [
        max((trial.flips for trial in compared(section.gate.trials)), default=None) if section.gate else None
        for section in sections
    ]
    gate = _gate_metric(current.gate, flips[0], flips[1], "the export gate of the current record")
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


def comparison_of(record: ExportRecord, name: str) -> Comparison:
    """The verdict of an export in the form of a comparison; `name` is that of its file."""
    gate = record.export.gate
    flips = max((trial.flips for trial in compared(gate.trials)), default=None) if gate else None
    metric = _gate_metric(gate, None, flips, f"at most {gate.flips_allowed}" if gate else "")
    current = (compared_of(record, name),)
    return Comparison(kind="export", current=current, metrics=(metric,), verdict=overall((), (metric,)))


def _gate_metric(gate: ExportGate | None, baseline: float | None, current: float | None, limit: str) -> MetricResult:
    return MetricResult(
        metric="export gate",
        gated=True,
        verdict=_gate_verdict(gate),
        baseline=baseline,
        current=current,
        unit="flips",
        change=None,
        change_unit="",
        test="every pair of the split",
        limit=limit,
    )


def _gate_verdict(gate: ExportGate | None) -> Verdict:
    """The verdict of `gate`; INCONCLUSIVE without a gate, and for a PASS that its trials contradict."""
    if gate is None:
        return Verdict(outcome="INCONCLUSIVE", reason="the current record has no gate: the graph was not verified")
    if gate.verdict.outcome != "PASS":
        return gate.verdict
    if gate.pairs < 1 or export_problem(gate):
        return Verdict(outcome="INCONCLUSIVE", reason="the gate of the record is PASS, but its trials contradict it")
    return gate.verdict


def export_problem(gate: ExportGate) -> str | None:
    """Why an export with the trials of `gate` fails by the limits of `gate`; None if it passes.

    This is the rule of the export gate: the worst trial decides, and a non-finite logit never passes. A limit of None
    is not checked. The verdict of `gate` is not read.
    """
    worst = largest_delta(gate.trials)
    moved = [trial.max_abs_delta for trial in gate.trials if trial.kind == "padding"]
    if worst is None or None in moved or gate.smallest_margin is None:
        return "a logit is not finite"
    trials = compared(gate.trials)
    # A share of so few joined pairs says little: where labels may flip, the joined pairs are judged by their logits.
    labelled = [trial for trial in trials if trial.kind == "split" or gate.p99_allowed is None]
    flipped = max(labelled, key=lambda trial: trial.flips)
    if flipped.flips > gate.flips_allowed:
        pairs = gate.pairs if flipped.kind == "split" else flipped.pairs
        return f"{flipped.flips} of {pairs} labels flip{_where(flipped)}; {gate.flips_allowed} may"
    if gate.delta_allowed is not None and worst > gate.delta_allowed:
        return f"a logit differs by {worst:.2e}; {gate.delta_allowed:.0e} is allowed"
    for trial in trials:
        if gate.p99_allowed is not None and not (trial.p99_abs_delta or 0) <= gate.p99_allowed:
            return (
                f"1% of the logits{_where(trial)} differ by {trial.p99_abs_delta:.2e} or more; "
                f"{gate.p99_allowed:.2e} is allowed"
            )
    most = max((delta for delta in moved if delta is not None), default=0.0)
    if gate.padding_delta_allowed is not None and most > gate.padding_delta_allowed:
        return f"other padding tokens move a logit by {most:.2e}; {gate.padding_delta_allowed:.2e} is allowed"
    return next((problem for trial in trials if (problem := _f1_problem(trial, gate.f1_allowed))), None)


def _where(trial: ParityTrial) -> str:
    return " on joined pairs" if trial.kind == "joined" else ""


def _f1_problem(trial: ParityTrial, allowed: Interval | None) -> str | None:
    """Why the F1 of a trial over the split fails; the labels of joined pairs have no truth."""
    if allowed is None or trial.kind != "split":
        return None
    if trial.f1 is not None and allowed.low <= trial.f1 <= allowed.high:
        return None
    f1 = "unknown" if trial.f1 is None else f"{trial.f1:.4f}"
    return f"F1 is {f1}, outside the original's interval {allowed.low:.4f} to {allowed.high:.4f}"


def compared(trials: Sequence[ParityTrial]) -> list[ParityTrial]:
    """The `trials` that compare the graph with the original, not with itself."""
    return [trial for trial in trials if trial.kind != "padding"]


def largest_delta(trials: Sequence[ParityTrial]) -> float | None:
    """The largest |difference| of a logit from the original over `trials`.

    None without a trial, or if a logit is not finite.
    """
    deltas = [trial.max_abs_delta for trial in compared(trials)]
    known = [delta for delta in deltas if delta is not None]
    return max(known) if known and len(known) == len(deltas) else None
