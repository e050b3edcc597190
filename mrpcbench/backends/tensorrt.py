"""Optimum's graph on TensorRT, by way of ONNX Runtime's provider: an engine is built for a range of shapes.

ONNX Runtime has TensorRT build an engine for the shapes that it has seen, from the smallest to the largest on each
axis, and anew where a batch lies outside. A range of one's own (`trt_profile_min_shapes`) would have to name every
tensor between the parts into which the graph is cut, too. So the range is set by running it: before the first batch of
a size, one of the largest shape of that size is run.
"""

import ctypes
import os
from collections.abc import Hashable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mrpcbench.backends.onnx_graphs import Shape
from mrpcbench.backends.onnx_session import TENSORRT_PACKAGE, OnnxSession
from mrpcbench.backends.ort import exact_dtype, load_cuda_libraries, located_graph
from mrpcbench.batches import Batch
from mrpcbench.environment import cuda_problem, device_name, resolve_threads
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.plans import BackendSpec
from mrpcbench.schema import ModelIdentity

LIBRARY = "libnvinfer.so.10"
# The module of TensorRT's wheel that loads its libraries.
WHEEL = "tensorrt_libs"
# Batches up to this many tokens share an engine, those up to twice as many the next: MRPC's longest pair has 112.
WIDTH_STEP = 128
# TensorRT multiplies float32 in TF32, and the provider has no option against it (microsoft/onnxruntime issue 26029).
TF32 = "NVIDIA_TF32_OVERRIDE"


class TensorrtSession(OnnxSession):
    """A graph of standard operators on TensorRT; the first batch of a size builds an engine, which takes a while."""

    def __init__(self, graph: Path, identity: ModelIdentity, *, dtype: str, device_name: str, threads: int) -> None:
        more: Mapping[str, str] = {"trt_fp16_enable": "1" if dtype == "fp16" else "0"}
        super().__init__(
            *(graph, identity), dtype=dtype, provider="tensorrt", device_name=device_name, threads=threads, more=more
        )
        self._covered = Shape(0, 0)

    def shape_of(self, batch: Batch) -> Hashable:
        """The largest shape of the batch's size, for which an engine is built."""
        return largest_of(batch)

    def copy_in(self, batch: Batch) -> Any:
        """Inputs on the GPU, as `OnnxSession` has them; the first of a size has its engine built before."""
        self._cover(largest_of(batch))
        return super().copy_in(batch)

    def _cover(self, needed: Shape) -> None:
        """Widen the range of the engine up to `needed`: its smallest shape is one token, its largest the last here."""
        before = self._covered
        after = Shape(max(before.rows, needed.rows), max(before.width, needed.width))
        if after == before:
            return
        for shape in (after,) if before.rows else (Shape(1, 1), after):
            ones = np.ones((shape.rows, shape.width), dtype=np.int64)
            inputs = dict.fromkeys(("input_ids", "attention_mask"), ones)
            batch = Batch(inputs=inputs, rows=np.arange(shape.rows), real_tokens=ones.size)
            self.compute(super().copy_in(batch))
        self._covered = after


def largest_of(batch: Batch) -> Shape:
    """The largest shape of the size of `batch`: a power of two of rows, and a multiple of `WIDTH_STEP` of tokens."""
    rows, width = batch.inputs["input_ids"].shape
    return Shape.around(rows, width, WIDTH_STEP)


def libraries_problem() -> str | None:
    """Why TensorRT's libraries cannot be loaded, in words, or None where they can; they stay loaded."""
    with suppress(ImportError):
        import_module(WHEEL)
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return f"TensorRT 10's libraries ({LIBRARY}) are missing; pip install '{TENSORRT_PACKAGE}'"
    return None


def open_tensorrt(spec: BackendSpec) -> TensorrtSession:
    """Load the exported graph of a model into TensorRT; with --dtype fp16 it may compute in half precision."""
    named = f"--backend {spec.backend}"
    if spec.device == "cpu":
        raise UsageError(f"{named} --device cpu: TensorRT runs on a GPU alone; use --backend onnx")
    folder, stored, identity = located_graph(spec)
    if identity.optimize not in (None, "none"):
        raise UsageError(
            f"--model {spec.model}: {named} runs Optimum's graph of standard operators, and this one is made for "
            f"{identity.optimize}; use --backend onnx, or export with --optimize none"
        )
    if problem := cuda_problem():
        raise MissingError(f"{named}: {problem}; use --backend onnx, or see `mrpcbench env`")
    if problem := libraries_problem():
        raise MissingError(f"{named}: {problem}, or use --backend onnx")
    load_cuda_libraries()
    dtype = "fp16" if (stored, spec.dtype) == ("fp32", "fp16") else exact_dtype(spec, stored, stored)
    if dtype == "fp32" and os.environ.setdefault(TF32, "0") != "0":
        raise UsageError(f"{named}: {TF32} is {os.environ[TF32]}, so that fp32 would be TF32; set it to 0")
    return TensorrtSession(
        folder, identity, dtype=dtype, device_name=device_name("cuda"), threads=resolve_threads(spec.threads)
    )
