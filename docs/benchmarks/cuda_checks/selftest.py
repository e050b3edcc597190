"""Tests the stand-in with this torch and, with the argument onnx, with ONNX Runtime. setup.sh starts it."""

import os
import sys

import fakecuda
import torch

assert torch.cuda.is_available(), "torch sees no GPU"
runtime = fakecuda.library()
x = torch.zeros(8, 8, device="cuda", dtype=torch.bfloat16)
before = runtime.fakecuda_launches()
y = (x @ x).relu()
torch.cuda.synchronize()
assert runtime.fakecuda_launches() - before == 2, "a product and a relu are two launches"

graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    y = (x @ x).relu()
graph.replay()
assert runtime.fakecuda_replays() == 1
assert runtime.fakecuda_illegal() == 0
with torch.cuda.graph(torch.cuda.CUDAGraph()):
    (x @ x).sum().item()
assert runtime.fakecuda_illegal() > 0, "a synchronisation in a capture must be seen"

if "onnx" in sys.argv:
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy"]
    made = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"])], "one", shape[:1], shape[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CUDAExecutionProvider"])
    assert session.get_providers()[0] == "CUDAExecutionProvider", "ONNX Runtime does not see the fake"
    before = runtime.fakecuda_launches()
    session.run(None, {"x": np.ones((4, 4), dtype=np.float32)})
    assert runtime.fakecuda_launches() > before

log = fakecuda.Log.read(os.environ["FAKECUDA_LOG"])
assert log.nodes[0] == 2, f"the captured graph has {log.nodes[0]} nodes, not 2"
tested = f"torch {torch.__version__}{' and ONNX Runtime' if 'onnx' in sys.argv else ''}"
print(f"self-test passed: {tested} on {torch.cuda.get_device_name(0)}")
