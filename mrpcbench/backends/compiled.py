"""PyTorch with `torch.compile`: each encoder layer is compiled separately, with dynamic shapes."""

import sys
from collections.abc import Hashable
from dataclasses import replace

import torch
from torch._dynamo import config as dynamo
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from torch.utils._triton import has_triton

from mrpcbench.backends.pytorch import TorchSession, load_into
from mrpcbench.data.batches import Batch
from mrpcbench.errors import MissingError, UsageError, first_line
from mrpcbench.models.classifier import LoadedModel
from mrpcbench.models.sources import ModelSource
from mrpcbench.schema.requests import BackendSpec

# A layer is compiled once for one pair and once for several, and ModernBERT has three kinds of layer: the first, global
# and local. torch's default limit is 8, which two models in one process reach.
RECOMPILE_LIMIT = 64
# torch's memory-efficient attention pads the rows of its mask to a multiple of this (`sdp::pad_bias`).
MASK_STEP = 16


class CompiledSession(TorchSession):
    """Compiles layer by layer, so layers of the same kind share their compiled code.

    A layer that cannot be compiled completely (`fullgraph`) is an error; it never runs uncompiled.
    """

    def __init__(self, loaded: LoadedModel, device: str, dtype: torch.dtype, threads: int) -> None:
        super().__init__(loaded, device, dtype, threads)
        dynamo.recompile_limit = RECOMPILE_LIMIT
        for layer in layers_of(self._net):
            layer.compile(dynamic=True, fullgraph=True)
        self.placement = replace(self.placement, provider=f"{self.placement.provider}, compiled")

    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B, 2] on the device; the first call of a shape may compile."""
        try:
            return super().compute(inputs)
        except TorchDynamoException as error:
            why = compiler_problem(self._device.type) or first_line(error)
            raise MissingError(
                f"--backend torch-compile: torch cannot compile {self.model.architecture} here: {why}; or use "
                "--backend torch"
            ) from error

    def shape_of(self, batch: Batch) -> Hashable:
        """Whether the batch is a single pair, and whether its mask needs no padding: torch recompiles for each.

        On a GPU, the shape: cuDNN's attention also builds a plan for each.
        """
        if (shape := super().shape_of(batch)) is not None:
            return shape
        pairs, tokens = batch.inputs["input_ids"].shape
        return pairs == 1, tokens % MASK_STEP == 0


def layers_of(net: torch.nn.Module) -> torch.nn.ModuleList:
    """The encoder's layers; raises `UsageError` if they are not in a `ModuleList`."""
    for module in net.modules():
        if isinstance(module, torch.nn.ModuleList):
            return module
    raise UsageError(f"--backend torch-compile: {type(net).__name__} has no list of layers; use --backend torch")


def compiler_problem(device: str) -> str | None:
    """Why torch cannot compile for `device` (cpu, cuda), as a message; None if it has a compiler."""
    if device == "cuda":
        return None if has_triton() else "torch finds no Triton for the GPU; install triton"
    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):  # OSError if CXX is not executable
        usual = "clang++" if sys.platform == "darwin" else "g++"
        return f"torch finds no C++ compiler; install {usual}, or name another with CXX"
    return None


def open_compiled(spec: BackendSpec, source: ModelSource) -> CompiledSession:
    """Load a fine-tuned model, or a randomly initialised one with `random_init`. The first calls compile."""
    return load_into(CompiledSession, spec, source)
