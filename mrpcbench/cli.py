"""The command line: options become a frozen request, one call does the work, and its record becomes text.

The only module that prints or exits. Results go to stdout, everything else to stderr.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from traceback import print_exc
from typing import TYPE_CHECKING, Annotated

import typer

from mrpcbench.errors import ExitStatus, InterruptedRunError, MrpcbenchError, UsageError, first_line
from mrpcbench.options import given, with_options
from mrpcbench.plans import (
    AbPlan,
    BackendSpec,
    BaselineFolder,
    BaselineRequest,
    BenchControl,
    BenchPlan,
    BenchView,
    ComparePlan,
    EvaluatePlan,
    ExportPlan,
    Publish,
    QuickstartRequest,
    TrainRecipe,
    TrainRequest,
    about,
    described,
)
from mrpcbench.schema import AbRecord, ExportRecord, Record
from mrpcbench.verdicts import EXIT_STATUS, Comparison

if TYPE_CHECKING:
    from mrpcbench.console import Terminal

TRY_PAIR = '"The doctor gave 3 books to the nurse in Oslo." "In Oslo, the nurse got three books from the doctor."'

app = typer.Typer(
    name="mrpcbench",
    help="From a ModernBERT checkpoint to a fine-tuned MRPC classifier, a proven ONNX model, and figures to trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help cuts no option's name at 80 columns, as rich's panels do, and is there sooner.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@described
class Output:
    """Where a result goes, and in which form."""

    results: str | None = about("File for the record; else results/<time>-<command>.json.", default=None)
    json: bool = about("Print one JSON document on stdout, and nothing else there.", default=False)
    traceback: bool = about("Show where an error was raised.", default=False)

    def path(self, command: str) -> Path:
        """The record's file."""
        from mrpcbench.store import default_path

        path = Path(self.results) if self.results else default_path(command)
        if path.is_dir():
            raise UsageError(f"--results {path}: a folder; name a file in it, such as {path / command}.json")
        return path


@described
class Form:
    """The form of a result that is no record."""

    json: bool = about("Print one JSON document on stdout, and nothing else there.", default=False)
    traceback: bool = about("Show where an error was raised.", default=False)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mrpcbench {version('mrpcbench')}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a ModernBERT checkpoint to a fine-tuned MRPC classifier, a proven ONNX model, and figures to trust."""


@app.command()
@with_options(TrainRequest, TrainRecipe, Output)
def train(request: TrainRequest, recipe: TrainRecipe, output: Output) -> None:
    """Fine-tune a checkpoint; by default, the published reference run.

    Writes the model folder with its checkpoints, metrics.csv and model card, and a record.
    """
    with _funnel(output.traceback) as terminal:
        from mrpcbench.train import train as work

        path = output.path("train")
        _deliver(work(request, recipe, path, terminal), path, output, terminal)


@app.command()
@with_options(BackendSpec, EvaluatePlan, Output)
def evaluate(
    spec: BackendSpec,
    plan: EvaluatePlan,
    output: Output,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Classify this one pair of sentences, and write no record.", metavar="SENTENCE SENTENCE"),
    ] = None,
) -> None:
    """Score a fine-tuned model, with intervals and every prediction."""
    with _funnel(output.traceback) as terminal:
        from mrpcbench.evaluate import classify
        from mrpcbench.evaluate import evaluate as work

        if pair is not None:
            terminal.answer(classify(spec, *pair), as_json=output.json)
            return
        path = output.path("evaluate")
        _deliver(work(spec, plan, path, terminal), path, output, terminal)


@app.command()
@with_options(ExportPlan, Output)
def export(plan: ExportPlan, output: Output) -> None:
    """Export a fine-tuned model to ONNX, and prove it equal.

    Every pair goes through the model and the graph, in three batch sizes and paddings. Exit code 5 where the proof
    fails; the files stay, marked as unproven.
    """
    with _funnel(output.traceback) as terminal:
        from mrpcbench.export import export as work

        path = output.path("export")
        _deliver(work(plan, path, terminal), path, output, terminal)


@app.command()
@with_options(BenchPlan, BackendSpec, BenchControl, BenchView, Output)
def bench(
    plan: BenchPlan,
    spec: BackendSpec,
    control: BenchControl,
    view: BenchView,
    output: Output,
    context: typer.Context,
) -> None:
    """Measure engines side by side, interleaved, on real pairs."""
    with _funnel(output.traceback) as terminal:
        from mrpcbench.bench import bench as work
        from mrpcbench.presets import enough_rounds, field_of, left_to_preset
        from mrpcbench.ranking import check_view

        path = output.path("bench")
        plan = left_to_preset(plan, said := given(context))
        if "rounds" not in said:
            plan = replace(plan, rounds=enough_rounds(plan, is_compared=bool(view.relative_to)))
        entered = field_of(spec, plan)
        check_view(view, entered)
        terminal.view = replace(view, relative_to=view.relative_to or entered.relative_to)
        record = work(spec, plan, path, terminal, control)
        _deliver(record, path, output, terminal)


@app.command()
@with_options(ComparePlan, Publish, Form)
def compare(
    plan: ComparePlan,
    wish: Publish,
    form: Form,
    baseline: Annotated[
        Path, typer.Argument(help="Record that is held to be good; of train also a folder of several.")
    ],
    current: Annotated[Path, typer.Argument(help="Record that is judged; of train also a folder of several.")],
) -> None:
    """Judge a record by a baseline; the exit code is the verdict.

    0 PASS, 5 REGRESSION, 6 INCONCLUSIVE, 4 INCOMPARABLE; 2 where a record cannot be read.
    """
    with _funnel(form.traceback) as terminal:
        from mrpcbench.compare import compare as work
        from mrpcbench.publish import check_publish

        check_publish(wish)
        found = work([baseline], [current], plan)
        if form.json:
            terminal.print_json(found)
        else:
            terminal.comparison(found)
        _publish(found, wish, terminal)
        raise typer.Exit(EXIT_STATUS[found.verdict.outcome])


@app.command()
@with_options(AbPlan, Publish, Output)
def ab(plan: AbPlan, wish: Publish, output: Output) -> None:
    """Hold side B's speed against side A's, live, in fresh processes.

    0 PASS, 5 REGRESSION, 6 INCONCLUSIVE, 4 INCOMPARABLE.
    """
    with _funnel(output.traceback) as terminal:
        from mrpcbench.ab import ab as work
        from mrpcbench.publish import check_publish

        check_publish(wish)
        path = output.path("ab")
        record = work(plan, path, terminal)
        if record.ab.comparison:
            _publish(record.ab.comparison, wish, terminal)
        _deliver(record, path, output, terminal)


def _publish(found: Comparison, wish: Publish, terminal: "Terminal") -> None:
    from mrpcbench.publish import publish

    terminal.annotate(publish(found, wish, os.environ))


kept = typer.Typer(
    help="Manage baselines.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(kept, name="baseline")


@kept.command("set")
@with_options(BaselineFolder, BaselineRequest, Form)
def baseline_set(
    kept_in: BaselineFolder,
    request: BaselineRequest,
    form: Form,
    name: Annotated[str, typer.Argument(help="Name of the baseline.", metavar="NAME")],
    records: Annotated[list[Path], typer.Argument(help="Record to keep; several of train.", metavar="RECORD...")],
) -> None:
    """Keep a record, with its predictions, as a baseline."""
    with _funnel(form.traceback) as terminal:
        from mrpcbench.baseline import set_baseline

        found = set_baseline(name, records, kept_in, request, terminal)
        terminal.baseline(found, as_json=form.json)


@app.command()
@with_options(QuickstartRequest, Form)
def quickstart(request: QuickstartRequest, form: Form) -> None:
    """Train, evaluate, export and bench a tiny model that ships here."""
    with _funnel(form.traceback) as terminal:
        from mrpcbench.quickstart import quickstart as work

        records = []
        for record, path in work(request, terminal):
            records.append(record)
            if not form.json:
                terminal.heading(f"{len(records)}/4 {record.command}")
                terminal.show(record, path)
            if _status(record):
                break
        if form.json:
            terminal.print_json(records)
        if status := _status(records[-1]):
            raise typer.Exit(status)
        if not form.json:
            model = Path(request.output_dir, "tiny_ModernBERT_ft")
            terminal.heading("Trained, scored, exported, proven equal, measured. Ask the model yourself:")
            terminal.heading(f"mrpcbench evaluate --model {model} --pair {TRY_PAIR}")


@app.command()
@with_options(Form)
def env(form: Form) -> None:
    """Show what would run here, and what is missing."""
    with _funnel(form.traceback) as terminal:
        from mrpcbench.env import env as work

        terminal.environment(work(), as_json=form.json)


def _deliver(record: Record, path: Path, output: Output, terminal: "Terminal") -> None:
    """Show a finished record, and exit with the code of its verdict."""
    if output.json:
        terminal.print_json(record)
    else:
        terminal.show(record, path)
    if status := _status(record):
        raise typer.Exit(status)


def _status(record: Record) -> ExitStatus:
    if isinstance(record, ExportRecord) and record.export.gate:
        return EXIT_STATUS[record.export.gate.verdict.outcome]
    if isinstance(record, AbRecord) and record.ab.comparison:
        return EXIT_STATUS[record.ab.comparison.verdict.outcome]
    return ExitStatus.OK


@contextmanager
def _funnel(traceback: bool) -> "Iterator[Terminal]":
    """Every exception of a command becomes one line on stderr and an exit code here, and nowhere else."""
    _prepare_process()
    from mrpcbench.console import Terminal

    terminal = Terminal()
    try:
        with terminal:
            yield terminal
    except (typer.Exit, SystemExit):
        raise
    except BrokenPipeError:
        # Whoever read the results has stopped; Python would complain once more when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitStatus.FAILED) from None
    except BaseException as error:
        if traceback:
            print_exc()
        if isinstance(error, InterruptedRunError) and isinstance(error.record, Record):
            terminal.tables(error.record)
        message, status = _explain(error)
        terminal.error(message)
        raise typer.Exit(status) from None


def _explain(error: BaseException) -> tuple[str, ExitStatus]:
    """One line that says what went wrong, and the exit code for it."""
    match error:
        case KeyboardInterrupt():
            return "interrupted", ExitStatus.INTERRUPTED
        case MrpcbenchError():
            return str(error), error.status
        case OSError():
            return f"{error.filename or 'input or output'}: {error.strerror or error}", ExitStatus.FAILED
        case _ if type(error).__name__ == "OutOfMemoryError":  # torch's; importing torch to name it would take a second
            return f"out of GPU memory; use a smaller --batch-size ({first_line(error)})", ExitStatus.FAILED
        case _:  # whatever is left is a bug, and is called one
            text = f"internal error: {type(error).__name__}: {error} (--traceback shows where)"
            return " ".join(text.split()), ExitStatus.FAILED


def _prepare_process() -> None:
    """Settings that libraries read when they are imported; what the user has set already stays."""
    # GNU OpenMP's idle threads spin 300,000 times before they sleep, and on a busy machine keep the cores from the
    # threads that they wait for: a pair through a tiny model then takes hundreds of ms (docs/architecture.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    # Libraries that talk on their own would mix with the results; what matters, the commands say themselves.
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "" if sys.stderr.isatty() else "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }.items():
        if value:
            os.environ.setdefault(name, value)
