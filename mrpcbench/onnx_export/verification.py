"""The export gate: compares an exported graph with the original model on every pair."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrpcbench.backends.session import Session
from mrpcbench.data.batches import EncodedPairs, in_order
from mrpcbench.gates.export import export_problem, largest_delta
from mrpcbench.progress import Observer
from mrpcbench.records.scores import confusion, f1_interval, f1_of, finite_or_none
from mrpcbench.schema.requests import Order
from mrpcbench.schema.results import ExportGate, ParityTrial
from mrpcbench.schema.verdicts import Verdict
from mrpcbench.statistics import rate_upper_bound


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """Tolerances of the gate: share of flipped labels, largest |difference| of a logit, and whether F1 is judged."""

    flip_rate: float
    delta: float | None
    is_f1_judged: bool = False


# float32 differs only by the order of operations. Optimum's ModernBERT agrees to 1e-6; 1e-3 allows other kernels and is
# far below a decision margin. Half precision is judged by its labels. int8 flips some labels near the decision
# boundary, which is harmless unless they flip in one direction. So its F1 must lie in the interval of the original's.
ALLOWANCES: Mapping[str, Allowance] = {
    "fp32": Allowance(flip_rate=0, delta=1e-3),
    "fp16": Allowance(flip_rate=0.005, delta=None),
    "int8": Allowance(flip_rate=0.02, delta=None, is_f1_judged=True),
}


@dataclass(frozen=True)
class Padding:
    """One way to batch the pairs. Each tests the graph with other shapes and another share of padding."""

    batch_size: int
    order: Order
    multiple_of: int
    label: str


PADDINGS = (
    Padding(1, "given", 1, "none"),
    Padding(8, "length", 1, "to the longest, sorted by length"),
    Padding(32, "given", 64, "to a multiple of 64"),
)


def run(
    session: Session, tokens: EncodedPairs, padding: Padding, task: str, observer: Observer
) -> tuple[NDArray[np.float32], int]:
    """Logits [N, 2] of all pairs, in order, and the number of padding tokens."""
    cut = tokens.batches(padding.batch_size, order=padding.order, multiple_of=padding.multiple_of)
    outputs = []
    for logits in session.infer_many(cut):
        outputs.append(logits)
        observer.advance(task, len(outputs), len(cut))
    return in_order(outputs, cut), sum(batch.padding_tokens for batch in cut)


def verify(
    session: Session,
    tokens: EncodedPairs,
    expected: NDArray[np.float32],
    dtype: str,
    observer: Observer,
    labels: NDArray[np.int64] | None = None,
) -> ExportGate:
    """Run `session` over every pair with each of `PADDINGS`, and compare its logits with `expected` [N, 2].

    `labels` [N] are those of the pairs, or None if the split has none.
    """
    trials = []
    for padding in PADDINGS:
        logits, padding_tokens = run(session, tokens, padding, f"verify, batch {padding.batch_size}", observer)
        trials.append(_trial(padding, padding_tokens, logits, expected, labels))
    return judge(tuple(trials), expected, dtype, labels)


def _trial(
    padding: Padding,
    padding_tokens: int,
    logits: NDArray[np.float32],
    expected: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
) -> ParityTrial:
    deltas = np.abs(logits.astype(np.float64) - expected)
    predictions = logits.argmax(axis=1)
    return ParityTrial(
        batch_size=padding.batch_size,
        padding=padding.label,
        padding_tokens=padding_tokens,
        flips=int((predictions != expected.argmax(axis=1)).sum()),
        max_abs_delta=finite_or_none(float(deltas.max())),
        p99_abs_delta=finite_or_none(float(np.quantile(deltas, 0.99))),
        f1=None if labels is None else f1_of(confusion(predictions, labels)),
    )


def judge(
    trials: tuple[ParityTrial, ...],
    expected: NDArray[np.float32],
    dtype: str,
    labels: NDArray[np.int64] | None = None,
) -> ExportGate:
    """Judge `trials` by the rule `gates.export.export_problem`.

    `expected` [N, 2] are the original's logits, `dtype` is the graph's dtype, and `labels` [N] are those of the pairs,
    or None.
    """
    pairs, allowance = len(expected), ALLOWANCES[dtype]
    flips_allowed = int(pairs * allowance.flip_rate)
    f1_allowed = None
    if allowance.is_f1_judged and labels is not None:
        f1_allowed = f1_interval(confusion(expected.argmax(axis=1), labels))
    worst = largest_delta(trials)
    margin = float(np.abs(expected[:, 1] - expected[:, 0]).min())
    problem = export_problem(trials, pairs, flips_allowed, allowance.delta, f1_allowed)
    if not np.isfinite(margin):
        problem = "a logit is not finite"
    flips = max(trial.flips for trial in trials)
    passed = f"{flips} of {pairs} labels flip; largest difference {worst:.2e}" if worst is not None else ""
    if allowance.is_f1_judged:
        passed += "; F1 within the original's interval" if f1_allowed else "; F1 not judged: the split has no labels"
    return ExportGate(
        pairs=pairs,
        trials=trials,
        flips_allowed=flips_allowed,
        delta_allowed=allowance.delta,
        f1_allowed=f1_allowed,
        smallest_margin=finite_or_none(margin),
        headroom=finite_or_none(margin / worst) if worst else None,
        flip_rate_bound=rate_upper_bound(flips, pairs),
        verdict=Verdict(outcome="REGRESSION" if problem else "PASS", reason=problem or passed),
    )
