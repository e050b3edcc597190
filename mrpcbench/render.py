"""Records as rich renderables. Prints nothing."""

from collections.abc import Iterator
from dataclasses import fields

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mrpcbench.schema import (
    BenchRow,
    BenchSection,
    Environment,
    EnvironmentReport,
    EvalScore,
    ExportGate,
    Interval,
    ModelIdentity,
    PairAnswer,
    Placement,
    RunRecord,
    TrainSection,
    Verdict,
)
from mrpcbench.stats import quantile, samples_needed

RECIPE_SHOWN = (
    "learning_rate lr_scheduler_type warmup_steps num_train_epochs max_steps per_device_train_batch_size "
    "gradient_accumulation_steps optim adam_beta1 adam_beta2 adam_epsilon weight_decay max_grad_norm precision seed "
    "metric_for_best_model"
).split()


def render(record: RunRecord) -> RenderableType:
    """The result of `record` as tables, and under each what it was measured on."""
    parts = {"train": _train, "evaluate": _evaluate, "export": _export, "bench": _bench}[record.command](record)
    if not record.complete:
        return Group(Text("INCOMPLETE: the run was interrupted; these are the rows that it finished.", "bold"), *parts)
    return Group(*parts)


def opening(record: RunRecord) -> RenderableType:
    """What is about to run: environment, model, data, and for training the recipe."""
    table = _facts("About to run", _environment_facts(record.environment))
    table.add_row("model", _model_line(record.model))
    for item in record.data:
        table.add_row(
            "data", f"{item.source} {item.split}: {item.pairs} pairs, {item.positives / item.pairs:.1%} equivalent"
        )
    if record.train is None:
        return table
    recipe = _facts("Recipe", [(name, _text(getattr(record.train.recipe, name))) for name in RECIPE_SHOWN])
    recipe.add_row("total steps", str(record.train.total_steps))
    recipe.add_row("runs on", _placement_line(record.train.placement))
    return Group(table, recipe)


def environment(report: EnvironmentReport) -> RenderableType:
    """What would run here: the machine, the versions, and each engine with what keeps it from running."""
    engines = _table("Engines", "engine", "usable", "why not, and what helps")
    for name, problem in report.problems:
        engines.add_row(name, "no" if problem else "yes", problem or "")
    versions = _facts("Versions", sorted(report.environment.packages.items()))
    return Group(_facts("This machine", _environment_facts(report.environment)), engines, versions)


def pair_answer(found: PairAnswer) -> RenderableType:
    """What a model says of one pair."""
    return Text(
        f"{found.label_name} with probability {found.probability:.3f} (logits {found.logits[0]:+.4f} "
        f"{found.logits[1]:+.4f}; {found.weights} weights, {_placement_line(found.placement)})"
    )


# --- one function a command -------------------------------------------------------------------------------------------


def _train(record: RunRecord) -> Iterator[RenderableType]:
    section = record.train
    assert section is not None
    by_epoch = _table(
        "Validation metrics by epoch", "epoch", "training loss", "validation loss", "accuracy", "F1", numeric=True
    )
    for line in section.epochs:
        by_epoch.add_row(
            f"{line.train_epoch:g}",
            _number(line.train_loss),
            _number(line.eval_loss),
            _number(line.eval_accuracy_score),
            _number(line.eval_f1_score),
            style="bold" if line.step == section.best_step else None,
        )
    by_epoch.caption = _caption(record.model, section.placement, f"n = {record.data[1].pairs} validation pairs")
    yield by_epoch
    yield _logged(section)
    yield _train_results(record, section)


def _logged(section: TrainSection) -> Table:
    if not section.epochs:
        return _table("Logged metrics: no epoch finished", "step")
    names = [item.name for item in fields(section.epochs[0])]
    logged = _table("Logged metrics", "", *(f"step {line.step}" for line in section.epochs), numeric=True)
    for name in names:
        values = [getattr(line, name) for line in section.epochs]
        logged.add_row(name, *(_logged_value(name, value) for value in values))
    return logged


def _logged_value(name: str, value: float | int | None) -> str:
    if value is None:
        return "not finite"
    return f"{value:.6e}" if name == "train_learning_rate" else _text(value) if value == int(value) else f"{value:.6f}"


def _train_results(record: RunRecord, section: TrainSection) -> Table:
    table = _facts("Results", [])
    for name, line in _best_and_final(section):
        table.add_row(name, line)
    table.add_row("steps", f"{section.epochs[-1].step if section.epochs else 0}/{section.total_steps}")
    if section.resumed_from_step is not None:
        table.add_row("resumed from step", str(section.resumed_from_step))
    table.add_row("special tokens aligned", str(section.aligned_tokens) if section.aligned_tokens else "none")
    if section.train_s:
        share = section.padding_tokens / max(1, section.real_tokens + section.padding_tokens)
        table.add_row(
            "time",
            f"{section.train_s:.1f} s with evaluations and saves; {section.real_tokens / section.train_s:.0f} real "
            f"tokens/s; {share:.0%} of the tokens were padding",
        )
    table.add_row("weights", f"sha256 {record.model.model_sha256[:16]}")
    return table


def _best_and_final(section: TrainSection) -> Iterator[tuple[str, str]]:
    best = [line for line in section.epochs if line.step == section.best_step]
    for name, lines in (("best, kept", best), ("final", section.epochs[-1:])):
        for line in lines:
            yield (
                name,
                f"step {line.step}: accuracy {line.eval_accuracy_score:.6f}, F1 {line.eval_f1_score:.6f}, "
                f"loss {_number(line.eval_loss)}",
            )


def _evaluate(record: RunRecord) -> Iterator[RenderableType]:
    section = record.evaluate
    assert section is not None
    score = section.score
    table = _table(
        f"Score on {record.data[0].source} {record.data[0].split}", "metric", "value", "95% interval", "majority class"
    )
    table.add_row(
        "accuracy", _number(score.accuracy), _interval(score.accuracy_interval), _number(score.majority_accuracy)
    )
    table.add_row("F1", _number(score.f1), _interval(score.f1_interval), _number(score.majority_f1))
    table.add_row("precision", _number(score.precision))
    table.add_row("recall", _number(score.recall))
    table.add_row("loss", _number(score.loss))
    table.caption = _caption(record.model, section.placement, f"n = {score.pairs} pairs")
    yield table
    yield _confusion(score, record.data[0].label_names)


def _confusion(score: EvalScore, names: tuple[str, str]) -> Table:
    counts = score.confusion
    table = _table("Confusion", "", *(f"predicted {name}" for name in names), numeric=True)
    table.add_row(f"is {names[0]}", str(counts.true_negative), str(counts.false_positive))
    table.add_row(f"is {names[1]}", str(counts.false_negative), str(counts.true_positive))
    return table


def _export(record: RunRecord) -> Iterator[RenderableType]:
    section = record.export
    assert section is not None
    facts = [
        ("graph", f"{section.nodes} nodes, opset {section.opset}, {section.dtype}"),
        ("files", ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in section.files.items() if size > 1e5)),
        ("original ran on", _placement_line(section.reference)),
    ]
    yield _facts("Export", facts)
    if section.gate is None:
        return
    trials = _table(
        "Export gate", "batch", "padding", "flips", "largest |Δlogit|", "p99 |Δlogit|", "padding tokens", numeric=True
    )
    for trial in section.gate.trials:
        trials.add_row(
            str(trial.batch_size),
            trial.padding,
            str(trial.flips),
            _small(trial.max_abs_delta),
            _small(trial.p99_abs_delta),
            str(trial.padding_tokens),
        )
    trials.caption = _caption(record.model, section.placement, f"n = {section.gate.pairs} pairs a row")
    yield trials
    yield _gate_facts(section.gate)


def _gate_facts(gate: ExportGate) -> Table:
    table = _facts("Verdict", [])
    table.add_row("outcome", verdict(gate.verdict))
    table.add_row("smallest decision margin", f"{gate.smallest_margin:.3e}")
    table.add_row(
        "headroom", "none needed" if gate.headroom is None else f"{gate.headroom:.1f} (no label can flip above 2)"
    )
    table.add_row("flips on pairs like these", f"at most {gate.flip_rate_bound:.2%} at 95% confidence")
    return table


def verdict(found: Verdict) -> Text:
    """The outcome in its colour, and why."""
    colour = {"PASS": "bold green", "REGRESSION": "bold red"}.get(found.outcome, "bold yellow")
    return Text.assemble((found.outcome, colour), f": {found.reason}")


def _bench(record: RunRecord) -> Iterator[RenderableType]:
    section = record.bench
    assert section is not None
    for scenario, unit in (("single-stream", "one pair at a time"), ("offline", "all pairs, sorted by length")):
        rows = [row for row in section.rows if row.scenario == scenario]
        if rows:
            yield _bench_table(f"{scenario}: {unit}", rows, section, record)
    notes = list(dict.fromkeys(note for row in section.rows for note in _bench_notes(row)))
    if notes:
        yield Text("\n".join(notes))


def _bench_table(title: str, rows: list[BenchRow], section: BenchSection, record: RunRecord) -> Table:
    table = _table(
        title,
        "backend",
        "dtype",
        "batch",
        "pairs/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "first ms",
        "accuracy",
        "F1",
        numeric=True,
    )
    ranked = sorted(rows, key=_pairs_per_s, reverse=True)
    for row in ranked:
        table.add_row(
            row.spec.backend + ("" if row.model.proven is not False else " UNPROVEN"),
            row.placement.dtype,
            str(row.batch_size),
            f"{_pairs_per_s(row):.1f}",
            *(_percentile(row, share) for share in (0.5, 0.9, 0.99)),
            f"{row.first_ms:.1f}",
            f"{row.accuracy:.4f}",
            f"{row.f1:.4f}",
            style="bold" if row is ranked[0] and len(ranked) > 1 else None,
        )
    placed = "; ".join(dict.fromkeys(f"{row.spec.backend} = {_placement_line(row.placement)}" for row in rows))
    table.caption = (
        f"{_model_line(record.model)}\n{placed}\n{rows[0].pairs} pairs x {section.rounds_done} rounds interleaved; "
        f"{record.data[0].source} {record.data[0].split}; {_machine(record.environment)}"
    )
    return table


def _pairs_per_s(row: BenchRow) -> float:
    """Pairs in a second at the median of the samples."""
    pairs_a_sample = 1 if row.scenario == "single-stream" else row.pairs
    return pairs_a_sample * 1e3 / quantile(row.samples_ms, 0.5)


def _percentile(row: BenchRow, share: float) -> str:
    """A percentile, or how many samples are missing before it is bounded at 99% confidence."""
    needed = samples_needed(share)
    if share > 0.5 and len(row.samples_ms) < needed:
        return f"n<{needed}"
    return f"{quantile(row.samples_ms, share):.2f}"


def _bench_notes(row: BenchRow) -> Iterator[str]:
    if row.model.proven is False:
        yield (
            f"UNPROVEN: the graph of {row.model.name} did not pass the export gate, or was changed since; "
            "its speed may be that of another model. Run `mrpcbench export`."
        )
    if row.model.weights == "random-init":
        yield "random-init: speed and memory are those of the architecture; accuracy and F1 mean nothing."
    if len(row.samples_ms) < samples_needed(0.99):
        yield "n<64, n<662: too few samples to bound that percentile at 99% confidence; more --rounds give more."


# --- parts ------------------------------------------------------------------------------------------------------------


def _table(title: str, *columns: str, numeric: bool = False) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if numeric and index else "left")
    return table


def _facts(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    return table


def _environment_facts(found: Environment) -> list[tuple[str, str]]:
    gpu = f"{found.gpu}, driver {found.gpu_driver}, CUDA {found.cuda}" if found.gpu else "none"
    return [
        ("machine", f"{found.system}, {found.cpu}, {found.cpu_cores} cores, {found.memory_bytes / 2**30:.0f} GiB"),
        ("GPU", gpu),
        (
            "python",
            f"{found.python}, "
            + ", ".join(
                f"{name} {found.packages[name]}" for name in ("torch", "transformers") if name in found.packages
            ),
        ),
        ("mrpcbench", _commit(found)),
    ]


def _commit(found: Environment) -> str:
    version = found.packages.get("mrpcbench", "not installed")
    return (
        version
        + (f", commit {found.git_commit[:12]}" if found.git_commit else "")
        + (" (changed)" if found.git_dirty else "")
    )


def _machine(found: Environment) -> str:
    return found.gpu or f"{found.cpu}, {found.cpu_cores} cores"


def _model_line(model: ModelIdentity) -> str:
    return f"{model.name} ({model.architecture}, {model.parameters / 1e6:.1f} M, {model.weights_label} weights)"


def _placement_line(placement: Placement) -> str:
    return f"{placement} {placement.dtype} on {placement.device}, {placement.threads} threads"


def _caption(model: ModelIdentity, placement: Placement, n: str) -> str:
    return f"{_model_line(model)}\n{_placement_line(placement)}; {n}"


def _interval(found: Interval) -> str:
    return f"{found.low:.4f} to {found.high:.4f}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6f}"


def _small(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2e}"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
