"""Records as flat data for other programs: benchmark rows as CSV, and the JSON document of `report`. Prints nothing."""

import csv
import io
from dataclasses import asdict
from typing import Any

from mrpcbench.gates.metrics import METRICS
from mrpcbench.records.recommendation import Recommendation
from mrpcbench.records.reports import Report
from mrpcbench.schema.bench_results import BenchRow, RowSummary
from mrpcbench.schema.records import BenchRecord, Record

# A spreadsheet takes a cell that begins with one of these as a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_text(report: Report) -> str:
    """A line for each row of each bench record, below a header. An absent value is an empty cell.

    A text that a spreadsheet would take as a formula gets a leading quote (OWASP, CSV injection).
    """
    lines = [{"record": name, **row_facts(record, row)} for name, record in report.benches for row in record.rows]
    shown = io.StringIO()
    # Without a row there is still a header.
    names = lines[0].keys() if lines else ["record"]
    writer = csv.DictWriter(shown, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in line.items()} for line in lines)
    return shown.getvalue()


def row_facts(record: BenchRecord, row: BenchRow) -> dict[str, Any]:
    """A benchmark row with its summary, validity, model, data and machine, as numbers, texts and None."""
    environment, model, place = record.environment, row.model, row.placement
    data = record.data[0] if record.data else None
    validity = "UNCHECKED" if row.broken_rules is None else "INVALID" if row.broken_rules else "VALID"
    return {
        "row": str(row.id),
        "case": row.case,
        "scenario": row.scenario,
        "batch_size": row.batch_size,
        "pairs": row.pairs,
        "samples": len(row.samples_ms),
        **asdict(row.summary or RowSummary()),
        "validity": validity,
        "broken_rules": "; ".join(row.broken_rules or ()),
        "accuracy": row.accuracy,
        "f1": row.f1,
        "agreement": row.agreement,
        "failed": row.failed,
        "first_ms": row.first_ms,
        "cold_ms": row.cold_ms,
        "peak_memory_bytes": row.peak_memory_bytes,
        "engine": place.engine,
        "provider": place.provider,
        "device": place.device,
        "dtype": place.dtype,
        "threads": place.threads,
        "model": model.name,
        "weights": model.weights_label,
        "model_sha256": model.model_sha256,
        "graph": model.optimize,
        "graph_sha256": model.graph_sha256,
        "verified": model.proven,
        "data": data.source if data else None,
        "split": data.split if data else None,
        "data_sha256": data.data_sha256 if data else None,
        "complete": record.complete,
        "started_at": environment.started_at,
        "machine_sha256": environment.machine_sha256,
        "cpu": environment.cpu,
        "cpu_cores": environment.cpu_cores,
        "gpu": environment.gpu,
        "git_commit": environment.git_commit,
    }


def document(report: Report) -> dict[str, Any]:
    """The JSON document of `report`: each record with its figures, or with its rows and the recommendation."""
    return {
        "outcome": report.outcome,
        "records": [
            {
                "record": name,
                "command": record.command,
                "complete": record.complete,
                "started_at": record.environment.started_at,
                "model": record.model.name,
                "model_sha256": record.model.model_sha256,
                **_results(record, recommendation),
            }
            for (name, record), recommendation in zip(report.records, report.recommendations, strict=True)
        ],
    }


def _results(record: Record, found: Recommendation | None) -> dict[str, Any]:
    if isinstance(record, BenchRecord):
        return {
            "rows": [row_facts(record, row) for row in record.rows],
            "recommendation": asdict(found) if found else None,
        }
    if record.command == "ab":
        return {"verdict": asdict(record.verdict) if record.verdict else None}
    values = {
        key: value
        for key, metric in METRICS.items()
        if metric.is_of(record.command)
        for _, value in metric.values(record)
    }
    return {"figures": values}


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
