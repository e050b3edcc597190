"""The model in PyTorch, as Hugging Face runs it: eager, scaled-dot-product attention."""

import gc
from inspect import signature

import numpy as np
import torch
from numpy.typing import NDArray

from mrpcbench import models
from mrpcbench.backends.base import Session
from mrpcbench.batches import Batch
from mrpcbench.environment import device_name, exact_float32, resolve_device, usable_cores
from mrpcbench.errors import MissingError
from mrpcbench.schema import BackendSpec, Placement

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DTYPE_NAMES = {kind: name for name, kind in DTYPES.items()}


class TorchSession(Session):
    """A sequence classifier on one device, in one arithmetic."""

    def __init__(self, loaded: models.LoadedModel, device: str, dtype: torch.dtype, threads: int) -> None:
        torch.set_num_threads(threads)
        exact_float32()
        self.model = loaded.identity
        self._device = torch.device(device)
        self._net = loaded.model.to(self._device, dtype).eval()  # type: ignore[arg-type]
        self._names = set(signature(self._net.forward).parameters)
        self.placement = placement_of(self._net)

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Logits [B, 2] of `batch`, on the host."""
        with torch.inference_mode():
            # A tokenizer may give more than the model takes (DistilBERT has no token types).
            inputs = {
                name: torch.from_numpy(array).to(self._device)
                for name, array in batch.inputs.items()
                if name in self._names
            }
            logits: torch.Tensor = self._net(**inputs).logits
            return np.asarray(logits.float().cpu().numpy(), dtype=np.float32)

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak of torch's allocations on the GPU since the last reset; None on the CPU."""
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else None

    def reset_peak_memory(self) -> None:
        """Forget the peak so far."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def close(self) -> None:
        """Free the weights."""
        del self._net
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def placement_of(net: torch.nn.Module) -> Placement:
    """Where `net` really is, read from its weights and its configuration."""
    weight = next(net.parameters())
    return Placement(
        engine=f"torch {torch.__version__}",
        device=device_name(weight.device.type),
        provider=str(net.config._attn_implementation),  # type: ignore[union-attr]
        dtype=DTYPE_NAMES[weight.dtype],
        threads=torch.get_num_threads(),
    )


def open_torch(spec: BackendSpec) -> TorchSession:
    """Load a fine-tuned model, or with `random_init` an architecture with random weights."""
    device = resolve_device(spec.device)
    loaded = models.load_classifier(spec.model, random_init=spec.random_init)
    dtype = DTYPES["fp32" if spec.dtype == "auto" else spec.dtype]
    session = TorchSession(loaded, device, dtype, spec.threads or usable_cores())
    if DTYPES[session.placement.dtype] is not dtype:
        raise MissingError(f"--dtype {spec.dtype} was asked and {session.placement.dtype} would run; use --dtype auto")
    return session
