"""Optimum's graph of a classifier: as exported, in float16, or after Optimum's optimiser (O3, O4)."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from mrpcbench.errors import MissingError, MrpcbenchError, UsageError, first_line
from mrpcbench.models.sources import ONNX_FILE
from mrpcbench.schema.requests import GraphDtype, Optimize

# Constants of a float16 graph are limited to this magnitude. A mask of -65504 plus a score overflows to -inf, and a
# fully masked row becomes NaN. The sum of two masks of -1e4 stays finite.
FP16_LARGEST_CONSTANT = 1e4
# Optimum's names of its optimisation levels.
LEVELS: Mapping[Optimize, str] = {"o3": "O3", "o4": "O4"}


def check(model: PreTrainedModel, optimize: Optimize) -> None:
    """Raise `UsageError` if Optimum's optimiser is requested and does not support the architecture of `model`.

    Raises `MissingError` if Optimum cannot be imported beside the installed transformers.
    """
    kind = model.config.model_type
    library = _optimum(optimize)
    if optimize not in LEVELS:
        return
    try:
        library.config_manager.check_optimization_supported_model(kind, None)
    except NotImplementedError as error:
        raise UsageError(
            f"--optimize {optimize}: Optimum's optimiser does not support {kind} models; use --optimize none"
        ) from error


def write(
    model: PreTrainedModel, folder: Path, *, optimize: Optimize, dtype: GraphDtype, opset: int | None, cuda: bool
) -> None:
    """Write the graph of `model`, which has passed `check`, to `folder`.

    With O3 or O4 it is optimised for the CPU, or for a GPU with `cuda`. Raises `UsageError` if Optimum cannot export
    the architecture in `opset`, and `MrpcbenchError` if it cannot export it at all or its optimiser fails.
    """
    architecture = type(model).__name__
    try:
        with _quiet():
            _optimum(optimize).export(
                model, folder, task="text-classification", opset=opset, device="cpu", do_validation=False
            )
    except Exception as error:  # Optimum and torch raise various types for an unsupported architecture
        why = f"Optimum cannot export {architecture} ({first_line(error)})"
        if opset:
            raise UsageError(f"--opset {opset}: {why}; omit --opset to use Optimum's default") from error
        raise MrpcbenchError(why) from error
    if optimize in LEVELS:
        _optimise(model, folder / ONNX_FILE, optimize, cuda=cuda)
    elif dtype == "fp16":
        half = convert_float_to_float16(
            onnx.load(folder / ONNX_FILE), keep_io_types=True, max_finite_val=FP16_LARGEST_CONSTANT
        )
        onnx.save(half, folder / ONNX_FILE)


def _optimise(model: PreTrainedModel, graph: Path, optimize: Optimize, *, cuda: bool) -> None:
    """Replace the file `graph` with its optimised version. O4 also converts it to float16."""
    library = _optimum(optimize)
    level = library.levels.with_optimization_level(LEVELS[optimize], for_gpu=cuda)
    try:
        with tempfile.TemporaryDirectory(dir=graph.parent) as made, _quiet():
            library.optimizer([graph], model.config).optimize(level, made, file_suffix=None)
            (Path(made) / graph.name).replace(graph)
    except Exception as error:  # Optimum, onnx and ONNX Runtime raise their own types
        raise MrpcbenchError(
            f"--optimize {optimize}: Optimum's optimiser fails on {type(model).__name__} ({first_line(error)}); "
            "use --optimize none"
        ) from error


class Optimum(NamedTuple):
    """What this module uses of Optimum."""

    export: Callable[..., Any]
    levels: Any
    optimizer: Any
    config_manager: Any


def _optimum(optimize: Optimize) -> Optimum:
    """Optimum, which cannot be imported beside transformers 5."""
    try:
        from optimum.exporters.onnx import onnx_export_from_model
        from optimum.onnxruntime import AutoOptimizationConfig, ORTOptimizer
        from optimum.onnxruntime.utils import ORTConfigManager
    except ImportError as error:
        raise MissingError(
            f"--optimize {optimize}: Optimum cannot be used here ({first_line(error.__cause__ or error)}); "
            "install optimum-onnx, which needs transformers<4.58, or use our graphs with --optimize cpu, int8 or cuda"
        ) from error
    return Optimum(onnx_export_from_model, AutoOptimizationConfig, ORTOptimizer, ORTConfigManager)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence tracing. It warns about shapes that become constants; the export gate detects whether that matters.

    A failing trace prints its whole graph to stdout from C++, which bypasses `sys.stdout`; stdout is for results.
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
