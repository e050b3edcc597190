"""The engines by name, each loaded only when it is opened."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from mrpcbench.backends.base import Session, Unmetered
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.plans import BackendSpec

BACKENDS = {
    "torch": "mrpcbench.backends.pytorch:open_torch",
    "torch-packed": "mrpcbench.backends.packed:open_packed",
    "torch-compile": "mrpcbench.backends.compiled:open_compiled",
    "onnx": "mrpcbench.backends.ort:open_onnx",
    "onnx-tensorrt": "mrpcbench.backends.tensorrt:open_tensorrt",
    "fake": "mrpcbench.backends.fake:open_fake",
}
# An ONNX file and all that is to be known of it, without a look at the model around it.
GRAPH = "mrpcbench.backends.onnx_session:open_graph"
GPU_METER = "mrpcbench.sensors:gpu_meter"


def open_session(spec: BackendSpec, *, from_graph: bool = False) -> Session:
    """Load the model that `spec` names into its engine; with `from_graph` its model is an ONNX file, for the CPU.

    Raises `MissingError` where the engine, the device or the arithmetic asked for is not what would run, `UsageError`
    where the engine has no such arithmetic.
    """
    if spec.dtype == "bf16-autocast" and spec.backend != "torch":
        raise UsageError(f"--dtype bf16-autocast --backend {spec.backend}: for --backend torch alone; use --dtype auto")
    try:
        opener: Callable[[BackendSpec], Session] = _load(GRAPH if from_graph else BACKENDS[spec.backend])
    except ImportError as error:
        raise MissingError(f"--backend {spec.backend}: {error}; see `mrpcbench env`") from error
    return opener(spec)


def gpu_meter(device: str) -> Any:
    """A `sensors.Meter` of the GPU that a placement names; on the CPU one that sees nothing, and loads nothing."""
    return _load(GPU_METER)(device) if device.startswith("cuda") else Unmetered()


def _load(place: str) -> Any:
    module, name = place.split(":")
    return getattr(import_module(module), name)
