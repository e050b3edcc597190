"""The metrics that a limit can bound, how they are read from a record, and the text form of a limit."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self

from mrpcbench.gates.export import compared, largest_delta
from mrpcbench.records.figures import best_epoch, steps_per_s
from mrpcbench.records.scores import accuracy_of, f1_of
from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.schema.identity import Command
from mrpcbench.schema.records import AbRecord, BenchRecord, EvaluateRecord, ExportRecord, Record, TrainRecord
from mrpcbench.schema.results import Confusion, EvaluateSection, ExportSection, TrainSection
from mrpcbench.schema.rows import RowId

Side = Literal["min", "max"]
_LIMIT = re.compile(r"(?:(?P<row>[^:=]+):)?(?P<metric>[^:=]+)=(?P<bound>[^:=]+)")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of a record, with its value for each kind of record that has it.

    `side` is the kind of limit that makes sense: max if smaller is better. `rows` tells which rows of a bench record
    have the metric. A value of None is unknown.
    """

    side: Side
    unit: str
    train: Callable[[TrainSection], float | None] | None = None
    evaluate: Callable[[EvaluateSection], float | None] | None = None
    export: Callable[[ExportSection], float | None] | None = None
    bench: Callable[[BenchRow], float | None] | None = None
    rows: Callable[[BenchRow], bool] = lambda row: True

    def is_of(self, command: Command) -> bool:
        """Whether records of `command` have the metric."""
        return getattr(self, command, None) is not None

    def values(self, record: Record) -> Iterator[tuple[BenchRow | None, float | None]]:
        """The value of each row of `record` that has the metric; without a row for other kinds of record."""
        match record:
            case TrainRecord() if self.train:
                yield None, self.train(record.train)
            case EvaluateRecord() if self.evaluate:
                yield None, self.evaluate(record.evaluate)
            case ExportRecord() if self.export:
                yield None, self.export(record.export)
            case BenchRecord() if self.bench:
                yield from ((row, self.bench(row)) for row in record.bench.rows if self.rows(row))
            case AbRecord():
                raise ValueError("a record of ab already has a verdict")


def _best(name: str) -> Callable[[TrainSection], float | None]:
    """The field `name` of the epoch whose weights were saved."""
    return lambda section: getattr(epoch, name) if (epoch := best_epoch(section)) else None


def _counted(score: Callable[[Confusion], float]) -> Callable[[EvaluateSection], float | None]:
    """A score computed again from its counts; None if they are not those of the scored pairs."""

    def read(section: EvaluateSection) -> float | None:
        pairs = sum(asdict(section.score.confusion).values())
        return score(section.score.confusion) if pairs == section.score.pairs > 0 else None

    return read


def _summary(name: str) -> Callable[[BenchRow], float | None]:
    return lambda row: getattr(row.summary, name) if row.summary else None


def _is_rival(row: BenchRow) -> bool:
    """Whether `row` is of another case than its reference row."""
    reference = row.summary.reference if row.summary else None
    return reference is not None and RowId.parse(reference).case != row.case


def _share(
    name: str,
    *,
    train: Callable[[TrainSection], float | None] | None = None,
    evaluate: Callable[[EvaluateSection], float | None] | None = None,
) -> Metric:
    """A share of the pairs, which is the field `name` of the rows that have one."""

    def read(row: BenchRow) -> float | None:
        value: float | None = getattr(row, name)
        return value

    return Metric(
        side="min", unit="share", train=train, evaluate=evaluate, bench=read, rows=lambda row: read(row) is not None
    )


def _latency(name: str) -> Metric:
    return Metric(side="max", unit="ms", bench=_summary(name), rows=lambda row: row.scenario != "offline")


def _flips(section: ExportSection) -> float | None:
    return max((trial.flips for trial in compared(section.gate.trials)), default=None) if section.gate else None


METRICS: Mapping[str, Metric] = {
    "accuracy": _share("accuracy", train=_best("eval_accuracy_score"), evaluate=_counted(accuracy_of)),
    "f1": _share("f1", train=_best("eval_f1_score"), evaluate=_counted(f1_of)),
    "loss": Metric(side="max", unit="nats", train=_best("eval_loss"), evaluate=lambda section: section.score.loss),
    "agreement": _share("agreement"),
    "pairs_per_s": Metric(side="min", unit="", bench=_summary("pairs_per_s")),
    "p50_ms": _latency("p50_ms"),
    "p90_ms": _latency("p90_ms"),
    "p99_ms": _latency("p99_ms"),
    "speedup": Metric(side="min", unit="", bench=_summary("speedup"), rows=_is_rival),
    "steps_per_s": Metric(side="min", unit="", train=steps_per_s),
    "train_s": Metric(side="max", unit="s", train=lambda section: section.train_s),
    "flips": Metric(side="max", unit="", export=_flips),
    "max_abs_delta": Metric(
        side="max", unit="", export=lambda section: largest_delta(section.gate.trials) if section.gate else None
    ),
    "nodes": Metric(side="max", unit="", export=lambda section: section.nodes),
    "file_bytes": Metric(side="max", unit="", export=lambda section: sum(section.files.values())),
}


def names_of(command: Command) -> Iterable[str]:
    """The metrics of the records of `command`."""
    return (name for name, metric in METRICS.items() if metric.is_of(command))


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The smallest (`min`) or largest (`max`) value of a metric that passes; `row` is None for every row."""

    side: Side
    metric: str
    bound: float
    row: RowId | None = None

    @classmethod
    def parse(cls, text: str, side: Side) -> Self:
        """The limit `[ROW:]METRIC=NUMBER`; raises `ValueError`, in one line, for any other text."""
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a limit; write it as METRIC=NUMBER or 'ROW:METRIC=NUMBER'")
        name, number = match["metric"].strip(), match["bound"].strip()
        if name not in METRICS:
            raise ValueError(f"{text!r}: unknown metric {name!r}; known are {', '.join(METRICS)}")
        row, metric = RowId.parse(match["row"].strip()) if match["row"] else None, METRICS[name]
        if row and metric.bench is None:
            raise ValueError(f"{text!r}: only bench records have rows, and they have no {name}")
        bound = _number(number)
        if bound is None or not math.isfinite(bound):
            raise ValueError(f"{text!r}: {number!r} is not a finite number")
        if metric.unit == "share" and not 0 <= bound <= 1:
            raise ValueError(f"{text!r}: {name} is a share from 0 to 1")
        if metric.side != side:
            better = "larger" if metric.side == "min" else "smaller"
            raise ValueError(f"{text!r}: a {better} {name} is better; use {metric.side}, not {side}")
        return cls(side=side, metric=name, bound=bound, row=row)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
