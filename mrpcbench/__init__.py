"""Fine-tune ModernBERT on MRPC, export it to ONNX, verify the export, and measure it.

`mrpcbench.train`, `evaluate`, `export`, `bench`, `compare` and `load` are the commands as functions; docs/python.md
describes them. Importing this package loads nothing else: a function loads what it needs when it is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mrpcbench.api import bench, compare, evaluate, export, load, train
    from mrpcbench.errors import InterruptedRunError, MissingError, MrpcbenchError, UsageError

    __version__: str

# Since 1.29, ONNX Runtime reports names and hashes of graphs to Microsoft, unless this is set before its import.
# Its function disable_telemetry_events comes too late for the first report.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    **dict.fromkeys(("bench", "compare", "evaluate", "export", "load", "train"), "mrpcbench.api"),
    **dict.fromkeys(("InterruptedRunError", "MissingError", "MrpcbenchError", "UsageError"), "mrpcbench.errors"),
}

__all__ = [
    "InterruptedRunError",
    "MissingError",
    "MrpcbenchError",
    "UsageError",
    "__version__",
    "bench",
    "compare",
    "evaluate",
    "export",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name == "__version__":
        return import_module("mrpcbench.environment.versions").own_version()
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mrpcbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
