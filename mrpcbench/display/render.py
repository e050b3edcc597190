"""Records and other results as rich renderables. Prints nothing."""

from collections.abc import Iterator
from dataclasses import fields

from rich.console import Group, RenderableType
from rich.text import Text

from mrpcbench.benchmark.validity import invalid_sentence
from mrpcbench.display.bench.result import bench
from mrpcbench.display.bench.summary import fastest_line
from mrpcbench.display.comparison import comparison, verdict_line
from mrpcbench.display.numbers import NOT_FINITE, difference, fixed, interval, logged, plain
from mrpcbench.display.study import study
from mrpcbench.display.tables import (
    PlainTable,
    caption,
    environment_facts,
    facts,
    machine_line,
    model_line,
    notes,
    placement_line,
    table,
)
from mrpcbench.records.figures import stepping_s, steps_per_s
from mrpcbench.schema.bench_requests import BenchView
from mrpcbench.schema.identity import EnvironmentReport, PairAnswer, SavedBaseline
from mrpcbench.schema.records import (
    AbRecord,
    BenchRecord,
    EvaluateRecord,
    ExportRecord,
    Record,
    RunRecord,
    StudyRecord,
    TrainRecord,
)
from mrpcbench.schema.results import EvalScore, ExportGate, ExportSection, TrainSection

RECIPE_SHOWN = (
    "learning_rate lr_scheduler_type warmup_steps num_train_epochs max_steps batch_size "
    "gradient_accumulation_steps optim adam_beta1 adam_beta2 adam_epsilon weight_decay max_grad_norm precision seed "
    "metric_for_best_model"
).split()
# Epochs per table: more columns would not fit, and their numbers would be cut.
EPOCHS_PER_TABLE = 5
BY_SPEED = BenchView()


def render(record: Record, view: BenchView = BY_SPEED, *, verbose: bool = False) -> RenderableType:
    """The result of `record` as tables with the model and the machine below; `verbose` adds long tables.

    `view` applies to a benchmark.
    """
    parts = _parts(record, view, verbose=verbose)
    if record.complete:
        return Group(*parts)
    return Group(Text("INCOMPLETE: the run did not end. The finished part:", "bold"), *parts)


def _parts(record: Record, view: BenchView, *, verbose: bool) -> Iterator[RenderableType]:
    match record:
        case TrainRecord():
            return _train(record)
        case EvaluateRecord():
            return _evaluate(record)
        case ExportRecord():
            return _export(record)
        case BenchRecord():
            return bench(record, view, verbose=verbose)
        case AbRecord():
            return _ab(record)
        case StudyRecord():
            return study(record)


def headline(record: Record) -> Text | None:
    """The result of `record` in one line; None if it has none."""
    match record:
        case BenchRecord():
            return Text(fastest_line(record.bench))
        case ExportRecord() | AbRecord() if record.verdict:
            return verdict_line(record.verdict)
        case _:
            return None


def alerts(record: Record) -> Iterator[str]:
    """What a reader must know who sees no table of `record`."""
    if isinstance(record, BenchRecord) and (sentence := invalid_sentence(record.bench.rows)):
        yield sentence


def opening(record: RunRecord) -> RenderableType:
    """What is about to run: environment, model, data, and for training the recipe."""
    shown = facts("About to run", environment_facts(record.environment))
    shown.add_row("model", model_line(record.model))
    for item in record.data:
        share = item.positives / item.pairs
        shown.add_row("data", f"{item.source} {item.split}: {item.pairs} pairs, {share:.1%} equivalent")
    if not isinstance(record, TrainRecord):
        return shown
    recipe = facts("Recipe", [(name, plain(getattr(record.train.recipe, name))) for name in RECIPE_SHOWN])
    recipe.add_row("total steps", str(record.train.total_steps))
    recipe.add_row("runs on", placement_line(record.train.placement))
    return Group(shown, recipe)


def environment(report: EnvironmentReport) -> RenderableType:
    """The machine, each engine and whether it works here, and the versions."""
    engines = table("Engines", "engine", "usable", "problem and fix")
    for name, problem in report.problems:
        engines.add_row(name, "no" if problem else "yes", problem or "")
    versions = facts("Versions", sorted(report.environment.packages.items()))
    return Group(facts("This machine", environment_facts(report.environment)), engines, versions)


def baseline(found: SavedBaseline) -> RenderableType:
    """The records in a baseline, one line each."""
    count = f"{len(found.files)} record{'' if len(found.files) == 1 else 's'}"
    return Text("\n".join([f"baseline {found.name}: {count} of {found.command}", *(f"  {one}" for one in found.files)]))


def pair_answer(found: PairAnswer) -> RenderableType:
    """The answer of a model for one pair."""
    return Text(
        f"{found.label_name} with probability {found.probability:.3f} (logits {found.logits[0]:+.4f} "
        f"{found.logits[1]:+.4f}; {found.weights} weights, {placement_line(found.placement)})"
    )


# --- train ------------------------------------------------------------------------------------------------------------


def _train(record: TrainRecord) -> Iterator[RenderableType]:
    section = record.train
    by_epoch = table(
        *("Validation metrics by epoch", "epoch", "training loss", "validation loss", "accuracy", "F1"),
        numeric=True,
        caption=caption(record.model, section.placement, f"n = {record.data[1].pairs} validation pairs"),
    )
    for line in section.epochs:
        by_epoch.add_row(
            f"{line.train_epoch:g}",
            logged(line.train_loss),
            logged(line.eval_loss),
            logged(line.eval_accuracy_score),
            logged(line.eval_f1_score),
            style="bold" if line.step == section.best_step else None,
        )
    yield by_epoch
    yield from _logged(section)
    yield _train_results(record, section)


def _logged(section: TrainSection) -> Iterator[RenderableType]:
    """The training log with one column per epoch, split into several tables if needed."""
    if not section.epochs:
        yield Text("Logged metrics: no epoch finished")
    for start in range(0, len(section.epochs), EPOCHS_PER_TABLE):
        lines = section.epochs[start : start + EPOCHS_PER_TABLE]
        logged = table("Logged metrics", "", *(f"step {line.step}" for line in lines), numeric=True)
        for item in fields(lines[0]):
            logged.add_row(item.name, *(_logged_value(item.name, getattr(line, item.name)) for line in lines))
        yield logged


def _logged_value(name: str, value: float | int | None) -> str:
    if name == "train_learning_rate":
        return f"{value:.6e}"
    return plain(value) if name in ("step", "train_epoch") else logged(value)


def _train_results(record: RunRecord, section: TrainSection) -> PlainTable:
    shown = facts("Results", _best_and_final(section))
    shown.add_row("steps", f"{section.epochs[-1].step if section.epochs else 0}/{section.total_steps}")
    if section.resumed_from_step is not None:
        shown.add_row("resumed from step", str(section.resumed_from_step))
    aligned = ", ".join(f"{name} = {value}" for name, value in section.aligned_tokens.items())
    shown.add_row("special tokens aligned", aligned or "none")
    if section.train_s:
        share = section.padding_tokens / max(1, section.real_tokens + section.padding_tokens)
        shown.add_row(
            "time",
            f"{section.train_s:.1f} s{_since(section)}, with evaluations and saving; "
            f"{section.real_tokens / section.train_s:.0f} real tokens/s; {share:.0%} of the tokens were padding",
        )
    if (seconds := stepping_s(section)) is not None:
        shown.add_row(
            "breakdown",
            f"steps {seconds:.1f} s ({fixed(steps_per_s(section), 2)} steps/s), first step and warm-up "
            f"{section.cold_s:.1f} s, evaluations {section.evaluate_s:.1f} s, saving {section.save_s:.1f} s",
        )
    shown.add_row("weights", f"sha256 {record.model.model_sha256[:16]}")
    return shown


def _since(section: TrainSection) -> str:
    """The step at which the timing of a resumed run starts."""
    return f" since step {section.resumed_from_step}" if section.resumed_from_step is not None else ""


def _best_and_final(section: TrainSection) -> Iterator[tuple[str, str]]:
    best = [line for line in section.epochs if line.step == section.best_step]
    for name, lines in (("best (saved)", best), ("final", section.epochs[-1:])):
        for line in lines:
            yield (
                name,
                f"step {line.step}: accuracy {line.eval_accuracy_score:.6f}, F1 {line.eval_f1_score:.6f}, "
                f"loss {logged(line.eval_loss)}",
            )


# --- evaluate ---------------------------------------------------------------------------------------------------------


def _evaluate(record: EvaluateRecord) -> Iterator[RenderableType]:
    section = record.evaluate
    score, data = section.score, record.data[0]
    shown = table(
        *(f"Score on {data.source} {data.split}", "metric", "value", "95% interval", "majority class"),
        caption=caption(record.model, section.placement, f"n = {score.pairs} pairs"),
    )
    shown.add_row(
        "accuracy", logged(score.accuracy), interval(score.accuracy_interval), logged(score.majority_accuracy)
    )
    f1 = f"F1 of {data.label_names[1]}"
    shown.add_row(f1, logged(score.f1), interval(score.f1_interval), logged(score.majority_f1))
    shown.add_row("precision", logged(score.precision))
    shown.add_row("recall", logged(score.recall))
    shown.add_row("loss", logged(score.loss))
    yield shown
    yield _confusion(score, data.label_names)
    yield from notes([record.model])


def _confusion(score: EvalScore, names: tuple[str, str]) -> PlainTable:
    counts = score.confusion
    shown = table("Confusion", "", *(f"predicted {name}" for name in names), numeric=True)
    shown.add_row(f"is {names[0]}", str(counts.true_negative), str(counts.false_positive))
    shown.add_row(f"is {names[1]}", str(counts.false_negative), str(counts.true_positive))
    return shown


# --- export -----------------------------------------------------------------------------------------------------------


def _export(record: ExportRecord) -> Iterator[RenderableType]:
    section = record.export
    large = [f"{name} {size / 1e6:.1f} MB" for name, size in section.files.items() if size > 1e5]
    shown = facts("Export", [("graph", _graph(section))])
    shown.add_row("files", ", ".join(large))
    shown.add_row("reference engine", placement_line(section.reference))
    yield shown
    if section.gate is None:
        return
    trials = table(
        *("Export gate", "batch", "padding", "flips", "largest\n|Δlogit|", "p99\n|Δlogit|", "padding\ntokens"),
        numeric=True,
        tight=True,
        caption=caption(record.model, section.placement, _pairs_of(section.gate)),
    )
    for trial in section.gate.trials:
        trials.add_row(
            str(trial.batch_size),
            trial.padding,
            str(trial.flips),
            difference(trial.max_abs_delta),
            difference(trial.p99_abs_delta),
            str(trial.padding_tokens),
        )
    yield trials
    yield _gate_facts(section.gate)
    if section.optimize == "cuda" and not section.placement.device.startswith("cuda"):
        yield Text(
            "This graph is for a GPU but was verified on the CPU, which has other kernels and computes in another "
            "precision: also run this command on the GPU."
        )


def _pairs_of(gate: ExportGate) -> str:
    joined = [f", {trial.pairs} if joined" for trial in gate.trials if trial.kind == "joined"]
    return f"n = {gate.pairs} pairs per row{''.join(joined)}"


def _graph(section: ExportSection) -> str:
    optimums = {"none": "from Optimum", "o3": "from Optimum, level O3", "o4": "from Optimum, level O4"}
    form = optimums.get(section.optimize, f"{section.optimize} graph")
    return f"{form}: {section.nodes} nodes, opset {section.opset}, {section.dtype}"


def _gate_facts(gate: ExportGate) -> PlainTable:
    shown = facts("Verdict", [("outcome", verdict_line(gate.verdict))])
    shown.add_row("smallest decision margin", difference(gate.smallest_margin))
    if gate.headroom is not None:
        meaning = "a label may change: below 2"
        if gate.headroom > 2:
            meaning = "no label can change: above 2"
            meaning += "" if gate.verdict.outcome == "PASS" else ", but the logits differ by more than is allowed"
        shown.add_row("margin / error", f"{gate.headroom:.1f} ({meaning})")
    else:
        broken = any(trial.max_abs_delta is None for trial in gate.trials)
        shown.add_row("margin / error", "none: a logit is not finite" if broken else "none: no logit differs")
    if gate.p99_allowed is not None and gate.logit_spread:
        p99s = [trial.p99_abs_delta for trial in gate.trials if trial.kind != "padding"]
        found = NOT_FINITE if None in p99s else f"{max(p99 or 0 for p99 in p99s) / gate.logit_spread:.3f}"
        allowed = f"{gate.p99_allowed / gate.logit_spread:g} is allowed"
        shown.add_row("p99 |Δlogit|", f"{found} standard deviations of the logits; {allowed}")
    if gate.padding_delta_allowed is not None:
        moved = ", ".join(difference(trial.max_abs_delta) for trial in gate.trials if trial.kind == "padding")
        allowed = f"{difference(gate.padding_delta_allowed)} is allowed"
        shown.add_row("other padding tokens", f"move a logit by {moved}; {allowed}")
    if gate.f1_allowed is not None:
        trials = ", ".join(logged(trial.f1) for trial in gate.trials if trial.kind == "split")
        shown.add_row("F1 of the trials", f"{trials}; the original's interval is {interval(gate.f1_allowed)}")
    shown.add_row("flip rate", f"at most {gate.flip_rate_bound:.2%} at 95% confidence, on similar pairs")
    return shown


def _ab(record: AbRecord) -> Iterator[RenderableType]:
    section = record.ab
    if section.comparison is not None:
        yield comparison(section.comparison)
    for name, side in (("A", section.a), ("B", section.b)):
        yield Text(
            f"{name}: {model_line(side.model)}\n   {placement_line(side.placement)}, Python {side.python}", "dim italic"
        )
    found = record.data[0]
    runs = len(section.pairs) + len(section.confirmation)
    yield Text(
        f"{runs} pairs of processes, {section.plan.calls} calls each; {found.source} {found.split}, "
        f"{found.pairs} pairs; {machine_line(record.environment, section.b.placement)}",
        "dim italic",
    )
    yield from notes((section.a.model, section.b.model))
