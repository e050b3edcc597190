"""Show which engines and devices work here, and what is missing: `mrpcbench env`."""

from mrpcbench.backends.registry import BACKENDS, problem_of
from mrpcbench.environment.capture import capture, cuda_problem
from mrpcbench.schema.identity import EnvironmentReport


def env() -> EnvironmentReport:
    """Check CUDA, compilers, packages and ONNX Runtime's CUDA provider for each engine; no model is loaded."""
    gpu = cuda_problem()
    if gpu:
        gpu += "; install a GPU driver and a CUDA build of torch (docs/install.md)"
    problems: list[tuple[str, str | None]] = []
    for name in BACKENDS:
        problems += [(f"{name} on cpu", problem_of(name, "cpu")), (f"{name} on cuda", gpu or problem_of(name, "cuda"))]
    return EnvironmentReport(environment=capture(), problems=tuple(problems))
