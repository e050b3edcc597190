"""The summary of a benchmark in sentences: how each case compares with the reference row, and which case is fastest."""

from collections.abc import Iterator, Sequence

from mrpcbench.display.numbers import fixed
from mrpcbench.display.tables import short_name
from mrpcbench.records.figures import RelativeSpeed, percentile_ms, speed
from mrpcbench.records.ranking import Standing, fastest, reference, standings
from mrpcbench.schema.bench_results import BenchRow, BenchSection
from mrpcbench.schema.requests import Scenario

SCENARIOS: tuple[Scenario, ...] = ("single-stream", "offline", "server")


def by_scenario(section: BenchSection) -> Iterator[list[BenchRow]]:
    """The rows of each scenario that has any."""
    for scenario in SCENARIOS:
        if rows := [row for row in section.rows if row.scenario == scenario]:
            yield rows


def comparisons(section: BenchSection, relative_to: Sequence[str]) -> Iterator[str]:
    """A sentence for each other case of each scenario, the fastest first, such as 'onnx is 4.12x faster than torch
    (95% CI 2.70 to 12.80), single-stream'. A record of one scenario does not name it. `relative_to` are the reference
    rows, as in `BenchView`."""
    scenarios = list(by_scenario(section))
    for rows in scenarios:
        suffix = f", {rows[0].scenario}" if len(scenarios) > 1 else ""
        yield from (_comparison(one) + suffix for one in standings(rows, reference(rows, relative_to)))


def _comparison(found: Standing) -> str:
    name, base, relative = short_name(found.row), short_name(found.base), found.relative
    if relative is None:
        return f"{name if speed(found.row) is None else base}: no load meets the target"
    if relative.interval is not None and not relative.is_clear:
        return f"{name} or {base}: cannot tell ({relative.times:.2f}x, {_interval(relative)})"
    if relative.times >= 1:
        return f"{name} is {relative.times:.2f}x faster than {base} ({_interval(relative)})"
    return f"{name} is {1 / relative.times:.2f}x slower than {base} ({_interval(relative, inverse=True)})"


def _interval(found: RelativeSpeed, *, inverse: bool = False) -> str:
    """The interval of the speedup, or of the slowdown if `inverse`; or why there is none."""
    if found.interval is None:
        return f"no interval: {found.rounds} rounds" if found.rounds else "no range: no load missed the target"
    ends = found.interval.low, found.interval.high
    low, high = (1 / ends[1], 1 / ends[0]) if inverse else ends
    name = f"{100 * found.interval.level:g}% CI" if found.rounds else "range"
    return f"{name} {low:.2f} to {high:.2f}"


def fastest_line(section: BenchSection) -> str:
    """One line that names the fastest row of each scenario; those that may be as fast are named too."""
    parts = [part for rows in by_scenario(section) if (part := _fastest(rows))]
    if not parts:
        return "No row has a result."
    several = any(len(rows) > 1 for rows in by_scenario(section))
    return ("Fastest: " if several else "Result: ") + "; ".join(parts)


def _fastest(rows: Sequence[BenchRow]) -> str:
    """The fastest of the rows of a scenario; empty if none has a speed."""
    found = fastest(rows)
    if not found:
        return ""
    names = [short_name(row) + (" (INVALID)" if row.broken_rules else "") for row in found]
    if len(found) > 1:
        return f"{' or '.join(names)} {found[0].scenario}, cannot tell"
    return f"{names[0]} {found[0].scenario}, {_figure(found[0])}"


def _figure(row: BenchRow) -> str:
    """The figure of a row that its scenario is for."""
    if row.scenario == "single-stream":
        return f"p50 {fixed(percentile_ms(row, 0.5), 2)} ms"
    return f"{fixed(speed(row), 1)} {'requests' if row.scenario == 'server' else 'pairs'}/s"
