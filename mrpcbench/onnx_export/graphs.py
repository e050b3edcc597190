"""ONNX graphs of few nodes, each made for one execution provider, beside Optimum's own (`graphs.optimum`)."""

from collections.abc import Mapping

import onnx
from transformers import PreTrainedModel

from mrpcbench.errors import UsageError
from mrpcbench.onnx_export.cpu import ForCpu
from mrpcbench.onnx_export.cuda import ForCuda
from mrpcbench.onnx_export.modernbert import Builder
from mrpcbench.onnx_export.quantize import quantized
from mrpcbench.schema.requests import GraphDtype, Optimize

# The arithmetic that each graph can have, the usual one first. CUDA's fused attention has no float32 kernel.
ARITHMETIC: Mapping[Optimize, tuple[GraphDtype, ...]] = {
    "none": ("fp32", "fp16"),
    "cpu": ("fp32",),
    "cuda": ("fp16",),
    "int8": ("int8",),
    "o3": ("fp32",),
    "o4": ("fp16",),
}
FORMS: Mapping[Optimize, type[Builder]] = {"cpu": ForCpu, "cuda": ForCuda, "int8": ForCpu}


def arithmetic(optimize: Optimize, asked: GraphDtype) -> GraphDtype:
    """The arithmetic of a graph for which `asked` was asked; `UsageError` where there is no such graph."""
    found = ARITHMETIC[optimize]
    if asked == "auto":
        return found[0]
    if asked not in found:
        instead = next(name for name, kinds in ARITHMETIC.items() if asked in kinds)
        raise UsageError(
            f"--optimize {optimize} --dtype {asked}: such a graph is {' or '.join(found)}; leave --dtype out, "
            f"or use --optimize {instead}"
        )
    return asked


def check(model: PreTrainedModel, optimize: Optimize) -> None:
    """Raise `UsageError` where there is no such graph of `model`."""
    if optimize in FORMS:
        FORMS[optimize].check(model, f"--optimize {optimize}")


def make(model: PreTrainedModel, optimize: Optimize) -> onnx.ModelProto:
    """The graph of `model`, which `check` has let through: `input_ids`, `attention_mask` [B, S] to `logits` [B, 2]."""
    graph = FORMS[optimize](model, half=optimize == "cuda").build()
    return quantized(graph) if optimize == "int8" else graph
