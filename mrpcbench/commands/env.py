"""Show which engines and devices work here, and what is missing: `mrpcbench env`."""

from collections.abc import Callable, Mapping

from mrpcbench.backends.compiled import compiler_problem
from mrpcbench.backends.ort import provider_problem
from mrpcbench.backends.registry import BACKENDS
from mrpcbench.environment.capture import capture, cuda_problem
from mrpcbench.schema.identity import EnvironmentReport

# What an engine needs on a device beyond torch: a function of "cpu" or "cuda" that says what is missing.
NEEDS: Mapping[str, Callable[[str], str | None]] = {"torch-compile": compiler_problem, "onnx": provider_problem}


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
    return NEEDS[backend](device) if backend in NEEDS else None
