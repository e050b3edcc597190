"""The case to deploy, and why each other case lost, as rich renderables. Prints nothing."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mrpcbench.display.escapes import one_line
from mrpcbench.display.numbers import fixed, mebibytes, score, short
from mrpcbench.records.recommendation import KNEE_SHARE, Candidate, Knee, Recommendation


def recommendation(found: Recommendation) -> RenderableType:
    """A line for the case to deploy, one for each other case, the Pareto front, and the knee of the throughput."""
    shown = Table.grid(padding=(0, 2, 0, 0))
    shown.add_column(overflow="fold")
    shown.add_column(overflow="fold")
    for at, (name, text) in enumerate(reasons(found)):
        shown.add_row(name, Text(one_line(text)), style="" if at else "bold")
    return shown


def short_recommendation(found: Recommendation) -> list[str]:
    """The recommendation in at most three lines, for the end of a benchmark."""
    if found.best is None:
        return [f"No case to deploy: {_why_none(found)}"]
    lines = [f"Deploy {_chosen(found.best, found)}"]
    if excluded := [one.case for one in found.candidates if one.outcome != "PASS"]:
        lines.append(f"Not eligible: {', '.join(excluded)}; `mrpcbench report` says why")
    if found.knee and (found.knee.memory_bytes or found.knee.batch_size != found.best.batch_size):
        lines.append(f"Batch size: {_knee(found.knee)}")
    return [one_line(line) for line in lines]


def reasons(found: Recommendation) -> Iterator[tuple[str, str]]:
    """The case to deploy, why each other case lost, the Pareto front and the knee: names and texts."""
    yield "deploy", _chosen(found.best, found) if found.best else f"no case: {_why_none(found)}"
    for one in found.candidates:
        if one.case != found.chosen:
            yield f"not {one.case}", _lost(one, found)
    if found.front_of > 1:
        count = f"of {found.front_of} cases with both figures VALID"
        yield "Pareto front", f"{', '.join(found.front)}: pairs/s against the median time of one pair, {count}"
    if found.knee:
        yield "batch size", _knee(found.knee)


def _why_none(found: Recommendation) -> str:
    if found.outcome == "REGRESSION":
        return "every case misses a limit"
    if all(" is INVALID: " in one.reason for one in found.candidates):
        return "every case is INVALID"
    return "none is known to be eligible"


def _chosen(one: Candidate, found: Recommendation) -> str:
    parts = [f"{one.case}: {_rate(one)}"]
    if one.p50_ms is not None:
        p99 = f", p99 {fixed(one.p99_ms, 2)} ms" if one.p99_ms is not None else ""
        parts.append(f"one pair p50 {fixed(one.p50_ms, 2)} ms{p99}")
    if one.f1_drop is not None and one.case != found.reference:
        parts.append(f"F1 {score(one.f1)}, {_drop(one.f1_drop, one.f1_drop_bound, found.reference)}")
    if one.cost_per_million is not None:
        parts.append(_cost(one.cost_per_million))
    if rivals := [other.case for other in found.candidates if other.slowdown is not None and not _is_clear(other)]:
        parts.append(f"cannot tell whether it is faster than {', '.join(rivals)}")
    return "; ".join(parts)


def _drop(points: float, bound: float | None, reference: str) -> str:
    if points == bound == 0:
        return f"as {reference}"
    side = f"{abs(points):.2f} points {'below' if points > 0 else 'above'} {reference}"
    return f"{side}; a drop of at most {fixed(bound, 2)}, by its 95% interval"


def _rate(one: Candidate) -> str:
    return f"{short(one.pairs_per_s)} pairs/s ({(one.row or '').removeprefix(f'{one.case} ')})"


def _cost(per_million: float) -> str:
    """The cost in the currency of `--price-per-hour`."""
    return f"costs {fixed(per_million, 2) if per_million < 100 else short(per_million)} per million pairs"


def _lost(one: Candidate, found: Recommendation) -> str:
    if one.outcome != "PASS":
        return one.reason
    cost = f", {_cost(one.cost_per_million)}" if one.cost_per_million is not None else ""
    if one.slowdown is None:
        return _rate(one) + cost
    ends = "no interval: too few rounds"
    if one.slowdown_low is not None:
        ends = f"95% CI {fixed(one.slowdown_low, 2)} to {fixed(one.slowdown_high, 2)}"
    return f"{_rate(one)}; {found.chosen} is {fixed(one.slowdown, 2)}x faster ({ends}){cost}"


def _is_clear(one: Candidate) -> bool:
    """Whether the recommended case is faster by the interval of the speedup."""
    return one.slowdown_low is not None and one.slowdown_low > 1


def _knee(found: Knee) -> str:
    if found.batch_size == found.best_batch_size:
        share = "is the fastest"
    else:
        share = f"has {found.share:.0%} of the pairs/s of {found.best_batch_size}"
    memory = f" and takes at most {mebibytes(found.memory_bytes)} MiB of GPU memory" if found.memory_bytes else ""
    return f"{found.batch_size} {share}{memory} (the smallest with at least {KNEE_SHARE:.0%} of the best)"
