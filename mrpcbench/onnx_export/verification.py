"""The export gate: compares an exported graph with the original model on every pair, and on joined pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mrpcbench.backends.session import Session
from mrpcbench.data.batches import Batch, EncodedPairs, in_order
from mrpcbench.gates.export import export_problem, largest_delta
from mrpcbench.onnx_export import joined
from mrpcbench.progress import Observer
from mrpcbench.records.scores import confusion, f1_interval, f1_of, finite_or_none
from mrpcbench.schema.requests import Order
from mrpcbench.schema.results import ExportGate, ParityTrial
from mrpcbench.schema.verdicts import Verdict
from mrpcbench.statistics import rate_upper_bound


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """Tolerances of the gate; None is not checked.

    `flip_rate` is the share of flipped labels, and `delta` the largest |difference| of a logit. `p99_spread` limits the
    99th percentile of the |differences|, in standard deviations of the original's logits. Replaced padding tokens may
    move a logit by `padding_delta`, or by `padding_spread` standard deviations.
    """

    flip_rate: float
    delta: float | None = None
    p99_spread: float | None = None
    padding_delta: float | None = None
    padding_spread: float | None = None
    is_f1_judged: bool = False


# float32 differs only by the order of operations. Optimum's ModernBERT agrees to 1e-6; 1e-3 allows other kernels and is
# far below a decision margin. Half precision is judged by its labels, and by its logits, because a wrong graph of
# random weights can keep every label. int8 flips some labels near the decision boundary, which is harmless unless they
# flip in one direction. So its F1 must lie in the interval of the original's. docs/export.md has the reason of 0.25.
# A mask gives padding a weight of exactly 0 in floating point; int8 has one scale of activations per call, which
# covers padding.
ALLOWANCES: Mapping[str, Allowance] = {
    "fp32": Allowance(flip_rate=0, delta=1e-3, padding_delta=1e-5),
    "fp16": Allowance(flip_rate=0.005, p99_spread=0.1, padding_delta=1e-5),
    "int8": Allowance(flip_rate=0.02, p99_spread=0.25, padding_spread=0.25, is_f1_judged=True),
}


@dataclass(frozen=True)
class Reference:
    """Encoded pairs, and the logits [N, 2] that the original model gives them."""

    tokens: EncodedPairs
    logits: NDArray[np.float32]


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


def run(session: Session, batches: Sequence[Batch], task: str, observer: Observer) -> NDArray[np.float32]:
    """Logits [N, 2] of the pairs of `batches`, in the order of the pairs."""
    outputs = []
    for logits in session.infer_many(batches):
        outputs.append(logits)
        observer.advance(task, len(outputs), len(batches))
    return in_order(outputs, batches)


def verify(
    session: Session,
    split: Reference,
    long: Reference,
    dtype: str,
    observer: Observer,
    labels: NDArray[np.int64] | None = None,
) -> ExportGate:
    """Compare `session` with the original over every pair with each of `PADDINGS`, and over joined pairs.

    `split` has the pairs of the split, `long` those of `joined.joined_pairs`. `labels` [N] are those of the split, or
    None if it has none.
    """
    trials = []
    for padding in PADDINGS:
        batches = split.tokens.batches(padding.batch_size, order=padding.order, multiple_of=padding.multiple_of)
        logits = run(session, batches, f"verify, batch {padding.batch_size}", observer)
        trials.append(_trial(batches, padding.label, logits, split.logits, labels))
    trials += _joined_trials(session, long, observer)
    # Alone, a split of one pair would have no spread.
    spread = spread_of(np.concatenate([split.logits, long.logits]))
    return judge(tuple(trials), split.logits, dtype, labels, spread)


def _joined_trials(session: Session, long: Reference, observer: Observer) -> list[ParityTrial]:
    """Joined pairs compared with the original, and compared with themselves with other tokens as padding."""
    batches = long.tokens.batches(joined.BATCH_SIZE, order="given")
    logits = run(session, batches, "verify, joined pairs", observer)
    words = f"joined, {min(long.tokens.lengths)} to {max(long.tokens.lengths)} tokens"
    compared = _trial(batches, words, logits, long.logits)
    others = joined.with_other_padding(long.tokens, batches)
    moved = run(session, others, "verify, other padding", observer)
    insensitive = _trial(batches, "joined, other padding tokens", moved, logits)
    return [replace(compared, kind="joined"), replace(insensitive, kind="padding")]


def _trial(
    batches: Sequence[Batch],
    words: str,
    logits: NDArray[np.float32],
    expected: NDArray[np.float32],
    labels: NDArray[np.int64] | None = None,
) -> ParityTrial:
    deltas = np.abs(logits.astype(np.float64) - expected)
    predictions = logits.argmax(axis=1)
    return ParityTrial(
        batch_size=max(len(batch.rows) for batch in batches),
        padding=words,
        padding_tokens=sum(batch.padding_tokens for batch in batches),
        pairs=len(expected),
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
    spread: float | None = None,
) -> ExportGate:
    """Judge `trials` by the rule `gates.export.export_problem`.

    `expected` [N, 2] are the original's logits, `dtype` is the graph's dtype, and `labels` [N] are those of the pairs,
    or None. `spread` is the standard deviation of the original's logits; None takes that of `expected`.
    """
    pairs, allowance = len(expected), ALLOWANCES[dtype]
    if spread is None:
        spread = spread_of(expected)
    of_split = [trial for trial in trials if trial.kind == "split"]
    worst, flips = largest_delta(of_split), max(trial.flips for trial in of_split)
    margin = float(np.abs(expected[:, 1] - expected[:, 0]).min())
    f1_allowed = None
    if allowance.is_f1_judged and labels is not None:
        f1_allowed = f1_interval(confusion(expected.argmax(axis=1), labels))
    gate = ExportGate(
        pairs=pairs,
        trials=trials,
        flips_allowed=int(pairs * allowance.flip_rate),
        delta_allowed=allowance.delta,
        f1_allowed=f1_allowed,
        logit_spread=finite_or_none(spread),
        p99_allowed=_scaled(allowance.p99_spread, spread),
        padding_delta_allowed=allowance.padding_delta or _scaled(allowance.padding_spread, spread),
        smallest_margin=finite_or_none(margin),
        headroom=finite_or_none(margin / worst) if worst else None,
        flip_rate_bound=rate_upper_bound(flips, pairs),
        verdict=Verdict(outcome="PASS", reason=""),
    )
    problem = export_problem(gate)
    return replace(
        gate, verdict=Verdict(outcome="REGRESSION" if problem else "PASS", reason=problem or _passed(gate, allowance))
    )


def _passed(gate: ExportGate, allowance: Allowance) -> str:
    flips = max(trial.flips for trial in gate.trials if trial.kind == "split")
    reason = f"{flips} of {gate.pairs} labels flip; largest difference {largest_delta(gate.trials):.2e}"
    if allowance.is_f1_judged:
        reason += "; F1 " + (
            "within the original's interval" if gate.f1_allowed else "not judged: the split has no labels"
        )
    return reason


def _scaled(share: float | None, spread: float) -> float | None:
    return None if share is None else finite_or_none(share * spread)


def spread_of(logits: NDArray[np.float32]) -> float:
    """The standard deviation of `logits` [N, 2] over the pairs, as the quadratic mean of the two logits' own."""
    return float(np.sqrt(logits.astype(np.float64).var(axis=0).mean()))
