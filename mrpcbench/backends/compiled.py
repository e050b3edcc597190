"""The model in PyTorch with its encoder's layers compiled, one by one and for any shape: `torch.compile`."""

import sys
from collections.abc import Hashable
from dataclasses import replace

import torch
from torch._dynamo import config as dynamo
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from torch.utils._triton import has_triton

from mrpcbench.backends.pytorch import TorchSession, opened
from mrpcbench.data.batches import Batch
from mrpcbench.errors import MissingError, UsageError, first_line
from mrpcbench.models.classifier import LoadedModel
from mrpcbench.models.sources import ModelSource
from mrpcbench.schema.requests import BackendSpec

# A layer is compiled for one pair and for several, ModernBERT's in three kinds: the first, global and local. torch
# would give up at 8, which two models in a process reach.
RECOMPILE_LIMIT = 64
# What torch's memory-efficient attention wants a row of its mask to be a multiple of (`sdp::pad_bias`).
MASK_STEP = 16


class CompiledSession(TorchSession):
    """A layer at a time: what is compiled for the first of a kind serves the others, as a whole model's code cannot.

    What cannot be compiled as a whole is an error, and does not run uncompiled.
    """

    def __init__(self, loaded: LoadedModel, device: str, dtype: torch.dtype, threads: int) -> None:
        super().__init__(loaded, device, dtype, threads)
        dynamo.recompile_limit = RECOMPILE_LIMIT
        for layer in layers_of(self._net):
            layer.compile(dynamic=True, fullgraph=True)
        self.placement = replace(self.placement, provider=f"{self.placement.provider}, compiled")

    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B, 2] on the device; the first of a shape may compile."""
        try:
            return super().compute(inputs)
        except TorchDynamoException as error:
            why = compiler_problem(self._device.type) or first_line(error)
            raise MissingError(
                f"--backend torch-compile: torch cannot compile {self.model.architecture} here: {why}; or use "
                "--backend torch"
            ) from error

    def shape_of(self, batch: Batch) -> Hashable:
        """Whether there is one pair, and whether attention must pad its mask: torch compiles anew for either."""
        pairs, tokens = batch.inputs["input_ids"].shape
        return pairs == 1, tokens % MASK_STEP == 0


def layers_of(net: torch.nn.Module) -> torch.nn.ModuleList:
    """The layers of the encoder; raises `UsageError` where it keeps them in no list."""
    for module in net.modules():
        if isinstance(module, torch.nn.ModuleList):
            return module
    raise UsageError(f"--backend torch-compile: {type(net).__name__} has no list of layers; use --backend torch")


def compiler_problem(device: str) -> str | None:
    """Why nothing can be compiled for `device` (cpu, cuda), in words, or None where a compiler is there."""
    if device == "cuda":
        return None if has_triton() else "torch finds no Triton for the GPU; install triton"
    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):  # the second where CXX names what cannot be run
        usual = "clang++" if sys.platform == "darwin" else "g++"
        return f"torch finds no C++ compiler; install {usual}, or name another with CXX"
    return None


def open_compiled(spec: BackendSpec, source: ModelSource) -> CompiledSession:
    """Load a fine-tuned model, or with `random_init` an architecture with random weights; the first calls compile."""
    return opened(spec, source, CompiledSession)
