"""What must be equal in records to compare them, and what may differ. Standard library only.

| kind | must be equal | a difference is a warning |
|---|---|---|
| all | command, split, pairs, label names, architecture, parameters, tokenizer | Python, packages |
| evaluate | the weights' kind and origin | graph, engine, device, provider, arithmetic, threads, batch size, settings |
| train | base model, arithmetic; within a side the recipe | recipe, engine, device, provider, threads, settings |
| export | the weights' kind and origin, arithmetic, device, provider, limits | graph, engine, threads, opset, settings|
| bench | machine, settings, seed, shape | the weights' kind and origin, rounds, warm-up, CUDA, thread settings |
| bench row | engine, device, provider, dtype, threads, tokens, order, server's target | graph, version, accuracy |

- Settings such as OMP_NUM_THREADS may differ, because they only determine the thread count, which each row holds.
- The runs of one side of train records must have the same recipe and different seeds. The two sides may have different
  recipes. Runs with the same seed on both sides must have started from the same weights.
- Accuracy may be compared between any engines, arithmetics and weights, because that is what the gate is for. The
  architecture and the tokenizer must be equal.
- Time depends on everything, so bench is strictest. Packages may differ, because an upgrade is a reason to compare.
- A value that is 'unknown' on one side, such as the origin of a downloaded model, is a warning.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, product

from mrpcbench.gates.machines import machine_differences
from mrpcbench.schema.bench_results import BenchRow, BenchSection
from mrpcbench.schema.identity import Command, ModelIdentity, Placement
from mrpcbench.schema.records import BenchRecord, EvaluateRecord, ExportRecord, Record, RunRecord, TrainRecord
from mrpcbench.schema.results import TrainSection
from mrpcbench.schema.verdicts import Compared

Named = tuple[str, Record]
# The commands whose records can be compared; a record of ab already has a verdict.
COMPARED: tuple[Command, ...] = ("train", "evaluate", "export", "bench", "study")

# The commands of which a baseline may hold several records: different seeds, and repeated runs on one machine.
SEVERAL: tuple[Command, ...] = ("train", "bench")
# What a baseline may be called.
BASELINE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
UNKNOWN = "unknown"
# Settings that only choose how many threads an engine uses.
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The named facts of a record that a comparison checks.

    `must_match` must be equal everywhere. A difference in `may_differ` is a warning. `match_within_side` must be equal
    among the records of a side; a difference between the sides is a warning.
    """

    must_match: Mapping[str, object]
    may_differ: Mapping[str, object]
    match_within_side: Mapping[str, object] = field(default_factory=dict)


def compared_of(record: Record, name: str) -> Compared:
    """What a comparison shows of `record`, which it calls `name`."""
    match record:
        case TrainRecord():
            placement: Placement | None = record.train.placement
        case EvaluateRecord():
            placement = record.evaluate.placement
        case ExportRecord():
            placement = record.export.placement
        case _:
            placement = None  # each row or side has its own
    return Compared(
        name=name,
        started_at=record.environment.started_at,
        git_commit=record.environment.git_commit,
        model=f"{record.model.name} ({record.model.label})",
        model_sha256=record.model.model_sha256,
        engine=placement.description if placement else None,
    )


def comparability(baseline: Sequence[Named], current: Sequence[Named]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The forbidden and the allowed differences, one line each, relative to the first baseline record."""
    commands = [record.command for _, record in (*baseline, *current)]
    if len(set(commands)) > 1:
        return (_line("command", commands[0], next(item for item in commands if item != commands[0])),), ()
    differences = list(_same_runs(baseline, current))
    warnings: list[str] = []
    (_, standard), *others = (*baseline, *current)
    rows = _first_rows([record for _, record in baseline])
    for name, record in others:
        prefix = f"{name}: " if len(others) > 1 else ""
        refused, allowed = _differing(facts(standard), facts(record))
        in_rows, row_warnings = _differing_rows(rows, record)
        refused += _differing_limits(standard, record)
        if isinstance(standard, BenchRecord) and isinstance(record, BenchRecord):
            refused[:0] = machine_differences(standard.environment, record.environment)
        refused += (f"{line} ({', '.join(rows)})" for line, rows in in_rows.items() if line not in refused)
        differences += (prefix + line for line in refused)
        warnings += (prefix + line for line in (*allowed, *row_warnings))
    for (_, first), *rest in (baseline, current):
        for name, record in rest:
            differences += (
                f"{name}: {line}" for line in _changes(facts(first).match_within_side, facts(record).match_within_side)
            )
    warnings += _changes(facts(standard).match_within_side, facts(current[0][1]).match_within_side)
    differences += _seed_problems(baseline, current)
    warnings += _unverified(baseline, current)
    return tuple(dict.fromkeys(differences)), tuple(dict.fromkeys(warnings))


def facts(record: Record) -> Facts:
    """The facts of `record`."""
    own = _own_facts(record)
    python: dict[str, object] = {"python": record.environment.python}
    return Facts(
        must_match={**_data(record), **_architecture(record.model), **own.must_match},
        may_differ={**python, **_prefixed("packages", record.environment.packages), **own.may_differ},
        match_within_side=own.match_within_side,
    )


# --- facts of each kind -----------------------------------------------------------------------------------------------


def _train(record: TrainRecord) -> Facts:
    section, base = record.train, record.train.base_model
    # The placement holds the precision that was used. The batch of all processes counts, not the share of one.
    left_out = {"seed", "precision", "per_device_train_batch_size"}
    recipe = {name: value for name, value in asdict(section.recipe).items() if name not in left_out}
    # Newly initialised weights depend on the seed, and are part of the base model's hash.
    identity = _loaded(section) if _has_new_weights(section) else {"base_model_sha256": base.model_sha256}
    return Facts(
        must_match={
            **identity,
            "base_model.weights": base.weights,
            "base_model.origin": base.origin,
            "precision": section.placement.dtype,
        },
        may_differ={
            **_where(section.placement),
            **_settings(record),
            "processes": section.processes,
            "resumed_from_step": section.resumed_from_step,
        },
        match_within_side=_prefixed("recipe", recipe),
    )


def _loaded(section: TrainSection) -> dict[str, object]:
    """The start of a model with new weights: its name, and the hash of the loaded weights, which old records lack."""
    found: dict[str, object] = {"base_model": section.base_model.name}
    if section.base_model.weights == "random-init":
        return found
    return {**found, "loaded_sha256": section.load_report.loaded_sha256 or UNKNOWN}


def _evaluate(record: EvaluateRecord) -> Facts:
    section = record.evaluate
    may = {**_where(section.placement), "dtype": section.placement.dtype, "batch_size": section.batch_size}
    may |= _graph(record.model)
    return Facts(must_match=_weights(record.model), may_differ={**may, **_settings(record)})


def _export(record: ExportRecord) -> Facts:
    section = record.export
    where = {"device": section.placement.device, "provider": section.placement.provider}
    may = {"engine": section.placement.engine, "threads": section.placement.threads, "opset": section.opset}
    may |= _graph(record.model)
    return Facts(
        must_match={**_weights(record.model), "dtype": section.dtype, **where},
        may_differ={**may, "reference": str(section.reference), **_settings(record)},
    )


def _bench(record: BenchRecord) -> Facts:
    plan, machine, settings = record.bench.plan, record.environment, record.environment.settings
    must: dict[str, object] = {
        **{name: getattr(machine, name) for name in ("system", "cpu", "cpu_cores", "gpu")},
        "gpu_driver": machine.gpu_driver,
        **_prefixed("settings", {name: value for name, value in settings.items() if name not in THREAD_SETTINGS}),
        "seq_len": plan.seq_len,
        "seed": plan.seed,  # the hash of the data covers the number of pairs and their order
    }
    may: dict[str, object] = {**_weights(record.model), "rounds": plan.rounds, "warmup": plan.warmup}
    may |= _prefixed("settings", {name: settings[name] for name in THREAD_SETTINGS if name in settings})
    return Facts(must_match=must, may_differ={**may, "cuda": machine.cuda})


def _own_facts(record: Record) -> Facts:
    """The facts that only records of this command have."""
    match record:
        case TrainRecord():
            return _train(record)
        case EvaluateRecord():
            return _evaluate(record)
        case ExportRecord():
            return _export(record)
        case BenchRecord():
            return _bench(record)
        case _:
            raise ValueError(f"a record of {record.command} is not compared itself")


def _row(row: BenchRow, bench: BenchSection) -> Facts:
    must: dict[str, object] = {
        "engine": row.placement.engine.split(" ")[0],
        **{name: getattr(row.placement, name) for name in ("device", "provider", "dtype", "threads")},
        **_architecture(row.model),
        "real_tokens": row.real_tokens,
        "order": row.order,
    }
    if row.server is not None:
        must |= {"slo_ms": row.server.slo_ms, "window_ms": row.server.window_ms}
    return Facts(must_match=must, may_differ={**_graph(row.model), "engine": row.placement.engine})


def _data(record: RunRecord) -> dict[str, object]:
    found: dict[str, object] = {"split": ", ".join(item.split for item in record.data)}
    for item in record.data:
        of = f"{item.split} " if len(record.data) > 1 else ""
        found |= {f"{of}data_sha256": item.data_sha256, f"{of}pairs": item.pairs}
        found[f"{of}label_names"] = "/".join(item.label_names)
    return found


def _architecture(model: ModelIdentity) -> dict[str, object]:
    return {name: getattr(model, name) for name in ("architecture", "parameters", "tokenizer_sha256")}


def _weights(model: ModelIdentity) -> dict[str, object]:
    return {"weights": model.weights, "origin": model.origin}


def _graph(model: ModelIdentity) -> dict[str, object]:
    """The graph's form; "none" (Optimum's own) also if there is no graph or its form is unknown."""
    return {"graph": model.optimize or "none"}


def _where(placement: Placement) -> dict[str, object]:
    return {name: getattr(placement, name) for name in ("engine", "device", "provider", "threads")}


def _settings(record: RunRecord) -> dict[str, object]:
    return _prefixed("settings", record.environment.settings)


def _prefixed(prefix: str, values: Mapping[str, object]) -> dict[str, object]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _has_new_weights(section: TrainSection) -> bool:
    report = section.load_report
    return section.base_model.weights == "random-init" or bool(report.new_head or report.missing)


# --- differences ------------------------------------------------------------------------------------------------------


def _differing(was: Facts, now: Facts) -> tuple[list[str], list[str]]:
    """The forbidden and the allowed differences, one line each."""
    refused: list[str] = []
    allowed = list(_changes(was.may_differ, now.may_differ))
    for name, line in _named_changes(was.must_match, now.must_match):
        unknown = UNKNOWN in (was.must_match.get(name), now.must_match.get(name))
        (allowed if unknown else refused).append(line)
    return refused, allowed


def _first_rows(records: Sequence[Record]) -> dict[str, tuple[BenchRow, BenchSection]]:
    """Each benchmark row by its name, with its section; if several records have the row, the first."""
    sections = [record.bench for record in reversed(records) if isinstance(record, BenchRecord)]
    return {str(row.id): (row, section) for section in sections for row in section.rows}


def _differing_rows(
    before: Mapping[str, tuple[BenchRow, BenchSection]], now: Record
) -> tuple[dict[str, list[str]], list[str]]:
    """The same for the rows of a benchmark; each forbidden difference with the rows that have it."""
    refused: dict[str, list[str]] = {}
    allowed: list[str] = []
    after = _first_rows([now])
    for name in dict.fromkeys((*before, *after)):
        if name not in before or name not in after:
            allowed.append(f"{name}: {'missing' if name in before else 'not in the baseline'}")
            continue
        (old, was), (new, bench) = before[name], after[name]
        must, may = _differing(_row(old, was), _row(new, bench))
        for line in must:
            refused.setdefault(line, []).append(name)
        allowed += (f"{old.case}: {line}" for line in may)
        if old.model.model_sha256 == new.model.model_sha256 and old.accuracy != new.accuracy:
            allowed.append(f"{name}: {_line('accuracy', old.accuracy, new.accuracy)}, although the weights are equal")
    return refused, allowed


def _differing_limits(was: Record, now: Record) -> Iterator[str]:
    """Limits of the export gate that differ. A missing gate is left to the verdict."""
    before, after = (record.export.gate if isinstance(record, ExportRecord) else None for record in (was, now))
    if before and after:
        limits = ("flips_allowed", "delta_allowed")
        yield from _changes(*({name: getattr(gate, name) for name in limits} for gate in (before, after)))


def _seed_problems(baseline: Sequence[Named], current: Sequence[Named]) -> Iterator[str]:
    """A seed that one side has twice, and a seed with different start weights."""
    start_weights: dict[int, str] = {}
    for side, records in (("baseline", baseline), ("current side", current)):
        sections = [record.train for _, record in records if isinstance(record, TrainRecord)]
        seeds = [section.recipe.seed for section in sections]
        for seed in dict.fromkeys(seed for seed in seeds if seeds.count(seed) > 1):
            yield f"seed {seed}: {seeds.count(seed)} times on the {side}; give each seed once"
        for section in sections:
            seed, sha256 = section.recipe.seed, section.base_model.model_sha256
            if start_weights.setdefault(seed, sha256) != sha256:
                yield _line(f"seed {seed}: base_model_sha256", start_weights[seed], sha256)


def _same_runs(baseline: Sequence[Named], current: Sequence[Named]) -> Iterator[str]:
    """Records of the same run: on both sides, or twice among the benchmarks of the baseline."""
    benchmarks = [named for named in baseline if isinstance(named[1], BenchRecord)]
    for (name, was), (other, now) in (*product(baseline, current), *combinations(benchmarks, 2)):
        when, then = was.environment, now.environment
        if (when.started_at, when.machine_sha256) == (then.started_at, then.machine_sha256):
            yield f"{name} and {other} are the same run; compare with another"


def _unverified(baseline: Sequence[Named], current: Sequence[Named]) -> Iterator[str]:
    """Graphs that did not pass the export gate, unless the comparison judges that gate."""
    for side, records in (("baseline", baseline), ("current side", current)):
        for _, record in records:
            models = [row.model for row in record.bench.rows] if isinstance(record, BenchRecord) else [record.model]
            judged = record.command == "export" and side != "baseline"
            if not judged and any(model.graph_sha256 and not model.proven for model in models):
                yield f"the graph of the {side} is unverified"


def _changes(was: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    yield from (line for _, line in _named_changes(was, now))


def _named_changes(was: Mapping[str, object], now: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys((*was, *now)):
        if was.get(name) != now.get(name):
            yield name, _line(name, was.get(name), now.get(name))


def _line(name: str, was: object, now: object) -> str:
    shown = ["none" if value is None else str(value) for value in (was, now)]
    if name.endswith("sha256"):
        shown = [value[:12] for value in shown]
    return f"{name}: {shown[0]}, now {shown[1]}"
