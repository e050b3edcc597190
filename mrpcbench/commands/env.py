"""Show which engines and devices work here, and what is missing: `mrpcbench env`."""

from collections.abc import Mapping
from importlib import import_module

from mrpcbench.backends.registry import BACKENDS
from mrpcbench.environment.capture import capture, cuda_problem
from mrpcbench.errors import first_line
from mrpcbench.schema.identity import EnvironmentReport

# What an engine needs on a device beyond torch: a function of "cpu" or "cuda" that says what is missing. Its module is
# imported when it is asked, because it may need a package that is not installed.
NEEDS: Mapping[str, str] = {
    "torch-compile": "mrpcbench.backends.compiled:compiler_problem",
    "onnx": "mrpcbench.backends.ort:provider_problem",
}


def env() -> EnvironmentReport:
    """Check CUDA, compilers and ONNX Runtime's CUDA provider for each engine; no model is loaded."""
    gpu = cuda_problem()
    if gpu:
        gpu += "; install a GPU driver and a CUDA build of torch (docs/reproduce.md)"
    problems: list[tuple[str, str | None]] = []
    for name in BACKENDS:
        problems += [(f"{name} on cpu", _missing(name, "cpu")), (f"{name} on cuda", gpu or _missing(name, "cuda"))]
    return EnvironmentReport(environment=capture(), problems=tuple(problems))


def _missing(backend: str, device: str) -> str | None:
    """What `backend` lacks on `device`, as a message; None if nothing."""
    if backend not in NEEDS:
        return None
    module, function = NEEDS[backend].split(":")
    try:
        problem: str | None = getattr(import_module(module), function)(device)
    except ImportError as error:
        return f"a package is missing ({first_line(error)})"
    return problem
