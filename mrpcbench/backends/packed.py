"""ModernBERT without padding; on a GPU it replays CUDA graphs, which saves the launch of each kernel."""

from collections.abc import Hashable
from dataclasses import replace
from functools import partial

import torch

from mrpcbench.backends.pytorch import BaseTorchSession, load_into
from mrpcbench.data.batches import Batch
from mrpcbench.environment.capture import resolve_device
from mrpcbench.errors import UsageError
from mrpcbench.models import classifier
from mrpcbench.models.sources import ModelSource
from mrpcbench.modernbert import forward as packed
from mrpcbench.modernbert.cuda_graphs import CaptureForward, Capturer, Graphs
from mrpcbench.modernbert.packing import Packed, pack, shape_for, unpadded
from mrpcbench.schema.requests import BackendSpec


class PackedSession(BaseTorchSession):
    """Runs the model with `modernbert.forward.logits`.

    With `capture`, batches are filled up to a few shapes, and each shape is captured once as a CUDA graph. Raises
    `UsageError` if the architecture cannot run packed.
    """

    def __init__(
        self,
        loaded: classifier.LoadedModel,
        device: str,
        dtype: torch.dtype,
        threads: int,
        capture: CaptureForward | None = None,
    ) -> None:
        config = loaded.model.config
        if reason := packed.refusal(config, type(loaded.model).__name__):
            raise UsageError(f"--backend torch-packed: {reason}")
        super().__init__(loaded, device, dtype, threads)
        self._filled = capture is not None
        self._filler = int(config.pad_token_id or 0)
        self._windowless = packed.windowless(config)
        weights = dict(self._net.named_parameters())
        rotary = packed.rotary_table(config, self._device, dtype)

        def forward(inputs: Packed) -> torch.Tensor:
            return packed.logits(weights, config, inputs, rotary)

        self._forward = Graphs(forward, capture) if capture else forward
        provider = packed.kernels(config, self._device, dtype, captured=self._filled)
        self.placement = replace(self.placement, provider=provider)

    def copy_in(self, batch: Batch) -> Packed:
        """The real tokens of `batch`, concatenated, in one copy to the device."""
        ids, lengths = unpadded(batch.inputs["input_ids"], batch.inputs["attention_mask"])
        shape = shape_for(lengths, self._windowless) if self._filled else None
        pinned = self._device.type == "cuda"
        return pack(ids, lengths, shape=shape, filler=self._filler, pinned=pinned).to(self._device)

    def compute(self, inputs: Packed) -> torch.Tensor:
        """Logits [B, 2] on the device, in the model's dtype."""
        with torch.inference_mode():
            return self._forward(inputs)

    def shape_of(self, batch: Batch) -> Hashable:
        """The shape that is captured for `batch`; None without CUDA graphs."""
        if not self._filled:
            return None
        return shape_for(batch.inputs["attention_mask"].sum(axis=1), self._windowless)

    def computed_tokens(self, batch: Batch) -> int:
        """The real tokens of `batch`, or with CUDA graphs those of its shape."""
        if not self._filled:
            return batch.real_tokens
        return shape_for(batch.inputs["attention_mask"].sum(axis=1), self._windowless).tokens

    def close(self) -> None:
        """Free the weights and the CUDA graphs."""
        del self._forward
        super().close()


def open_packed(spec: BackendSpec, source: ModelSource) -> PackedSession:
    """Load a ModernBERT classifier. `--dtype auto` is bf16 on a GPU and fp32 on a CPU."""
    cuda = resolve_device(spec.device) == "cuda"
    session_type = partial(PackedSession, capture=Capturer().forward if cuda else None)
    return load_into(session_type, spec, source, auto="bf16" if cuda else "fp32")
