"""Tests of the tables of a benchmark: content, order, width, and omitted columns."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Outcome
from records import MODEL, NOTHING, ONNX, TORCH, make_bench, make_record, make_row
from rich.console import Console

from mrpcbench.display import render
from mrpcbench.display.bench.result import bench
from mrpcbench.display.tables import PlainTable
from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.records.figures import joules_per_thousand, pairs_in_spans, span_us, speed
from mrpcbench.records.ranking import check_view
from mrpcbench.schema.bench_requests import BenchPlan, BenchView
from mrpcbench.schema.bench_results import (
    BenchRow,
    Ceilings,
    LoadPoint,
    ReferenceAnswers,
    Resources,
    ServerResult,
    Span,
    Work,
)
from mrpcbench.schema.cases import suite_of_backends
from mrpcbench.schema.requests import BackendSpec, Order

MIB = 2**20
RANDOM = replace(MODEL, weights="random-init", origin="random-init")
UNVERIFIED = replace(MODEL, graph_sha256="e" * 64, proven=False)
PROVEN = replace(MODEL, graph_sha256="e" * 64, proven=True)
PLAIN = BenchView()


def on(backend: str, batch_size: int = 32, pass_ms: float = 408.0, **changes: Any) -> BenchRow:
    """An offline row of `backend` whose three passes over 408 pairs took `pass_ms` each."""
    row = make_row(batch_size=batch_size, spec=BackendSpec(backend=backend), samples_ms=(pass_ms,) * 3)
    return replace(row, **changes)


def single(backend: str = "torch", samples: int = 662, ms: float = 2.0, **changes: Any) -> BenchRow:
    """A row of single pairs that took `ms` each."""
    row = make_row("single-stream", spec=BackendSpec(backend=backend), samples_ms=(ms,) * samples)
    return replace(row, **changes)


def load(rate: float, latency_ms: float = 1.0, *, meets: bool = True, sent: int = 1000) -> LoadPoint:
    return LoadPoint(
        rate_per_s=rate,
        sent=sent,
        failed=0,
        latencies_ms=(latency_ms,) * sent,
        batch_sizes=(4,) * (sent // 4),
        duration_s=1.0,
        meets_slo=meets,
    )


def server(backend: str, *curve: LoadPoint, best: float | None, batch_size: int = 8, **changes: Any) -> BenchRow:
    found = ServerResult(slo_ms=20, window_ms=2, max_batch=batch_size, seed=0, curve=curve, best_rate_per_s=best)
    row = on(backend, batch_size, scenario="server", samples_ms=(), server=found)
    return replace(row, **changes)


def used(**changes: Any) -> Resources:
    return replace(NOTHING, **changes)


def spans(**samples_ms: Sequence[float]) -> tuple[Span, ...]:
    """`copy_in=(1.0,)` is one sample of "copy in"."""
    return tuple(Span(name=name.replace("_", " "), samples_ms=tuple(found)) for name, found in samples_ms.items())  # type: ignore[arg-type]


def tables(rows: Sequence[BenchRow], view: BenchView = PLAIN, *, verbose: bool = True) -> list[PlainTable]:
    record = make_record("bench", bench=make_bench(rows=tuple(rows)))
    return [part for part in bench(record, view, verbose=verbose) if isinstance(part, PlainTable)]


def titled(title: str, rows: Sequence[BenchRow], view: BenchView = PLAIN) -> PlainTable:
    """The only table whose title begins with `title`."""
    (found,) = (table for table in tables(rows, view) if str(table.title).startswith(title))
    return found


def headers(table: PlainTable) -> list[str]:
    return [" ".join(str(column.header).split()) for column in table.columns]


def column(table: PlainTable, header: str) -> list[str]:
    return [str(cell) for cell in table.columns[headers(table).index(header)].cells]


def text_of(rows: Sequence[BenchRow], view: BenchView = PLAIN, width: int = 100, *, verbose: bool = True) -> str:
    stream = StringIO()
    record = make_record("bench", bench=make_bench(rows=tuple(rows)))
    Console(file=stream, width=width).print(render.render(record, view, verbose=verbose))
    return stream.getvalue()


def bench_of(*rows: BenchRow, view: BenchView = PLAIN, verbose: bool = True) -> str:
    """The text of the tables, without frames and line breaks."""
    return " ".join(text_of(rows, view, verbose=verbose).split())


# --- the figures of a row ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "p50", "p90", "p99"),
    [
        (63, "41.00", "n<64", "n<662"),
        (64, "41.50", "66.70", "n<662"),
        (661, "340.00", "604.00", "n<662"),
        (662, "340.50", "604.90", "664.39"),
    ],
)
def test_a_percentile_is_shown_only_if_the_samples_bound_it(samples: int, p50: str, p90: str, p99: str) -> None:
    row = make_row("single-stream", samples=samples)
    found = titled("single-stream: one", [row])
    assert [column(found, "p50 ms"), column(found, "p99 ms")] == [[p50], [p99]]
    assert column(titled("single-stream: details", [row]), "p90 ms") == [p90]


def test_missing_samples_are_explained_once() -> None:
    rows = make_row("single-stream", samples=3), make_row("single-stream", samples=4, case="other")
    assert bench_of(*rows, verbose=False).count("n<662: too few samples") == 1
    assert bench_of(*rows).count("n<64, n<662: too few samples") == 1
    assert "too few samples" not in bench_of(make_row("single-stream", samples=662))


def test_throughput_is_over_all_single_pairs_or_of_the_median_pass() -> None:
    # 408 pairs in a median of 11 ms, and one pair in a median of 11 ms.
    assert column(titled("offline: all", [make_row("offline", samples=3)]), "pairs/s") == ["37090.9"]
    assert column(titled("offline: details", [make_row("offline", samples=3)]), "ms/ pass") == ["11.00"]
    assert "torch 90.9 11.00" in bench_of(make_row("single-stream", samples=3))
    # Six pairs in 30 ms; their median is 1 ms.
    assert speed(single(samples_ms=(1.0, 1.0, 1.0, 1.0, 1.0, 25.0))) == 200


def test_padding_is_shown_as_a_share_of_the_tokens_of_a_pass() -> None:
    some = on("torch", real_tokens=900, padding_tokens=100)
    none = on("onnx", padding_tokens=0, pass_ms=500)
    assert column(titled("offline: details", [some, none]), "pad.") == ["10%", "0%"]
    assert "pad." not in headers(titled("single-stream: details", [single()]))


def test_energy_is_per_thousand_pairs_of_all_timed_rounds() -> None:
    # 3 rounds of 408 pairs, 662 single pairs, and 1000 + 500 requests.
    assert joules_per_thousand(on("torch", resources=used(gpu_energy_j=122.4))) == pytest.approx(100.0)
    assert joules_per_thousand(single(resources=used(gpu_energy_j=331.0))) == pytest.approx(500.0)
    served = server("torch", load(100), load(200, sent=500), best=100.0, resources=used(gpu_energy_j=30.0))
    assert joules_per_thousand(served) == pytest.approx(20.0)
    assert joules_per_thousand(on("torch", resources=NOTHING)) is None
    assert joules_per_thousand(on("torch", resources=None)) is None


def test_gpu_columns_are_shown_only_if_a_row_has_them() -> None:
    title = "offline: details"
    plain = ["backend", "batch", "ms/ pass", "first ms", "pad.", "limit", "MFU", "acc.", "F1"]
    assert headers(titled(title, [on("torch", resources=NOTHING)])) == plain
    torch = on("torch", peak_memory_bytes=1500 * MIB, resources=used(gpu_energy_j=1224.0))
    onnx = on("onnx", pass_ms=500)
    found = titled(title, [torch, onnx])
    assert headers(found) == [*plain, "GPU MiB", "J/1k"]
    assert column(found, "GPU MiB") == ["1500", "-"]
    assert column(found, "J/1k") == ["1000", "-"]
    assert headers(titled(title, [replace(torch, resources=NOTHING)])) == [*plain, "GPU MiB"]
    alone = ["backend", "p90 ms", "first ms", "limit", "acc.", "F1"]
    assert headers(titled("single-stream: details", [single()])) == alone


@pytest.mark.parametrize("energy", [None, 1224.0])
def test_the_legend_explains_the_columns_that_are_shown(energy: float | None) -> None:
    shown = bench_of(on("torch", resources=used(gpu_energy_j=energy)))
    assert "ms/pass: median time of a pass over all pairs; first ms: first call; pad.: " in shown
    assert ("J/1k: energy of the GPU per 1000 pairs" in shown) == (energy is not None)
    assert "legend" not in bench_of(on("torch"), verbose=False)


def test_by_default_there_is_one_table_per_scenario_with_the_main_figures() -> None:
    taken = {"spans": spans(compute=(1.0,)), "resources": used(gpu_power_w=300.0), "agreement": 1.0}
    rows = [single(**taken), single("onnx", ms=1.0, **taken), on("torch", **taken), on("onnx", pass_ms=204.0, **taken)]
    rows += [server("torch", load(100), best=100.0, **taken), server("onnx", load(200), best=200.0, **taken)]
    alone, offline, served = tables(rows, verbose=False)
    last = ["agree", "validity"]
    assert headers(alone) == ["backend", "pairs/s", "p50 ms", "p99 ms", "speedup", "95% CI", *last]
    assert headers(offline) == ["backend", "batch", "pairs/s", "speedup", "95% CI", *last]
    assert headers(served) == ["backend", "batch", "requests/s", "p50 ms", "p99 ms", "speedup", "range", *last]
    assert [str(table.title) for table in (alone, offline, served)] == [
        "single-stream: one pair at a time; speedup over torch",
        "offline: all pairs, sorted by length; speedup over torch:32",
        "server: random arrivals, p99 within 100 ms; speedup over torch:8",
    ]
    assert [len(table.rows) for table in (alone, offline, served)] == [2, 2, 2]


def test_a_scenario_with_one_row_has_no_speedup() -> None:
    (found,) = tables([single()], verbose=False)
    assert headers(found) == ["backend", "pairs/s", "p50 ms", "p99 ms", "validity"]
    assert str(found.title) == "single-stream: one pair at a time"


def test_validity_is_a_column_and_what_is_invalid_is_one_sentence() -> None:
    rows = [
        on("torch", broken_rules=()),
        on("onnx", 8, broken_rules=("unsteady: the time is known to ±9.0%, at most ±5% is allowed",)),
        on("onnx", 32, broken_rules=("unsteady: x", "drifting: the machine's speed changed; y")),
        on("fake", broken_rules=None),
    ]
    assert column(tables(rows, verbose=False)[0], "validity") == ["VALID", "INVALID", "INVALID", "-"]
    shown = bench_of(*rows, verbose=False)
    assert (
        "2 of 4 rows are INVALID: times varied by more than 5% (2), the machine's speed changed (1); close other "
        "programs or allow more time with `bench --max-seconds`. `-v` shows each."
    ) in shown
    assert "±9.0%" not in shown
    assert "INVALID: onnx offline batch 8: unsteady: the time is known to ±9.0%" in bench_of(*rows)


def test_a_batch_that_the_pairs_do_not_fill_shows_how_many_it_holds() -> None:
    rows = [on("torch", 8, pairs=16), on("torch", 32, 100, pairs=16), server("torch", load(9), best=9.0, pairs=4)]
    assert column(titled("offline: all", rows), "batch") == ["8", "32 (16)"]
    assert column(titled("server: random", rows), "batch") == ["8"]  # requests repeat the pairs


def test_a_speedup_that_differs_from_the_ratio_of_the_rates_is_explained() -> None:
    torch = on("torch", samples_ms=(100.0, 200.0, 300.0, 400.0, 500.0))
    # Twice as fast in each round, and so are the medians; then also twice as fast, but the medians are equal.
    same = on("onnx", samples_ms=(50.0, 100.0, 150.0, 200.0, 250.0))
    noisy = on("onnx", samples_ms=(50.0, 100.0, 300.0, 400.0, 250.0))
    assert "speedup: median of the rounds, paired" not in bench_of(torch, same)
    assert "speedup: median of the rounds, paired" in bench_of(torch, noisy)


def test_a_run_has_one_caption() -> None:
    rows = [single(), on("torch"), on("onnx", pass_ms=500, placement=replace(ONNX, dtype="int8"))]
    shown = bench_of(*rows, verbose=False)
    assert shown.count("tuned (ModernBertForSequenceClassification, 149.6 M, fine-tuned weights)") == 1
    assert (
        "fine-tuned weights); fp32 (onnx: int8) on cpu, 2 threads n = 408 pairs x 3 rounds, mrpc validation;" in shown
    )
    assert shown.count("AMD EPYC 9654 96-Core Processor, 2 cores") == 1
    other = bench_of(single(), on("onnx", placement=replace(ONNX, threads=1)), verbose=False)
    assert "fp32 (onnx: fp32 on cpu, 1 thread) on cpu, 2 threads" in other


def test_a_benchmark_names_the_engines_and_the_rounds() -> None:
    onnx = make_row(spec=BackendSpec(backend="onnx"), placement=ONNX, model=PROVEN)
    shown = bench_of(make_row(), onnx)
    assert "peak main memory" in shown
    assert "torch = torch 2.13.0 sdpa fp32 on cpu, 2 threads" in shown
    assert "onnx = onnxruntime 1.31.0 CPUExecutionProvider fp32 on cpu, 2 threads" in shown
    assert "n = 408 pairs x 3 rounds, mrpc validation; AMD EPYC 9654 96-Core Processor, 2 cores" in shown
    assert "UNVERIFIED" not in shown


def test_an_unverified_graph_is_labelled_in_its_row_and_below() -> None:
    onnx = make_row(spec=BackendSpec(backend="onnx"), placement=ONNX, model=UNVERIFIED)
    shown = bench_of(make_row(), onnx)
    assert "onnx UNVERIFIED" in shown
    assert "UNVERIFIED: the graph of tuned did not pass the export gate" in shown
    assert bench_of(onnx, replace(onnx, batch_size=8)).count("UNVERIFIED: ") == 1


def test_an_invalid_row_is_marked_in_every_table_of_details() -> None:
    rules = {"broken_rules": ("unsteady",), "spans": spans(compute=(1.0,)), "resources": used(gpu_power_w=300.0)}
    rows = [on("torch", **rules), server("onnx", load(100), best=100.0, **rules)]
    assert [column(table, "backend") for table in tables(rows)] == [
        *(["torch"], ["onnx"]),  # the scenarios, which have a column for it
        *(["torch!"], ["onnx!"]),  # their details
        *(["torch!"], ["onnx!"]),  # where their time went
        ["torch!", "onnx!"],  # the resources
    ]


def test_accuracy_of_random_weights_is_called_meaningless() -> None:
    assert "accuracy and F1 are meaningless" in bench_of(make_row(model=RANDOM))
    assert "accuracy and F1 are meaningless" not in bench_of(make_row())


def test_a_benchmark_without_rows_can_be_shown() -> None:
    record = make_record("bench", complete=False, bench=make_bench(rows=(), rounds_done=0))
    stream = StringIO()
    Console(file=stream, width=100).print(render.render(record))
    assert stream.getvalue().startswith("INCOMPLETE")


# --- the order of the rows, and the fastest ---------------------------------------------------------------------------


def lines(rows: Sequence[BenchRow], title: str = "offline: all") -> list[str]:
    """BACKEND:BATCH of each line, with a star for a bold one."""
    table = titled(title, rows)
    names = zip(column(table, "backend"), column(table, "batch"), table.rows, strict=True)
    return [f"{name}:{batch}{'*' if line.style == 'bold' else ''}" for name, batch, line in names]


def test_rows_keep_the_requested_order_and_the_fastest_is_bold() -> None:
    rows = [on("torch", 8, 400), on("torch", 32, 100), on("onnx", 8, 300)]
    assert lines(rows) == ["torch:8", "torch:32*", "onnx:8"]


def test_tied_rows_are_both_bold_and_a_single_row_is_not() -> None:
    tied = [on("torch", 8, 300), on("torch", 32, 100), on("onnx", 32, 100)]
    assert lines(tied) == ["torch:8", "torch:32*", "onnx:32*"]
    assert lines(tied[1:]) == ["torch:32", "onnx:32"]
    assert lines(tied[:1]) == ["torch:8"]


def test_the_details_of_a_server_have_every_load_and_the_best_of_each_row_is_bold() -> None:
    slow = server("torch", load(50, 1.0), load(100, 3.0), load(400, 99.0, meets=False), best=100.0)
    fast = server("onnx", load(300, 5.0), load(200, 4.0), best=300.0)
    none = server("fake", load(900, 99.0, meets=False), best=None)
    rows = (slow, none, fast)
    title = "server: every load"
    assert lines(rows, title) == "torch:8 torch:8* torch:8 fake:8 onnx:8 onnx:8*".split()
    found = titled(title, rows)
    assert column(found, "requests/s") == ["50.0", "100.0", "400.0", "900.0", "200.0", "300.0"]
    assert column(found, "target") == ["met", "best", "missed", "missed", "met", "best"]
    main = titled("server: random", rows)
    assert column(main, "requests/s") == ["100.0", "-", "300.0"]
    assert column(main, "p99 ms") == ["3.00", "-", "5.00"]
    assert lines(rows, "server: random") == ["torch:8", "fake:8", "onnx:8*"]


# --- --relative-to ----------------------------------------------------------------------------------------------------


def speedups(title: str, rows: Sequence[BenchRow], *names: str) -> list[str]:
    """The title of a table up to its reference row, and the column of speedups."""
    found = titled(title, rows, BenchView(relative_to=names))
    return [str(found.title).split("speedup over ")[1], *column(found, "speedup")]


ROWS = [
    *(on("torch", 8, 816), on("torch", 32, 408), on("onnx", 8, 204)),
    *(single("torch", ms=2.0), single("onnx", ms=1.0)),
    *(server("torch", load(100), best=100.0), server("torch", load(80), best=80.0, batch_size=32)),
]


def test_a_speedup_is_over_the_row_that_the_title_names() -> None:
    rows = [on("torch", 8, 816), on("torch", 32, 408), on("onnx", 8, 406), on("onnx", 32, 1632)]
    assert speedups("offline: all", rows, "torch:8") == ["torch:8", "1.00x", "2.00x", "2.01x", "0.50x"]
    found = titled("offline: all", rows, BenchView(relative_to=("torch:8",)))
    assert column(found, "95% CI") == ["reference", "n<5", "n<5", "n<5"]


def test_a_backend_name_selects_its_fastest_row_of_each_table() -> None:
    assert speedups("offline: all", ROWS, "torch") == ["torch:32", "0.50x", "1.00x", "2.00x"]
    assert speedups("single-stream: one", ROWS, "torch") == ["torch", "1.00x", "2.00x"]
    assert speedups("server: random", ROWS, "torch") == ["torch:8", "1.00x", "0.80x"]


def test_without_a_reference_row_the_first_case_is_the_reference() -> None:
    for names in ((), ("onnx:1",)):
        assert speedups("offline: all", ROWS, *names)[0] == "torch:32"
    assert speedups("single-stream: one", ROWS, "onnx:1") == ["onnx", "0.50x", "1.00x"]


def test_only_the_details_have_the_speedups_over_further_references() -> None:
    view = BenchView(relative_to=("onnx:8", "torch:8"))
    assert speedups("offline: all", ROWS, *view.relative_to)[0] == "onnx:8"
    found = titled("offline: speedup", ROWS, view)
    assert column(found, "x onnx offline batch 8") == ["0.25x", "0.50x", "1.00x"]
    assert column(found, "x torch offline batch 8") == ["1.00x", "2.00x", "4.00x"]
    assert not [table for table in tables(ROWS, view, verbose=False) if "offline: speedup" in str(table.title)]
    assert not [table for table in tables(ROWS, BenchView(relative_to=("torch",))) if ": speedup" in str(table.title)]


def test_a_server_has_the_range_of_the_ratio_of_its_best_loads() -> None:
    # 100 to 110 and 250 to 275 requests/s: a ratio of 250 / 110 to 275 / 100.
    torch = server("torch", load(100), load(110, meets=False), best=100.0)
    onnx = server("onnx", load(250), load(275, meets=False), best=250.0)
    open_ended = server("fake", load(50), best=50.0)
    unmet = server("packed", load(50, meets=False), best=None)
    found = titled("server: random", [torch, onnx, open_ended, unmet])
    assert column(found, "speedup") == ["1.00x", "2.50x", "0.50x", "-"]
    assert column(found, "range") == ["reference", "2.27 to 2.75", "-", "-"]


PLAN = BenchPlan(backend=("torch", "onnx", "torch"), batch_size=(8, 32))


def check(plan: BenchPlan, *names: str) -> None:
    check_view(BenchView(relative_to=names), suite_of_backends(BackendSpec(), plan))


@pytest.mark.parametrize(
    "names",
    [(), ("torch",), ("onnx", "torch:1"), ("torch:8", "onnx:32"), ("torch offline batch 8", "onnx single-stream")],
)
def test_any_row_of_the_run_can_be_the_reference(names: tuple[str, ...]) -> None:
    check(PLAN, *names)


@pytest.mark.parametrize("name", ["fake", "torch:64", "TORCH", "torch server batch 8", "torch offline batch 64"])
def test_an_unknown_reference_row_is_refused_with_the_rows_of_the_run(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        check(PLAN, "onnx", name)
    assert str(raised.value) == (
        f"--relative-to {name}: no row of this run; "
        "name one of torch single-stream, torch offline batch 8, torch offline batch 32, "
        "onnx single-stream, onnx offline batch 8, onnx offline batch 32"
    )


@pytest.mark.parametrize("name", ["torch:", "torch:08", ":8", "", "torch:8:8", "torch offline"])
def test_an_invalid_row_name_is_refused_with_the_valid_forms(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        check(PLAN, name)
    assert str(raised.value) == (
        f"--relative-to: {name!r} is not a row; write it as 'onnx offline batch 32' or 'onnx single-stream', "
        "or as CASE or CASE:BATCH"
    )


def test_single_stream_has_a_batch_size_of_one() -> None:
    for scenario in ("offline", "server"):
        with pytest.raises(UsageError, match=f"name one of torch {scenario} batch 8, torch {scenario} batch 32, onnx"):
            check(replace(PLAN, scenario=(scenario,)), "torch:1")
    with pytest.raises(UsageError, match=r"name one of torch single-stream, onnx single-stream$"):
        check(replace(PLAN, scenario=("single-stream",)), "torch:8")


# --- cases of a preset ------------------------------------------------------------------------------------------------


def named(name: str, order: Order | None = None, **changes: Any) -> BenchRow:
    return on("torch", case=name, order=order, **changes)


def test_the_tables_show_the_name_of_a_case() -> None:
    taken = spans(compute=(1.0,))
    rows = [named("sorted", spans=taken), named("unsorted", pass_ms=500, spans=taken, broken_rules=("unsteady",))]
    for title, mark in (("offline: all", ""), ("offline: details", "!"), ("time breakdown", "!")):
        assert column(titled(title, rows), "case") == ["sorted", f"unsorted{mark}"]
    shown = bench_of(*rows)
    assert "sorted, unsorted = torch 2.13.0 sdpa fp32 on cpu, 2 threads" in shown
    assert "INVALID: unsorted offline batch 32: unsteady" in shown
    assert headers(titled("offline: all", [named("torch")]))[0] == "backend"


def test_a_graph_that_differs_from_the_records_is_named_with_its_placement() -> None:
    graph = replace(PROVEN, optimize="cpu")
    shown = bench_of(on("torch"), on("onnx", placement=ONNX, model=graph))
    assert "onnx = onnxruntime 1.31.0 CPUExecutionProvider fp32 on cpu, 2 threads, cpu graph" in shown
    assert "torch = torch 2.13.0 sdpa fp32 on cpu, 2 threads onnx = " in shown


@pytest.mark.parametrize(
    ("orders", "title"),
    [
        (("length", "length"), "offline: all pairs, sorted by length"),
        (("given", "given"), "offline: all pairs, in the order given"),
        (("length", "given"), "offline: all pairs, in two orders"),
    ],
)
def test_a_title_says_sorted_only_if_all_rows_are(orders: Sequence[Order | None], title: str) -> None:
    rows = [named(f"n{place}", order) for place, order in enumerate(orders)]
    assert str(tables(rows)[0].title) == f"{title}; speedup over n0:32"
    said = "in the order given: n1; the others sorted by length" in bench_of(*rows)
    assert said == ("two" in title)


def test_agreement_names_its_reference_and_is_100_percent_only_if_exact() -> None:
    rows = [named("a", agreement=1.0), named("b", pass_ms=500, agreement=0.99975), named("c", pass_ms=600)]
    reference = ReferenceAnswers(row="a offline batch 32", labels="01")
    record = make_record("bench", bench=make_bench(rows=tuple(rows), reference=reference))
    shown, *others = bench(record, PLAIN)
    assert isinstance(shown, PlainTable)
    assert column(shown, "agree") == ["100%", "99.9%", "-"]
    assert "agree: label agreement with a offline batch 32" in " ".join(map(str, others))
    assert "agree" not in headers(titled("offline: all", [rows[2]]))


def test_mfu_is_the_share_of_arithmetic_and_autocast_uses_the_peak_of_its_products() -> None:
    # In 408 ms: 40.8 of 100 FLOP/s are 100%, and 20.4 of 100 bytes/s 50%; the limit is the longer.
    ceilings = Ceilings(device="cpu", dtype="bf16", flops_per_s=100.0, bytes_per_s=100.0)
    place = replace(TORCH, dtype="bf16-autocast")
    moving = named("moving", placement=place, work=Work(flops=20.4, moved_bytes=40.8))
    computing = named("computing", placement=place, pass_ms=500, work=Work(flops=40.0, moved_bytes=1.0))
    record = make_record("bench", bench=make_bench(rows=(moving, computing), ceilings=(ceilings,)))
    _, found = (part for part in bench(record, PLAIN, verbose=True) if isinstance(part, PlainTable))
    assert column(found, "limit") == ["100%", "80%"]
    assert column(found, "MFU") == ["50%", "80%"]


# --- time breakdown ----------------------------------------------------------------------------------------------


def test_spans_are_shown_as_the_mean_per_pair_next_to_the_timed_figure() -> None:
    # Thirteen batches of 32 are 408 pairs, because the last has 24: 40.8 ms are 100 us each.
    offline = on(
        "torch",
        spans=spans(
            tokenise=(40.8,), batch=(0.6,) * 12 + (0.96,), copy_in=(0.0,) * 12 + (0.816,), compute=(100.0,) * 13
        ),
    )
    # 100 single pairs of 408.
    alone = single(
        "onnx", ms=5.0, spans=spans(batch=(0.002,) * 100, compute=(110.0,) * 100, copy_out=(0.25, 0.15) * 50)
    )
    names = "backend batch tokenise batching copy_in compute copy_out sum tok. timed"
    wanted = {
        "single-stream": "onnx 1 - 2.0 - 110000 200.0 110202 - 5000",
        # 1300 ms / 408 = 3186.3; sum = 100 + 20 + 2 + 3186.3; timed: 408 ms a pass.
        "offline": "torch 32 100.0 20.0 2.0 3186 - 3308 3% 1000",
    }
    for scenario, line in wanted.items():
        found = titled(f"time breakdown, {scenario}: µs per pair", [offline, alone])
        assert [header.replace(" ", "_") for header in headers(found)] == names.split()
        assert [cell for header in headers(found) for cell in column(found, header)] == line.split()


@pytest.mark.parametrize(
    ("scenario", "batch_size", "calls", "pairs"),
    [
        ("single-stream", 1, 100, 100),
        ("single-stream", 1, 408, 408),
        ("offline", 32, 13, 408),
        ("offline", 8, 51, 408),
        ("offline", 500, 1, 408),
        ("server", 4, 100, 400),
        ("server", 8, 51, 408),
    ],
)
def test_the_pairs_that_spans_cover_follow_from_the_batches_computed(
    scenario: str, batch_size: int, calls: int, pairs: int
) -> None:
    taken = spans(tokenise=(1.0,), batch=(1.0,) * calls, compute=(1.0,) * calls)
    row = make_row(scenario, batch_size=batch_size, spans=taken)
    assert pairs_in_spans(row) == pairs
    assert span_us(row)["tokenise"] == pytest.approx(1000 / pairs)


def test_missing_spans_make_no_table_and_no_line() -> None:
    taken, none, empty = on("torch", 8, spans=spans(compute=(51.0,) * 51)), on("torch", 16), on("torch", 32, spans=())
    assert column(titled("time", [taken, none, empty]), "batch") == ["8"]
    assert "time breakdown" not in bench_of(none, empty)
    assert span_us(none) == {}
    # Interrupted before any call was computed.
    assert column(titled("time", [replace(taken, spans=spans(tokenise=(1.0,)))]), "sum") == ["-"]


def test_a_server_has_no_timed_figure_next_to_its_spans() -> None:
    served = server("torch", load(100), best=100.0, spans=spans(compute=(51.0,) * 51))
    found = titled("time", [served])
    assert column(found, "compute") == ["6375"]  # 51 * 51 / 408 ms
    assert column(found, "timed") == ["-"]


def test_spans_follow_the_order_of_the_tables_and_have_a_caption() -> None:
    taken = {"spans": spans(compute=(1.0,))}
    rows = [on("torch", 8, 500, **taken), on("torch", 32, 100, **taken), single(**taken)]
    shown = [str(table.title).split(":")[0] for table in tables(rows)]
    assert shown == [
        *("single-stream", "offline") * 2,
        *("time breakdown, single-stream", "time breakdown, offline"),
    ]
    offline = "time breakdown, offline"
    assert column(titled(offline, rows), "batch") == ["8", "32"]
    caption = "`timed` is copy in, compute and copy out in the timed rounds"
    assert bench_of(*rows).count(caption) == 1


# --- resources --------------------------------------------------------------------------------------------------------


def test_each_row_has_a_line_of_sensor_readings_with_absent_ones_marked() -> None:
    everything = used(
        rss_bytes=3000 * MIB,
        cpu_utilisation=1.04,
        gpu_memory_process_bytes=2600 * MIB,
        gpu_clock_mhz=1755.4,
        gpu_temperature_c=61,
        gpu_power_w=512.34,
        gpu_energy_j=122.4,
    )
    full = on("torch", peak_memory_bytes=1500 * MIB, peak_reserved_bytes=2000 * MIB, resources=everything)
    empty = on("onnx", 8, pass_ms=500, resources=NOTHING)
    none = single(resources=None)
    found = titled("resources", [full, empty, none])
    assert headers(found) == [
        *("backend", "scenario", "batch", "GPU MiB in use", "reserved", "process"),
        *("MHz", "°C", "W", "J/1k", "cores", "RSS MiB"),
    ]
    lines = list(zip(*(column(found, header) for header in headers(found)), strict=True))
    assert lines[0] == ("torch", "single-stream", "1", *"---------")
    assert lines[1] == tuple("torch offline 32 1500 2000 2600 1755 61 512.3 100.0 1.0 3000".split())
    assert lines[2] == ("onnx", "offline", "8", *"---------")


def test_without_gpu_sensors_there_is_no_table_of_resources() -> None:
    cpu = used(rss_bytes=3000 * MIB, cpu_utilisation=1.04)
    assert "resources" not in bench_of(on("torch", resources=cpu), on("onnx", resources=None))


def test_the_cold_cost_has_a_column_if_an_engine_has_one() -> None:
    warm, cold = on("torch", 8, first_ms=40.25), on("torch-packed", 8, 100, first_ms=20.0, cold_ms=1234.56)
    assert column(titled("offline: details", [warm]), "first ms") == ["40.2"]
    both = titled("offline: details", [warm, cold])
    assert column(both, "cold ms") == ["40.2", "1234.6"]
    assert "first ms" not in headers(both)
    assert column(titled("single-stream: details", [single(cold_ms=5.0)]), "cold ms") == ["5.0"]


def test_the_header_of_a_speedup_has_several_lines() -> None:
    view = BenchView(relative_to=("torch-packed:128", "torch"))
    found = titled("offline: speedup", [on("torch-packed", 128), on("torch", 8)], view)
    assert [str(one.header) for one in found.columns][2] == "x torch-\npacked\noffline\nbatch 128"


# --- width ------------------------------------------------------------------------------------------------------------


def widest() -> list[BenchRow]:
    """Rows on a GPU with every column, every mark and large numbers."""
    # 25000 pairs/s; and 15, whose median is 66.66 ms.
    ones = {"torch-packed": (0.04,) * 1224, "onnx": (9.87, 123.45) * 612}
    gpu = "cuda NVIDIA H200 NVL"
    places = {
        "torch-packed": replace(
            TORCH, device=gpu, provider="packed, varlen attention, CUDA graphs", dtype="bf16", threads=16
        ),
        "onnx": replace(ONNX, device=gpu, provider="CUDAExecutionProvider", dtype="fp16", threads=16),
    }
    held = used(
        rss_bytes=64_000 * MIB,
        cpu_utilisation=15.9,
        gpu_memory_process_bytes=143_700 * MIB,
        gpu_clock_mhz=1980.0,
        gpu_temperature_c=88,
        gpu_power_w=699.9,
    )
    common: dict[str, Any] = {
        "agreement": 0.9975,
        "work": Work(flops=1e9, moved_bytes=1.0),
        "first_ms": 1234.5,
        "peak_memory_bytes": 143_000 * MIB,
        "peak_reserved_bytes": 143_500 * MIB,
        "broken_rules": ("unsteady: the rounds vary by 12%",),
        "real_tokens": 100,
        "padding_tokens": 100,
    }
    rows: list[BenchRow] = []
    for backend in ("torch-packed", "onnx"):
        mine = common | {"placement": places[backend], "model": UNVERIFIED if backend == "onnx" else MODEL}
        mine["cold_ms"] = None if backend == "onnx" else 12345.6
        taken = spans(
            tokenise=(0.3,), batch=(0.2,) * 13, copy_in=(0.2,) * 13, compute=(110.0 * 32,) * 13, copy_out=(0.1,) * 13
        )
        rows += [
            single(
                backend,  # type: ignore[arg-type]
                samples_ms=ones[backend],
                resources=replace(held, gpu_energy_j=9999.0 * 1.224),
                spans=spans(batch=(0.1,) * 100, compute=(110.0,) * 100, copy_out=(0.1,) * 100),
                **mine,
            ),
            on(backend, 8, 31_234.5, resources=replace(held, gpu_energy_j=99999.0 * 1.224), spans=taken, **mine),  # type: ignore[arg-type]
            on(backend, 128, 15.6, resources=replace(held, gpu_energy_j=20.0), spans=taken, **mine),  # type: ignore[arg-type]
            server(
                backend,  # type: ignore[arg-type]
                *(load(25_876.5, 12.3), load(51_753.1, 1234.5, meets=False, sent=51_754)),
                best=25_876.5,
                batch_size=128,
                resources=replace(held, gpu_energy_j=20.0),
                spans=taken,
                **mine,
            ),
        ]
    return rows


def cells(rows: Sequence[BenchRow], view: BenchView) -> list[list[str]]:
    """The numbers of each table as printed, at any width."""
    return [
        [str(cell) for one in table.columns for cell in one.cells if any(char.isdigit() for char in str(cell))]
        for table in tables(rows, view)
    ]


@pytest.mark.parametrize("relative_to", [(), ("onnx",), ("onnx:8", "torch-packed:8")])
def test_the_widest_tables_fit_100_columns_and_no_number_is_cut(relative_to: tuple[str, ...]) -> None:
    rows, view = widest(), BenchView(relative_to=relative_to)
    assert len(tables(rows, view)) == 3 + 3 + 3 + 1 + (len(relative_to) > 1)
    shown = text_of(rows, view, width=100)
    assert max(map(len, shown.splitlines())) <= 100
    assert "…" not in shown
    # Uncut on one line, with its marks.
    for rate in ("15.0", "26153.8", "25876.5"):
        assert any("onnx UNVERIFIED " in line and f" {rate} " in line for line in shown.splitlines())
    for numbers in cells(rows, view):
        assert numbers
        assert all(any(number in line for line in shown.splitlines()) for number in numbers)


@pytest.mark.parametrize("relative_to", [(), ("onnx:8", "torch-packed:8")])
def test_the_tables_of_a_cpu_fit_80_columns_and_no_number_is_cut(relative_to: tuple[str, ...]) -> None:
    view = BenchView(relative_to=relative_to)
    rows = [
        replace(row, peak_memory_bytes=None, resources=None, cold_ms=1234.5 if row.cold_ms else None)
        for row in widest()
    ]
    proven = [replace(row, model=MODEL if row.spec.backend == "torch-packed" else PROVEN) for row in rows]
    steady = [replace(row, spans=None) for row in rows if row.scenario != "server"]
    loaded = [replace(row, spans=spans(compute=(11.0 * row.batch_size,) * 3)) for row in rows]
    for some in (proven, steady, *([] if relative_to else [loaded])):
        shown = text_of(some, view, width=80)
        assert max(map(len, shown.splitlines())) <= 80
        assert "…" not in shown
        for numbers in cells(some, view):
            assert all(any(number in line for line in shown.splitlines()) for number in numbers)


def test_a_long_name_wraps_and_is_not_cut() -> None:
    shown = text_of([on("torch-packed", 128), on("torch-compile", 128)], width=66)
    names = "".join(line[:13].strip() for line in shown.splitlines())
    assert "torch-packedtorch-compile" in names


def test_a_hyphenated_name_wraps_after_a_hyphen() -> None:
    shown = text_of([named("optimum-fp32-unsorted"), named("other", pass_ms=500)], width=60).splitlines()
    assert any(line.startswith("optimum-fp32- ") for line in shown)
    assert any(line.strip() == "unsorted" for line in shown)


def test_columns_are_two_spaces_apart_or_one_on_a_narrow_terminal() -> None:
    rows = widest()
    assert "pairs/s  p50 ms  p99 ms  speedup " in text_of(rows, width=110)
    assert "pairs/s p50 ms p99 ms speedup " in text_of(rows, width=76)
    assert "  p50 ms  p99 ms  validity" in text_of([single()], width=80)


@pytest.mark.parametrize("name", ["bench.json", "bench-server.json"])
def test_the_records_in_the_repository_can_be_shown_on_80_columns(name: str) -> None:
    record = store.load(REPOSITORY / "results" / "quickstart" / name)
    stream = StringIO()
    Console(file=stream, width=80).print(render.render(record, BenchView(relative_to=("torch",))))
    assert "…" not in stream.getvalue()
    assert "1.00x" in stream.getvalue()


# --- the command line -------------------------------------------------------------------------------------------------


FAKE = ("bench", "--backend", "fake", "--model", "quickstart", "--data", "quickstart")


def test_a_wrong_reference_wastes_no_measurement(mrpcbench: Callable[..., Outcome], tmp_path: Path) -> None:
    done = mrpcbench(*FAKE, "--relative-to", "torch:8")
    assert done.status == 2
    assert (
        "--relative-to torch:8: no row of this run; name one of fake single-stream, fake offline batch 8, " in done.err
    )
    assert not list(tmp_path.iterdir())


def test_the_options_reach_the_tables(mrpcbench: Callable[..., Outcome]) -> None:
    quick = (*FAKE, "--scenario", "offline", "--pairs", "8", "--rounds", "1", "--max-seconds", "0")
    done = mrpcbench(*quick, "--relative-to", "fake:8")
    assert done.status == 0, done.err
    assert "speedup over fake:8" in done.out
    assert "details" not in done.out
    assert "offline: details" in mrpcbench("-v", *quick).out
