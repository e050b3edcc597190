"""An export record as rich renderables. Prints nothing."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from mrpcbench.display.comparison import verdict_line
from mrpcbench.display.numbers import NOT_FINITE, difference, interval, logged
from mrpcbench.display.tables import PlainTable, caption, facts, placement_line, table
from mrpcbench.schema.records import ExportRecord
from mrpcbench.schema.results import ExportGate, ExportSection, PairSpeed


def export(record: ExportRecord, *, verbose: bool) -> Iterator[RenderableType]:
    """The verdict and what the graph gains; the trials of the gate if it failed, or with `verbose`."""
    section, gate = record.export, record.export.gate
    shown = facts("Export", [("verdict", verdict_line(gate.verdict))] if gate else [])
    shown.add_row("graph", _graph(section))
    shown.add_row("size", _size(record))
    if section.pair_speed is not None:
        shown.add_row("one pair", _pair_speed(section.pair_speed))
    if gate is not None:
        for name, value in _gate_facts(gate, verbose=verbose):
            shown.add_row(name, value)
    shown.add_row("compared with", placement_line(section.reference))
    shown.below = caption(record.model, section.placement, _pairs_of(gate) if gate else "not verified yet")
    yield shown
    if gate is not None and (verbose or gate.verdict.outcome != "PASS"):
        yield _trials(gate)
    if section.optimize == "cuda" and not section.placement.device.startswith("cuda"):
        yield Text(
            "This graph is for a GPU but was verified on the CPU, which has other kernels and computes in another "
            "precision: also run this command on the GPU."
        )


def _size(record: ExportRecord) -> str:
    """The large files of the graph, and their share of the size of the weights in float32."""
    large = {name: size for name, size in record.export.files.items() if size > 1e5}
    named = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in large.items())
    weights = 4 * record.model.parameters
    return f"{named}, {sum(large.values()) / weights:.2f}x the {weights / 1e6:.1f} MB of the weights in float32"


def _pair_speed(found: PairSpeed) -> str:
    """The time of one pair in the graph and in PyTorch; a speedup whose interval holds 1 is no result."""
    times = f"{found.graph_ms:.2f} ms, in PyTorch {found.original_ms:.2f} ms"
    between = f"95% CI {found.interval.low:.2f} to {found.interval.high:.2f}"
    if found.interval.low <= 1 <= found.interval.high:
        faster = "cannot tell which is faster"
    else:
        faster = f"{found.speedup:.2f}x as fast" if found.speedup < 1 else f"{found.speedup:.2f}x faster"
    return f"{times}: {faster} ({between}), measured over {found.pairs} pairs; `bench` measures it precisely"


def _trials(gate: ExportGate) -> PlainTable:
    trials = table(
        *("Export gate", "batch", "padding", "flips", "largest\n|Δlogit|", "p99\n|Δlogit|", "padding\ntokens"),
        numeric=True,
        tight=True,
    )
    for trial in gate.trials:
        trials.add_row(
            str(trial.batch_size),
            trial.padding,
            str(trial.flips),
            difference(trial.max_abs_delta),
            difference(trial.p99_abs_delta),
            str(trial.padding_tokens),
        )
    return trials


def _pairs_of(gate: ExportGate) -> str:
    joined = [f", {trial.pairs} if joined" for trial in gate.trials if trial.kind == "joined"]
    return f"n = {gate.pairs} pairs per row{''.join(joined)}"


def _graph(section: ExportSection) -> str:
    optimums = {"none": "from Optimum", "o3": "from Optimum, level O3", "o4": "from Optimum, level O4"}
    form = optimums.get(section.optimize, f"{section.optimize} graph")
    return f"{form}: {section.nodes} nodes, opset {section.opset}, {section.dtype}"


def _gate_facts(gate: ExportGate, *, verbose: bool) -> Iterator[tuple[str, str]]:
    """What the gate found; its less important limits only with `verbose`, or if it failed."""
    if gate.headroom is not None:
        meaning = "a label may change: below 2"
        if gate.headroom > 2:
            meaning = "no label can change: above 2"
            meaning += "" if gate.verdict.outcome == "PASS" else ", but the logits differ by more than is allowed"
        yield "margin / error", f"{gate.headroom:.1f} ({meaning})"
    else:
        broken = any(trial.max_abs_delta is None for trial in gate.trials)
        yield "margin / error", "none: a logit is not finite" if broken else "none: no logit differs"
    yield "flip rate", f"at most {gate.flip_rate_bound:.2%} at 95% confidence, on similar pairs"
    if gate.f1_allowed is not None:
        trials = ", ".join(logged(trial.f1) for trial in gate.trials if trial.kind == "split")
        yield "F1 of the trials", f"{trials}; the original's interval is {interval(gate.f1_allowed)}"
    if verbose or gate.verdict.outcome != "PASS":
        yield from _gate_limits(gate)


def _gate_limits(gate: ExportGate) -> Iterator[tuple[str, str]]:
    yield "smallest decision margin", difference(gate.smallest_margin)
    if gate.p99_allowed is not None and gate.logit_spread:
        p99s = [trial.p99_abs_delta for trial in gate.trials if trial.kind != "padding"]
        found = NOT_FINITE if None in p99s else f"{max(p99 or 0 for p99 in p99s) / gate.logit_spread:.3f}"
        allowed = f"{gate.p99_allowed / gate.logit_spread:g} is allowed"
        yield "p99 |Δlogit|", f"{found} standard deviations of the logits; {allowed}"
    if gate.padding_delta_allowed is not None:
        moved = ", ".join(difference(trial.max_abs_delta) for trial in gate.trials if trial.kind == "padding")
        allowed = f"{difference(gate.padding_delta_allowed)} is allowed"
        yield "other padding tokens", f"move a logit by {moved}; {allowed}"
