"""Speedups of benchmark rows over reference rows, with intervals, as rich renderables. Prints nothing."""

from collections.abc import Callable, Sequence

from mrpcbench.display.numbers import fixed, multiple
from mrpcbench.display.tables import PlainTable, case_label, name_header, table_of
from mrpcbench.records.figures import ROUNDS_FOR_INTERVAL, RelativeSpeed, relative_speed
from mrpcbench.schema.bench_results import BenchRow

Line = tuple[BenchRow, tuple[RelativeSpeed | None, ...]]


def ratio_table(rows: Sequence[BenchRow], bases: Sequence[BenchRow]) -> PlainTable:
    """Speedup of each of `rows` over each of `bases`, which are among `rows`. All have one scenario, not server."""
    scenario = rows[0].scenario
    lines: list[Line] = [(row, tuple(relative_speed(row, base) for base in bases)) for row in rows]
    columns: list[tuple[str, Callable[[Line], str]]] = [(name_header(rows), lambda line: case_label(line[0]))]
    if scenario != "single-stream":
        columns.append(("batch", lambda line: str(line[0].batch_size)))
    for place, base in enumerate(bases):
        columns += [(ratio_header(base), _speedup(place)), ("95%", _interval(place, base))]
    return table_of(f"{scenario}: speedup", columns, lines, caption=_caption(lines))


def ratio_header(base: BenchRow) -> str:
    """The header of a speedup column: the reference row, on several lines so that the column stays narrow."""
    case, rest = str(base.id).split(" ", maxsplit=1)
    return "\n".join(("x " + case.replace("-", "-\n"), rest.replace(" batch", "\nbatch")))


def _speedup(place: int) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        found = line[1][place]
        return multiple(found.times if found else None)

    return cell


def _interval(place: int, base: BenchRow) -> Callable[[Line], str]:
    """Both ends of the interval; empty for a row compared with itself."""

    def cell(line: Line) -> str:
        found = line[1][place]
        if line[0] is base or found is None:
            return ""
        if found.interval is None:
            return f"n<{ROUNDS_FOR_INTERVAL}"
        return f"{fixed(found.interval.low, 2)} to {fixed(found.interval.high, 2)}"

    return cell


def _caption(lines: Sequence[Line]) -> str:
    rounds = sorted({found.rounds for _, of_row in lines for found in of_row if found})
    counted = " to ".join(str(count) for count in dict.fromkeys((rounds[0], rounds[-1]))) if rounds else "no"
    text = f"Median over n = {counted} rounds of the ratio of both rows' times in the same round"
    if rounds and rounds[-1] >= ROUNDS_FOR_INTERVAL:
        text += "; 95%: percentile bootstrap interval of that median"
    if not rounds or rounds[0] < ROUNDS_FOR_INTERVAL:
        text += f"; n<{ROUNDS_FOR_INTERVAL}: too few rounds for an interval, use more --rounds"
    return text + "."
