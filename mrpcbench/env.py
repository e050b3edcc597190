"""What would run here, and what keeps the rest from running: `mrpcbench env`."""

from mrpcbench.backends.ort import provider_problem
from mrpcbench.backends.tensorrt import libraries_problem
from mrpcbench.environment import capture, cuda_problem
from mrpcbench.schema import EnvironmentReport


def env() -> EnvironmentReport:
    """Try each engine on each device."""
    torch_problem = cuda_problem()
    if torch_problem:
        torch_problem += "; install a GPU driver and a CUDA build of torch (docs/reproduce.md)"
    return EnvironmentReport(
        environment=capture(),
        problems=(
            ("torch on cpu", None),
            ("torch on cuda", torch_problem),
            ("onnx on cpu", None),
            ("onnx on cuda", torch_problem or provider_problem("cuda")),
            ("onnx-tensorrt on cuda", libraries_problem() or torch_problem or provider_problem("tensorrt")),
        ),
    )
