"""The engines by name, each loaded only when it is opened."""

from collections.abc import Callable
from importlib import import_module

from mrpcbench.backends.base import Session
from mrpcbench.errors import MissingError
from mrpcbench.plans import BackendSpec

BACKENDS = {
    "torch": "mrpcbench.backends.pytorch:open_torch",
    "onnx": "mrpcbench.backends.ort:open_onnx",
    "fake": "mrpcbench.backends.fake:open_fake",
}


def open_session(spec: BackendSpec) -> Session:
    """Load the model that `spec` names into its engine.

    Raises `MissingError` where the engine, the device or the arithmetic asked for is not what would run.
    """
    module, function = BACKENDS[spec.backend].split(":")
    try:
        opener: Callable[[BackendSpec], Session] = getattr(import_module(module), function)
    except ImportError as error:
        raise MissingError(f"--backend {spec.backend}: {error}; see `mrpcbench env`") from error
    return opener(spec)
