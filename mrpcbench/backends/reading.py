"""The files that `--model` means for each backend: a model folder, or its ONNX graph."""

from collections.abc import Iterable, Mapping

from mrpcbench.backends.registry import engine_of
from mrpcbench.models.sources import ModelSource, find_sources
from mrpcbench.schema.requests import BackendSpec


def resolve_all(specs: Iterable[BackendSpec]) -> Mapping[BackendSpec, ModelSource]:
    """The source of each spec's model. Each model is resolved once, even if several backends read it.

    For an engine that reads ONNX, a model folder means its `onnx/` folder. Raises `UsageError` if a model or its graph
    does not exist, and `MrpcbenchError` if the hub cannot be reached.
    """
    wanted = {spec: (spec.model, engine_of(spec.backend).reads_onnx) for spec in specs}
    found = find_sources(wanted.values())
    return {spec: found[key] for spec, key in wanted.items()}


def resolve(spec: BackendSpec) -> ModelSource:
    """The source of the model of `spec`; see `resolve_all`."""
    return resolve_all([spec])[spec]
