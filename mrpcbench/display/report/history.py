"""Each metric over time in the HTML report, with the noise band of its baseline."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from mrpcbench.display.numbers import change, fixed, measured
from mrpcbench.display.report import drawing
from mrpcbench.display.report.content import Figure, Section, Table, is_invalid, moment, started
from mrpcbench.gates.stored_speed import ALPHA, FEWEST_RECORDS
from mrpcbench.records.figures import best_epoch, time_us
from mrpcbench.records.reports import Named
from mrpcbench.schema.records import BenchRecord, EvaluateRecord, ExportRecord, Record, TrainRecord
from mrpcbench.statistics import EQUAL_WITHIN, prediction_limit

# A slot is a line of text above a small plot of this height, in pixels.
PLOT = 46
# More slots would make one figure too tall; the table has all.
MOST_SLOTS = 20
KINDS = {"train": "Training", "evaluate": "Accuracy", "export": "Export", "bench": "Speed"}


@dataclass(frozen=True, kw_only=True)
class Value:
    """A metric of one record; `key` is equal for values that can be compared over time."""

    key: tuple[str, ...]
    metric: str
    unit: str
    value: float
    name: str
    record: Record
    invalid: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """Two or more values of one metric, in the order of time. Changes are in % for times, else in points of a share."""

    values: tuple[Value, ...]

    @property
    def metric(self) -> str:
        """What was measured, with the model."""
        return self.values[0].metric

    @property
    def baseline(self) -> list[float]:
        """The values before the newest that are not INVALID, as `_scaled`; the first one if all are INVALID."""
        usable = [self._scaled(one.value) for one in self.values[:-1] if not one.invalid]
        return usable or [self._scaled(self.values[0].value)]

    @property
    def changes(self) -> list[float]:
        """The change of each value from the mean of the baseline."""
        return [self._change(self._scaled(one.value) - fmean(self.baseline)) for one in self.values]

    @property
    def band(self) -> tuple[float, float] | None:
        """The changes between which the next value lies with 99% probability each way; None with too few records.

        `compare` has the same limit for times (`gates.stored_speed`).
        """
        if len(self.baseline) < FEWEST_RECORDS:
            return None
        width = prediction_limit(self.baseline, ALPHA) - fmean(self.baseline)
        return self._change(-width), self._change(width)

    @property
    def outside(self) -> bool:
        """Whether the newest value lies outside of the band."""
        if self.band is None:
            return False
        low, high = self.band
        # Equal values differ in floating point from their mean.
        return not low - EQUAL_WITHIN <= self.changes[-1] <= high + EQUAL_WITHIN

    @property
    def unit(self) -> str:
        """The unit of the changes."""
        return "points" if self.values[0].unit == "share" else "%"

    def _scaled(self, value: float) -> float:
        return value if self.values[0].unit == "share" else math.log(value)

    def _change(self, scaled: float) -> float:
        return 100 * (scaled if self.values[0].unit == "share" else math.expm1(scaled))


def history(records: Sequence[Named]) -> Section | None:
    """A figure per kind of record of which several measure the same."""
    figures: list[Figure] = []
    for kind in KINDS:
        found = _series([one for name, record in records if record.command == kind for one in _values(name, record)])
        if found:
            figures.append(_figure(kind, found))
    if not figures:
        return None
    lead = "Records of the same metric, in the order of time. The baseline is every record before the newest."
    return Section(id="history", title="Over time", lead=lead, figures=tuple(figures))


def _series(values: Sequence[Value]) -> list[Series]:
    groups: dict[tuple[str, ...], list[Value]] = {}
    for one in values:
        groups.setdefault(one.key, []).append(one)
    ordered = (sorted(group, key=lambda one: (started(one.record), one.name)) for group in groups.values())
    return [Series(values=tuple(group)) for group in ordered if len(group) > 1]


def _values(name: str, record: Record) -> Iterator[Value]:
    model, data = record.model, tuple(item.data_sha256 for item in record.data)

    def value(metric: str, unit: str, found: float | None, *key: str, invalid: bool = False) -> Iterator[Value]:
        if found is not None and (unit == "share" or found > 0):
            yield Value(
                key=(metric, *key, *data),
                metric=metric,
                unit=unit,
                value=found,
                name=name,
                record=record,
                invalid=invalid,
            )

    match record:
        case TrainRecord():
            best, base = best_epoch(record.train), record.train.base_model
            metric = f"F1 of {base.name}, {record.train.recipe.engine}"
            yield from value(metric, "share", best.eval_f1_score if best else None, base.model_sha256)
        case EvaluateRecord():
            where = f"{model.name}, {record.evaluate.spec.backend}, {record.data[0].split}"
            yield from value(f"accuracy of {where}", "share", record.score.accuracy, model.architecture)
            yield from value(f"F1 of {where}", "share", record.score.f1, model.architecture)
        case ExportRecord():
            gate = record.export.gate
            deltas = [one.max_abs_delta or 0.0 for one in gate.trials if one.kind != "padding"] if gate else []
            metric = f"largest |Δlogit| of {model.name}, {record.export.optimize}"
            place = record.export.placement.device
            yield from value(metric, "logit", max(deltas, default=None), str(model.parameters), place)
        case BenchRecord():
            for row in record.rows:
                key = (record.environment.machine_sha256, row.model.architecture, str(row.model.parameters))
                found = time_us(row)
                yield from value(f"{row.id}, {model.name}", "µs/pair", found, *key, invalid=is_invalid(row))
        case _:
            return


# --- figure -----------------------------------------------------------------------------------------------------------


def _figure(kind: str, found: Sequence[Series]) -> Figure:
    shown = sorted(found, key=lambda one: not one.outside)[:MOST_SLOTS]
    slot = PLOT + 26
    height = slot * len(shown)
    points, bands, zeros, texts = [], [], [], []
    for at, one in enumerate(shown):
        middle = slot * at + 18 + PLOT / 2
        place = _placer(one, middle)
        texts.append({"text": slot * at + 9, "label": one.metric, "value": _now(one)})
        zeros.append({"y": middle})
        if one.band:
            bands.append({"low": place(one.band[0]), "high": place(one.band[1])})
        last = len(one.values) - 1
        for index, (value, moved) in enumerate(zip(one.values, one.changes, strict=True)):
            fill = drawing.HATCH if value.invalid else drawing.ACCENT if index == last else "#ffffff"
            points.append({"x": (index + 0.5) / (last + 1), "y": place(moved), "row": at, "fill": fill})
    x = drawing.number("x", scale={"domain": [0, 1], "nice": False}, axis=None)
    y = drawing.pixels("y", height)
    dot = {"size": 60, "stroke": drawing.ACCENT, "strokeWidth": 1.5, "opacity": 1}
    layers = [
        drawing.layer(
            bands,
            "rect",
            {"color": "#d9e6f4"},
            x={"value": 0},
            x2={"value": drawing.WIDTH},
            y=drawing.pixels("low", height),
            y2={"field": "high"},
        ),
        drawing.layer(zeros, "rule", {"color": "#8c959f", "strokeDash": [2, 3]}, y=y),
        drawing.layer(
            points, "line", {"color": drawing.ACCENT, "strokeWidth": 1.2}, x=x, y=y, detail=drawing.name("row")
        ),
        drawing.layer(points, "point", dot, x=x, y=y, fill=drawing.as_given("fill")),
        *drawing.texts(texts, height),
    ]
    title = f"{KINDS[kind]}: {_finding(found)}"
    description = "The change of each metric from its baseline, record by record; numbers in the table."
    left = f" The other {len(found) - len(shown)} metrics are in the table." if len(shown) < len(found) else ""
    return drawing.figure(
        layers,
        height=height,
        id=f"history-{kind}",
        title=title,
        source=f"{len(found)} metrics of {kind} records",
        description=description,
        table=_table(found),
        note="Dashed: mean of the baseline. Filled: the newest record. Hatched: INVALID. "
        f"Band: 99% prediction limits of the baseline, from {FEWEST_RECORDS} records.{left}",
    )


def _placer(one: Series, middle: float) -> Callable[[float], float]:
    """Places a change in a plot around `middle`: the largest one is at its edge, and half a percent is never large."""
    most = max([0.5, *map(abs, one.changes), *map(abs, one.band or ())])
    return lambda moved: middle - moved / most * (PLOT / 2 - 4)


def _now(one: Series) -> str:
    return f"now {change(one.changes[-1], one.unit, '+')}"


def _finding(found: Sequence[Series]) -> str:
    banded = [one for one in found if one.band]
    outside = [one for one in banded if one.outside]
    if outside:
        first = max(outside, key=lambda one: abs(one.changes[-1]))
        more = f", and {len(outside) - 1} more" if len(outside) > 1 else ""
        return f"{first.metric} left its noise band ({_now(first)}){more}"
    if banded:
        return f"no metric left its noise band ({len(banded)} with a band)"
    return f"no noise band, which needs {FEWEST_RECORDS} records before the newest"


def _table(found: Sequence[Series]) -> Table:
    return Table(
        caption="Values over time",
        headers=("metric", "record", "started", "value", "unit", "change", "noise band"),
        rows=tuple(
            (
                one.metric,
                value.name,
                moment(value.record),
                measured(value.value, value.unit) + (" INVALID" if value.invalid else ""),
                value.unit,
                change(moved, one.unit, "+"),
                f"{fixed(one.band[0], 2)} to {fixed(one.band[1], 2)}" if one.band else "-",
            )
            for one in found
            for value, moved in zip(one.values, one.changes, strict=True)
        ),
        names=3,
    )
