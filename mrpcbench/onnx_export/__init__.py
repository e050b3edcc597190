"""The ONNX graphs, and the verification of an export."""
