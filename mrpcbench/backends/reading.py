"""The files that `--model` means for each backend: a model folder, or its ONNX graph."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mrpcbench.backends.registry import engine_of
from mrpcbench.models.sources import ModelSource, find_sources
from mrpcbench.schema.requests import BackendSpec

if TYPE_CHECKING:
    from mrpcbench.models.downloads import Part


def resolve_all(specs: Iterable[BackendSpec]) -> Mapping[BackendSpec, ModelSource]:
    """The source of each spec's model. Each model is resolved once, even if several backends read it.

    For an engine that reads ONNX, a model folder means its `onnx/` folder. Raises `UsageError` if a model or its graph
    does not exist, and `MrpcbenchError` if the hub cannot be reached.
    """
    wanted = {spec: (spec.model, _part(spec)) for spec in specs}
    plain = {spec.model for spec in wanted if engine_of(spec.backend).plain_graphs}
    found = find_sources(wanted.values(), plain=plain)
    return {spec: found[key] for spec, key in wanted.items()}


def _part(spec: BackendSpec) -> "Part":
    """What the engine of `spec` reads of a model."""
    if engine_of(spec.backend).reads_onnx:
        return "graph"
    return "configuration" if spec.random_init else "weights"


def resolve(spec: BackendSpec) -> ModelSource:
    """The source of the model of `spec`; see `resolve_all`."""
    return resolve_all([spec])[spec]
