"""A study as tables: every seed of each setting with what all of them show, and the tests between settings."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from mrpcbench.display.numbers import ABSENT, fixed, logged, percent, probability, score
from mrpcbench.display.tables import PlainTable, machine_line, model_line, notes, placement_line, table
from mrpcbench.records.figures import best_epoch
from mrpcbench.schema.records import SeedSummary, SettingComparison, StudyRecord, StudySetting, StudyTrial

TITLES = {"accuracy": "accuracy", "f1": "F1", "loss": "loss"}
# Metrics whose differences are points, hundredths of a share.
SHARES = ("accuracy", "f1")


def study(record: StudyRecord) -> Iterator[RenderableType]:
    """The answer of each setting in one line, then the tables."""
    section = record.study
    yield from answers(record)
    yield Text("")
    for setting in section.settings:
        yield _seeds(record, setting)
    if section.comparisons:
        yield _comparisons(section.comparisons)
    yield from notes((record.model,))


def answers(record: StudyRecord) -> Iterator[Text]:
    """What the seeds of each setting show, in one line each."""
    yield from map(_answer, record.study.settings)


def _answer(setting: StudySetting) -> Text:
    found = {summary.metric: summary for summary in setting.summaries}
    without = sum(trial.record is None for trial in setting.trials)
    missing = f"; {without} of {len(setting.trials)} seeds without a result" if without else ""
    if "accuracy" not in found:
        return Text(f"{setting.name}: no seed has a result")
    accuracy, f1 = found["accuracy"], found["f1"]
    below = f"{accuracy.at_or_below_majority} of {len(accuracy.values)} seeds at or below the majority class"
    line = f"{setting.name}: median accuracy {score(accuracy.median)}{_level(accuracy)}, F1 {score(f1.median)}; "
    return Text(f"{line}{below} ({score(accuracy.majority)}){missing}", "bold")


def _level(summary: SeedSummary) -> str:
    found = summary.median_interval
    return f" ({percent(found.level)} interval {score(found.low)} to {score(found.high)})" if found else ""


def _seeds(record: StudyRecord, setting: StudySetting) -> PlainTable:
    shown = table(setting.name, "seed", *TITLES.values(), "step", numeric=True, tight=True)
    for trial in setting.trials:
        shown.add_row(str(trial.seed), *_trial(trial))
    found = {summary.metric: summary for summary in setting.summaries}
    if not found:
        return shown
    shown.add_section()
    interval = next(iter(found.values())).median_interval
    rows = {
        "median": lambda one: score(one.median),
        f"{percent(interval.level)} interval" if interval else "interval": _interval,
        "mean ± SD": lambda one: f"{score(one.mean)} ± {fixed(one.standard_deviation, 4)}",
        "range": lambda one: f"{score(one.smallest)} to {score(one.largest)}",
        "majority class": lambda one: score(one.majority),
        "at or below it": _of,
    }
    for name, cell in rows.items():
        shown.add_row(name, *(cell(found[metric]) if metric in found else ABSENT for metric in TITLES), "")
    shown.below = _caption(record, setting)
    return shown


def _trial(trial: StudyTrial) -> tuple[str, ...]:
    best = best_epoch(trial.record.train) if trial.record else None
    if best is None:
        return ("failed" if trial.error else "no result", *[ABSENT] * 3)
    return logged(best.eval_accuracy_score), logged(best.eval_f1_score), logged(best.eval_loss), str(best.step)


def _interval(summary: SeedSummary) -> str:
    found = summary.median_interval
    return f"{score(found.low)} to {score(found.high)}" if found else ABSENT


def _of(summary: SeedSummary) -> str:
    count = summary.at_or_below_majority
    return ABSENT if count is None else f"{count} of {len(summary.values)}"


def _caption(record: StudyRecord, setting: StudySetting) -> str:
    first = next(trial.record.train for trial in setting.trials if trial.record)
    processes = f", {record.study.processes} processes" if record.study.processes > 1 else ""
    return (
        f"{model_line(record.model)}\n{placement_line(first.placement)}{processes}; "
        f"{machine_line(record.environment, first.placement)}; n = {record.data[-1].pairs} validation pairs; "
        f"each seed at its best epoch by {first.recipe.metric_for_best_model}"
    )


def _comparisons(comparisons: tuple[SettingComparison, ...]) -> PlainTable:
    shown = table(
        "Differences, paired by seed",
        *("metric, settings", "seeds", "mean", "p", "Holm p", "smallest shown"),
        numeric=True,
        tight=True,
        caption="Two-sided paired permutation test, accuracy and F1 in points. smallest shown: the smallest mean that "
        "this many seeds with this spread would show at 5%.",
    )
    for one in comparisons:
        smallest = one.smallest_difference
        shown.add_row(
            f"{TITLES[one.metric]}: {one.b} minus {one.a}",
            str(len(one.seeds)),
            _difference(one.difference, one.metric),
            probability(one.p_value),
            probability(one.adjusted_p),
            f"none (p {probability(one.smallest_p)})" if smallest is None else _difference(smallest, one.metric),
        )
    return shown


def _difference(value: float, metric: str) -> str:
    return f"{value * 100:+.2f}" if metric in SHARES else f"{value:+.4f}"
