"""An exported graph in OpenVINO, on the CPU."""

import sys
from collections import Counter
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrpcbench.backends.session import SteppedSession, float_logits, graph_inputs
from mrpcbench.data.batches import Batch
from mrpcbench.environment.capture import resolve_threads
from mrpcbench.errors import MissingError, MrpcbenchError, UsageError
from mrpcbench.models.graphs import Graph, read_graph
from mrpcbench.models.lineage import graph_identity
from mrpcbench.models.sources import ModelSource
from mrpcbench.schema.identity import ModelIdentity, Placement
from mrpcbench.schema.requests import BackendSpec

TELEMETRY = "openvino_telemetry"
# OpenVINO's name for the precision that `--dtype` requests. A graph of 8-bit integers keeps its own integer products.
HINTS = {"auto": "f32", "fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
DTYPES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}
# The layers that multiply by weights.
PRODUCTS = "FullyConnected"


def _without_telemetry() -> ModuleType:
    """Import OpenVINO. That reports to Google Analytics if the package for it is found, so it is hidden meanwhile."""
    hide = TELEMETRY not in sys.modules
    if hide:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        return import_module("openvino")
    finally:
        if hide:
            del sys.modules[TELEMETRY]


openvino = _without_telemetry()
NAME = f"openvino {openvino.__version__.split('-')[0]}"


class OpenVinoSession(SteppedSession):
    """An exported graph, compiled for the CPU for one call at a time."""

    def __init__(self, graph: Graph, identity: ModelIdentity, *, dtype: str, threads: int) -> None:
        self.model = identity
        self._file = str(graph.path)
        core = openvino.Core()
        check_dtype(dtype, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        options = {
            "INFERENCE_PRECISION_HINT": HINTS[dtype],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Otherwise its threads keep to their cores, even if another engine computes there.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._compiled: Any = core.compile_model(core.read_model(graph.path), "CPU", options)
        except RuntimeError as error:
            raise self._problem("open", error) from error
        self._request: Any = self._compiled.create_infer_request()
        self._names = [port.any_name for port in self._compiled.inputs]
        self._output = self._compiled.output(0)
        self.placement = Placement(
            engine=NAME,
            device="cpu",
            provider=", ".join(self._compiled.get_property("EXECUTION_DEVICES")),
            dtype=precision_of(self._compiled),
            threads=self._compiled.get_property("INFERENCE_NUM_THREADS"),
        )

    def copy_in(self, batch: Batch) -> dict[str, NDArray[np.int64]]:
        """The graph's inputs by name; OpenVINO reads them where they are."""
        return graph_inputs(batch, self._names)

    def compute(self, inputs: dict[str, NDArray[np.int64]]) -> Any:
        """Run the graph. The result [B, 2] is valid until the next call."""
        try:
            return self._request.infer(inputs, share_inputs=True, share_outputs=True)[self._output]
        except RuntimeError as error:
            raise self._problem("run", error) from error

    def copy_out(self, outputs: Any) -> NDArray[np.float32]:
        """Logits [B, 2] in float32."""
        return float_logits(outputs, self._file).copy()

    def close(self) -> None:
        """Free the graph."""
        del self._request, self._compiled

    def _problem(self, verb: str, error: Exception) -> MrpcbenchError:
        """The error to raise if OpenVINO cannot open or run the graph. Its own message ends with the reason."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].lstrip("- ")
        if "alloc" in reason.lower():
            return MrpcbenchError(f"OpenVINO has too little memory ({reason}); use a smaller --batch-size")
        return UsageError(
            f"{self._file}: {NAME} cannot {verb} it ({reason}); use --backend onnx, or the graph of "
            "`mrpcbench export --optimize none`"
        )


def check_dtype(dtype: str, capabilities: list[str]) -> None:
    """Raise `MissingError` unless `capabilities`, OpenVINO's names for what the processor computes, have `dtype`.

    OpenVINO itself would compute in another precision, or emulate this one slowly.
    """
    if dtype != "auto" and dtype.upper() not in capabilities:
        raise MissingError(
            f"--backend openvino --dtype {dtype}: OpenVINO finds no {dtype} instructions in this processor; use "
            "--dtype fp32"
        )


def precision_of(compiled: Any) -> str:
    """The dtype of most products with weights in a compiled graph; of the graph as a whole if it has no products."""
    layers = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ops()]
    found = Counter(
        layer["runtimePrecision"].astype(str) for layer in layers if layer["layerType"].astype(str) == PRODUCTS
    )
    whole = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    return DTYPES[found.most_common(1)[0][0] if found else whole]


def device_problem(device: str) -> str | None:
    """Why this engine cannot run on `device` (cpu, cuda), as a message; None if it can."""
    return "this engine runs only on the CPU" if device == "cuda" else None


def open_openvino(spec: BackendSpec, source: ModelSource) -> OpenVinoSession:
    """Load the exported graph in the folder of `source`. `--dtype auto` is fp32, or int8 for a graph of that."""
    if problem := device_problem(spec.device):
        raise UsageError(f"--backend openvino --device {spec.device}: {problem}; use --device cpu, or --backend onnx")
    graph = read_graph(source)
    return OpenVinoSession(
        graph, graph_identity(source, graph), dtype=spec.dtype, threads=resolve_threads(spec.threads)
    )
