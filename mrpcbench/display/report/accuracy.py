"""Accuracy and F1 with intervals, and confusion matrices, in the HTML report."""

from collections.abc import Sequence

from mrpcbench.display.numbers import interval, score
from mrpcbench.display.report import drawing
from mrpcbench.display.report.content import Figure, Matrix, Section, Table, of_kind
from mrpcbench.display.tables import placement_line
from mrpcbench.records.reports import Named
from mrpcbench.schema.records import EvaluateRecord
from mrpcbench.schema.results import EvalScore

Scored = tuple[str, EvaluateRecord]


def accuracy(records: Sequence[Named]) -> Section | None:
    """All evaluate records in one figure, and the confusion matrix of each."""
    found = of_kind(records, EvaluateRecord)
    if not found:
        return None
    return Section(
        id="accuracy",
        title="Accuracy",
        figures=(_figure(found),),
        matrices=tuple(_matrix(name, record) for name, record in found),
    )


def beats_majority(found: EvalScore) -> bool:
    """Whether the interval of the accuracy lies above the accuracy of the majority class."""
    return found.accuracy_interval.low > found.majority_accuracy


def label(record: EvaluateRecord) -> str:
    """The model, the engine and the split of a score."""
    return f"{record.model.name}, {record.evaluate.spec.backend}, {record.data[0].split}"


def _figure(found: Sequence[Scored]) -> Figure:
    places, height = drawing.slots(2 * len(found))
    rows: list[drawing.Row] = []
    for at, (_, record) in enumerate(found):
        one = record.score
        for place, metric, value, ends, majority in (
            (places[2 * at], "accuracy", one.accuracy, one.accuracy_interval, one.majority_accuracy),
            (places[2 * at + 1], "F1", one.f1, one.f1_interval, one.majority_f1),
        ):
            shown = {"x": value, "low": ends.low, "high": ends.high, "majority": majority, "metric": metric}
            title = label(record) if metric == "accuracy" else ""
            rows.append({**place, **shown, "label": title, "value": f"{metric} {score(value)}"})
    low, high = drawing.span([row[key] for row in rows for key in ("low", "high", "majority", "x")])
    x = drawing.axis("x", "score", (max(0.0, low), min(1.0, high)))
    y = drawing.pixels("bar", height)
    line = {"color": drawing.ACCENT, "strokeWidth": 2.5}
    dot = {"filled": True, "size": 90, "color": drawing.ACCENT, "opacity": 1}
    shape = drawing.among("metric", ("accuracy", "F1"), drawing.SHAPES)
    mark = {"orient": "vertical", "color": drawing.INK, "thickness": 2, "size": 16}
    layers = [
        drawing.layer(rows, "rule", line, x={**x, "field": "low"}, x2={"field": "high"}, y=y),
        drawing.layer(rows, "point", dot, x=x, y=y, shape=shape),
        drawing.layer(rows, "tick", mark, x={**x, "field": "majority"}, y=y),
        *drawing.texts(rows, height),
    ]
    title = _finding(found)
    description = (
        "Accuracy and F1 of each record with their 95% intervals, and the majority class; numbers in the table."
    )
    return drawing.figure(
        layers,
        height=height,
        id="scores",
        title=title,
        source=f"{len(found)} evaluate record{'' if len(found) == 1 else 's'}",
        description=description,
        table=_table(found),
        note="Circle: accuracy. Square: F1. Bar: 95% interval. Black mark: always answering the majority class.",
    )


def _finding(found: Sequence[Scored]) -> str:
    good = [record for _, record in found if beats_majority(record.score)]
    best = max(found, key=lambda item: (beats_majority(item[1].score), item[1].score.accuracy))[1]
    if not good:
        return "No model is certainly more accurate than the majority class"
    ends = interval(best.score.accuracy_interval)
    title = f"{best.model.name}: accuracy {score(best.score.accuracy)} ({ends}), above the majority class"
    rest = len(found) - len(good)
    return f"{title}; {rest} of {len(found)} scores are not" if rest else title


def _table(found: Sequence[Scored]) -> Table:
    return Table(
        caption="Scores, with 95% intervals",
        headers=("score", "accuracy", "interval", "majority class", "F1", "interval", "precision", "recall", "n"),
        rows=tuple(
            (
                f"{label(record)} ({name})",
                score(one.accuracy),
                interval(one.accuracy_interval),
                score(one.majority_accuracy),
                score(one.f1),
                interval(one.f1_interval),
                score(one.precision),
                score(one.recall),
                str(one.pairs),
            )
            for name, record in found
            for one in (record.score,)
        ),
    )


def _matrix(name: str, record: EvaluateRecord) -> Matrix:
    found = record.score.confusion
    counts = (
        (found.true_negative, found.false_positive),
        (found.false_negative, found.true_positive),
    )
    shares = tuple(tuple(round(100 * one / max(1, sum(row))) for one in row) for row in counts)
    return Matrix(
        caption=label(record),
        detail=f"{name}; {placement_line(record.evaluate.placement)}",
        labels=record.data[0].label_names,
        counts=counts,
        shares=((shares[0][0], shares[0][1]), (shares[1][0], shares[1][1])),
    )
