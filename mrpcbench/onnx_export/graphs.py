"""The values of `--optimize`, and the builders of our ONNX graphs, each for one execution provider."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from transformers import PreTrainedModel

from mrpcbench.errors import UsageError
from mrpcbench.onnx_export.cpu import ForCpu, ForInt8
from mrpcbench.onnx_export.cuda import ForCuda
from mrpcbench.onnx_export.modernbert import Builder
from mrpcbench.onnx_export.quantize import quantized
from mrpcbench.schema.requests import GraphDtype, Optimize


@dataclass(frozen=True)
class Graph:
    """A value of `--optimize`: its possible dtypes, the default first, and the builder of our graph.

    Without a builder, the graph is Optimum's.
    """

    dtypes: tuple[GraphDtype, ...]
    builder: type[Builder] | None = None


GRAPHS: Mapping[Optimize, Graph] = {
    "none": Graph(("fp32", "fp16")),
    "cpu": Graph(("fp32",), ForCpu),
    "cuda": Graph(("fp16",), ForCuda),  # CUDA's flash attention has no float32 kernel
    "int8": Graph(("int8",), ForInt8),
    "o3": Graph(("fp32",)),
    "o4": Graph(("fp16",)),
}


def is_ours(optimize: Optimize) -> bool:
    """Whether the graph is built by this package and not by Optimum."""
    return GRAPHS[optimize].builder is not None


def arithmetic(optimize: Optimize, asked: GraphDtype) -> GraphDtype:
    """The dtype of a graph if `asked` is requested; raises `UsageError` if there is no such graph."""
    found = GRAPHS[optimize].dtypes
    if asked == "auto":
        return found[0]
    if asked not in found:
        instead = next(name for name, graph in GRAPHS.items() if asked in graph.dtypes)
        raise UsageError(
            f"--optimize {optimize} --dtype {asked}: this graph can only be {' or '.join(found)}; omit --dtype, "
            f"or use --optimize {instead}"
        )
    return asked


def check(model: PreTrainedModel, optimize: Optimize) -> None:
    """Raise `UsageError` if the graph is ours and its builder does not support `model`."""
    if builder := GRAPHS[optimize].builder:
        builder.check(model, f"--optimize {optimize}")


def make(model: PreTrainedModel, optimize: Optimize, requested: GraphDtype = "auto") -> onnx.ModelProto:
    """Our graph of a model that passed `check`: `input_ids`, `attention_mask` [B, S] to `logits` [B, 2]."""
    builder, dtype = GRAPHS[optimize].builder, arithmetic(optimize, requested)
    assert builder is not None
    graph = builder(model, half=dtype == "fp16").build()
    return quantized(graph) if dtype == "int8" else graph
