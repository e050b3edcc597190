"""An exported graph: its identity, its dtype and device, its session; and whether ONNX Runtime can use CUDA."""

import sys
from contextlib import redirect_stdout

import onnx
import onnxruntime as ort

from mrpcbench.backends.onnx_session import LOG_NOTHING, PROVIDERS, OnnxSession
from mrpcbench.environment.capture import cuda_problem, device_name, resolve_device, resolve_threads
from mrpcbench.errors import MissingError, UsageError, first_line
from mrpcbench.models.graphs import read_graph
from mrpcbench.models.lineage import graph_identity
from mrpcbench.models.sources import ModelSource
from mrpcbench.schema.requests import CPU_ONLY, CUDA_ONLY, BackendSpec, Device, Optimize

# The CPU provider converts half-precision weights to float32 and computes in float32.
ON_CPU = {"fp16": "fp32", "bf16": "fp32"}


def graph_device(asked: Device, optimize: Optimize | None, named: str) -> str:
    """The device of a graph that was exported with `optimize`; `named` is the option that named it, for errors.

    Raises `UsageError` if `asked` is another device, and `MissingError` if the device is not available.
    """
    if optimize in CUDA_ONLY:
        if asked == "cpu":
            raise UsageError(
                f"{named} --device cpu: the graph runs only on a GPU ({optimize}); use `mrpcbench export --optimize o3`"
            )
        if problem := cuda_problem():
            raise MissingError(
                f"{named}: the graph runs only on a GPU ({optimize}), and {problem}; "
                "use `mrpcbench export --optimize o3`"
            )
        return "cuda"
    if optimize not in CPU_ONLY:
        return resolve_device(asked)
    if asked == "cuda":
        raise UsageError(
            f"{named} --device cuda: the graph runs only on the CPU ({optimize}); use --device cpu, or export with "
            "--optimize cuda"
        )
    return "cpu"


def exact_dtype(spec: BackendSpec, stored: str, would_run: str) -> str:
    """`would_run`, the dtype in which a graph of `stored` weights runs. `UsageError` if `spec` requests another one."""
    if spec.dtype not in ("auto", would_run):
        # No graph has bf16 weights, and a CPU converts fp16 ones to float32.
        remedy = "--backend torch" if spec.dtype == "bf16" else "`mrpcbench export --dtype`"
        if spec.dtype == "fp16":
            remedy += " and a GPU"
        raise UsageError(
            f"--dtype {spec.dtype}: requested {spec.dtype}, but the graph is {stored} and {would_run} would be used; "
            f"use --dtype auto, or {remedy}"
        )
    return would_run


def open_onnx(spec: BackendSpec, source: ModelSource) -> OnnxSession:
    """Load the exported graph in the folder of `source`."""
    graph = read_graph(source)
    identity = graph_identity(source, graph)
    device = graph_device(spec.device, identity.optimize, f"--model {spec.model}")
    if device == "cuda":
        load_cuda_libraries()
    dtype = exact_dtype(spec, graph.dtype, ON_CPU.get(graph.dtype, graph.dtype) if device == "cpu" else graph.dtype)
    return OnnxSession(
        *(graph.path, identity),
        dtype=dtype,
        provider=device,
        device_name=device_name(device),
        threads=resolve_threads(spec.threads),
    )


def load_cuda_libraries() -> None:
    """Load the CUDA libraries that torch installs, which ONNX Runtime's providers use too (`preload_dlls`)."""
    with redirect_stdout(sys.stderr):  # it prints the libraries that it does not find; stdout is for results
        ort.preload_dlls()


def provider_problem(name: str) -> str | None:
    """Why ONNX Runtime cannot use one of `PROVIDERS` here, as a message; None if a session starts on it."""
    provider = PROVIDERS[name]
    if provider.name not in ort.get_available_providers():
        return f"onnxruntime {ort.__version__} has no {provider.name}; install onnxruntime-gpu"
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "probe", [value], [result])
    probe = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = LOG_NOTHING
    if name == "cuda":
        load_cuda_libraries()
    try:
        with redirect_stdout(sys.stderr):
            session = ort.InferenceSession(probe.SerializeToString(), options, providers=[provider.name])
    except Exception as error:  # ONNX Runtime raises its own types, which depend on what is missing
        return f"{provider.name} does not start ({first_line(error)})"
    started = session.get_providers()[0] == provider.name
    return None if started else f"{provider.name} does not start: {provider.missing}"
