"""The Python API: one function per command. `import mrpcbench` loads this module when a function is first used."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from mrpcbench.progress import Observer, Silent
from mrpcbench.records import store
from mrpcbench.schema.bench_requests import BenchControl, BenchPlan
from mrpcbench.schema.cases import BenchRequest
from mrpcbench.schema.fields import flags_of
from mrpcbench.schema.gate_requests import ComparePlan
from mrpcbench.schema.records import BenchRecord, EvaluateRecord, ExportRecord, Record, TrainRecord
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan, ExportPlan, TrainRecipe, TrainRequest
from mrpcbench.schema.verdicts import Comparison

F = TypeVar("F", bound=Callable[..., Any])
AnyPath = str | Path


def _with_fields_of(*kinds: type) -> Callable[[F], F]:
    """Add the fields of `kinds` as keyword arguments to the signature of a function that takes `**values`."""

    def decorate(function: F) -> F:
        own = [item for item in inspect.signature(function).parameters.values() if item.kind != item.VAR_KEYWORD]
        names: dict[str, inspect.Parameter] = {}
        for kind in kinds:
            hints = get_type_hints(kind)
            for item in fields(kind):
                parameter = inspect.Parameter(
                    _names(item)[0], inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=hints[item.name]
                )
                names.setdefault(item.name, parameter)
        function.__signature__ = inspect.Signature([*own, *names.values()])  # type: ignore[attr-defined]
        return function

    return decorate


def _requests(kinds: Sequence[type], values: dict[str, Any]) -> list[Any]:
    """One instance of each of `kinds`, built from keyword arguments.

    A field has the names of its options, and its own. A field that two classes share goes to the first. Raises
    `TypeError` for an unknown name or two names of one field, and `UsageError` for a value of the wrong type.
    """
    unused = dict(values)
    requests: list[Any] = []
    for kind in kinds:
        own: dict[str, Any] = {}
        for item in fields(kind):
            given = [name for name in _names(item) if name in unused]
            if len(given) > 1:
                raise TypeError(f"{given[0]} and {given[1]} are the same argument")
            for name in given:
                value = unused.pop(name)
                own[item.name] = str(value) if isinstance(value, Path) else value
        requests.append(store.checked(kind, own))
    if unused:
        raise TypeError(f"unexpected keyword argument {min(unused)!r}")
    return requests


def _names(item: Field[Any]) -> list[str]:
    """The keyword arguments that set a field: its option names without dashes, and the field's own name."""
    options = [flag.removeprefix("--").replace("-", "_") for flag in flags_of(item)]
    return list(dict.fromkeys([*options, item.name]))


@_with_fields_of(TrainRequest, TrainRecipe)
def train(*, results: AnyPath | None = None, observer: Observer | None = None, **values: Any) -> TrainRecord:
    """Fine-tune a checkpoint as `mrpcbench train` does, and return its record.

    The keyword arguments are the options of the command, with underscores for dashes. `results` is the file for the
    record. Without `results` the record is not written, but the model folder is. `observer` receives the progress.
    Raises `MrpcbenchError`.
    """
    from mrpcbench.commands.train import train as run

    request, recipe = _requests((TrainRequest, TrainRecipe), values)
    return run(request, recipe, _path(results), observer or Silent())


@_with_fields_of(BackendSpec, EvaluatePlan)
def evaluate(*, results: AnyPath | None = None, observer: Observer | None = None, **values: Any) -> EvaluateRecord:
    """Score a classifier as `mrpcbench evaluate` does, and return its record.

    Without `results` and `output_dir` the predictions are not written. Raises `MrpcbenchError`.
    """
    from mrpcbench.commands.evaluate import evaluate as run

    spec, plan = _requests((BackendSpec, EvaluatePlan), values)
    return run(spec, plan, _path(results), observer or Silent())


@_with_fields_of(ExportPlan)
def export(*, results: AnyPath | None = None, observer: Observer | None = None, **values: Any) -> ExportRecord:
    """Export a model to ONNX and verify it, as `mrpcbench export` does, and return its record.

    The verdict is `record.verdict`; a graph that does not match is not an exception. Raises `MrpcbenchError`.
    """
    from mrpcbench.commands.export import export as run

    (plan,) = _requests((ExportPlan,), values)
    return run(plan, _path(results), observer or Silent())


@_with_fields_of(BenchPlan, BackendSpec, BenchControl)
def bench(*, results: AnyPath | None = None, observer: Observer | None = None, **values: Any) -> BenchRecord:
    """Measure engines side by side as `mrpcbench bench` does, and return its record.

    A case whose engine fails is left out, and `record.bench.failed` has the reason. Raises `MrpcbenchError`.
    """
    from mrpcbench.commands.bench import bench as run

    kinds = (BenchPlan, BackendSpec, BenchControl)
    plan, spec, control = _requests(kinds, values)
    given = {item.name for kind in kinds for item in fields(kind) if not values.keys().isdisjoint(_names(item))}
    request = BenchRequest(spec=spec, plan=plan, control=control, given=frozenset(given))
    record, _ = run(request, _path(results), observer or Silent())
    return record


@_with_fields_of(ComparePlan)
def compare(
    *sides: AnyPath | Sequence[AnyPath],
    **values: Any,
) -> Comparison:
    """Compare a record with a baseline or with limits, as `mrpcbench compare` does.

    The arguments are the baseline and the record, or the record alone. Each is a file, a folder, or a sequence of
    them. The verdict is `comparison.verdict.outcome`. Raises
    `MrpcbenchError`.
    """
    from mrpcbench.commands.compare import compare as run

    (plan,) = _requests((ComparePlan,), values)
    if not 1 <= len(sides) <= 2:
        raise TypeError(f"compare takes the baseline and the record, or the record alone, not {len(sides)} arguments")
    return run(_paths(sides[0]) if len(sides) > 1 else None, _paths(sides[-1]), plan)


def load(path: AnyPath) -> Record:
    """The record in a results file. Raises `UsageError` if the file is absent, truncated or not a record."""
    return store.load(Path(path))


def _path(path: AnyPath | None) -> Path | None:
    return None if path is None else Path(path)


def _paths(paths: AnyPath | Sequence[AnyPath]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(item) for item in paths]
