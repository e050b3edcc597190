"""Say what records hold, and which benchmark case to deploy: `mrpcbench report RECORD...`."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from mrpcbench.display.flat import csv_text
from mrpcbench.display.report.drawing import renderer
from mrpcbench.display.report.page import html_report
from mrpcbench.environment.redaction import distinct_name
from mrpcbench.errors import UsageError
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.records.documents import read_json
from mrpcbench.records.outputs import CSV, PAGE, check_distinct, check_file, write_output
from mrpcbench.records.recommendation import recommend
from mrpcbench.records.reports import Report
from mrpcbench.schema.fields import check, flags_of
from mrpcbench.schema.gate_requests import ReportPlan
from mrpcbench.schema.records import RECORDS, BenchRecord, Record, StudyRecord

# Of the files that are skipped, so many are named: a model folder has about twenty.
NAMED = 3


def report(paths: Sequence[Path], plan: ReportPlan, observer: Observer) -> Report:
    """Read the records in `paths`; a folder is read recursively, and its JSON files that are no records are skipped.

    The records of a study's trials are left out beside that of the study, which holds them.

    With `plan.csv`, the benchmark rows are also written there, with `plan.output` the page. Raises `UsageError` if a
    file is not a valid record, if there is no record, or no record of `bench` for an option that needs one, and
    `MissingError` without the extra that draws the page.
    """
    _check_values(plan)
    files = [file for path in paths for file in _files(path, observer)]
    files = list({file.resolve(): file for file in files}.values())
    if not files:
        raise UsageError(f"no record in {', '.join(map(str, paths))}; name a file, or a folder with records")
    read = _without_trials({file.absolute(): store.load(file) for file in files})
    names = [distinct_name(file, list(read)) for file in read]
    records = list(read.values())
    found = Report(
        records=tuple(zip(names, records, strict=True)),
        recommendations=tuple(
            recommend(record, plan) if isinstance(record, BenchRecord) else None for record in records
        ),
        plan=plan,
    )
    _check_plan(plan, found)
    if plan.csv:
        write_output("--csv", plan.csv, csv_text(found))
    if plan.output:
        write_output("--output", plan.output, html_report(found))
        observer.say(f"page: {plan.output}")
    return found


def _without_trials(read: dict[Path, Record]) -> dict[Path, Record]:
    """`read` without the runs of `train` that a study among them holds too."""
    studies = [record for record in read.values() if isinstance(record, StudyRecord)]
    trials = [trial.record for study in studies for setting in study.study.settings for trial in setting.trials]
    return {file: record for file, record in read.items() if record not in trials}


def _check_values(plan: ReportPlan) -> None:
    """Raise an error for a value that cannot be meant, a file that cannot be written, or a page without its extra."""
    check(plan)
    for option, value in (("--price-per-hour", plan.price_per_hour), ("--max-p99-ms", plan.max_p99_ms)):
        if value is not None and value <= 0:
            raise UsageError(f"{option} {value:g}: must be above 0")
    check_distinct({"--output": plan.output, "--csv": plan.csv})
    check_file("--csv", plan.csv, CSV)
    if plan.output is not None:
        # A file of another kind that is named by mistake must not be replaced.
        if Path(plan.output).suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"--output {plan.output}: a web page; name a file that ends in .html")
        check_file("--output", plan.output, PAGE)
        renderer()


def _check_plan(plan: ReportPlan, found: Report) -> None:
    """Raise `UsageError` for an option that needs a record of `bench`."""
    given = {flags_of(item)[0]: getattr(plan, item.name) for item in fields(plan)}
    asked = [option for option, value in given.items() if value is not None and option != "--output"]
    if asked and not found.benches:
        raise UsageError(f"{asked[0]}: needs a record of bench; none was named")


def _files(path: Path, observer: Observer) -> Iterator[Path]:
    """`path`, or the records in the folder `path` and below; hidden folders are left out."""
    if not path.is_dir():
        yield path
        return
    skipped = []
    for file in sorted(path.rglob("*.json")):
        if any(part.startswith(".") for part in file.relative_to(path).parts):
            continue
        if _is_record(read_json(file)):
            yield file
        else:
            skipped.append(str(file.relative_to(path)))
    if skipped:
        more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
        observer.say(f"{path}: skipped, because they are no records: {', '.join(skipped[:NAMED])}{more}")


def _is_record(document: object) -> bool:
    return isinstance(document, dict) and document.get("command") in RECORDS and "environment" in document
