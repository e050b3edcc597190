"""Dynamic int8 quantisation of a float32 graph for the CPU: int8 weights, integer matrix products."""

from collections import Counter
from collections.abc import Mapping
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
    per call: once for all products that share them, or as part of the only product.
    """
    weights = {item.name: item for item in model.graph.initializer}
    found = [node for node in model.graph.node if _weight_of(node, weights)]
    readers = Counter(node.input[0] for node in found if node.op_type == "MatMul")
    constants: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    integers: set[str] = set()  # the activations that have been quantised
    for node in model.graph.node:
        weight = _weight_of(node, weights)
        if weight is None:
            nodes.append(node)
            continue
        name, values = weight.name, numpy_helper.to_array(weight)
        if node.op_type == "Gather":
            made, new = _rows(node, name, values)
        elif readers[node.input[0]] == 1:
            made, new = _product(node, name, values)
        else:
            made, new = _shared_product(node, name, values, is_first=node.input[0] not in integers)
            integers.add(node.input[0])
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


def _weight_of(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> onnx.TensorProto | None:
    """The constant float32 matrix or table of `node`; None if it has none."""
    weight = weights.get(node.input[_WEIGHT_OF[node.op_type]]) if node.op_type in _WEIGHT_OF else None
    return weight if weight and weight.data_type == TensorProto.FLOAT and len(weight.dims) == 2 else None


def _product(
    node: onnx.NodeProto, name: str, values: NDArray[np.float32]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """An integer matrix product by `values` [in, out], which also quantises its activations."""
    constants = _matrix(name, values)
    made = helper.make_node(
        "DynamicQuantizeMatMul", [node.input[0], *constants], node.output, name=node.name, domain=MICROSOFT
    )
    return [made], _tensors(constants)


def _shared_product(
    node: onnx.NodeProto, name: str, values: NDArray[np.float32], *, is_first: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """An integer matrix product by `values` [in, out]. Only the first of its activations quantises them."""
    constants, states = _matrix(name, values), node.input[0]
    whole, scale, zero = (f"{states}_{part}" for part in ("int8", "scale", "zero"))
    quantise = helper.make_node("DynamicQuantizeLinear", [states], [whole, scale, zero], name=whole)
    matrix, column_scales = constants
    made = helper.make_node(
        "MatMulIntegerToFloat",
        [whole, matrix, scale, column_scales, zero],
        node.output,
        name=node.name,
        domain=MICROSOFT,
    )
    return [*([quantise] if is_first else []), made], _tensors(constants)


def _matrix(name: str, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The constants of a matrix: its 8-bit integers and the scale of each column. Their zero is 0."""
    scales, whole = _to_integers(values, axis=0)
    return {f"{name}_int8": whole, f"{name}_scale": scales[0]}


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
