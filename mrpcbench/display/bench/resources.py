"""The time breakdown and the resources of benchmark rows, as rich renderables. Prints nothing."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from mrpcbench.display.numbers import ABSENT, fixed, mebibytes, short, whole_percent
from mrpcbench.display.tables import PlainTable, case_label, name_header, table_of
from mrpcbench.records.figures import joules_per_thousand, pairs_per_s, span_us
from mrpcbench.schema.bench_results import BenchRow, SpanName

Columns = list[tuple[str, Callable[[BenchRow], str]]]

# The header "batch" is taken: in every table it is the batch size.
SPAN_HEADERS: dict[SpanName, str] = {"batch": "batching", "copy in": "copy\nin", "copy out": "copy\nout"}
SPANS_CAPTION = (
    "From a separate pass with device synchronisation after each part. `timed` is copy in, compute and copy out in the "
    "timed rounds, so it can differ from their sum; it is not measured for server. `tok.` is the share of tokenising "
    "in `sum`."
)
RESOURCES_CAPTION = (
    "GPU MiB: peak in use and reserved by the engine, and of the whole process. MHz, W: mean. °C: maximum. J/1k: "
    "energy per 1000 pairs, for server over all loads. cores: mean number of busy cores. RSS: at the end of the row."
)


def spans_tables(rows: Sequence[BenchRow]) -> Iterator[PlainTable]:
    """The mean time per pair of each part, next to the timed rounds: one table per scenario. All `rows` have spans."""
    scenarios = list(dict.fromkeys(row.scenario for row in rows))
    for scenario in scenarios:
        mine = [row for row in rows if row.scenario == scenario]
        columns: Columns = [(name_header(mine), case_label), ("batch", lambda row: str(row.batch_size))]
        columns += ((SPAN_HEADERS.get(name, name), _part(name)) for name in get_args(SpanName))
        columns.append(("sum", lambda row: short(math.fsum(span_us(row).values()) if span_us(row) else None)))
        columns += [("tok.", _tokenising), ("timed", _timed)]
        caption = SPANS_CAPTION if scenario == scenarios[-1] else ""
        yield table_of(f"time breakdown, {scenario}: µs per pair", columns, mine, caption=caption)


def _part(name: SpanName) -> Callable[[BenchRow], str]:
    return lambda row: short(span_us(row).get(name))


def _tokenising(row: BenchRow) -> str:
    """Share of tokenising in the time of all parts."""
    parts = span_us(row)
    return whole_percent(parts["tokenise"] / math.fsum(parts.values()) if "tokenise" in parts else None)


def _timed(row: BenchRow) -> str:
    """Microseconds per pair in the timed rounds; absent for server, where pairs also wait."""
    return ABSENT if row.scenario == "server" else short(1e6 / pairs_per_s(row))


def resources_table(rows: Sequence[BenchRow]) -> PlainTable:
    """The readings of the sensors for each row; absent without a sensor."""
    columns: Columns = [
        (name_header(rows), case_label),
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
