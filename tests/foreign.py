"""An ONNX classifier as another tool may have left it: a tiny graph of a few nodes, in a folder with its tokenizer."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mrpcbench.quickstart import CLASSIFIER_DIR

VOCABULARY = 800


def save_graph(
    folder: Path, change: Callable[[onnx.ModelProto], None] | None = None, *, external: str | None = None
) -> Path:
    """Fill `folder` with a graph, changed by `change`, and with a configuration and a tokenizer.

    Its weights lie in the file `external` beside it, where one is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in CLASSIFIER_DIR.glob("*.json"):
        if path.name != "mrpcbench.json":
            shutil.copy(path, folder)
    model = bag_of_tokens()
    if change:
        change(model)
    options = {"save_as_external_data": True, "location": external, "size_threshold": 0} if external else {}
    onnx.save(model, folder / "model.onnx", **options)
    return folder


def bag_of_tokens() -> onnx.ModelProto:
    """`input_ids` and `attention_mask` [B, S] to `logits` [B, 2]: the sum of a table's rows."""
    table = np.random.default_rng(0).normal(size=(VOCABULARY, 2)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["states", "column"], ["real"]),
        helper.make_node("ReduceSum", ["real", "middle"], ["logits"], keepdims=0),
    ]
    tokens = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "S"]) for name in ("input_ids", "attention_mask")
    ]
    logits = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 2])]
    constants = {"table": table, "last": np.array([2], dtype=np.int64), "middle": np.array([1], dtype=np.int64)}
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "bag", tokens, logits, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def set_config(folder: Path, **values: object) -> None:
    """Put `values` into the configuration in `folder`; None takes a key out."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
