"""The goals of docs/performance.md on a GPU, and the tables of what was measured. Every figure is from a record."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from mrpcbench.errors import UsageError
from mrpcbench.records import store
from mrpcbench.records.figures import (
    flops_share,
    pairs_per_s,
    percentile_ms,
    relative_speed,
    row_share,
    stepping_s,
    steps_per_s,
)
from mrpcbench.schema.bench_results import BenchRow, BenchSection
from mrpcbench.schema.records import BenchRecord, ExportRecord, Record, TrainRecord
from mrpcbench.schema.results import ExportSection, TrainSection

UNKNOWN = "not measured"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A goal, and how its figure is read from the records."""

    what: str
    least: float
    unit: str
    figure: Callable[["Records"], float | None]
    is_most: bool = False


@dataclass(frozen=True, kw_only=True)
class Records:
    """The training runs by engine, the benchmarks and the exports of the stages that have run; each may be empty."""

    trainings: Mapping[str, Sequence[TrainSection]] = field(default_factory=dict)
    benches: Sequence[BenchSection] = ()
    exports: Sequence[ExportSection] = ()

    def rows(self, case: str, scenario: str, batch: int | None = None) -> Iterator[tuple[BenchSection, BenchRow]]:
        """The row of a case in each benchmark that has it, by default the one of its fastest batch size."""
        for bench in self.benches:
            rows = [
                row
                for row in bench.rows
                if (row.case, row.scenario) == (case, scenario) and batch in (None, row.batch_size)
            ]
            if rows:
                yield bench, max(rows, key=pairs_per_s)

    def beside(
        self, case: str, other: str, scenario: str, batch: int | None = None
    ) -> Iterator[tuple[BenchRow, BenchRow]]:
        """The rows of `case` and `other` in each benchmark that has both."""
        bases = {id(bench): row for bench, row in self.rows(other, scenario, batch)}
        for bench, row in self.rows(case, scenario, batch):
            if base := bases.get(id(bench)):
                yield row, base

    def times(self, case: str, other: str, scenario: str, batch: int | None = None) -> float | None:
        """Speedup of `case` over `other` in the same benchmark."""
        found = (relative_speed(row, base) for row, base in self.beside(case, other, scenario, batch))
        return next((speed.times for speed in found if speed), None)

    def p50_ms(self, case: str) -> float | None:
        """Median time of a single pair."""
        return next((percentile_ms(row, 0.5) for _, row in self.rows(case, "single-stream")), None)

    def p50_times(self, case: str, other: str) -> float | None:
        """Median time of a single pair of `other` over that of `case`, in the same benchmark."""
        both = self.beside(case, other, "single-stream")
        return next((over(percentile_ms(base, 0.5), percentile_ms(row, 0.5)) for row, base in both), None)

    def rate(self, engine: str) -> float | None:
        """Optimiser steps per second, the median of an engine's runs."""
        found = [rate for section in self.trainings.get(engine, ()) if (rate := steps_per_s(section))]
        return median(found) if found else None

    def wall_s(self, engine: str) -> float | None:
        """Seconds of a training with its one-time work and evaluations, without its saves; median over the runs."""
        found = [
            section.train_s - (section.save_s or 0)
            for section in self.trainings.get(engine, ())
            if section.train_s is not None
        ]
        return median(found) if found else None

    def share_of_peak(self, case: str) -> float | None:
        """MFU of a case at its best batch."""
        return next((row_share(row, bench.ceilings, flops_share) for bench, row in self.rows(case, "offline")), None)


def over(one: float | None, other: float | None) -> float | None:
    """A ratio of two figures that may be unknown."""
    return None if one is None or not other else one / other


GOALS = (
    Goal(
        what="training, optimiser steps/s, packed over trainer",
        least=3.5,
        unit="x",
        figure=lambda found: over(found.rate("packed"), found.rate("trainer")),
    ),
    Goal(
        what="training, wall clock without saves, trainer over packed",
        least=3,
        unit="x",
        figure=lambda found: over(found.wall_s("trainer"), found.wall_s("packed")),
    ),
    Goal(
        what="training, wall clock without saves, packed",
        least=2,
        unit=" s",
        figure=lambda found: found.wall_s("packed"),
        is_most=True,
    ),
    Goal(
        what="one pair, p50, hf-bf16-sorted over torch-packed",
        least=6,
        unit="x",
        figure=lambda found: found.p50_times("torch-packed", "hf-bf16-sorted"),
    ),
    Goal(
        what="one pair, p50, torch-packed",
        least=0.7,
        unit=" ms",
        figure=lambda found: found.p50_ms("torch-packed"),
        is_most=True,
    ),
    Goal(
        what="pairs/s at the best batch, torch-packed over hf-autocast",
        least=4,
        unit="x",
        figure=lambda found: found.times("torch-packed", "hf-autocast", "offline"),
    ),
    Goal(
        what="pairs/s at the best batch, torch-packed over hf-bf16-sorted",
        least=1.6,
        unit="x",
        figure=lambda found: found.times("torch-packed", "hf-bf16-sorted", "offline"),
    ),
    Goal(
        what="MFU at the best batch, torch-packed",
        least=0.5,
        unit="",
        figure=lambda found: found.share_of_peak("torch-packed"),
    ),
    Goal(
        what="one pair, onnx-cuda over optimum-fp32",
        least=4.5,
        unit="x",
        figure=lambda found: found.times("onnx-cuda", "optimum-fp32", "single-stream"),
    ),
    Goal(
        what="batch 32, onnx-cuda over optimum-fp32",
        least=4,
        unit="x",
        figure=lambda found: found.times("onnx-cuda", "optimum-fp32", "offline", 32),
    ),
    Goal(
        what="one pair, onnx-cuda over optimum-o4",
        least=3,
        unit="x",
        figure=lambda found: found.times("onnx-cuda", "optimum-o4", "single-stream"),
    ),
)


def read(folder: Path) -> tuple[Records, list[Record]]:
    """The records in `folder`, also those of earlier calls; a stage that was stopped may leave an unfinished one."""
    found: list[Record] = []
    # The stage of torch-compile measures others only beside it, so its figures of them come last.
    for path in sorted(folder.glob("*.json"), key=lambda path: ("compile" in path.name, path.name)):
        with suppress(UsageError):  # no record, or one of another version
            found.append(store.load(path))
    trainings: dict[str, list[TrainSection]] = {}
    for record in found:
        if isinstance(record, TrainRecord) and record.complete:
            trainings.setdefault(record.train.recipe.engine, []).append(record.train)
    benches = [record.bench for record in found if isinstance(record, BenchRecord)]
    exports = [record.export for record in found if isinstance(record, ExportRecord)]
    return Records(trainings=trainings, benches=benches, exports=exports), found


def lines_of(records: Records) -> Iterator[str]:
    """The table of goals in Markdown."""
    yield "| goal | target | result | met |"
    yield "|---|---|---|---|"
    for goal in GOALS:
        figure, sign = goal.figure(records), "≤" if goal.is_most else "≥"
        if figure is None:
            result, met = UNKNOWN, ""
        else:
            result = f"{figure:.3g}{goal.unit}"
            met = "yes" if (figure <= goal.least if goal.is_most else figure >= goal.least) else "no"
        yield f"| {goal.what} | {sign} {goal.least:g}{goal.unit} | {result} | {met} |"


def details_of(records: Records) -> Iterator[str]:
    """Tables of the training runs, of the exported graphs, and of the rows of the benchmarks."""
    yield from _table("training|steps/s|train s|cold s|evaluate s|save s|steps s|loss|F1", _trainings(records))
    yield from _table("graph|nodes|export gate", _exports(records))
    yield from _table("row|pairs/s|p50 ms|cold ms|label agreement|INVALID because", _rows(records))


def _table(header: str, rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A table in Markdown, with an empty line before it; nothing without rows."""
    lines = [f"| {' | '.join(map(_shown, row))} |" for row in rows]
    if lines:
        names = header.split("|")
        yield from ("", f"| {' | '.join(names)} |", "|---" * len(names) + "|", *lines)


def _trainings(records: Records) -> Iterator[Sequence[object]]:
    for engine, sections in records.trainings.items():
        for section in sections:
            last = section.epochs[-1] if section.epochs else None
            times = (section.train_s, section.cold_s, section.evaluate_s, section.save_s, stepping_s(section))
            yield engine, steps_per_s(section), *times, last and last.eval_loss, last and last.eval_f1_score


def _exports(records: Records) -> Iterator[Sequence[object]]:
    for export in records.exports:
        yield export.optimize, export.nodes, export.gate.verdict.outcome if export.gate else UNKNOWN


def _rows(records: Records) -> Iterator[Sequence[object]]:
    for row in (row for bench in records.benches for row in bench.rows if row.samples_ms):
        p50 = percentile_ms(row, 0.5) if row.scenario == "single-stream" else None
        broken = ", ".join(rule.split(":")[0] for rule in row.broken_rules or ())
        yield row.id, pairs_per_s(row), p50, row.cold_ms, row.agreement, broken


def _shown(cell: object) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)
