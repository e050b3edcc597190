"""Writes an ONNX graph node by node."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# The domain of ONNX Runtime's own operators, such as the fused ones. Every build has them.
MICROSOFT = "com.microsoft"
NONE: Mapping[str, Any] = {}


class Writer:
    """Collects the nodes and constants of a graph. A value is referred to by its name; "" is an absent input."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        attributes: Mapping[str, Any] = NONE,
        *,
        domain: str = "",
        outputs: int = 1,
        result: str = "",
    ) -> tuple[str, ...]:
        """Add a node and return the names of its `outputs`. `result`, if given, names the first one."""
        name = f"{operator}_{len(self._nodes)}"
        names = (result or name, *(f"{name}_{place}" for place in range(1, outputs)))
        self._nodes.append(helper.make_node(operator, inputs, names, name=name, domain=domain, **attributes))
        return names

    def one(self, operator: str, inputs: Sequence[str], attributes: Mapping[str, Any] = NONE, domain: str = "") -> str:
        """Add a node with one output and return its name."""
        return self.node(operator, inputs, attributes, domain=domain)[0]

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant, unless there is one of that name, and return its name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        return name

    def integers(self, *values: int) -> str:
        """An int64 constant with one axis."""
        return self.constant(f"integers_{'_'.join(map(str, values))}", np.array(values, dtype=np.int64))

    def integer(self, value: int) -> str:
        """An int64 constant without an axis."""
        return self.constant(f"integer_{value}", np.array(value, dtype=np.int64))

    def cast(self, value: str, kind: int) -> str:
        """`value` cast to `kind`, a type of `onnx.TensorProto`."""
        return self.one("Cast", [value], {"to": kind})

    def model(self, name: str, opset: int, labels: int) -> onnx.ModelProto:
        """The finished model: `input_ids` and `attention_mask` [B, S] int64 to `logits` [B, labels] float32."""
        tokens = ["batch_size", "sequence_length"]
        inputs = [
            helper.make_tensor_value_info(item, TensorProto.INT64, tokens) for item in ("input_ids", "attention_mask")
        ]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", labels])
        graph = helper.make_graph(self._nodes, name, inputs, [logits], list(self._constants.values()))
        imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(
            graph,
            opset_imports=imports,
            ir_version=helper.find_min_ir_version_for(imports[:1]),
            producer_name="mrpcbench",
        )
