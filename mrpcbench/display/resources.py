"""Where a benchmark's time went and what its rows used, as rich renderables. Prints nothing."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from mrpcbench.display.numbers import ABSENT, fixed, mebibytes, short, whole_percent
from mrpcbench.display.tables import PlainTable, engine, name_header, table_of
from mrpcbench.records.figures import joules_per_thousand, pairs_per_s, span_us
from mrpcbench.schema.bench_results import BenchRow, SpanName

Columns = list[tuple[str, Callable[[BenchRow], str]]]

# The column "batch" is how many pairs a batch has, as in every table.
SPAN_HEADERS: dict[SpanName, str] = {"batch": "batching", "copy in": "copy\nin", "copy out": "copy\nout"}
SPANS_CAPTION = (
    "From a separate pass with device synchronisation after each part, so `sum` can differ from `timed`, the time of "
    "the timed rounds: copy in, compute and copy out. `tok.` is the share of `sum` that tokenising takes. `timed` is "
    "not measured for server."
)
RESOURCES_CAPTION = (
    "GPU MiB: peak that the engine had in use and reserved, and of the whole process; MHz and W: means; °C: highest; "
    "J/1k: energy for 1000 pairs, of a server over all its loads; cores: mean number busy; RSS at the end of the row."
)


def spans_tables(rows: Sequence[BenchRow]) -> Iterator[PlainTable]:
    """Each part's mean time a pair beside the end-to-end figure, for `rows` that have spans: a table a scenario."""
    scenarios = list(dict.fromkeys(row.scenario for row in rows))
    for scenario in scenarios:
        mine = [row for row in rows if row.scenario == scenario]
        columns: Columns = [(name_header(mine), engine), ("batch", lambda row: str(row.batch_size))]
        columns += ((SPAN_HEADERS.get(name, name), _part(name)) for name in get_args(SpanName))
        columns.append(("sum", lambda row: short(math.fsum(span_us(row).values()) if span_us(row) else None)))
        columns += [("tok.", _tokenising), ("timed", _timed)]
        caption = SPANS_CAPTION if scenario == scenarios[-1] else ""
        yield table_of(f"time breakdown, {scenario}: µs per pair", columns, mine, caption=caption)


def _part(name: SpanName) -> Callable[[BenchRow], str]:
    return lambda row: short(span_us(row).get(name))


def _tokenising(row: BenchRow) -> str:
    """Share of the time of all parts that tokenising takes."""
    parts = span_us(row)
    return whole_percent(parts["tokenise"] / math.fsum(parts.values()) if "tokenise" in parts else None)


def _timed(row: BenchRow) -> str:
    """Microseconds a pair in the timed rounds; a server's pairs also wait, and have no such figure."""
    return ABSENT if row.scenario == "server" else short(1e6 / pairs_per_s(row))


def resources_table(rows: Sequence[BenchRow]) -> PlainTable:
    """What the sensors say of each row, absent where they say nothing."""
    columns: Columns = [
        (name_header(rows), engine),
        ("scenario", lambda row: row.scenario),
        ("batch", lambda row: str(row.batch_size)),
        ("GPU MiB\nin use", lambda row: mebibytes(row.peak_memory_bytes)),
        ("reserved", lambda row: mebibytes(row.peak_reserved_bytes)),
        ("process", _read("gpu_memory_process_bytes", mebibytes)),
        ("MHz", _read("gpu_clock_mhz")),
        ("°C", _read("gpu_temperature_c")),
        ("W", _read("gpu_power_w", short)),
        ("J/1k", lambda row: short(joules_per_thousand(row))),
        ("cores", _read("cpu_utilisation", short)),
        ("RSS\nMiB", _read("rss_bytes", mebibytes)),
    ]
    return table_of("resources", columns, rows, caption=RESOURCES_CAPTION, names=2)


def _read(name: str, form: Callable[..., str] = fixed) -> Callable[[BenchRow], str]:
    """The cell of a field of `Resources`."""

    def cell(row: BenchRow) -> str:
        return form(getattr(row.resources, name) if row.resources else None)

    return cell
