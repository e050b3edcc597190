"""ONNX graphs: Optimum's, ours, quantisation, and the verification of an export."""
