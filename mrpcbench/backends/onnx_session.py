"""An ONNX Runtime session on exactly the requested execution provider, and a profile of its operators.

This module does not import torch, so a process that only runs a graph starts in half a second.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mrpcbench.backends.onnx_graphs import Replayer, Shape
from mrpcbench.backends.session import Event, SteppedSession, float_logits, graph_inputs, tracks
from mrpcbench.data.batches import Batch
from mrpcbench.environment.machine import exact_integers
from mrpcbench.errors import MissingError, MrpcbenchError, UsageError, first_line
from mrpcbench.records import store
from mrpcbench.schema.identity import ModelIdentity, Placement
from mrpcbench.schema.requests import BackendSpec

NO_MORE: Mapping[str, str] = {}


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One of ONNX Runtime's execution providers: its `name`, the device of its arrays, and its options.

    `option` is the command-line option that selects it. `missing` says what may keep it from starting.
    """

    name: str
    device: str
    option: str
    options: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""


PROVIDERS: Mapping[str, Provider] = {
    "cpu": Provider(name="CPUExecutionProvider", device="cpu", option="--backend onnx --device cpu"),
    "cuda": Provider(
        name="CUDAExecutionProvider",
        device="cuda",
        option="--backend onnx --device cuda",
        # By default the provider multiplies float32 in TF32, which is not fp32.
        options={"use_tf32": "0"},
        missing="no GPU, or CUDA's or cuDNN's libraries are missing",
    ),
}
# A placement appends this to the provider if the graph runs as CUDA graphs.
REPLAYED = ", CUDA graphs"
# Names of the events in a profile that are about loading the graph, not running it.
BEFORE_RUNS = ("model_loading", "session_initialization")
# Log nothing: an error is an exception, and its log line has colours and bypasses `sys.stderr`.
LOG_NOTHING = 4


class OnnxSession(SteppedSession):
    """An ONNX file on one of `PROVIDERS`; `device_name` is the device in its placement.

    A graph that was exported for CUDA runs as CUDA graphs if the provider can capture it; the placement says so.
    """

    def __init__(
        self,
        graph: Path,
        identity: ModelIdentity,
        *,
        dtype: str,
        provider: str,
        device_name: str,
        threads: int,
    ) -> None:
        self.model = identity
        self._graph = graph
        self._provider = PROVIDERS[provider]
        self._threads = threads
        self._dtype = dtype
        self._replayer = self._replaying() if provider == "cuda" and identity.optimize == "cuda" else None
        self._session = self._replayer.session if self._replayer else self._open()
        # On the CPU, a binding copies inputs that `run` takes without a copy: 12 us per call, 3% of a tiny model's.
        self._bind = self._provider.device != "cpu"
        self._names = [item.name for item in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name
        options = self._session.get_provider_options()[self._provider.name]
        self.placement = Placement(
            engine=f"onnxruntime {ort.__version__}",
            device=device_name,
            provider=self._provider.name + (REPLAYED if self._replayer else ""),
            dtype=dtype,
            threads=self._session.get_session_options().intra_op_num_threads,
            tf32=None if (tf32 := options.get("use_tf32")) is None else tf32 == "1",
        )

    def _replaying(self) -> Replayer | None:
        """A replayer, tried on one batch; None, with a warning on stderr, if CUDA cannot capture the graph."""
        try:
            replayer = Replayer(self._open(more={"enable_cuda_graph": "1"}), self._provider.device)
            one = np.ones((1, 1), dtype=np.int64)
            for _ in range(2):  # captured, then replayed
                replayer.compute(replayer.copy_in({"input_ids": one, "attention_mask": one}))
        except MissingError:
            raise
        except Exception as error:  # ONNX Runtime raises its own types, which depend on the failing operator
            logging.getLogger(__name__).warning(
                "CUDA cannot capture %s as a CUDA graph; it runs node by node: %s", self.model.name, first_line(error)
            )
            return None
        return replayer

    def _open(self, profile: Path | None = None, more: Mapping[str, str] = NO_MORE) -> ort.InferenceSession:
        """Open the graph on the requested provider, with `more` provider options.

        With `profile`, ONNX Runtime writes its operators to a file with that prefix.
        """
        provider = self._provider
        asked = [(provider.name, {**provider.options, **more})]
        options = _options(self._threads, self._dtype)
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        try:
            with redirect_stdout(sys.stderr):  # ONNX Runtime prints if it falls back to another provider
                session = ort.InferenceSession(self._graph, options, providers=asked)
        except Exception as error:  # ONNX Runtime raises its own types
            raise self._problem("open", error) from error
        running = session.get_providers()[0]
        if running != provider.name:
            raise MissingError(
                f"{provider.option}: requested {provider.name}, but {running} would be used: {provider.missing}; "
                "use --backend onnx --device cpu, or see `mrpcbench env`"
            )
        session.disable_fallback()  # otherwise a failing call would move the session to the CPU
        return session

    def copy_in(self, batch: Batch) -> Any:
        """The graph's inputs: arrays by name on the CPU, or a binding to arrays on the GPU.

        With CUDA graphs, the next batch of the same shape overwrites this one.
        """
        inputs = graph_inputs(batch, self._names)
        if self._replayer:
            return self._replayer.copy_in(inputs)
        if not self._bind:
            return inputs
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, self._provider.device, 0))
        binding.bind_output(self._output, self._provider.device, 0)
        return binding

    def compute(self, inputs: Any) -> Any:
        """Run the graph. ONNX Runtime returns when the device has finished."""
        try:
            if self._replayer:
                return self._replayer.compute(inputs)
            if not self._bind:
                return self._session.run([self._output], inputs)
            self._session.run_with_iobinding(inputs)
        except Exception as error:  # ONNX Runtime raises its own types
            raise self._problem("run", error) from error
        return inputs

    def copy_out(self, outputs: Any) -> NDArray[np.float32]:
        """Logits [B, 2] in float32, on the host."""
        if self._replayer:
            return self._replayer.copy_out(outputs)
        (logits,) = outputs.copy_outputs_to_cpu() if self._bind else outputs
        return float_logits(logits, f"{self._graph.name} of {self.model.name}")

    def shape_of(self, batch: Batch) -> Hashable:
        """The shape that is captured with CUDA graphs, or the batch's own on CUDA without them; None on the CPU.

        Without CUDA graphs, CUDA loads kernels and ONNX Runtime grows its memory at the first run of a shape.
        """
        rows, width = batch.inputs["input_ids"].shape
        if self._replayer:
            return Shape.around(rows, width)
        return (rows, width) if self._bind else None

    def computed_tokens(self, batch: Batch) -> int:
        """The tokens of `batch`, or with CUDA graphs those of its shape."""
        rows, width = batch.inputs["input_ids"].shape
        shape = Shape.around(rows, width) if self._replayer else Shape(rows, width)
        return shape.rows * shape.width

    @contextmanager
    def operators(self) -> Iterator[list[Event]]:
        """Record operators with a second session on the same graph, which replaces the first meanwhile.

        The second session uses no CUDA graphs, because a replay has no operators, but it pads as the first one does.
        The list is filled when the context ends, and stays empty if the body raises. Call `copy_in` and `copy_out`
        inside the context: inputs and outputs belong to one session.
        """
        events: list[Event] = []
        plain, replayer = self._session, self._replayer
        with tempfile.TemporaryDirectory(prefix="mrpcbench-") as folder:
            profiled = self._open(Path(folder) / "operators")
            start = _on_our_clock(profiled.get_profiling_start_time_ns())
            self._session, self._replayer = profiled, replayer and Replayer(profiled, self._provider.device)
            try:
                yield events
            finally:
                self._session, self._replayer = plain, replayer
                written = Path(profiled.end_profiling())
            events += _events_of(store.load_json(written), start)

    def _problem(self, verb: str, error: Exception) -> MrpcbenchError:
        """The error to raise if ONNX Runtime cannot open or run the graph: a bad graph, or too little memory."""
        reason = first_line(error)
        if "alloc" in reason.lower() or "out of memory" in reason.lower():
            return MrpcbenchError(f"ONNX Runtime has too little memory ({reason}); use a smaller --batch-size")
        return UsageError(
            f"{self._graph.name} of {self.model.name}: ONNX Runtime {ort.__version__} cannot {verb} it ({reason}); "
            "export it again with `mrpcbench export`"
        )

    def close(self) -> None:
        """Free the graph."""
        del self._session
        self._replayer = None


def open_graph(spec: BackendSpec) -> OnnxSession:
    """The ONNX file `spec.model` on the CPU. Its identity is unknown; the caller knows it already."""
    dtype = "fp32" if spec.dtype == "auto" else spec.dtype
    unknown = ModelIdentity(
        name="graph",
        architecture="unknown",
        parameters=0,
        weights="fine-tuned",
        origin="unknown",
        model_sha256="unknown",
        tokenizer_sha256="unknown",
    )
    return OnnxSession(Path(spec.model), unknown, dtype=dtype, provider="cpu", device_name="cpu", threads=spec.threads)


def _options(threads: int, dtype: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = LOG_NOTHING
    # Worker threads that spin after a call would take cores from the engine that is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for name, value in exact_integers().items() if dtype == "int8" else ():
        options.add_session_config_entry(name, value)
    return options


def _on_our_clock(moment: int) -> int:
    """Convert a time of ONNX Runtime's clock to `time.perf_counter_ns`.

    Its clock is C++'s `high_resolution_clock`: Unix time with GNU's library, a monotonic clock with others.
    """
    theirs = min((time.time_ns, time.perf_counter_ns), key=lambda clock: abs(clock() - moment))
    return time.perf_counter_ns() - (theirs() - moment)


def _events_of(found: Sequence[Mapping[str, Any]], start: int) -> list[Event]:
    """The runs, operators and kernels in a profile, whose times are microseconds since `start` (ns)."""
    kinds = {"Session": "onnxruntime operators", "Node": "onnxruntime operators", "Kernel": "cuda kernels"}
    ran = [item for item in found if item.get("cat") in kinds and not item["name"].startswith(BEFORE_RUNS)]
    # A kernel usually has a stream and no thread.
    lines = [(kinds[item["cat"]], item["args"].get("stream", item["tid"])) for item in ran]
    named = {kind: tracks(kind, (line for line in lines if line[0] == kind)) for kind in kinds.values()}
    return [
        Event(
            name=_name_of(item),
            track=named[line[0]][line],
            begin_ns=start + item["ts"] * 1000,
            end_ns=start + (item["ts"] + item["dur"]) * 1000,
        )
        for item, line in zip(ran, lines, strict=True)
    ]


def _name_of(item: Mapping[str, Any]) -> str:
    """`MatMul (NODE)` for an operator, with the node's name in the graph; a run or kernel keeps its own name."""
    operator = item["args"].get("op_name") if item["cat"] == "Node" else None
    return f"{operator} ({item['name'].removesuffix('_kernel_time')})" if operator else str(item["name"])
