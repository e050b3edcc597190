"""The model in PyTorch, as Hugging Face runs it: eager, scaled-dot-product attention; and what all of torch shares."""

import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
# In what the weights are kept for each arithmetic that can be asked for.
WEIGHTS = {**DTYPES, "bf16-autocast": torch.float32}
DTYPE_NAMES = {kind: name for name, kind in DTYPES.items()}
MARK = "mrpcbench clock"
MARKS = 5  # the first of a process takes a millisecond, the third some microseconds
# Above the two lines that torch 2.13 writes to stderr at every start and stop of its profiler.
PROFILER_LOG_LEVEL = "6"


class OnTorch(SteppedSession):
    """A sequence classifier on one device, in one arithmetic, whichever way it is run."""

    def __init__(self, loaded: LoadedModel, device: str, dtype: torch.dtype, threads: int) -> None:
        torch.set_num_threads(threads)
        exact_float32()
        self.model = loaded.identity
        self._device = torch.device(device)
        self._net = loaded.model.to(self._device, dtype).eval()  # type: ignore[arg-type]
        self.placement = placement_of(self._net)

    def infer_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """Logits of each batch in turn; on a GPU the next batch is enqueued before the last one is waited for."""
        return one_ahead(self._begin, batches) if self._device.type == "cuda" else super().infer_many(batches)

    def _begin(self, batch: Batch) -> Callable[[], NDArray[np.float32]]:
        """Enqueue all work of `batch` on the GPU; what gives its logits [B, 2].

        The copy to the host is right behind its own batch in the stream, so that waiting for it waits for no later one.
        """
        logits = self.compute(self.copy_in(batch)).float().to("cpu", non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()  # type: ignore[no-untyped-call]

        def waited() -> NDArray[np.float32]:
            done.synchronize()  # type: ignore[no-untyped-call]
            return np.asarray(logits.numpy(), dtype=np.float32)

        return waited

    def copy_out(self, outputs: torch.Tensor) -> NDArray[np.float32]:
        """Logits [B, 2] in float32, on the host."""
        return np.asarray(outputs.float().cpu().numpy(), dtype=np.float32)

    def wait(self) -> None:
        """Return once the GPU has nothing left to do."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def operators(self) -> Iterator[list[Event]]:
        """Operators of the thread that opens it, and a GPU's kernels and copies; the list is filled at the end.

        Left empty where the body raises. The end takes some 50 us for every operator that ran.
        """
        os.environ.setdefault("KINETO_LOG_LEVEL", PROFILER_LOG_LEVEL)
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        events: list[Event] = []
        # torch 2.11 warns that it will forget other cycles, of which there are none, unless told to keep them.
        with profile(activities=activities, acc_events=True) as watched:
            marks = [_mark() for _ in range(MARKS)]
            yield events
        events += _events_of(watched.events(), marks)

    def peak_memory(self) -> PeakMemory:
        """Peaks of torch's allocations on the GPU and of what its allocator held since the last reset."""
        if self._device.type != "cuda":
            return PeakMemory()
        return PeakMemory(in_use=torch.cuda.max_memory_allocated(), reserved=torch.cuda.max_memory_reserved())

    def reset_peak_memory(self) -> None:
        """Forget the peaks so far."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def close(self) -> None:
        """Free the weights."""
        del self._net
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class TorchSession(OnTorch):
    """The model as Hugging Face runs it."""

    def __init__(self, loaded: LoadedModel, device: str, dtype: torch.dtype, threads: int) -> None:
        super().__init__(loaded, device, dtype, threads)
        self._names = set(signature(self._net.forward).parameters)

    def copy_in(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Tensors of the inputs that the model takes: a tokenizer may give more (DistilBERT has no token types)."""
        arrays = {name: torch.from_numpy(array) for name, array in batch.inputs.items() if name in self._names}
        if self._device.type == "cuda":
            # From other memory the host would wait for all that the GPU was given before.
            return {name: array.pin_memory().to(self._device, non_blocking=True) for name, array in arrays.items()}
        return arrays

    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B, 2] on the device, in the arithmetic of the model."""
        with torch.inference_mode():
            logits: torch.Tensor = self._net(**inputs).logits
            return logits


class AutocastSession(TorchSession):
    """The model as Hugging Face's Trainer runs it with `bf16`: weights in float32, each product cast to bfloat16."""

    def __init__(self, loaded: LoadedModel, device: str, dtype: torch.dtype, threads: int) -> None:
        super().__init__(loaded, device, dtype, threads)
        self.placement = replace(self.placement, dtype="bf16-autocast")

    def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits [B, 2] on the device, in what autocast leaves them in."""
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            return super().compute(inputs)


def _mark() -> tuple[int, int]:
    """Leave a mark among the operators; the moments just before and after it."""
    before = time.perf_counter_ns()
    with record_function(MARK):
        pass
    return before, time.perf_counter_ns()


def _events_of(found: Sequence[FunctionEvent], marks: Sequence[tuple[int, int]]) -> list[Event]:
    """`found` on the clock of the marks; what is not on the CPU is on a track of its stream."""
    marked = sorted(
        (item.time_range.start, item.time_range.end) for item in found if item.name == MARK and _on_cpu(item)
    )
    # The profiler says microseconds since its own start. The mark that took least time tells best when that was.
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
    """Where `net` really is, read from its weights and its configuration."""
    weight = next(net.parameters())
    return Placement(
        engine=f"torch {torch.__version__}",
        device=device_name(weight.device.type),
        provider=str(net.config._attn_implementation),  # type: ignore[union-attr]
        dtype=DTYPE_NAMES[weight.dtype],
        threads=torch.get_num_threads(),
    )


def open_torch(spec: BackendSpec, source: ModelSource) -> TorchSession:
    """Load a fine-tuned model, or with `random_init` an architecture with random weights."""
    return opened(spec, source, AutocastSession if spec.dtype == "bf16-autocast" else TorchSession)


def opened(
    spec: BackendSpec,
    source: ModelSource,
    kind: Callable[[LoadedModel, str, torch.dtype, int], S],
    auto: str = "fp32",
) -> S:
    """What `kind` makes of the model in `source`; `auto` is the arithmetic where none was asked for.

    Raises `MissingError` where another arithmetic than was asked for would run.
    """
    if spec.dtype == "int8":
        raise UsageError("--dtype int8: for --backend onnx alone; `mrpcbench export --optimize int8` writes the graph")
    device = resolve_device(spec.device)
    loaded = load_classifier(source, random_init=spec.random_init)
    asked = auto if spec.dtype == "auto" else spec.dtype
    session = kind(loaded, device, WEIGHTS[asked], resolve_threads(spec.threads))
    if session.placement.dtype != asked:
        raise MissingError(f"--dtype {spec.dtype}: {session.placement.dtype} would be used instead; use --dtype auto")
    return session
