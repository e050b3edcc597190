"""The training curves of the HTML report, and the seeds of its studies."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mrpcbench.display.numbers import ABSENT, change, fixed, interval, logged, percent, probability, score
from mrpcbench.display.report import drawing
from mrpcbench.display.report.content import Figure, Section, Table, of_kind
from mrpcbench.display.tables import placement_line
from mrpcbench.records.figures import best_epoch
from mrpcbench.records.reports import Named
from mrpcbench.schema.records import SeedSummary, StudyRecord, TrainRecord
from mrpcbench.schema.results import EpochMetrics, TrainSection

HEIGHT = 170
Trained = tuple[str, TrainRecord]
Value = Callable[[EpochMetrics], float | None]
LOSSES: dict[str, Value] = {
    "training loss": lambda line: line.train_loss,
    "validation loss": lambda line: line.eval_loss,
}
SCORES: dict[str, Value] = {
    "accuracy": lambda line: line.eval_accuracy_score,
    "F1": lambda line: line.eval_f1_score,
}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a figure: a metric of a record by epoch."""

    label: str
    record: TrainRecord
    value: Value


def training(records: Sequence[Named]) -> Section | None:
    """The seeds of each study, loss and scores by epoch for each group of runs from the same weights and pairs, and a
    table of all runs. The trials of a study are runs."""
    studies = [(name, record) for name, record in of_kind(records, StudyRecord) if _summaries(record)]
    runs = [
        *of_kind(records, TrainRecord),
        *(trial for name, record in studies for trial in _trials(f"{name}, " if len(studies) > 1 else "", record)),
    ]
    found = [(name, record) for name, record in runs if record.train.epochs]
    if not found:
        return None
    groups: dict[tuple[str, ...], list[Trained]] = {}
    for name, record in found:
        if len(record.train.epochs) > 1:
            key = (record.train.base_model.model_sha256, *(one.data_sha256 for one in record.data))
            groups.setdefault(key, []).append((name, record))
    figures = [_seeds(f"seeds-{at}", name, record) for at, (name, record) in enumerate(studies)]
    figures += [
        figure
        for at, group in enumerate(groups.values())
        for figure in (_figure(f"loss-{at}", group, LOSSES), _figure(f"scores-{at}", group, SCORES))
    ]
    differences = tuple(_differences(name, record) for name, record in studies if record.study.comparisons)
    return Section(id="training", title="Training", figures=tuple(figures), tables=(*differences, _runs(found)))


def _trials(prefix: str, record: StudyRecord) -> Iterator[Trained]:
    """The finished runs of a study, named after their setting and seed."""
    for setting in record.study.settings:
        for trial in setting.trials:
            if trial.record is not None:
                yield f"{prefix}{setting.name}, seed {trial.seed}", trial.record


def _figure(figure: str, group: Sequence[Trained], metrics: dict[str, Value]) -> Figure:
    """The curves of one run, or the last of `metrics` of each of several runs."""
    (_, first), *others = group
    curves = [Curve(label=label, record=first, value=value) for label, value in metrics.items()]
    if others:
        metric, value = list(metrics.items())[-1]
        curves = [Curve(label=name, record=record, value=value) for name, record in group]
    names = [curve.label for curve in curves]
    last = max(line.train_epoch for _, record in group for line in record.train.epochs)
    points: list[drawing.Row] = [
        {"x": line.train_epoch, "y": found, "series": curve.label}
        for curve in curves
        for line in curve.record.train.epochs
        if (found := curve.value(line)) is not None
    ]
    unit = metric if others else "cross-entropy" if metrics is LOSSES else "score"
    x = drawing.axis("x", "epoch", (0.0, last * 1.02), values=_marks(last), format="~g")
    y = drawing.upright("y", unit, drawing.span([one["y"] for one in points] or [0.0, 1.0]))
    colour, dash, shape = (
        drawing.among("series", names, one) for one in (drawing.SERIES, drawing.DASHES, drawing.SHAPES)
    )
    layers = [
        drawing.layer(points, "line", {"strokeWidth": 1.8}, x=x, y=y, color=colour, strokeDash=dash),
        drawing.layer(points, "point", {"filled": True, "size": 55, "opacity": 1}, x=x, y=y, color=colour, shape=shape),
        *drawing.legend(names, drawing.SERIES, drawing.SHAPES),
    ]
    title = _finding(group, metrics)
    description = f"{', '.join(names)}: {unit} by epoch; numbers in the table."
    base = first.train.base_model
    where = ", ".join(name for name, _ in group) if len(group) <= 4 else f"{len(group)} runs"
    return drawing.figure(
        layers,
        height=HEIGHT,
        id=figure,
        title=title,
        source=f"{where}: from {base.name} ({base.weights_label})",
        description=description,
        table=_table(curves, unit),
        note="Validation after each epoch.",
    )


def _marks(last: float) -> list[int]:
    """Whole epochs up to `last`, at most about seven."""
    return list(range(0, math.ceil(last) + 1, math.ceil(last / 7) or 1))


def _finding(group: Sequence[Trained], metrics: dict[str, Value]) -> str:
    sections = [record.train for _, record in group]
    if metrics is SCORES:
        best = [best_epoch(one) or max(one.epochs, key=lambda line: line.eval_f1_score) for one in sections]
        if len(best) > 1:
            f1s = [line.eval_f1_score for line in best]
            return f"F1 of the best epochs: {score(min(f1s))} to {score(max(f1s))} over {len(f1s)} runs"
        found = f"F1 {score(best[0].eval_f1_score)}, accuracy {score(best[0].eval_accuracy_score)}"
        return f"Epoch {best[0].train_epoch:g} is {'saved' if sections[0].best_step else 'best'}: {found}"
    lowest = [min(found, default=None) for found in map(_losses, sections)]
    if None in lowest:
        return "A validation loss is not finite"
    falling = [one for one in sections if min(_losses(one)) == _losses(one)[-1]]
    if len(sections) > 1:
        return f"Validation loss still falls at the last epoch in {len(falling) or 'none'} of {len(sections)} runs"
    if falling:
        return f"Validation loss still falls at the last epoch: {fixed(lowest[0], 4)}"
    losses = _losses(sections[0])
    at = sections[0].epochs[losses.index(min(losses))].train_epoch
    return f"Validation loss is lowest at epoch {at:g}: {fixed(min(losses), 4)}, and {fixed(losses[-1], 4)} at the end"


def _losses(section: TrainSection) -> list[float]:
    """The validation loss of every epoch; empty if one is not finite."""
    found = [line.eval_loss for line in section.epochs if line.eval_loss is not None]
    return found if len(found) == len(section.epochs) else []


def _table(curves: Sequence[Curve], unit: str) -> Table:
    """A row per epoch of any curve."""
    epochs = sorted({line.train_epoch for curve in curves for line in curve.record.train.epochs})
    saved = {line.train_epoch for curve in curves if (line := best_epoch(curve.record.train))}
    return Table(
        caption=f"{unit} by epoch",
        headers=("epoch", *(curve.label for curve in curves)),
        rows=tuple(
            (f"{epoch:g}{' (saved)' if epoch in saved else ''}", *(_at(curve, epoch) for curve in curves))
            for epoch in epochs
        ),
    )


def _at(curve: Curve, epoch: float) -> str:
    lines = [line for line in curve.record.train.epochs if line.train_epoch == epoch]
    return logged(curve.value(lines[0])) if lines else ABSENT


def _runs(found: Sequence[tuple[str, TrainRecord]]) -> Table:
    return Table(
        caption="Runs",
        headers=("record", "steps", "seed", "epochs", "F1", "accuracy", "time, s", "engine"),
        rows=tuple(
            (
                name,
                f"{record.train.epochs[-1].step}/{record.train.total_steps}",
                str(record.train.recipe.seed),
                f"{record.train.epochs[-1].train_epoch:g}",
                score(best.eval_f1_score if best else None),
                score(best.eval_accuracy_score if best else None),
                fixed(record.train.train_s, 1),
                f"{record.train.recipe.engine}: {placement_line(record.train.placement)}",
            )
            for name, record in found
            for best in (best_epoch(record.train),)
        ),
    )


# --- studies ----------------------------------------------------------------------------------------------------------


def _summaries(record: StudyRecord) -> list[tuple[str, SeedSummary]]:
    """The accuracy and F1 of each setting over its seeds."""
    return [
        (setting.name, one) for setting in record.study.settings for one in setting.summaries if one.metric != "loss"
    ]


def _seeds(figure: str, name: str, record: StudyRecord) -> Figure:
    """A point for each seed, with the median and the majority class."""
    found = _summaries(record)
    places, height = drawing.slots(len(found))
    points: list[drawing.Row] = []
    marks: list[drawing.Row] = []
    texts: list[drawing.Row] = []
    for place, (setting, one) in zip(places, found, strict=True):
        metric = "F1" if one.metric == "f1" else one.metric
        texts.append({**place, "label": setting, "value": f"median {metric} {score(one.median)}"})
        points += ({**place, "x": value} for value in one.values)
        marks.append({**place, "x": one.median, "width": 4.0})
        if one.majority is not None:
            marks.append({**place, "x": one.majority, "width": 1.5})
    low, high = drawing.span([row["x"] for row in (*points, *marks)])
    x = drawing.axis("x", "score", (max(0.0, low), min(1.0, high)))
    y = drawing.pixels("bar", height)
    lines = [{**row, "top": row["bar"] - 8, "bar": row["bar"] + 8} for row in marks]
    width = drawing.number("width", scale=None)
    layers = [
        drawing.layer(lines, "rule", {"color": drawing.INK}, x=x, y=y, y2={"field": "top"}, strokeWidth=width),
        drawing.layer(points, "point", {"size": 50, "stroke": drawing.ACCENT, "fill": drawing.PALE}, x=x, y=y),
        *drawing.texts(texts, height),
    ]
    title = _seeds_finding(found)
    description = "The score of each seed at its best epoch, for each setting; numbers in the table."
    return drawing.figure(
        layers,
        height=height,
        id=figure,
        title=title,
        source=f"{name}: {record.model.name}, {len(record.study.seeds)} seeds",
        description=description,
        table=_seeds_table(found),
        note="Points: seeds. Thick line: their median. Thin line: always answering the majority class.",
    )


def _seeds_finding(found: Sequence[tuple[str, SeedSummary]]) -> str:
    accuracies = [(setting, one) for setting, one in found if one.metric == "accuracy"]
    setting, best = max(accuracies, key=lambda item: item[1].median)
    return (
        f"{setting}: median accuracy {score(best.median)} over {len(best.values)} seeds, "
        f"{best.at_or_below_majority} of them at or below the majority class"
    )


def _seeds_table(found: Sequence[tuple[str, SeedSummary]]) -> Table:
    levels = {percent(one.median_interval.level) for _, one in found if one.median_interval}
    return Table(
        caption="Over seeds"
        + (f"; the interval of the median has a level of {', '.join(sorted(levels))}" if levels else ""),
        headers=("setting", "metric", "seeds", "median", "interval", "mean", "SD", "range", "majority class"),
        rows=tuple(
            (
                setting,
                one.metric,
                str(len(one.values)),
                score(one.median),
                interval(one.median_interval) if one.median_interval else ABSENT,
                score(one.mean),
                fixed(one.standard_deviation, 4),
                f"{score(one.smallest)} to {score(one.largest)}",
                score(one.majority),
            )
            for setting, one in found
        ),
        names=2,
    )


def _differences(name: str, record: StudyRecord) -> Table:
    return Table(
        caption=f"{name}: differences of settings, paired by seed",
        headers=("metric", "settings", "seeds", "mean difference", "p", "Holm p"),
        rows=tuple(
            (
                one.metric,
                f"{one.b} minus {one.a}",
                str(len(one.seeds)),
                f"{one.difference:+.4f}" if one.metric == "loss" else change(100 * one.difference, "points", "+"),
                probability(one.p_value),
                probability(one.adjusted_p),
            )
            for one in record.study.comparisons
        ),
        names=2,
    )
