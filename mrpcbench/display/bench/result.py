"""A benchmark record as rich renderables: a table per scenario, one caption, and the summary. Prints nothing."""

import math
from collections.abc import Callable, Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from mrpcbench.benchmark.validity import invalid_sentence
from mrpcbench.display.bench.details import details
from mrpcbench.display.bench.summary import by_scenario, comparisons, fastest_line
from mrpcbench.display.numbers import ABSENT, fixed, multiple, percent
from mrpcbench.display.recommendation import short_recommendation
from mrpcbench.display.tables import (
    Cell,
    PlainTable,
    batch_label,
    machine_line,
    model_line,
    name_header,
    notes,
    percentile,
    short_name,
    table_of,
    unverified_label,
)
from mrpcbench.records.figures import (
    ROUNDS_FOR_INTERVAL,
    RelativeSpeed,
    best_load,
    load_percentile_ms,
    median_speedup,
    relative_speed,
    speed,
)
from mrpcbench.records.ranking import best, ratio, reference
from mrpcbench.records.recommendation import recommend
from mrpcbench.schema.bench_requests import BenchView
from mrpcbench.schema.bench_results import BenchRow, BenchSection
from mrpcbench.schema.records import BenchRecord
from mrpcbench.statistics import samples_needed

Columns = list[tuple[str, Callable[[BenchRow], Cell]]]
Relatives = dict[int, RelativeSpeed | None]

# A speedup that differs by more than this share from the ratio of the two rates gets an explanation.
LARGEST_DISCREPANCY = 0.05


def bench(record: BenchRecord, view: BenchView, *, verbose: bool = False) -> Iterator[RenderableType]:
    """A table per scenario, with speedups over the first reference row; if verbose, the details; then the caption of
    the run, what makes it unreliable, and the summary: comparisons, the fastest case, and which case to deploy."""
    section = record.bench
    for rows in by_scenario(section):
        yield _table(rows, section, view)
    if verbose:
        yield from details(record, view)
    if section.rows:
        yield Text("\n".join(_caption(record, view)), "dim italic")
    yield from notes((row.model for row in section.rows), *_warnings(section, verbose=verbose))
    yield Text("\n".join(["", *comparisons(section, view.relative_to)]))
    yield Text(fastest_line(section), "bold")
    found = recommend(record)
    if found and len(found.candidates) > 1:
        yield Text("\n".join(short_recommendation(found)))


# --- a scenario -------------------------------------------------------------------------------------------------------


def _table(rows: list[BenchRow], section: BenchSection, view: BenchView) -> PlainTable:
    """The rows of one scenario; the fastest are bold."""
    base = reference(rows, view.relative_to)
    title = f"{rows[0].scenario}: {_workload(rows, section)}"
    if len(rows) > 1:
        title += f"; speedup over {short_name(base)}"
    if section.plan.seq_len:
        title += f"; FIXED SHAPE of {section.plan.seq_len} tokens, all-ones mask"
    return table_of(title, _columns(rows, base), rows, bold=best(rows))


def _workload(rows: Sequence[BenchRow], section: BenchSection) -> str:
    """The workload of a table in words, with the order of the pairs if all rows have the same."""
    if rows[0].scenario == "single-stream":
        return "one pair at a time"
    if rows[0].scenario == "server":
        return f"random arrivals, p99 within {section.plan.slo_ms:g} ms"
    words = {"length": "all pairs, sorted by length", "given": "all pairs, in the order given"}
    (first, *others) = {row.order for row in rows}
    return "all pairs, in two orders" if others or first is None else words[first]


def _columns(rows: list[BenchRow], base: BenchRow) -> Columns:
    """Headers, each with the function that formats a cell; columns without any value are omitted."""
    scenario = rows[0].scenario
    columns: Columns = [(name_header(rows), unverified_label)]
    if scenario != "single-stream":
        columns.append(("batch", batch_label))
    columns.append(("requests/s" if scenario == "server" else "pairs/s", lambda row: fixed(speed(row), 1)))
    if scenario != "offline":
        columns += [("p50 ms", lambda row: _latency(row, 0.5)), ("p99 ms", lambda row: _latency(row, 0.99))]
    if len(rows) > 1:
        found: Relatives = {id(row): relative_speed(row, base) for row in rows}
        columns.append(("speedup", lambda row: multiple(one.times if (one := found[id(row)]) else None)))
        columns.append(("range" if scenario == "server" else "95% CI", lambda row: _ends(row, base, found[id(row)])))
    if any(row.agreement is not None for row in rows):
        columns.append(("agree", lambda row: percent(row.agreement)))
    columns.append(("validity", _validity))
    return columns


def _latency(row: BenchRow, share: float) -> str:
    """A percentile of the time of one pair, or of one request at the best load."""
    if row.scenario != "server":
        return percentile(row, share)
    load = best_load(row)
    return fixed(load_percentile_ms(load, share) if load else None, 2)


def _ends(row: BenchRow, base: BenchRow, found: RelativeSpeed | None) -> str:
    """Both ends of the interval of a speedup."""
    if row is base:
        return "reference"
    if found is None or found.interval is None:
        return f"n<{ROUNDS_FOR_INTERVAL}" if found and found.rounds else ABSENT
    return f"{fixed(found.interval.low, 2)} to {fixed(found.interval.high, 2)}"


def _validity(row: BenchRow) -> Cell:
    if row.broken_rules is None:
        return ABSENT
    return Text("INVALID", "bold yellow") if row.broken_rules else "VALID"


# --- the run ----------------------------------------------------------------------------------------------------------


def _caption(record: BenchRecord, view: BenchView) -> Iterator[str]:
    """The model, its weights, where it ran in which precision, the pairs, and how to read the speedups."""
    section, rows = record.bench, record.bench.rows
    rounds = f" x {section.rounds_done} rounds" if section.rounds_done else ""
    data, machine = record.data[0], machine_line(record.environment, rows[0].placement)
    yield f"{model_line(record.model)}; {_precisions(rows)}"
    yield f"n = {rows[0].pairs} pairs{rounds}, {data.source} {data.split}; {machine}"
    if section.reference and any(row.agreement is not None for row in rows):
        yield f"agree: label agreement with {section.reference.row}"
    if any(_is_discrepant(found, view) for found in by_scenario(section)):
        yield "speedup: median of the rounds, paired; it can differ from the ratio of pairs/s if the rounds are noisy"


def _precisions(rows: Sequence[BenchRow]) -> str:
    """Precision, device and threads of most cases, and in parentheses those of the others."""
    cases: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        threads = f"{row.placement.threads} thread{'s' * (row.placement.threads != 1)}"
        cases.setdefault((row.placement.dtype, f"{row.placement.device}, {threads}"), {})[row.case] = None
    (dtype, place), *others = sorted(cases, key=lambda kind: -len(cases[kind]))
    differing = (f"{', '.join(cases[kind])}: {kind[0] if kind[1] == place else ' on '.join(kind)}" for kind in others)
    return dtype + (f" ({'; '.join(differing)})" if others else "") + f" on {place}"


def _is_discrepant(rows: Sequence[BenchRow], view: BenchView) -> bool:
    """Whether a paired speedup differs visibly from the ratio of the rates that are shown beside it."""
    base = reference(rows, view.relative_to)
    pairs = [(median_speedup(row, base), ratio(row, base)) for row in rows if row.scenario != "server"]
    return any(paired and plain and abs(math.log(paired / plain)) > LARGEST_DISCREPANCY for paired, plain in pairs)


def _warnings(section: BenchSection, *, verbose: bool) -> Iterator[str]:
    """A sentence for each kind of problem."""
    if section.failed:
        yield f"FAILED and left out: {', '.join(failed.case for failed in section.failed)}"
    if sentence := invalid_sentence(section.rows):
        yield sentence + ("." if verbose else ". `-v` shows each.")
    if any(row.failed for row in section.rows):
        yield f"FAILED: up to {max(row.failed for row in section.rows)} pairs per row have no finite answer."
    shown = (0.9, 0.99) if verbose else (0.99,)
    single = [len(row.samples_ms) for row in section.rows if row.scenario == "single-stream"]
    short_of = [count for count in map(samples_needed, shown) if single and min(single) < count]
    if short_of:
        names = ", ".join(f"n<{count}" for count in short_of)
        yield f"{names}: too few samples to bound that percentile at 99% confidence; use more --rounds."
    compared = any(len(rows) > 1 for rows in by_scenario(section) if rows[0].scenario != "server")
    if compared and 0 < section.rounds_done < ROUNDS_FOR_INTERVAL:
        yield f"n<{ROUNDS_FOR_INTERVAL}: too few rounds for an interval; use --rounds {ROUNDS_FOR_INTERVAL}."
