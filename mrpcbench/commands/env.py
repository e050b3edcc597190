"""Show which engines and devices work here, and what is missing: `mrpcbench env`."""

from mrpcbench.backends.compiled import compiler_problem
from mrpcbench.backends.ort import provider_problem
from mrpcbench.environment.capture import capture, cuda_problem
from mrpcbench.schema.identity import EnvironmentReport


def env() -> EnvironmentReport:
    """Check CUDA, compilers and ONNX Runtime's CUDA provider for each engine; no model is loaded."""
    gpu = cuda_problem()
    if gpu:
        gpu += "; install a GPU driver and a CUDA build of torch (docs/reproduce.md)"
    return EnvironmentReport(
        environment=capture(),
        problems=(
            ("torch on cpu", None),
            ("torch on cuda", gpu),
            ("torch-packed on cpu", None),
            ("torch-packed on cuda", gpu),
            ("torch-compile on cpu", compiler_problem("cpu")),
            ("torch-compile on cuda", gpu or compiler_problem("cuda")),
            ("onnx on cpu", None),
            ("onnx on cuda", gpu or provider_problem("cuda")),
        ),
    )
