"""The engines by name. An engine is imported when it is opened; this module needs only the standard library."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mrpcbench.errors import MissingError, UsageError, first_line
from mrpcbench.schema.requests import BackendSpec

if TYPE_CHECKING:
    from mrpcbench.backends.session import Session
    from mrpcbench.models.sources import ModelSource
    from mrpcbench.schema.identity import Placement


@dataclass(frozen=True)
class Engine:
    """An engine. `opener` names the function that opens a session, as `MODULE:FUNCTION`.

    The function takes a `BackendSpec` and the `ModelSource` of its model. If `reads_onnx`, the engine reads the
    exported graph, so a model folder means its `onnx/` folder; with `plain_graphs`, it reads only Optimum's graphs.
    `problem` names a function of a device (cpu, cuda) that says why the engine cannot run there, or None. `extra` is
    the extra of this package that installs the engine.
    """

    opener: str
    reads_onnx: bool = False
    plain_graphs: bool = False
    problem: str = ""
    extra: str = ""


# The values of --backend.
BACKENDS = {
    "torch": Engine("mrpcbench.backends.pytorch:open_torch"),
    "torch-packed": Engine("mrpcbench.backends.packed:open_packed"),
    "torch-compile": Engine(
        "mrpcbench.backends.compiled:open_compiled", problem="mrpcbench.backends.compiled:compiler_problem"
    ),
    "onnx": Engine(
        "mrpcbench.backends.ort:open_onnx", reads_onnx=True, problem="mrpcbench.backends.ort:provider_problem"
    ),
    "openvino": Engine(
        "mrpcbench.backends.openvino:open_openvino",
        reads_onnx=True,
        plain_graphs=True,
        problem="mrpcbench.backends.openvino:device_problem",
        extra="openvino",
    ),
}
# Opens an ONNX file by itself, without reading the model folder around it.
GRAPH = "mrpcbench.backends.onnx_session:open_graph"
GPU_METER = "mrpcbench.instruments.telemetry:gpu_meter"
RESOLVE = "mrpcbench.backends.reading:resolve"
NO_METER = "mrpcbench.backends.session:Unmetered"


def register(
    name: str,
    opener: str,
    *,
    reads_onnx: bool = False,
    plain_graphs: bool = False,
    problem: str = "",
    extra: str = "",
) -> None:
    """Add an engine under `name`, or replace it: see `Engine`. Register before the command line is imported."""
    BACKENDS[name] = Engine(opener, reads_onnx, plain_graphs, problem, extra)


def engine_of(name: str) -> Engine:
    """The engine called `name`; raises `UsageError` if there is none."""
    if name not in BACKENDS:
        raise UsageError(f"--backend {name}: no such engine; choose one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def check_spec(spec: BackendSpec) -> None:
    """Raise `UsageError` for an unknown engine, or a dtype that it never computes in. Imports no engine."""
    engine_of(spec.backend)
    if spec.dtype == "bf16-autocast" and spec.backend != "torch":
        raise UsageError(f"--dtype bf16-autocast --backend {spec.backend}: only for --backend torch; use --dtype auto")


def open_session(spec: BackendSpec, source: "ModelSource | None" = None) -> "Session":
    """Load the model of `spec` into its engine.

    A command resolves its models once and passes each session its `source` (`reading.resolve_all`). Without `source`,
    this function resolves the model. Raises `MissingError` if the requested engine, device or dtype is not available,
    and `UsageError` if there is no such engine or the engine does not support the dtype.
    """
    check_spec(spec)
    engine = engine_of(spec.backend)
    if spec.random_init and engine.reads_onnx:
        raise UsageError(
            f"--random-init: not for --backend {spec.backend}; `mrpcbench export --random-init` writes such a graph"
        )
    opener: Callable[[BackendSpec, ModelSource], Session] = _load_engine(spec, engine.opener)
    session = opener(spec, source or _load(RESOLVE)(spec))
    for option, requested, actual in _requested_and_actual(spec, session.placement):
        if requested != actual:
            session.close()
            raise MissingError(
                f"--backend {spec.backend} --{option} {requested}: {actual} would be used instead; omit --{option}"
            )
    return session


def _requested_and_actual(spec: BackendSpec, actual: "Placement") -> Iterator[tuple[str, object, object]]:
    """Each option of `spec` that requests one value, with that value and the actual one."""
    if spec.device != "auto":
        yield "device", spec.device, actual.device.split()[0]
    if spec.dtype != "auto":
        yield "dtype", spec.dtype, actual.dtype
    if spec.threads:
        yield "threads", spec.threads, actual.threads


def open_graph(spec: BackendSpec) -> "Session":
    """Load the ONNX file that `spec.model` names into ONNX Runtime on the CPU. No other file of the model is read."""
    session: Session = _load_engine(spec, GRAPH)(spec)
    return session


def _load_engine(spec: BackendSpec, place: str) -> Any:
    try:
        return _load(place)
    except ImportError as error:
        engine = engine_of(spec.backend)
        remedy = _install(engine) if engine.extra else "see `mrpcbench env`"
        raise MissingError(f"--backend {spec.backend}: {error}; {remedy}") from error


def problem_of(backend: str, device: str) -> str | None:
    """Why the engine `backend` cannot run on `device` (cpu, cuda), as a message; None if it can. Loads no model."""
    engine = engine_of(backend)
    try:
        problem: str | None = _load(engine.problem)(device) if engine.problem else None
    except ImportError as error:
        return f"a package is missing ({first_line(error)})" + (f"; {_install(engine)}" if engine.extra else "")
    return problem


def _install(engine: Engine) -> str:
    return f"install mrpcbench with its extra: mrpcbench[{engine.extra}]"


def gpu_meter(device: str) -> Any:
    """A `telemetry.Meter` for the GPU in a placement; for a CPU, one without sensors, which imports nothing."""
    return _load(GPU_METER)(device) if device.startswith("cuda") else _load(NO_METER)()


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)
