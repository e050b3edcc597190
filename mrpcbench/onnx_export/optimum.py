"""Optimum's own graph of a classifier: as it exports it, in float16, or as its optimiser leaves it (O3, O4)."""

import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from optimum.exporters.onnx import onnx_export_from_model
from optimum.onnxruntime import AutoOptimizationConfig, ORTOptimizer
from optimum.onnxruntime.utils import ORTConfigManager
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from mrpcbench.errors import MrpcbenchError, UsageError, first_line
from mrpcbench.models.sources import ONNX_FILE
from mrpcbench.schema.requests import GraphDtype, Optimize

# Largest magnitude that a constant keeps in a float16 graph. A mask of -65504 plus a score overflows to -inf, and a
# padding row that is masked throughout becomes NaN; two masks of -1e4 still add up to a finite number.
FP16_LARGEST_CONSTANT = 1e4
# The levels of Optimum's optimiser, by the names that it has for them.
LEVELS: Mapping[Optimize, str] = {"o3": "O3", "o4": "O4"}


def check(model: PreTrainedModel, optimize: Optimize) -> None:
    """Raise `UsageError` where Optimum's optimiser is asked for and does not know the architecture of `model`."""
    kind = model.config.model_type
    if optimize not in LEVELS:
        return
    try:
        ORTConfigManager.check_optimization_supported_model(kind, None)
    except NotImplementedError as error:
        raise UsageError(
            f"--optimize {optimize}: Optimum's optimiser does not know {kind} models; use --optimize none"
        ) from error


def write(
    model: PreTrainedModel, folder: Path, *, optimize: Optimize, dtype: GraphDtype, opset: int | None, cuda: bool
) -> None:
    """Write the graph of `model`, which `check` has let through, to `folder`.

    With O3 or O4 it is optimised for the CPU, or with `cuda` for a GPU. Raises `UsageError` where Optimum cannot export
    the architecture in `opset`, `MrpcbenchError` where it cannot at all, or its optimiser fails.
    """
    architecture = type(model).__name__
    try:
        with _quiet():
            onnx_export_from_model(
                model, folder, task="text-classification", opset=opset, device="cpu", do_validation=False
            )
    except Exception as error:  # what Optimum and torch raise depends on what the architecture lacks
        why = f"Optimum cannot export {architecture} ({first_line(error)})"
        if opset:
            raise UsageError(f"--opset {opset}: {why}; leave --opset out for Optimum's own choice") from error
        raise MrpcbenchError(why) from error
    if optimize in LEVELS:
        _optimise(model, folder / ONNX_FILE, optimize, cuda=cuda)
    elif dtype == "fp16":
        half = convert_float_to_float16(
            onnx.load(folder / ONNX_FILE), keep_io_types=True, max_finite_val=FP16_LARGEST_CONSTANT
        )
        onnx.save(half, folder / ONNX_FILE)


def _optimise(model: PreTrainedModel, graph: Path, optimize: Optimize, *, cuda: bool) -> None:
    """Put what Optimum's optimiser makes of the file `graph` in its place; float16 is a part of O4."""
    level = AutoOptimizationConfig.with_optimization_level(LEVELS[optimize], for_gpu=cuda)
    try:
        with tempfile.TemporaryDirectory(dir=graph.parent) as made, _quiet():
            ORTOptimizer([graph], model.config).optimize(level, made, file_suffix=None)
            (Path(made) / graph.name).replace(graph)
    except Exception as error:  # Optimum, onnx and ONNX Runtime raise their own types
        raise MrpcbenchError(
            f"--optimize {optimize}: Optimum's optimiser fails on {type(model).__name__} ({first_line(error)}); "
            "use --optimize none"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what tracing says about shapes that it takes for constants; the gate finds out whether that matters.

    A trace that fails prints its whole graph from C++, past `sys.stdout`, where results belong.
    """
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
        transformers_logging.set_verbosity(level)
