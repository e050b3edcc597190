"""Records and other results as rich renderables. Prints nothing."""

from collections.abc import Collection, Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from mrpcbench.benchmark.validity import invalid_sentence
from mrpcbench.display.bench.result import bench
from mrpcbench.display.bench.summary import fastest_line
from mrpcbench.display.comparison import comparison, verdict_line
from mrpcbench.display.export import export
from mrpcbench.display.numbers import fixed, interval, logged, plain, score
from mrpcbench.display.study import answers, study
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
from mrpcbench.records.figures import best_epoch, stepping_s, steps_per_s
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
from mrpcbench.schema.results import EvalScore, TrainSection

RECIPE_SHOWN = (
    "learning_rate lr_scheduler_type warmup_steps num_train_epochs max_steps batch_size "
    "gradient_accumulation_steps optim adam_beta1 adam_beta2 adam_epsilon weight_decay max_grad_norm precision seed "
    "metric_for_best_model"
).split()
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
            return export(record, verbose=verbose)
        case BenchRecord():
            return bench(record, view, verbose=verbose)
        case AbRecord():
            return _ab(record)
        case StudyRecord():
            return study(record)


def headline(record: Record) -> Text | None:
    """The result of `record` in one line; None if it has none."""
    match record:
        case TrainRecord():
            best = best_epoch(record.train)
            return None if best is None else Text(_scores(best.eval_accuracy_score, best.eval_f1_score))
        case EvaluateRecord():
            found = record.evaluate.score
            majority = f"majority class: {score(found.majority_accuracy)}, {score(found.majority_f1)}"
            return Text(f"{_scores(found.accuracy, found.f1)} ({majority})")
        case ExportRecord():
            return verdict_line(record.export.gate.verdict) if record.export.gate else None
        case AbRecord():
            return verdict_line(record.ab.comparison.verdict) if record.ab.comparison else None
        case BenchRecord():
            return Text(fastest_line(record.bench))
        case StudyRecord():
            return Text("\n").join(answers(record))


def _scores(accuracy: float, f1: float) -> str:
    return f"accuracy {score(accuracy)}, F1 {score(f1)}"


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
    """The machine, each engine and the devices on which it works, each problem once, and the versions."""
    problems = dict(report.problems)
    devices = list(dict.fromkeys(place.rsplit(" on ", 1)[1] for place in problems))
    engines = table("Engines", "engine", *(f"on {device}" for device in devices))
    for name in dict.fromkeys(place.rsplit(" on ", 1)[0] for place in problems):
        engines.add_row(name, *("no" if problems.get(f"{name} on {device}") else "yes" for device in devices))
    reasons: dict[str, list[str]] = {}
    for place, problem in report.problems:
        if problem:
            reasons.setdefault(problem, []).append(place)
    missing = facts("Problems", ((_places(places, problems), reason) for reason, places in reasons.items()))
    versions = facts("Versions", sorted(report.environment.packages.items()))
    shown = (facts("This machine", environment_facts(report.environment)), engines, missing, versions)
    return Group(*(part for part in shown if part.row_count))


def _places(places: list[str], all_places: Collection[str]) -> str:
    """The engines and devices of a problem; of one that all engines have on a device, the device."""
    device = places[0].rsplit(" on ", 1)[1]
    return device if places == [place for place in all_places if place.endswith(f" on {device}")] else ", ".join(places)


def baseline(found: SavedBaseline, folder: str) -> RenderableType:
    """The records in a baseline that is saved below `folder`, one line each."""
    count = f"{len(found.files)} record{'' if len(found.files) == 1 else 's'}"
    first = f"baseline {found.name}: {count} of {found.command}, saved in {Path(folder, found.name)}"
    return Text("\n".join([first, *(f"  {one}" for one in found.files)]))


def pair_answer(found: PairAnswer) -> RenderableType:
    """The answer of a model for one pair."""
    return Text(
        f"{found.label_name} with probability {found.probability:.3f} (logits {found.logits[0]:+.4f} "
        f"{found.logits[1]:+.4f}; {found.weights} weights, {placement_line(found.placement)})"
    )


# --- train ------------------------------------------------------------------------------------------------------------


def _train(record: TrainRecord) -> Iterator[RenderableType]:
    section = record.train
    placed = f"{placement_line(section.placement)}; n = {record.data[1].pairs} validation pairs"
    if not section.epochs:
        yield Text("no epoch finished")
    else:
        yield _epochs(section, f"{model_line(record.model)}\n{placed}")
    yield _train_results(record, section)


def _epochs(section: TrainSection, below: str) -> PlainTable:
    """The training log, one line per epoch, with the saved epoch marked."""
    shown = table(
        *("Metrics by epoch", "epoch", "step", "training\nloss", "gradient\nnorm", "learning\nrate"),
        *("validation\nloss", "accuracy", "F1"),
        numeric=True,
        tight=True,
        caption="* saved: the best epoch\n" + below,
    )
    for line in section.epochs:
        saved = line.step == section.best_step
        shown.add_row(
            f"{line.train_epoch:g}{'*' if saved else ''}",
            str(line.step),
            *(logged(line.train_loss), logged(line.train_grad_norm)),
            f"{line.train_learning_rate:.6e}",
            *(logged(line.eval_loss), logged(line.eval_accuracy_score), logged(line.eval_f1_score)),
            style="bold" if saved else None,
        )
    return shown


def _train_results(record: RunRecord, section: TrainSection) -> PlainTable:
    reached = section.epochs[-1].step if section.epochs else 0
    shown = facts("Run", [("steps", f"{reached}/{section.total_steps}")])
    if section.resumed_from_step is not None:
        shown.add_row("resumed from step", str(section.resumed_from_step))
    if section.aligned_tokens:
        changed = ", ".join(f"{name} = {value}" for name, value in section.aligned_tokens.items())
        shown.add_row("config changed", f"{changed}, as in the tokenizer")
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


# --- evaluate ---------------------------------------------------------------------------------------------------------


def _evaluate(record: EvaluateRecord) -> Iterator[RenderableType]:
    section = record.evaluate
    found, data = section.score, record.data[0]
    shown = table(
        *(f"Score on {data.source} {data.split}", "metric", "value", "95% interval", "majority class"),
        caption=caption(record.model, section.placement, f"n = {found.pairs} pairs"),
    )
    shown.add_row(
        "accuracy", logged(found.accuracy), interval(found.accuracy_interval), logged(found.majority_accuracy)
    )
    f1 = f"F1 of {data.label_names[1]}"
    shown.add_row(f1, logged(found.f1), interval(found.f1_interval), logged(found.majority_f1))
    shown.add_row("precision", logged(found.precision))
    shown.add_row("recall", logged(found.recall))
    shown.add_row("loss", logged(found.loss))
    yield shown
    yield _confusion(found, data.label_names)
    yield from notes([record.model])


def _confusion(found: EvalScore, names: tuple[str, str]) -> PlainTable:
    counts = found.confusion
    shown = table("Confusion", "", *(f"predicted {name}" for name in names), numeric=True)
    shown.add_row(f"is {names[0]}", str(counts.true_negative), str(counts.false_positive))
    shown.add_row(f"is {names[1]}", str(counts.false_negative), str(counts.true_positive))
    return shown


# --- ab ---------------------------------------------------------------------------------------------------------------


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
