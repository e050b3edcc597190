"""The answers first, in the HTML report: a card per model with its accuracy, verdicts, speed and the case to deploy."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

from mrpcbench.display.numbers import fixed, interval, multiple, score
from mrpcbench.display.recommendation import reasons
from mrpcbench.display.report.accuracy import beats_majority
from mrpcbench.display.report.content import TONES, Badge, Card, Section, Table, is_invalid, of_kind, started
from mrpcbench.display.report.speed import row_name
from mrpcbench.records.figures import best_epoch, relative_speed
from mrpcbench.records.ranking import ratio
from mrpcbench.records.recommendation import Recommendation
from mrpcbench.records.reports import Named, Report
from mrpcbench.schema.bench_results import BenchRow
from mrpcbench.schema.fields import flags_of
from mrpcbench.schema.records import AbRecord, BenchRecord, EvaluateRecord, ExportRecord, StudyRecord, TrainRecord

Fact = tuple[str, str, str]


def verdicts(records: Sequence[Named], report: Report) -> Section:
    """A card for each set of weights, in the order of their first records; and why a case is the one to deploy."""
    models: dict[str, list[Named]] = {}
    for named in records:
        models.setdefault(named[1].model.model_sha256, []).append(named)
    invalid = sum(is_invalid(row) for _, record in report.benches for row in record.rows)
    total = sum(len(record.rows) for _, record in report.benches)
    lead = f"Records: {len(records)}. Models: {len(models)}."
    if total:
        lead += f" INVALID benchmark rows: {invalid} of {total}."
    limits = [
        f"{flags_of(item)[0]} {value:g}"
        for item in fields(report.plan)
        if _is_limit(value := getattr(report.plan, item.name))
    ]
    if limits:
        lead += f" Limits: {', '.join(limits)}."
    reasoned = tuple(
        Table(caption=f"{name}: which case to deploy", headers=("case", "reason"), rows=tuple(reasons(found)), names=2)
        for name, found in _recommended(records, report)
    )
    alone = len(reasoned) == 1
    return Section(
        id="verdicts",
        title="Verdicts",
        lead=lead,
        cards=tuple(_card(group, report) for group in models.values()),
        tables=reasoned if alone else (),
        folded=() if alone else reasoned,
    )


def _is_limit(value: object) -> bool:
    return isinstance(value, float)


def _card(records: Sequence[Named], report: Report) -> Card:
    newest = max((record for _, record in records), key=started)
    model = newest.model
    notes = [f"{name}: INCOMPLETE, the run did not end" for name, record in records if not record.complete]
    if model.weights == "random-init":
        notes.insert(0, "Random weights: speed is that of the architecture, accuracy has no meaning.")
    return Card(
        title=model.name,
        subtitle=f"{model.parameters / 1e6:.1f} M parameters, {model.weights_label}, sha256 {model.model_sha256[:10]}",
        facts=(*_scores(records), *_studied(records), *_speeds(records), *_deployments(records, report)),
        badges=tuple(_badges(records)),
        notes=tuple(notes),
    )


def _recommended(records: Sequence[Named], report: Report) -> Iterator[tuple[str, Recommendation]]:
    """The recommendation of each of `records` that has one, with the record's name."""
    # Two records can have the same name.
    found = {id(record): one for (_, record), one in zip(report.records, report.recommendations, strict=True)}
    for name, record in records:
        if recommended := found[id(record)]:
            yield name, recommended


def _deployments(records: Sequence[Named], report: Report) -> Iterator[Fact]:
    """The case to deploy according to each finished bench record."""
    for name, found in _recommended(records, report):
        _, reason = next(iter(reasons(found)))
        known = reason.removeprefix(f"{found.chosen}: " if found.chosen else "no case: ")
        yield "Deploy", found.chosen or "no case", f"{known} ({name})"


def _scores(records: Sequence[Named]) -> Iterator[Fact]:
    """Accuracy and F1: of the newest validation score, else of the newest score, else of the best epoch."""
    found = [record for _, record in of_kind(records, EvaluateRecord)]
    if found:
        record = max(found, key=lambda one: (one.data[0].split == "validation", started(one)))
        one = record.score
        above = "above" if beats_majority(one) else "not above"
        detail = f"95% CI {interval(one.accuracy_interval)}; {above} the majority class, {score(one.majority_accuracy)}"
        yield "Accuracy", score(one.accuracy), f"{detail} (n = {one.pairs}, {record.data[0].split})"
        yield "F1", score(one.f1), f"95% CI {interval(one.f1_interval)}; majority class {score(one.majority_f1)}"
        return
    trained = [record for _, record in of_kind(records, TrainRecord)]
    epochs = [line for record in sorted(trained, key=started) if (line := best_epoch(record.train))]
    if epochs:
        yield "Accuracy", score(epochs[-1].eval_accuracy_score), "of the saved epoch; `evaluate` adds an interval"
        yield "F1", score(epochs[-1].eval_f1_score), "of the saved epoch"


def _studied(records: Sequence[Named]) -> Iterator[Fact]:
    """The median accuracy over the seeds of each setting of each study."""
    for name, record in of_kind(records, StudyRecord):
        for setting in record.study.settings:
            for one in setting.summaries:
                if one.metric == "accuracy":
                    below = f"{one.at_or_below_majority} at or below the majority class, {score(one.majority)}"
                    detail = f"median of {len(one.values)} seeds, {below} ({setting.name}, {name})"
                    yield "Accuracy over seeds", score(one.median), detail


def _badges(records: Sequence[Named]) -> Iterator[Badge]:
    for name, record in records:
        if isinstance(record, ExportRecord | AbRecord):
            kind = "Export" if isinstance(record, ExportRecord) else "Compared live"
            verdict = record.verdict
            if verdict is None:
                yield Badge(text="NO VERDICT", tone="unsure", detail=f"{kind}, {name}: the run did not end")
            else:
                detail = f"{kind}, {name}: {verdict.reason}"
                yield Badge(text=verdict.outcome, tone=TONES[verdict.outcome], detail=detail)


def _speeds(records: Sequence[Named]) -> Iterator[Fact]:
    """The fastest VALID row and the quickest VALID single pair, over all bench records of the model."""
    benches = [(record, row) for _, record in of_kind(records, BenchRecord) for row in record.rows]
    valid = [(record, row) for record, row in benches if not is_invalid(row) and row.summary]
    fastest = max(valid, key=lambda one: _rate(one[1]), default=None)
    if fastest is not None and _rate(fastest[1]):
        record, row = fastest
        yield (
            "Fastest",
            f"{fixed(_rate(row), 0 if _rate(row) >= 100 else 1)} pairs/s",
            f"{row.id}{_speedup(row, record)}{'; UNCHECKED' if row.broken_rules is None else ''}",
        )
    elif benches:
        yield "Fastest", "not certain", f"all {len(benches)} rows are INVALID"
    alone = [
        (row.summary.p50_ms, row.summary.p99_ms, row.case)
        for _, row in valid
        if row.scenario == "single-stream" and row.summary and row.summary.p50_ms
    ]
    if alone:
        p50, p99, case = min(alone, key=lambda one: one[0])
        more = f"p99 {fixed(p99, 2)} ms" if p99 else "too few samples for p99"
        yield "One pair", f"{fixed(p50, 2)} ms", f"p50 of {case}; {more}"


def _rate(row: BenchRow) -> float:
    return (row.summary and row.summary.pairs_per_s) or 0.0


def _speedup(row: BenchRow, record: BenchRecord) -> str:
    base = next((one for one in record.rows if row.summary and str(one.id) == row.summary.reference), None)
    if base is None:
        return ", the reference row"
    if is_invalid(base):
        return f"; its reference {row_name(base)} is INVALID"
    if row.scenario == "server":
        return f": {multiple(ratio(row, base))} over {row_name(base)}"
    found = relative_speed(row, base)
    if found is None:
        return ""
    ends = f" (95% CI {fixed(found.interval.low, 2)} to {fixed(found.interval.high, 2)})" if found.interval else ""
    return f": {multiple(found.times)} over {row_name(base)}{ends}"
