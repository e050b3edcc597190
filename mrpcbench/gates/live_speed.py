"""The live speed gate: tests on pairs of processes whether B is slower than A."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from mrpcbench.errors import UsageError
from mrpcbench.gates.policy import Policy
from mrpcbench.schema.bench_results import AbPair, AbSection, AbSide
from mrpcbench.schema.records import AbRecord
from mrpcbench.schema.verdicts import Compared, Comparison, Interval, MetricResult, Verdict, overall
from mrpcbench.statistics import median_interval, wilcoxon_p, wilcoxon_smallest_p

TEST = "one-sided Wilcoxon signed-rank, exact"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The test of "B is slower than A" over `counted` pairs. Slowdowns are shares: 0.05 is 5% slower."""

    counted: int
    slowdown: float
    interval: Interval
    p_value: float
    fails: bool


def check_reach(pairs: int, alpha: float) -> None:
    """Raise `UsageError` if no slowdown can be significant with so few pairs."""
    if not wilcoxon_smallest_p(pairs) < alpha:
        needed = math.floor(-math.log2(alpha)) + 1
        raise UsageError(
            f"--process-pairs {pairs}: too few for p < {alpha:g} (the smallest possible p is "
            f"{wilcoxon_smallest_p(pairs):.3g}); use at least {needed}"
        )


def log_ratios(pairs: Sequence[AbPair]) -> list[float]:
    """The `log_ratio` of every undisturbed pair."""
    return [log_ratio(pair.a_samples_ms, pair.b_samples_ms) for pair in pairs if not pair.disturbances]


def log_ratio(a_ms: Sequence[float], b_ms: Sequence[float]) -> float:
    """The median of ln(time of B / time of A) over blocks of four calls: A B B A.

    The two calls of each half ran one after the other, so a disturbance of both cancels out. The ratio of the medians
    would instead compare calls of different moments. The first call of a half has warm caches, because the same side
    also ran last; in a block, that is each side once. An incomplete block at the end is ignored.
    """
    halves = [math.log(b / a) for a, b in zip(a_ms, b_ms, strict=True)]
    return median((first + second) / 2 for first, second in zip(halves[::2], halves[1::2], strict=False))


def judge(ratios: Sequence[float], *, alpha: float, slowdown: float) -> Judgement:
    """Judge pairs with these log-ratios. They fail if B is slower by more than `slowdown`, and significantly so.

    The test is the one-sided Wilcoxon signed-rank test at the level `alpha`. The interval of the median is a percentile
    bootstrap over pairs. Raises `ValueError` without a pair.
    """
    middle, interval = median(ratios), median_interval(ratios, level=1 - 2 * alpha)
    return Judgement(
        counted=len(ratios),
        slowdown=math.expm1(middle),
        interval=Interval(
            low=math.expm1(interval.low), high=math.expm1(interval.high), level=interval.level, method=interval.method
        ),
        p_value=wilcoxon_p(ratios),
        fails=fails(ratios, alpha=alpha, slowdown=slowdown),
    )


def fails(ratios: Sequence[float], *, alpha: float, slowdown: float) -> bool:
    """Whether B is slower by more than `slowdown`, significantly at the level `alpha`."""
    return median(ratios) > math.log1p(slowdown) and wilcoxon_p(ratios) < alpha


def noise_ratios(pairs: Sequence[AbPair]) -> list[float]:
    """Log-ratios of side A to itself: every second process of A to the process of A before it.

    These processes did not alternate call by call, so their noise is at least that of the pairs.
    """
    medians = [median(pair.a_samples_ms) for pair in pairs if not pair.disturbances]
    return [math.log(after / before) for before, after in zip(medians[::2], medians[1::2], strict=False)]


def looks_slower(pairs: Sequence[AbPair], limits: Policy) -> bool:
    """Whether these pairs fail the gate without a confirmation."""
    ratios = log_ratios(pairs)
    return bool(ratios) and fails(ratios, alpha=limits.alpha, slowdown=limits.speed.slowdown)


def incompatibilities(section: AbSection) -> tuple[str, ...]:
    """Why the two sides cannot be compared; empty if they can."""
    if section.a.model.tokenizer_sha256 == section.b.model.tokenizer_sha256:
        return ()
    return ("the tokenizers of A and B differ, so the models would not get the same tokens",)


def comparison_of(record: AbRecord, limits: Policy) -> Comparison:
    """The comparison of the finished pairs under these limits."""
    section = record.ab
    pairs, confirmation = section.pairs, section.confirmation
    differences = incompatibilities(section)
    metrics = [] if differences else [_speed(section, pairs, confirmation, limits), *_noise_floor(section, pairs)]
    return Comparison(
        kind="ab",
        baseline=(_compared(section.a, record),),
        current=(_compared(section.b, record),),
        differences=differences,
        warnings=tuple(_warnings(section)),
        metrics=tuple(metrics),
        verdict=overall(differences, metrics),
    )


def _speed(section: AbSection, pairs: Sequence[AbPair], confirmation: Sequence[AbPair], limits: Policy) -> MetricResult:
    """The gated metric: time of a call, B against A."""
    ratios, limit = log_ratios(pairs), limits.speed.slowdown
    if not wilcoxon_smallest_p(len(ratios)) < limits.alpha:
        reason = f"only {len(ratios)} of {len(pairs)} pairs were undisturbed: too few for p < {limits.alpha:g}"
        return _metric(section, pairs, None, Verdict(outcome="INCONCLUSIVE", reason=reason), limits)
    found = judge(ratios, alpha=limits.alpha, slowdown=limit)
    if not found.fails:
        return _metric(section, pairs, found, _not_failed(found, limit), limits)
    again = log_ratios(confirmation)
    if again and judge(again, alpha=limits.alpha, slowdown=limit).fails:
        second = math.expm1(median(again))
        reason = (
            f"B is {found.slowdown:.1%} slower, and {second:.1%} in the confirming run; the limit is {limit * 100:g}%"
        )
        return _metric(section, pairs, found, Verdict(outcome="REGRESSION", reason=reason), limits)
    reason = f"B was {found.slowdown:.1%} slower, and the confirming run does not agree"
    return _metric(section, pairs, found, Verdict(outcome="INCONCLUSIVE", reason=reason), limits)


def _not_failed(found: Judgement, limit: float) -> Verdict:
    """PASS within the limit; INCONCLUSIVE for a median beyond it that is not significant."""
    change = f"B is {abs(found.slowdown):.1%} {'slower' if found.slowdown > 0 else 'faster'}"
    if found.slowdown > limit:
        reason = f"{change}, which may be chance (p = {found.p_value:.2f}); use more --process-pairs"
        return Verdict(outcome="INCONCLUSIVE", reason=reason)
    return Verdict(outcome="PASS", reason=f"{change}; the limit is {limit * 100:g}%")


def _metric(
    section: AbSection, pairs: Sequence[AbPair], found: Judgement | None, verdict: Verdict, limits: Policy
) -> MetricResult:
    kept = [pair for pair in pairs if not pair.disturbances]
    return MetricResult(
        metric=f"batch of {section.plan.batch_size}",
        gated=limits.speed.gate,
        verdict=verdict,
        baseline=median(median(pair.a_samples_ms) for pair in kept) if kept else None,
        current=median(median(pair.b_samples_ms) for pair in kept) if kept else None,
        unit="ms",
        change=found.slowdown * 100 if found else None,
        change_unit="%",
        interval=_in_per_cent(found.interval) if found else None,
        test=TEST,
        p_value=found.p_value if found else None,
        limit=f"slower by more than {limits.speed.slowdown * 100:g}% with p < {limits.alpha:g}, twice",
    )


def _noise_floor(section: AbSection, pairs: Sequence[AbPair]) -> list[MetricResult]:
    """A compared with itself, for information: the noise of the machine."""
    ratios = noise_ratios(pairs)
    if not ratios:
        return []
    kept = [median(pair.a_samples_ms) for pair in pairs if not pair.disturbances]
    largest = math.expm1(max(map(abs, ratios)))
    return [
        MetricResult(
            metric="A against A",
            gated=False,
            verdict=Verdict(outcome="PASS", reason=f"noise floor: two processes of A differ by up to {largest:.1%}"),
            baseline=median(kept[::2]),
            current=median(kept[1::2]),
            unit="ms",
            change=math.expm1(median(ratios)) * 100,
            change_unit="%",
            interval=_in_per_cent(_as_shares(median_interval(ratios))),
        )
    ]


def _as_shares(logs: Interval) -> Interval:
    return replace(logs, low=math.expm1(logs.low), high=math.expm1(logs.high))


def _in_per_cent(shares: Interval) -> Interval:
    return replace(shares, low=shares.low * 100, high=shares.high * 100)


def _compared(side: AbSide, record: AbRecord) -> Compared:
    return Compared(
        name=side.spec.model,
        started_at=record.environment.started_at,
        git_commit=record.environment.git_commit,
        model=f"{side.model.name} ({side.model.label})",
        model_sha256=side.model.model_sha256,
        engine=side.placement.description,
    )


def _warnings(section: AbSection) -> list[str]:
    a, b = section.a, section.b
    found = [
        f"{name} {a.packages.get(name, 'none')} and {b.packages.get(name, 'none')}"
        for name in {**a.packages, **b.packages}
        if a.packages.get(name) != b.packages.get(name)
    ]
    if a.python != b.python:
        found.append(f"Python {a.python} and {b.python}")
    if (a.model.architecture, a.model.parameters) != (b.model.architecture, b.model.parameters):
        found.append(" and ".join(f"{side.model.architecture} of {side.model.parameters} weights" for side in (a, b)))
    for name, side in (("A", a), ("B", b)):
        if side.model.proven is False:
            found.append(f"the graph of {name} is UNVERIFIED: its answers may differ from the model's")
    every = (*section.pairs, *section.confirmation)
    if lost := sum(bool(pair.disturbances) for pair in every):
        found.append(f"{lost} of {len(every)} pairs of processes were disturbed and do not count")
    return found
