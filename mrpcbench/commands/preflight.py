"""What happens before torch and datasets are imported, which takes seconds: a heading, and checks of the request."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from mrpcbench.backends.registry import check_spec, engine_of
from mrpcbench.data import places
from mrpcbench.errors import UsageError
from mrpcbench.models.sources import local_folder, onnx_folder
from mrpcbench.records.outputs import check_file, check_writable, record_of
from mrpcbench.schema.bench_requests import BenchPlan
from mrpcbench.schema.fields import check
from mrpcbench.schema.requests import BackendSpec, EvaluatePlan, ExportPlan, Output, TrainRecipe, TrainRequest


def heading(command: str, *requests: Any) -> str:
    """What `command` is about to do: the model, the engines and the data of `requests`, in one line."""
    asked: dict[str, Any] = {}
    for request in requests:
        for item in fields(request):
            asked.setdefault(item.name, getattr(request, item.name))
    text = f"{command}: {asked['model']}"
    if preset := asked.get("preset"):
        text += f" with --preset {preset}"
    elif engines := asked.get("backend"):
        text += f" with {engines if isinstance(engines, str) else ', '.join(engines)}"
    if "data" in asked:
        text += " on " + " ".join(asked[name] for name in ("data", "split") if name in asked)
    return text


def check_early(command: str, *requests: Any) -> None:
    """Raise `UsageError` for values out of bounds, and for a model, a graph, data or an output that cannot be used.

    An existing file is replaced only by one of the same kind. Nothing is looked up on the hub.
    """
    check(*requests)
    for request in requests:
        match request:
            case TrainRequest():
                local_folder(request.model, to_train=True)
            case ExportPlan():
                local_folder(request.model)
            case TrainRecipe() if request.max_steps == 0 or request.max_steps < -1:
                raise UsageError(f"--max-steps {request.max_steps}: at least 1, or -1 for whole epochs")
            case Output():
                check_file("--results", request.results, record_of(command))
        if isinstance(request, TrainRequest | EvaluatePlan | ExportPlan | BenchPlan):
            places.local_folder(request.data)
        if isinstance(request, TrainRequest | EvaluatePlan | ExportPlan):
            check_writable("--output-dir", request.output_dir)
    for spec in _specs(*requests):
        check_spec(spec)
        folder, engine = local_folder(spec.model), engine_of(spec.backend)
        if folder is not None and engine.reads_onnx and not spec.random_init:
            onnx_folder(folder, spec.model, plain=engine.plain_graphs)


def _specs(*requests: Any) -> Iterator[BackendSpec]:
    """The engines of an evaluation or a benchmark; none for a preset, which chooses them itself."""
    plan = next((request for request in requests if isinstance(request, BenchPlan)), None)
    for spec in (request for request in requests if isinstance(request, BackendSpec)):
        if plan is None:
            yield spec
        elif plan.preset is None:
            yield from (replace(spec, backend=name) for name in plan.backend)
