"""The commands of the command line. Each builds a request from its options, runs the command, and shows its record.

Results go to stdout, everything else to stderr.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrpcbench.cli.errors import CommandLine, Invocation
from mrpcbench.cli.help import PanelCommand, PanelGroup, show_help
from mrpcbench.cli.options import given, parsed, with_options
from mrpcbench.cli.process import prepare_process
from mrpcbench.cli.results import record_path, show_and_exit, verdict_of
from mrpcbench.environment.variables import check_variables, ensure_user, is_first_process
from mrpcbench.errors import ExitStatus, MrpcbenchError, UsageError
from mrpcbench.schema.bench_requests import BenchControl, BenchPlan, BenchView
from mrpcbench.schema.gate_requests import AbPlan, BaselineFolder, BaselineRequest, ComparePlan, Publish, ReportPlan
from mrpcbench.schema.requests import (
    BackendSpec,
    EvaluatePlan,
    ExportPlan,
    JsonOption,
    Output,
    QuickstartRequest,
    StudyPlan,
    TrainRecipe,
    TrainRequest,
)
from mrpcbench.schema.verdicts import EXIT_STATUS

if TYPE_CHECKING:
    from mrpcbench.cli.terminal import Terminal

app = typer.Typer(
    name="mrpcbench",
    cls=CommandLine,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # PanelCommand and PanelGroup draw the help
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        from mrpcbench.environment.versions import own_version

        typer.echo(f"mrpcbench {own_version()}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also show the machine and recipe before the run, and all details.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show only the result in one line, the record, and warnings.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error was raised.")] = False,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a ModernBERT checkpoint to a fine-tuned MRPC classifier, a verified ONNX model, and reliable measurements.

    The options listed here go before the command: `mrpcbench -v train`.
    """
    if verbose and quiet:
        raise UsageError("--verbose and --quiet exclude each other")
    if context.invoked_subcommand is None:
        show_help(context)
        raise typer.Exit(ExitStatus.USAGE)
    prepare_process()
    invocation = context.obj
    invocation.detail = "verbose" if verbose else "quiet" if quiet else "normal"
    invocation.traceback = traceback
    invocation.command = context.invoked_subcommand


def _terminal(context: typer.Context) -> "Terminal":
    invocation: Invocation = context.obj
    check_variables(os.environ)
    ensure_user(os.environ)
    invocation.terminal.json = bool(context.params.get("json"))
    return invocation.terminal


def _start(context: typer.Context, *requests: object) -> "Terminal":
    """The terminal, which shows what is starting. Raises `UsageError` for what can be checked before slow imports."""
    terminal = _terminal(context)
    from mrpcbench.commands.preflight import check_early, heading

    check_early(context.info_name or "", *requests)
    if is_first_process():
        terminal.starting(heading(context.info_name or "", *requests))
    return terminal


@app.command(cls=PanelCommand)
@with_options(TrainRequest, TrainRecipe, Output)
def train(request: TrainRequest, recipe: TrainRecipe, output: Output, context: typer.Context) -> None:
    """Fine-tune a checkpoint; by default, the published reference run.

    Writes a record, and the model folder with checkpoints, metrics.csv and model card.
    """
    terminal = _start(context, request, recipe, output)
    from mrpcbench.commands.train import train as run

    path = record_path(output, "train")
    record = run(request, recipe, path, terminal)
    if is_first_process():
        show_and_exit(record, path, output, terminal)


@app.command(cls=PanelCommand, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@with_options(StudyPlan, JsonOption)
def study(plan: StudyPlan, form: JsonOption, context: typer.Context) -> None:
    """Train a recipe with several seeds, and say what they show.

    Takes the options of `train` as well, such as --model, --data and --max-steps, for every trial. The same command
    continues a study. Without --set, it has one setting.
    """
    request, recipe = parsed(context, "train", TrainRequest, TrainRecipe)
    from mrpcbench.training.study.plan import check_request, seeds_of, settings_of

    check_request(request, recipe)
    seeds_of(plan), settings_of(plan, recipe)  # errors in them come before torch is loaded
    terminal = _start(context, replace(request, output_dir=plan.output_dir), recipe)
    from mrpcbench.commands.study import STUDY_FILE
    from mrpcbench.commands.study import study as run

    record = run(plan, request, recipe, terminal)
    show_and_exit(record, Path(plan.output_dir, STUDY_FILE), Output(json=form.json), terminal)
    failed = [trial.folder for setting in record.study.settings for trial in setting.trials if trial.record is None]
    if failed:
        raise MrpcbenchError(f"{len(failed)} trials failed: {', '.join(failed)}; the same command repeats them")


@app.command(cls=PanelCommand)
@with_options(BackendSpec, EvaluatePlan, Output)
def evaluate(
    spec: BackendSpec,
    plan: EvaluatePlan,
    output: Output,
    context: typer.Context,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="Classify this one pair of sentences, and write no record.",
            metavar="SENTENCE SENTENCE",
            rich_help_panel="Model and data",
        ),
    ] = None,
) -> None:
    """Score a fine-tuned model, with intervals and every prediction."""
    terminal = _start(context, spec) if pair else _start(context, spec, plan, output)
    from mrpcbench.commands.evaluate import classify
    from mrpcbench.commands.evaluate import evaluate as run

    if pair is not None:
        terminal.answer(classify(spec, *pair), as_json=output.json)
        return
    path = record_path(output, "evaluate")
    show_and_exit(run(spec, plan, path, terminal), path, output, terminal)


@app.command(cls=PanelCommand)
@with_options(ExportPlan, Publish, Output)
def export(plan: ExportPlan, publish_request: Publish, output: Output, context: typer.Context) -> None:
    """Export a model to ONNX, and verify that its answers match.

    Both classify every pair of the split, the graph at three batch sizes and paddings. If the answers differ, the exit
    code is 5, and the files are kept but marked UNVERIFIED.
    """
    context.obj.publish_to(publish_request)
    terminal = _start(context, plan, output)
    path = record_path(output, "export")
    from mrpcbench.commands.export import export as run
    from mrpcbench.gates.export import comparison_of

    record = run(plan, path, terminal)
    context.obj.publish(comparison_of(record, path.name))
    show_and_exit(record, path, output, terminal)


@app.command(cls=PanelCommand)
@with_options(BenchPlan, BackendSpec, BenchControl, BenchView, Output)
def bench(
    plan: BenchPlan,
    spec: BackendSpec,
    control: BenchControl,
    view: BenchView,
    output: Output,
    context: typer.Context,
) -> None:
    """Measure the latency and throughput of engines on real pairs."""
    terminal = _start(context, plan, spec, output)
    from mrpcbench.benchmark.failures import check_required
    from mrpcbench.commands.bench import bench as run
    from mrpcbench.schema.cases import BenchRequest

    path = record_path(output, "bench")
    request = BenchRequest(spec=spec, plan=plan, control=control, view=view, given=given(context))
    record, terminal.view = run(request, path, terminal)
    show_and_exit(record, path, output, terminal)
    if broken := [str(row.id) for row in record.bench.rows if row.failed and row.server is None]:
        raise MrpcbenchError(f"non-finite logits: {', '.join(broken)}; these rows are INVALID; use --dtype fp32")
    check_required(record.bench, terminal.view)


@app.command(cls=PanelCommand)
@with_options(ComparePlan, Publish, JsonOption)
def compare(
    plan: ComparePlan,
    publish_request: Publish,
    form: JsonOption,
    context: typer.Context,
    records: Annotated[
        list[Path],
        typer.Argument(
            help="The record to judge, or a folder with train records; before it the baseline: its name, a "
            "record, or a folder with several train or bench records.",
            metavar="[BASELINE] RECORD",
        ),
    ],
) -> None:
    """Compare a record with a baseline or with limits.

    The exit code is the verdict: 0 PASS, 5 REGRESSION, 6 INCONCLUSIVE, 4 INCOMPARABLE; 2 if a record cannot be read.
    """
    terminal = _terminal(context)
    context.obj.publish_to(publish_request)
    from mrpcbench.commands.compare import compare as run

    if len(records) > 2:
        raise UsageError(f"{len(records)} records; name the baseline and the record, or the record alone")
    found = run(records[:1] if len(records) > 1 else None, records[-1:], plan)
    if form.json:
        terminal.print_json(found)
    else:
        terminal.comparison(found)
    context.obj.publish(found)
    raise typer.Exit(EXIT_STATUS[found.verdict.outcome])


@app.command(cls=PanelCommand)
@with_options(ReportPlan, JsonOption)
def report(
    plan: ReportPlan,
    form: JsonOption,
    context: typer.Context,
    records: Annotated[
        list[Path], typer.Argument(help="Record, or a folder that is read recursively.", metavar="RECORD...")
    ],
) -> None:
    """Say what records hold, and which benchmark case to deploy.

    With a limit, the exit code is 5 if every case misses it, and 6 if none is known to meet it.
    """
    terminal = _terminal(context)
    from mrpcbench.commands.report import report as run

    found = run(records, plan, terminal)
    terminal.report(found, as_json=form.json)
    raise typer.Exit(EXIT_STATUS[found.outcome])


@app.command(cls=PanelCommand)
@with_options(AbPlan, Publish, Output)
def ab(plan: AbPlan, publish_request: Publish, output: Output, context: typer.Context) -> None:
    """Compare the speed of two setups live, in fresh processes.

    The exit code is the verdict: 0 PASS, 5 REGRESSION, 6 INCONCLUSIVE, 4 INCOMPARABLE.
    """
    terminal = _terminal(context)
    context.obj.publish_to(publish_request)
    path = record_path(output, "ab")
    from mrpcbench.commands.ab import ab as run

    record = run(plan, path, terminal)
    if record.ab.comparison:
        context.obj.publish(record.ab.comparison)
    show_and_exit(record, path, output, terminal)


baseline_app = typer.Typer(
    help="Save baselines for `compare`.",
    cls=PanelGroup,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(baseline_app, name="baseline")


@baseline_app.command("set", cls=PanelCommand)
@with_options(BaselineFolder, BaselineRequest, JsonOption)
def baseline_set(
    location: BaselineFolder,
    request: BaselineRequest,
    form: JsonOption,
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the baseline.", metavar="NAME")],
    records: Annotated[
        list[Path], typer.Argument(help="Record to save; several for train or bench.", metavar="RECORD...")
    ],
) -> None:
    """Save records, with their predictions, as a baseline for `compare`.

    A baseline holds one record, or several train or bench records.
    """
    terminal = _terminal(context)
    from mrpcbench.commands.baseline import set_baseline

    found = set_baseline(name, records, location, request, terminal)
    terminal.baseline(found, location.folder, as_json=form.json)


@app.command(cls=PanelCommand)
@with_options(QuickstartRequest, JsonOption)
def quickstart(request: QuickstartRequest, form: JsonOption, context: typer.Context) -> None:
    """Train, evaluate, export and bench a tiny bundled model."""
    terminal = _terminal(context)
    from mrpcbench.cli.quickstart import run

    if verdict := verdict_of(run(request, terminal)[-1]):
        raise typer.Exit(EXIT_STATUS[verdict.outcome])


@app.command(cls=PanelCommand)
@with_options(JsonOption)
def env(form: JsonOption, context: typer.Context) -> None:
    """Show which engines and devices work here, and what is missing."""
    terminal = _terminal(context)
    from mrpcbench.commands.env import env as run

    terminal.environment(run(), as_json=form.json)
