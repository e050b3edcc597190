"""PyTorch as Hugging Face runs it (eager, scaled-dot-product attention), and the base of all PyTorch engines."""

import gc
import os
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from mrpcbench.backends.session import Event, PeakMemory, SteppedSession, one_ahead, tracks
from mrpcbench.data.batches import Batch
from mrpcbench.environment.capture import device_name, exact_float32, resolve_device, resolve_threads
from mrpcbench.errors import MissingError, UsageError
from mrpcbench.models.classifier import LoadedModel, load_classifier
from mrpcbench.models.sources import ModelSource
from mrpcbench.schema.identity import Placement
from mrpcbench.schema.requests import BackendSpec

S = TypeVar("S", bound=SteppedSession)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The dtype of the weights for each value of --dtype.
WEIGHTS = {**DTYPES, "bf16-autocast": torch.float32}
DTYPE_NAMES = {kind: name for name, kind in DTYPES.items()}
MARK = "mrpcbench clock"
MARKS = 5  # the first mark in a process takes 1 ms, the third a few microseconds
# Hides the two lines that torch 2.13 writes to stderr whenever its profiler starts or stops.
PROFILER_LOG_LEVEL = "6"


class BaseTorchSession(SteppedSession):
    """A sequence classifier on one device, in one dtype. Subclasses define how it runs."""

    def __init__(self, loaded: LoadedModel, device: str, dtype: torch.dtype, threads: int) -> None:
        torch.set_num_threads(threads)
        exact_float32()
        self.model = loaded.identity
        self._device = torch.device(device)
        self._net = loaded.model.to(self._device, dtype).eval()  # type: ignore[arg-type]
        self.placement = placement_of(self._net)

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """Logits of each batch, in order. On a GPU, the next batch is enqueued before the last one is waited for."""
        return one_ahead(self._begin, batches) if self._device.type == "cuda" else super().infer_many(batches)

    def _begin(self, batch: Batch) -> Callable[[], NDArray[np.float32]]:
        """Enqueue all work of `batch` on the GPU; returns a function that waits for its logits [B, 2].

        The copy to the host directly follows its batch in the stream, so it never waits for a later batch.
        """
        logits = self.compute(self.copy_in(batch)).float().to("cpu", non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()  # type: ignore[no-untyped-call]

        def wait_for_logits() -> NDArray[np.float32]:
            done.synchronize()  # type: ignore[no-untyped-call]
            return np.asarray(logits.numpy(), dtype=np.float32)

        return wait_for_logits

    def copy_out(self, outputs: torch.Tensor) -> NDArray[np.float32]:
        """Logits [B, 2] in float32, on the host."""
        return np.asarray(outputs.float().cpu().numpy(), dtype=np.float32)

    def wait(self) -> None:
        """Return when the GPU has finished all its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def operators(self) -> Iterator[list[Event]]:
        """Record the operators of the calling thread, and the GPU's kernels and copies.

        The list is filled when the context ends, and stays empty if the body raises. Ending it takes about 50 us per
        recorded operator.
        """
        os.environ.setdefault("KINETO_LOG_LEVEL", PROFILER_LOG_LEVEL)
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        events: list[Event] = []
        # Without `acc_events`, torch 2.11 warns that it drops the events of earlier cycles; there is only one.
        with profile(activities=activities, acc_events=True) as profiler:
            marks = [_mark() for _ in range(MARKS)]
            yield events
        events += _events_of(profiler.events(), marks)

    def peak_memory(self) -> PeakMemory:
        """Peaks since the last reset of the GPU memory that torch allocated, and that its allocator reserved."""
        if self._device.type != "cuda":
            return PeakMemory()
        return PeakMemory(in_use=torch.cuda.max_memory_allocated(), reserved=torch.cuda.max_memory_reserved())

    def reset_peak_memory(self) -> None:
        """Reset the peaks."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def close(self) -> None:
        """Free the weights."""
        del self._net
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class TorchSession(BaseTorchSession):
    """Runs the model through its Hugging Face `forward`."""

    def __init__(self, loaded: LoadedModel, device: str, dtype: torch.dtype, threads: int) -> None:
        super().__init__(loaded, device, dtype, threads)
        self._names = set(signature(self._net.forward).parameters)

    def copy_in(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The inputs of the model, on the device. A tokenizer may return more: DistilBERT has no token types."""
        arrays = {name: torch.from_numpy(array) for name, array in batch.inputs.items() if name in self._names}
        if self._device.type == "cuda":
            # A copy from pageable memory would make the host wait for all earlier work of the GPU.
            return {name: array.pin_memory().to(self._device, non_blocking=True) for name, array in arrays.items()}
        return arrays

    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B, 2] on the device, in the model's dtype."""
        with torch.inference_mode():
            logits: torch.Tensor = self._net(**inputs).logits
            return logits

    def shape_of(self, batch: Batch) -> Hashable:
        """On a GPU, pairs and tokens per pair: cuDNN's attention builds a plan for each. None on the CPU."""
        return batch.inputs["input_ids"].shape if self._device.type == "cuda" else None


class AutocastSession(TorchSession):
    """Runs the model as Hugging Face's Trainer does with `bf16`: float32 weights, bfloat16 matrix products."""

    def __init__(self, loaded: LoadedModel, device: str, dtype: torch.dtype, threads: int) -> None:
        super().__init__(loaded, device, dtype, threads)
        self.placement = replace(self.placement, dtype="bf16-autocast")

    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B, 2] on the device, in the dtype that autocast gives them."""
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            return super().compute(inputs)


def _mark() -> tuple[int, int]:
    """Record a mark among the operators; returns the times just before and after it, in ns."""
    before = time.perf_counter_ns()
    with record_function(MARK):
        pass
    return before, time.perf_counter_ns()


def _events_of(found: Sequence[FunctionEvent], marks: Sequence[tuple[int, int]]) -> list[Event]:
    """Convert `found` to the clock of the marks. CPU operators get a track per thread, kernels a track per stream."""
    marked = sorted(
        (item.time_range.start, item.time_range.end) for item in found if item.name == MARK and _on_cpu(item)
    )
    # The profiler counts microseconds since its own start. The shortest mark locates that start most precisely.
    (before, after), (start, end) = min(zip(marks, marked, strict=True), key=lambda pair: pair[0][1] - pair[0][0])
    origin = (before + after) / 2 - (start + end) / 2 * 1e3
    ran = [item for item in found if item.name != MARK and (_on_cpu(item) or not item.is_user_annotation)]
    threads = tracks("torch operators", (item.thread for item in ran if _on_cpu(item)))
    streams = tracks("cuda kernels", (item.device_resource_id for item in ran if not _on_cpu(item)))
    return [
        Event(
            name=item.name,
            track=threads[item.thread] if _on_cpu(item) else streams[item.device_resource_id],
            begin_ns=round(origin + item.time_range.start * 1e3),
            end_ns=round(origin + item.time_range.end * 1e3),
        )
        for item in ran
    ]


def _on_cpu(item: FunctionEvent) -> bool:
    return bool(item.device_type.name == "CPU")


def placement_of(net: torch.nn.Module) -> Placement:
    """The actual placement of `net`, read from its weights and configuration."""
    weight = next(net.parameters())
    return Placement(
        engine=f"torch {torch.__version__}",
        device=device_name(weight.device.type),
        provider=str(net.config._attn_implementation),  # type: ignore[union-attr]
        dtype=DTYPE_NAMES[weight.dtype],
        threads=torch.get_num_threads(),
        tf32=torch.get_float32_matmul_precision() != "highest" if weight.device.type == "cuda" else None,
    )


def open_torch(spec: BackendSpec, source: ModelSource) -> TorchSession:
    """Load a fine-tuned model, or a randomly initialised one with `random_init`."""
    return load_into(AutocastSession if spec.dtype == "bf16-autocast" else TorchSession, spec, source)


def load_into(
    session_type: Callable[[LoadedModel, str, torch.dtype, int], S],
    spec: BackendSpec,
    source: ModelSource,
    auto: str = "fp32",
) -> S:
    """Load the model in `source` into a session of `session_type`; `auto` is the dtype of `--dtype auto`.

    Raises `MissingError` if another dtype than the requested one would be used.
    """
    if spec.dtype == "int8":
        raise UsageError("--dtype int8: only for --backend onnx; `mrpcbench export --optimize int8` writes the graph")
    device = resolve_device(spec.device)
    loaded = load_classifier(source, random_init=spec.random_init)
    asked = auto if spec.dtype == "auto" else spec.dtype
    session = session_type(loaded, device, WEIGHTS[asked], resolve_threads(spec.threads))
    if session.placement.dtype != asked:
        raise MissingError(f"--dtype {spec.dtype}: {session.placement.dtype} would be used instead; use --dtype auto")
    return session
