"""The engines by name. Each is loaded only when it is opened; this module loads the standard library alone."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mrpcbench.errors import MissingError, UsageError
from mrpcbench.schema.requests import BackendSpec

if TYPE_CHECKING:
    from mrpcbench.backends.session import Session
    from mrpcbench.models.sources import ModelSource


@dataclass(frozen=True)
class Engine:
    """Where the function that opens a session of an engine is, `MODULE:FUNCTION`; it takes a `BackendSpec` and the
    `ModelSource` of its model.

    An engine that `reads_onnx` reads the exported graph of a model: a model folder then means its `onnx/`.
    """

    opener: str
    reads_onnx: bool = False


# What --backend offers.
BACKENDS = {
    "torch": Engine("mrpcbench.backends.pytorch:open_torch"),
    "torch-packed": Engine("mrpcbench.backends.packed:open_packed"),
    "torch-compile": Engine("mrpcbench.backends.compiled:open_compiled"),
    "onnx": Engine("mrpcbench.backends.ort:open_onnx", reads_onnx=True),
}
# An ONNX file and all that is to be known of it, without a look at the model around it.
GRAPH = "mrpcbench.backends.onnx_session:open_graph"
GPU_METER = "mrpcbench.instruments.telemetry:gpu_meter"
RESOLVE = "mrpcbench.backends.reading:resolve"
NO_METER = "mrpcbench.backends.session:Unmetered"


def register(name: str, opener: str, *, reads_onnx: bool = False) -> None:
    """Add an engine under `name`, or replace it: see `Engine`. Register before the command line is imported."""
    BACKENDS[name] = Engine(opener, reads_onnx)


def engine_of(name: str) -> Engine:
    """The engine called `name`; raises `UsageError` where there is none."""
    if name not in BACKENDS:
        raise UsageError(f"--backend {name}: no such engine; choose one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def open_session(spec: BackendSpec, source: "ModelSource | None" = None) -> "Session":
    """Load the model of `spec` into its engine.

    A command resolves its models once and gives each session its `source` (`reading.resolve_all`); without one the
    model is resolved here. Raises `MissingError` where the engine, the device or the arithmetic asked for is not what
    would run, `UsageError` where the engine has no such arithmetic, or there is no such engine.
    """
    if spec.dtype == "bf16-autocast" and spec.backend != "torch":
        raise UsageError(f"--dtype bf16-autocast --backend {spec.backend}: for --backend torch alone; use --dtype auto")
    opener: Callable[[BackendSpec, ModelSource], Session] = _load_engine(spec, engine_of(spec.backend).opener)
    return opener(spec, source or _load(RESOLVE)(spec))


def open_graph(spec: BackendSpec) -> "Session":
    """Load an ONNX file, the model of `spec`, into ONNX Runtime for the CPU; nothing else of the model is read."""
    session: Session = _load_engine(spec, GRAPH)(spec)
    return session


def _load_engine(spec: BackendSpec, place: str) -> Any:
    try:
        return _load(place)
    except ImportError as error:
        raise MissingError(f"--backend {spec.backend}: {error}; see `mrpcbench env`") from error


def gpu_meter(device: str) -> Any:
    """A `sensors.Meter` of the GPU that a placement names; on the CPU one that sees nothing, and loads nothing."""
    return _load(GPU_METER)(device) if device.startswith("cuda") else _load(NO_METER)()


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)
