"""What docs/performance.md says of a CPU is what its records say."""

import json
from typing import Any

import pytest
from conftest import REPOSITORY

from mrpcbench.records import store
from mrpcbench.records.figures import pairs_per_s, relative_speed
from mrpcbench.schema.bench_results import BenchRow, BenchSection

PAGE = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
GRAPHS: dict[str, Any] = json.loads(
    (REPOSITORY / "docs" / "benchmarks" / "cpu-graphs.json").read_text(encoding="utf-8")
)
PEERS = REPOSITORY / "results" / "peers-cpu"
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
