"""The parts of docs/benchmarks/gpu.py."""
