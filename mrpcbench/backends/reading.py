"""The model source of each backend: what `--model` means to the engine that reads it."""

from collections.abc import Iterable, Mapping

from mrpcbench.backends.registry import engine_of
from mrpcbench.models.sources import ModelSource, find_sources
from mrpcbench.schema.requests import BackendSpec


def resolve_all(specs: Iterable[BackendSpec]) -> Mapping[BackendSpec, ModelSource]:
    """The source of each spec's model, found once however many backends read it.

    For an engine that reads ONNX a model folder stands for its `onnx/`. Raises `UsageError` where a model or its graph
    does not exist, `MrpcbenchError` where the hub cannot be reached.
    """
    wanted = {spec: (spec.model, engine_of(spec.backend).reads_onnx) for spec in specs}
    found = find_sources(wanted.values())
    return {spec: found[key] for spec, key in wanted.items()}


def resolve(spec: BackendSpec) -> ModelSource:
    """The source of the model of `spec`; see `resolve_all`."""
    return resolve_all([spec])[spec]
