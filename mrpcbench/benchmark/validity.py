"""Whether a benchmark row is VALID, and the rules that an INVALID row breaks. Standard library only.

docs/bench.md gives the rules and their reasons; the idea of VALID and INVALID runs is from MLPerf's LoadGen. The rules
judge how precisely the time of a row is known, not how much its rounds vary. So more rounds can make a noisy row valid.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import median

from mrpcbench.records.figures import JUDGED_QUANTILE, round_us
from mrpcbench.schema.bench_results import BenchRow, Resources
from mrpcbench.statistics import quantile

# Fewer rounds do not show whether the times are steady.
FEWEST_ROUNDS = 3
# Half the width of the confidence interval of the row's time, relative to that time. Two VALID rows of the same code
# then differ by less than the 10% that `compare` allows, unless their processes differ.
LARGEST_UNCERTAINTY = 0.05
# Confidence level of that interval.
LEVEL = 0.95
# Share of the time in which the engine's threads wait for a core that another program uses. Under a constant load the
# rounds are steady, but a row can take twice its normal time.
LARGEST_WAIT = 0.05
# If the last third of the rounds is this much slower or faster than the first, the engine is warming up or throttling.
# A figure over all rounds then describes neither state.
LARGEST_DRIFT = 0.10
# Probability that rounds in random order pass for a trend.
TREND_ALPHA = 0.01
# Share of a row's labels that may differ from those of the reference row. In float32 only near ties differ. `export`
# accepts an int8 graph that flips 2% of the labels, and the reference may flip as many, because it may run in bf16.
# Rows of different models differ far more.
LARGEST_DIFFERENCE = 0.01
LARGEST_REDUCED_DIFFERENCE = 0.04
# An agreement is a quotient of two integers.
ROUNDING = 1e-9
# Throttle reasons that break no rule: a GPU at full load is normally limited by its power cap.
NORMAL = {"sw_power_cap"}


def broken_rules(row: BenchRow, reference: BenchRow | None = None) -> tuple[str, ...]:
    """A message for each rule that `row` breaks with its complete rounds; empty means VALID.

    `reference` is the row whose labels `row.agreement` was computed from; without it, labels are not judged.
    """
    return tuple(_broken(row, reference))


def needs_rounds(row: BenchRow, reference: BenchRow | None = None) -> bool:
    """Whether more rounds may make `row` valid: it breaks only rules about noise.

    Too few rounds do not count as noise: a user who requests fewer than `FEWEST_ROUNDS` rounds gets no more.
    """
    rounds = round_us(row)
    if row.scenario == "server" or len(rounds) < FEWEST_ROUNDS:
        return False
    noise = (*_unsteady(rounds), *_waited(row))
    return bool(noise) and noise == broken_rules(row, reference)


@dataclass(frozen=True)
class _Kind:
    """Broken rules of one kind: how their texts begin, what happened, in one clause, and what may help."""

    begins: str
    clause: str
    advice: str = ""


# An advice names the command of an option, because `quickstart` and `report` show it too and lack these options.
_QUIETER, _MORE_ROUNDS = "close other programs", "allow more time with `bench --max-seconds`"
_KINDS = (
    _Kind("unsteady", f"times varied by more than {LARGEST_UNCERTAINTY:.0%}", f"{_QUIETER} or {_MORE_ROUNDS}"),
    _Kind("(still )?drifting", "the machine's speed changed", f"{_QUIETER} or {_MORE_ROUNDS}"),
    _Kind("busy machine", "other programs used the cores", _QUIETER),
    _Kind("too few rounds", f"fewer than {FEWEST_ROUNDS} rounds", "use more rounds with `bench --rounds`"),
    _Kind("other labels", "labels differ from the reference", "check the model or the graph"),
    _Kind("no load meets", "no load met the target", "raise `bench --slo-ms`"),
    _Kind("the engine failed", "the engine failed requests"),
    _Kind(r"\d+ other processes", "other processes used the GPU", "free the GPU"),
    _Kind("the GPU throttled", "the GPU throttled", "cool the GPU"),
    _Kind("", "another rule"),
)


def invalid_sentence(rows: Sequence[BenchRow]) -> str | None:
    """How many of `rows` are INVALID, which kinds of rules they break, and what may help; None if all are VALID."""
    invalid = [row for row in rows if row.broken_rules]
    if not invalid:
        return None
    counts: dict[_Kind, int] = {}
    for row in invalid:
        kinds = {next(kind for kind in _KINDS if re.match(kind.begins, rule)) for rule in row.broken_rules or ()}
        for kind in kinds:
            counts[kind] = counts.get(kind, 0) + 1
    found = [kind for kind in _KINDS if kind in counts]
    clauses = ", ".join(f"{kind.clause} ({counts[kind]})" for kind in found)
    advice = list(dict.fromkeys(kind.advice for kind in found if kind.advice))
    # The first advice about noise includes that of the others.
    advice = [text for text in advice if not any(text != other and other.startswith(text) for other in advice)]
    verb = "is" if len(invalid) == 1 else "are"
    return f"{len(invalid)} of {len(rows)} rows {verb} INVALID: {clauses}" + "".join(f"; {text}" for text in advice)


def _broken(row: BenchRow, reference: BenchRow | None) -> Iterator[str]:
    if row.failed:
        yield f"the engine failed {row.failed} requests"
    elif reference is not None:
        yield from _other_labels(row, reference)
    if row.scenario == "server":
        if row.server is None or row.server.best_rate_per_s is None:
            yield "no load meets the target"
    else:
        yield from _unsteady(round_us(row))
    yield from _waited(row)
    yield from disturbances(row.resources)


def _other_labels(row: BenchRow, reference: BenchRow) -> Iterator[str]:
    """The rule about labels. One pair may always differ, and near ties of random weights may in lower precision."""
    is_reduced = any(item.placement.dtype != "fp32" for item in (row, reference))
    if row.agreement is None or (is_reduced and row.model.weights == "random-init"):
        return
    allowed = LARGEST_REDUCED_DIFFERENCE if is_reduced else LARGEST_DIFFERENCE
    different = 1 - row.agreement
    if different > max(allowed, 1 / row.pairs) + ROUNDING:
        yield f"other labels: {different:.1%} differ from those of {reference.id}, at most {allowed:.0%} is allowed"


def disturbances(used: Resources | None) -> Iterator[str]:
    """A message for each disturbance of a measurement that the GPU's sensors report."""
    if used is None:
        return
    if used.gpu_foreign_processes:
        yield f"{used.gpu_foreign_processes} other processes were on the GPU"
    throttled = set(used.gpu_throttle_reasons or ()) - NORMAL
    if throttled:
        yield f"the GPU throttled ({', '.join(sorted(throttled))})"


def _unsteady(rounds: Sequence[float]) -> Iterator[str]:
    """The rules about the times of the rounds. Every round times every pair once, so rounds are comparable."""
    if len(rounds) < FEWEST_ROUNDS:
        yield f"too few rounds: {len(rounds)}, at least {FEWEST_ROUNDS} are needed"
        return
    if min(rounds) <= 0:
        yield "a round took no time"
        return
    drift = drift_of(rounds)
    if abs(drift) > LARGEST_DRIFT:
        way = "slower" if drift > 0 else "faster"
        yield f"drifting: the machine's speed changed; the last third of the rounds is {abs(drift):.0%} {way}"
    uncertainty = uncertainty_of(rounds)
    if uncertainty > LARGEST_UNCERTAINTY:
        yield f"unsteady: the time is known to ±{uncertainty:.1%}, at most ±{LARGEST_UNCERTAINTY:.0%} is allowed"


def _waited(row: BenchRow) -> Iterator[str]:
    """The rule about a busy machine. It applies to the same quantile of the rounds as the row's time."""
    waits = row.resources.cpu_waits if row.resources else None
    if not waits:
        return
    share = quantile(waits, JUDGED_QUANTILE) / max(1, row.placement.threads)
    if share > LARGEST_WAIT:
        yield f"busy machine: threads waited for a core {share:.0%} of the time, at most {LARGEST_WAIT:.0%} is allowed"


def drift_of(rounds: Sequence[float]) -> float:
    """Relative slowdown of the last third of `rounds` against the first third, by their medians; negative is faster.

    0 unless the rounds have a significant trend. The test is Mann-Kendall, two-sided at `TREND_ALPHA`, with the normal
    approximation and continuity correction (Kendall 1975, Rank Correlation Methods, chapter 4). It needs at least six
    rounds to detect a trend.
    """
    count = len(rounds)
    signs = sum((later > earlier) - (later < earlier) for earlier, later in combinations(rounds, 2))
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    if math.erfc((abs(signs) - 1) / deviation / math.sqrt(2)) > TREND_ALPHA:
        return 0.0
    third = count // 3
    return median(rounds[-third:]) / median(rounds[:third]) - 1


def uncertainty_of(rounds: Sequence[float]) -> float:
    """Half the width of the confidence interval of the row's time, relative to that time.

    The interval is the distribution-free one of the `JUDGED_QUANTILE`: between two order statistics, with at most half
    of 1 - `LEVEL` beyond each (David & Nagaraja 2003, Order Statistics, section 7.1). With fewer than 13 rounds, its
    lower end is the fastest round, and the probability below it is larger: 0.75^n.
    """
    ordered = sorted(rounds)
    low, high = interval_ranks(len(ordered))
    return (ordered[high] - ordered[low]) / 2 / quantile(ordered, JUDGED_QUANTILE)


@cache
def interval_ranks(count: int) -> tuple[int, int]:
    """Ranks, from 0, of the two order statistics of `count` rounds that bound the interval of `uncertainty_of`."""
    share, beyond = JUDGED_QUANTILE, (1 - LEVEL) / 2
    below, cumulated = [], 0.0  # below[k] is the chance that at most k of the rounds are below the quantile
    for k in range(count + 1):
        cumulated += math.comb(count, k) * share**k * (1 - share) ** (count - k)
        below.append(cumulated)
    low = sum(chance <= beyond for chance in below)
    high = next((rank for rank in range(count) if 1 - below[rank] <= beyond), count - 1)
    return max(0, low - 1), high
