"""Dynamic int8 quantisation of a float32 graph for the CPU: int8 weights, integer matrix products."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mrpcbench.onnx_export.writer import MICROSOFT

# The range is symmetric, so zero is exact and products need no zero-point correction for the weights.
LARGEST = 127


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with the constant matrix of every MatMul and the table of every Gather as signed 8-bit integers.

    A matrix has one scale per column, a table one per row. Activations are quantised to unsigned 8 bits with one scale
    per call, by ONNX Runtime's DynamicQuantizeMatMul. That is one node; standard operators would need six.
    """
    weights = {item.name: item for item in model.graph.initializer}
    constants: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        weight = weights.get(node.input[_WEIGHT_OF[node.op_type]]) if node.op_type in _WEIGHT_OF else None
        if weight is None or weight.data_type != TensorProto.FLOAT or len(weight.dims) != 2:
            nodes.append(node)
            continue
        make = _product if node.op_type == "MatMul" else _rows
        made, new = make(node, weight.name, numpy_helper.to_array(weight))
        nodes += made
        constants |= {item.name: item for item in new}
    used = {name for node in nodes for name in node.input}
    kept = [item for name, item in weights.items() if name in used]
    graph = helper.make_graph(
        nodes, model.graph.name, model.graph.input, model.graph.output, [*kept, *constants.values()]
    )
    return helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name=model.producer_name
    )


_WEIGHT_OF = {"MatMul": 1, "Gather": 0}


def _product(
    node: onnx.NodeProto, name: str, values: NDArray[np.float32]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """An integer matrix product by `values` [in, out]."""
    scales, whole = _to_integers(values, axis=0)
    constants: dict[str, NDArray[Any]] = {
        f"{name}_int8": whole,
        f"{name}_scale": scales[0],
        f"{name}_zero": np.zeros_like(whole[0]),
    }
    made = helper.make_node(
        "DynamicQuantizeMatMul", [node.input[0], *constants], node.output, name=node.name, domain=MICROSOFT
    )
    return [made], _tensors(constants)


def _rows(
    node: onnx.NodeProto, name: str, values: NDArray[np.float32]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """A lookup in the table `values` [rows, width]. Each row is multiplied by its scale when it is read."""
    scales, whole = _to_integers(values, axis=1)
    constants: dict[str, NDArray[Any]] = {f"{name}_int8": whole, f"{name}_scale": scales}
    index = node.input[1]
    row, scale, wide = (f"{node.name}_{part}" for part in ("row", "scale", "wide"))
    made = [
        helper.make_node("Gather", [f"{name}_int8", index], [row], name=row),
        helper.make_node("Gather", [f"{name}_scale", index], [scale], name=scale),
        helper.make_node("Cast", [row], [wide], name=wide, to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, scale], node.output, name=node.name),
    ]
    return made, _tensors(constants)


def _to_integers(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The scales (with `axis` kept as 1), and `values` divided by them and rounded. All-zero slices get scale 1."""
    largest = np.abs(values).max(axis=axis, keepdims=True)
    scales = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return scales, np.rint(values / scales).astype(np.int8)


def _tensors(constants: dict[str, NDArray[Any]]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in constants.items()]
