"""Whether a benchmark row can be believed, and the rules that it breaks where it cannot. Standard library only.

The rules and their reasons are docs/measurement.md's; the idea of a run that is VALID or INVALID is MLPerf LoadGen's.
"""

from collections.abc import Iterator
from statistics import median, pstdev

from mrpcbench.schema import BenchRow, Resources
from mrpcbench.statistics import samples_needed

# Rounds below which neither a trend nor a spread can be seen.
FEWEST_ROUNDS = 3
# A row whose last third of rounds is this much slower or faster than its first is still warming up, or something else
# on the machine has come or gone: its median belongs to neither state.
LARGEST_DRIFT = 0.10
# Spread of the rounds' medians, relative to their mean. Two rows nearer to one another than this cannot be told apart.
LARGEST_VARIATION = 0.10
# A GPU that is limited by its power does so whenever it works at its best.
NORMAL = {"sw_power_cap"}


def broken_rules(row: BenchRow, rounds: int) -> tuple[str, ...]:
    """The rules that `row` breaks after `rounds` rounds, each in words; none means VALID."""
    return tuple(_broken(row, rounds))


def _broken(row: BenchRow, rounds: int) -> Iterator[str]:
    if row.failed:
        yield f"the engine failed {row.failed} requests"
    if row.scenario == "server":
        if row.server is None or row.server.best_rate_per_s is None:
            yield "no load that was tried meets the target"
    else:
        yield from _unsteady(row, rounds)
    needed = samples_needed(0.99)
    if row.scenario == "single-stream" and len(row.samples_ms) < needed:
        yield f"too few samples: {len(row.samples_ms)}, and p99 needs {needed}"
    yield from disturbances(row.resources)


def disturbances(used: Resources | None) -> Iterator[str]:
    """What disturbed a measurement, as far as the sensors of the GPU tell."""
    if used is None:
        return
    if used.gpu_foreign_processes:
        yield f"{used.gpu_foreign_processes} other processes were on the GPU"
    throttled = set(used.gpu_throttle_reasons or ()) - NORMAL
    if throttled:
        yield f"the GPU throttled ({', '.join(sorted(throttled))})"


def _unsteady(row: BenchRow, rounds: int) -> Iterator[str]:
    """Rules over the rounds: a round times every pair once, so that its median is comparable with any other's."""
    if rounds < FEWEST_ROUNDS:
        yield f"too few rounds: {rounds}, and steadiness needs {FEWEST_ROUNDS}"
        return
    medians = round_medians(row, rounds)
    third = max(1, len(medians) // 3)
    drift = median(medians[-third:]) / median(medians[:third]) - 1
    if abs(drift) > LARGEST_DRIFT:
        yield f"still drifting: the last third is {abs(drift):.0%} {'slower' if drift > 0 else 'faster'} than the first"
    variation = pstdev(medians) / (sum(medians) / len(medians))
    if variation > LARGEST_VARIATION:
        yield f"unsteady: the rounds vary by {variation:.0%}"


def round_medians(row: BenchRow, rounds: int) -> list[float]:
    """Median of the samples of each whole round, in the order run."""
    size = len(row.samples_ms) // rounds
    return [median(row.samples_ms[start : start + size]) for start in range(0, size * rounds, size)]
