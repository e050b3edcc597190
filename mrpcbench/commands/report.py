"""Say what records hold, in few lines: `mrpcbench report RECORD...`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mrpcbench.environment.redaction import distinct_name
from mrpcbench.errors import UsageError
from mrpcbench.progress import Observer
from mrpcbench.records import store
from mrpcbench.records.documents import read_json
from mrpcbench.records.reports import Report
from mrpcbench.schema.fields import check
from mrpcbench.schema.gate_requests import ReportPlan
from mrpcbench.schema.records import RECORDS


def report(paths: Sequence[Path], plan: ReportPlan, observer: Observer) -> Report:
    """Read the records in `paths`; a folder is read recursively, and its JSON files that are no records are skipped.

    Raises `UsageError` if a file is not a valid record, or if there is no record.
    """
    check(plan)
    files = [file for path in paths for file in _files(path, observer)]
    files = list({file.resolve(): file for file in files}.values())
    if not files:
        raise UsageError(f"no record in {', '.join(map(str, paths))}; name a file, or a folder with records")
    absolute = [file.absolute() for file in files]
    names = [distinct_name(file, absolute) for file in absolute]
    return Report(records=tuple(zip(names, map(store.load, files), strict=True)))


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
        observer.say(f"{path}: skipped, because they are no records: {', '.join(skipped)}")


def _is_record(document: object) -> bool:
    return isinstance(document, dict) and document.get("command") in RECORDS and "environment" in document
