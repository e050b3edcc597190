"""Where results come from, in the HTML report: weights, graph, data and machine; and the records themselves."""

from collections.abc import Iterator, Sequence
from dataclasses import fields

from mrpcbench.display.comparison import columns, ordered
from mrpcbench.display.numbers import difference, fixed, logged, mebibytes, plain, score, whole_percent
from mrpcbench.display.report.content import Chain, Section, Table, benches, is_invalid, moment, of_kind, validity
from mrpcbench.display.tables import environment_facts, model_line, placement_line
from mrpcbench.records.figures import padding_share
from mrpcbench.records.reports import Named
from mrpcbench.schema.bench_results import BenchRow, RowSummary
from mrpcbench.schema.identity import ModelIdentity
from mrpcbench.schema.records import AbRecord, BenchRecord, EvaluateRecord, ExportRecord, Record, TrainRecord
from mrpcbench.schema.results import EpochMetrics

SHOWN = 10  # characters of a hash


def lineage(records: Sequence[Named]) -> Section:
    """A chain for each set of weights on each machine: graphs, pairs and records."""
    groups: dict[tuple[str, str], list[Named]] = {}
    for named in records:
        model, found = named[1].model, named[1].environment
        groups.setdefault((model.model_sha256, found.machine_sha256), []).append(named)
    return Section(
        id="lineage",
        title="Lineage",
        lead="Equal hashes are the same weights, graph, pairs or machine.",
        chains=tuple(Chain(steps=_steps(group), records=tuple(name for name, _ in group)) for group in groups.values()),
    )


def _steps(group: Sequence[Named]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    found = [record for _, record in group]
    steps: dict[str, Iterator[tuple[str, str]]] = {
        "weights": (one for record in found for one in _weights(record)),
        "graph": (_graph(model) for record in found for model in _models(record)),
        "pairs": (
            (f"{one.source} {one.split}", f"{one.pairs} pairs, {one.data_sha256[:SHOWN]}")
            for record in found
            for one in record.data
        ),
        "machine": (_machine(record) for record in found),
    }
    return tuple((kind, tuple(dict.fromkeys(shown))) for kind, shown in steps.items())


def _weights(record: Record) -> Iterator[tuple[str, str]]:
    """The weights that training started from, and those that the record is about."""
    if isinstance(record, TrainRecord):
        base = record.train.base_model
        yield base.name, f"{base.weights_label}, {base.model_sha256[:SHOWN]}; start of training"
    model = record.model
    yield model.name, f"{model.weights_label}, {model.model_sha256[:SHOWN]}"


def _machine(record: Record) -> tuple[str, str]:
    found = record.environment
    return found.gpu or f"{found.cpu}, {found.cpu_cores} cores", found.machine_sha256[:SHOWN]


def _models(record: Record) -> tuple[ModelIdentity, ...]:
    """The models that ran, which may be graphs of the same weights."""
    match record:
        case BenchRecord():
            return tuple(row.model for row in record.rows)
        case AbRecord():
            return record.ab.a.model, record.ab.b.model
        case _:
            return (record.model,)


def _graph(model: ModelIdentity) -> tuple[str, str]:
    if model.graph_sha256 is None:
        return "PyTorch", "no graph"
    state = f"verified on {model.proven_on or 'the reference'}" if model.proven else "UNVERIFIED"
    return model.graph_label or "ONNX graph", f"{model.graph_sha256[:SHOWN]}, {state}"


# --- the records ------------------------------------------------------------------------------------------------------


def raw(records: Sequence[Named]) -> Section:
    """The fields of the records as tables that are closed at first; those of one kind share a table, but for bench."""
    tables = [_runs(records)]
    if trained := of_kind(records, TrainRecord):
        tables += [_recipes(trained), _epochs(trained)]
    if scored := of_kind(records, EvaluateRecord):
        tables.append(_evaluations(scored))
    if exported := of_kind(records, ExportRecord):
        tables.append(_trials(exported))
    tables += (_rows(name, record) for name, record in benches(records))
    tables += (table for name, record in of_kind(records, AbRecord) for table in _metrics(name, record))
    return Section(id="records", title="Records", folded=tuple(tables))


def _runs(records: Sequence[Named]) -> Table:
    facts = [
        {
            "record": name,
            "command": record.command,
            "started": moment(record),
            "complete": "yes" if record.complete else "NO: the run did not end",
            "model": model_line(record.model),
            "weights": record.model.model_sha256[:SHOWN],
            "pairs": ", ".join(f"{one.split} {one.data_sha256[:SHOWN]}" for one in record.data),
            **{key: str(value) for key, value in environment_facts(record.environment)},
            "command line": " ".join(record.environment.argv),
        }
        for name, record in records
    ]
    return Table(caption="All runs", headers=tuple(facts[0]), rows=tuple(tuple(one.values()) for one in facts))


def _recipes(found: Sequence[tuple[str, TrainRecord]]) -> Table:
    recipes = [record.train.recipe for _, record in found]
    return Table(
        caption="Training recipes",
        headers=("option", *(name for name, _ in found)),
        rows=tuple((one.name, *(plain(getattr(recipe, one.name)) for recipe in recipes)) for one in fields(recipes[0])),
    )


def _evaluations(found: Sequence[tuple[str, EvaluateRecord]]) -> Table:
    return Table(
        caption="Evaluations",
        headers=("record", "loss", "batch size", "padding tokens", "engine"),
        rows=tuple(
            (
                name,
                logged(record.score.loss),
                str(record.evaluate.batch_size),
                str(record.evaluate.padding_tokens),
                placement_line(record.evaluate.placement),
            )
            for name, record in found
        ),
    )


def _rows(name: str, record: BenchRecord) -> Table:
    return Table(
        caption=f"{name}: rows",
        headers=(
            "row",
            *"pairs/s|p50 ms|p90 ms|p99 ms|samples|padding|cold ms|F1|agree|GPU MiB|engine|validity".split("|"),
        ),
        rows=tuple(_row(row) for row in record.rows),
        marked=frozenset(at for at, row in enumerate(record.rows) if is_invalid(row)),
    )


def _row(row: BenchRow) -> tuple[str, ...]:
    found = row.summary or RowSummary()
    return (
        str(row.id),
        fixed(found.pairs_per_s, 1),
        *(fixed(one, 2) for one in (found.p50_ms, found.p90_ms, found.p99_ms)),
        str(len(row.samples_ms)),
        whole_percent(padding_share(row)),
        fixed(row.first_ms if row.cold_ms is None else row.cold_ms, 1),
        score(row.f1),
        whole_percent(row.agreement),
        mebibytes(row.peak_memory_bytes),
        placement_line(row.placement),
        validity(row),
    )


def _trials(found: Sequence[tuple[str, ExportRecord]]) -> Table:
    return Table(
        caption="Trials of the export gate",
        headers=("record", "compared", "batch", "padding", "flips", "largest |Δlogit|", "p99 |Δlogit|"),
        rows=tuple(
            (
                name,
                trial.kind,
                str(trial.batch_size),
                trial.padding,
                str(trial.flips),
                difference(trial.max_abs_delta),
                difference(trial.p99_abs_delta),
            )
            for name, record in found
            if record.export.gate
            for trial in record.export.gate.trials
        ),
    )


def _epochs(found: Sequence[tuple[str, TrainRecord]]) -> Table:
    return Table(
        caption="Training logs",
        headers=("record", *(item.name for item in fields(EpochMetrics))),
        rows=tuple(
            (name, *(_logged(getattr(line, item.name)) for item in fields(EpochMetrics)))
            for name, record in found
            for line in record.train.epochs
        ),
    )


def _logged(value: float | None) -> str:
    return logged(None) if value is None else f"{value:.6g}"


def _metrics(name: str, record: AbRecord) -> Iterator[Table]:
    found = record.ab.comparison
    if found is not None:
        cells = columns(found)
        rows = tuple(tuple(cell(metric) for _, cell in cells) for metric in ordered(found))
        yield Table(caption=f"{name}: metrics", headers=tuple(header for header, _ in cells), rows=rows)
