"""Records in a few lines each, as rich renderables. Prints nothing."""

from collections.abc import Iterator
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from mrpcbench.benchmark.validity import invalid_sentence
from mrpcbench.display.comparison import verdict_line
from mrpcbench.display.escapes import one_line
from mrpcbench.display.numbers import fixed, interval, logged, score
from mrpcbench.display.recommendation import recommendation, short_recommendation
from mrpcbench.display.study import answers
from mrpcbench.display.tables import machine_line, model_line, notes, placement_line
from mrpcbench.records.figures import best_epoch
from mrpcbench.records.reports import Report
from mrpcbench.schema.identity import ModelIdentity
from mrpcbench.schema.records import (
    AbRecord,
    BenchRecord,
    EvaluateRecord,
    ExportRecord,
    Record,
    StudyRecord,
    TrainRecord,
)
from mrpcbench.schema.results import EvaluateSection, ExportSection, TrainSection
from mrpcbench.schema.verdicts import Verdict


def overview(report: Report) -> RenderableType:
    """Each record in a few lines: what it is of, its result, and for a benchmark the case to deploy."""
    parts: list[RenderableType] = []
    for (name, record), recommended in zip(report.records, report.recommendations, strict=True):
        moment = f"{record.environment.started_at[:16].replace('T', ' ')} UTC"
        state = "" if record.complete else "; INCOMPLETE: the run did not end"
        parts.append(Text(one_line(f"{name}: {record.command}, {moment}{state}"), "bold"))
        lines = [Text(one_line(model_line(record.model)), "dim"), *_lines(record)]
        shown = Group(*lines, recommendation(recommended)) if recommended else Group(*lines)
        # Indents the lines of a wrapped text too.
        parts.append(Padding(shown, (0, 0, 0, 2), expand=False))
        parts.append(Text())
    for note in notes(_models(report)):
        parts += (Text(one_line(line)) for line in note.plain.splitlines())
    return Group(*parts)


def brief(report: Report) -> RenderableType:
    """One line for each record: its main result."""
    lines = []
    for (name, record), recommended in zip(report.records, report.recommendations, strict=True):
        result = Text(short_recommendation(recommended)[0]) if recommended else next(_lines(record))
        state = "" if record.complete else "INCOMPLETE; "
        lines.append(Text.assemble(f"{one_line(name)}: {state}", result))
    return Group(*lines)


def _models(report: Report) -> Iterator[ModelIdentity]:
    yield from (record.model for _, record in report.records)
    yield from (row.model for _, record in report.benches for row in record.rows)


def _lines(record: Record) -> Iterator[Text]:
    """The result of a record, the main line first."""
    for line in _results(record):
        yield Text(one_line(line)) if isinstance(line, str) else line


def _results(record: Record) -> Iterator[str | Text]:
    match record:
        case TrainRecord():
            yield from _train(record.train)
        case EvaluateRecord():
            yield from _evaluate(record.evaluate)
        case ExportRecord():
            yield from _export(record.export)
        case BenchRecord():
            yield from _bench(record)
        case AbRecord():
            yield _verdict(record.verdict)
        case StudyRecord():
            yield from answers(record)


def _verdict(found: Verdict | None) -> Text:
    return verdict_line(replace(found, reason=one_line(found.reason))) if found else Text("no verdict")


def _train(section: TrainSection) -> Iterator[str]:
    line = best_epoch(section)
    if line is None:
        yield "no epoch was saved"
        return
    yield (
        f"step {line.step} of {section.total_steps}: accuracy {score(line.eval_accuracy_score)}, "
        f"F1 {score(line.eval_f1_score)}, loss {logged(line.eval_loss)}; {fixed(section.train_s, 1)} s"
    )
    yield placement_line(section.placement)


def _evaluate(section: EvaluateSection) -> Iterator[str]:
    found = section.score
    yield (
        f"accuracy {score(found.accuracy)} ({interval(found.accuracy_interval)}), "
        f"F1 {score(found.f1)} ({interval(found.f1_interval)}); majority class {score(found.majority_accuracy)}"
    )
    yield f"n = {found.pairs}; {placement_line(section.placement)}"


def _export(section: ExportSection) -> Iterator[str | Text]:
    yield _verdict(section.gate.verdict if section.gate else None)
    yield f"{section.nodes} nodes, {sum(section.files.values()) / 1e6:.1f} MB, {section.dtype}"


def _bench(record: BenchRecord) -> Iterator[str]:
    rows = record.bench.rows
    valid = [row for row in rows if row.broken_rules == ()]
    place = f"; {machine_line(record.environment, rows[0].placement)}" if rows else ""
    yield f"{len(rows)} rows, {len(valid)} VALID{place}"
    if not valid and (sentence := invalid_sentence(rows)):
        yield sentence
