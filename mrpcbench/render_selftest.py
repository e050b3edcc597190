"""A selftest's record as rich renderables. Prints nothing."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from mrpcbench.schema import GateTrial, RunRecord
from mrpcbench.tables import machine_line, model_line, placement_line, table
from mrpcbench.verdicts import EXIT_STATUS


def selftest(record: RunRecord) -> Iterator[RenderableType]:
    """How often the live speed gate alarmed, what must not pass, and the verdict."""
    section = record.selftest
    assert section is not None
    busy = "" if section.busy_cores is None else f"; other programs kept {section.busy_cores:.1f} cores busy"
    plan = section.plan
    shown = table(
        "the live speed gate: runs of which the truth is known",
        *("engine", "truly slower", "runs", "seen, median", "looked slower", "alarms", "rate of alarms, 95%"),
        numeric=True,
        tight=True,
        caption=(
            f"{model_line(record.model)}\n{placement_line(section.placement)}\n"
            f"{plan.process_pairs} pairs of processes a run, {plan.calls} calls of {plan.batches_a_call} pairs; "
            f"{machine_line(record.environment, section.placement)}{busy}\n"
            f"{record.data[0].source} {record.data[0].split}, {record.data[0].pairs} pairs\n"
            "An alarm: a run that looked slower, confirmed by the run after it. Replayed: windows over the same\n"
            "processes, one for each start; they overlap, so that their intervals are narrower than the truth."
        ),
    )
    for trial in section.trials:
        shown.add_row(*_trial(trial))
    yield shown
    cases = table("what must not pass", "case", "came to", "exit code", "holds")
    for case in section.cases:
        cases.add_row(case.name, case.outcome, str(case.exit_code), "yes" if case.holds else "NO")
    if section.cases:
        yield cases
    if section.verdict:
        outcome = section.verdict.outcome
        yield Text(f"{outcome} (exit code {EXIT_STATUS[outcome]:d}): {section.verdict.reason}", "bold")


def _trial(trial: GateTrial) -> list[str]:
    engine = "fake" if trial.side.startswith("fake") else "real"
    return [
        engine + (", replayed" if trial.kind == "replayed" else ""),
        f"{trial.slowdown:.0%}",
        str(trial.runs),
        f"{trial.median_slowdown:+.1%}",
        str(trial.looked_slower),
        str(trial.alarms),
        f"{trial.rate.low:.1%} to {trial.rate.high:.1%}",
    ]
