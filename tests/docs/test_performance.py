"""What docs/performance.md says is what its records say; test_benchmark_scripts.py has the goals on a GPU."""

import json
import re
from statistics import median
from typing import Any

import pytest
from conftest import REPOSITORY

from mrpcbench.records import store
from mrpcbench.records.figures import pairs_per_s, relative_speed, stepping_s, steps_per_s
from mrpcbench.schema.bench_results import BenchRow, BenchSection
from mrpcbench.schema.records import BenchRecord, TrainRecord

PAGE = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
GRAPHS: dict[str, Any] = json.loads(
    (REPOSITORY / "docs" / "benchmarks" / "cpu-graphs.json").read_text(encoding="utf-8")
)
PEERS = REPOSITORY / "results" / "peers-cpu"
GPU = REPOSITORY / "results" / "h200"
# Each record of peers, and the case that its speedups are relative to.
BASES = {"bench.json": "hf-autocast", "bf16.json": "hf-autocast-sorted"}


def graphs_line(row: dict[str, Any]) -> str:
    """A comparison of docs/benchmarks/cpu_graphs.py as a line of the page's table."""
    goal = f"≥ {row['least']}x" if row["least"] else f"≤ {row['most']}x"
    low, high = row["interval"]["low"], row["interval"]["high"]
    met = "yes" if row["met"] else "no"
    return (
        f"| {row['what']} | {goal} | {row['ratio']:.3f} ({low:.3f} to {high:.3f}) | {met} "
        f"| {row['pairs']} x {row['rounds']} |"
    )


def peers(name: str) -> BenchSection:
    section = store.load(PEERS / name).bench
    assert section is not None
    return section


def peers_line(row: BenchRow, base: BenchRow) -> str:
    """A row of the preset as a line of the page's table."""
    found = relative_speed(row, base)
    assert found is not None
    times = "1" if row is base else f"{found.times:.2f}"
    if found.interval and row is not base:
        times += f" ({found.interval.low:.2f} to {found.interval.high:.2f})"
    agreement = "" if row.agreement is None else f"{row.agreement:.1%}"
    mark = " !" if row.broken_rules else ""
    return f"|`{row.case}`{mark}|{row.batch_size}|{pairs_per_s(row):.2f}|{times}|{agreement}|"


@pytest.mark.parametrize("row", GRAPHS["rows"], ids=lambda row: row["what"])
def test_every_comparison_of_graphs_is_in_the_table_as_it_was_recorded(row: dict[str, Any]) -> None:
    assert graphs_line(row) in PAGE


@pytest.mark.parametrize("name", BASES)
def test_every_valid_offline_row_of_the_peers_is_in_the_table_as_it_was_recorded(name: str) -> None:
    rows = [row for row in peers(name).rows if row.scenario == "offline" and not row.broken_rules]
    (base,) = (row for row in rows if row.case == BASES[name])
    missing = [line for row in rows if (line := peers_line(row, base)) not in PAGE]
    assert not missing


def test_the_records_say_that_the_weights_are_random() -> None:
    assert GRAPHS["weights"] == "random-init"
    assert {row.model.weights for name in BASES for row in peers(name).rows} == {"random-init"}
    assert "random-init" in PAGE


def thousands(name: str, case: str, batch: int) -> str:
    """Thousands of pairs/s of an offline row of a record of the GPU."""
    rows = store.load_as(BenchRecord, GPU / name).bench.rows
    (row,) = (row for row in rows if (row.case, row.batch_size) == (case, batch))
    assert not row.broken_rules
    return f"{pairs_per_s(row) / 1e3:.1f}"


def test_the_trainings_on_the_gpu_are_as_they_were_recorded() -> None:
    found = [store.load_as(TrainRecord, path).train for path in sorted(GPU.glob("train-*.json"))]
    packed, trainer = (
        [section for section in found if section.recipe.engine == engine] for engine in ("packed", "trainer")
    )
    rates = [median(steps_per_s(section) or 0 for section in engine) for engine in (packed, trainer)]
    assert f"{rates[0]:.0f} steps/s with `packed`, {rates[1]:.1f} with `trainer`" in PAGE
    assert f"The 230 steps of `packed` take {median(stepping_s(section) or 0 for section in packed):.1f} s" in PAGE


def test_the_rates_on_the_gpu_are_as_they_were_recorded() -> None:
    sizes = [thousands("bench-batch-sizes.json", "torch-packed", batch) for batch in (32, 128, 512)]
    assert "{} thousand pairs/s at 32, {} at 128, {} at 512".format(*sizes) in PAGE
    compiled, packed = (
        thousands("bench-compile-offline.json", case, 512) for case in ("torch-compile", "torch-packed")
    )
    assert f"`torch-compile` at 512: {compiled} thousand pairs/s; `torch-packed` beside it: {packed}." in PAGE


def test_the_speedups_of_the_triton_kernels_are_those_of_the_log() -> None:
    log = (GPU / "fused-kernels.txt").read_text(encoding="utf-8")
    pairs = [tuple(map(float, found)) for found in re.findall(r"\bp50 ([\d.]+) \| ([\d.]+) ms", log)]
    (one, one_before), _, (all_, all_before) = pairs
    assert f"{all_before / all_:.2f}x on 408 pairs ({all_before:.1f} to {all_:.1f} ms" in PAGE
    assert f"{one_before / one:.2f}x on one ({one_before:.3f} to {one:.3f} ms)" in " ".join(PAGE.split())
    steps = [float(found) for found in re.findall(r"then ([\d.]+) steps/s", log)]
    assert f"{steps[0] / steps[1]:.2f}x in training ({steps[1]:.0f} to {steps[0]:.0f} steps/s)" in PAGE
