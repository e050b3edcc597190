"""Resources that a row uses while it is timed: GPU energy, power, clock, temperature, throttling, memory; CPU; RSS.

The GPU is read through NVML (`nvidia-ml-py`). A reading that NVML does not give is None, never zero. A reading that is
missing in one sample is None for the row, because a mean over part of a row is misleading. Throttling and other
processes count even if a single sample saw them.

Cost: a separate thread takes ten samples per second, only on GPU rows. NVML's calls release Python's global lock; the
rest holds it for about 30 microseconds per sample, which can delay the timed thread.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, Self

import psutil
import torch

from mrpcbench.schema.bench_results import Resources

try:
    import pynvml
except ImportError:
    pynvml = None

INTERVAL_S = 0.1

# NVML's bits (API reference, "Clocks event reasons"), with the names of nvidia-smi. Low clocks of an idle GPU (0x1) and
# clocks set by the user (0x2) are not throttling.
THROTTLING = {
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
NOT_THROTTLING = 0x1 | 0x2


@dataclass(frozen=True, kw_only=True)
class GpuSample:
    """One set of GPU readings; None for a reading that the GPU does not give."""

    total_energy_j: float | None = None  # since the driver was loaded
    power_w: float | None = None
    sm_clock_mhz: float | None = None
    temperature_c: float | None = None
    throttle_reasons: frozenset[str] | None = None
    process_memory_bytes: int | None = None
    foreign_pids: frozenset[int] | None = None  # computing on the GPU; neither this process nor its children


class GpuSensor(Protocol):
    """The interface that a `Meter` reads."""

    def read(self) -> GpuSample:
        """The current readings. Called from another thread. If it raises, the row has no GPU readings."""


class NvmlSensor:
    """NVML's readings of the GPU with `handle`; each is None if NVML does not give it."""

    def __init__(self, handle: Any, root: int | None = None) -> None:
        self._handle = handle
        self._root = root

    def read(self) -> GpuSample:
        """The current readings. Energy is read first, because it must match the time of the sample."""
        energy_mj = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses_v3")
        memory = {item.pid: item.usedGpuMemory for item in processes or ()}
        return GpuSample(
            total_energy_j=None if energy_mj is None else energy_mj / 1e3,
            power_w=None if power_mw is None else power_mw / 1e3,
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", pynvml.NVML_CLOCK_SM),
            temperature_c=self._ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
            throttle_reasons=None if reasons is None else throttle_names(reasons),
            # Zero means unknown: every process in the list has a CUDA context, which takes memory.
            process_memory_bytes=memory.get(os.getpid()) or None,
            foreign_pids=foreign(memory, self._root),
        )

    def _ask(self, function: str, *arguments: int) -> Any:
        try:
            return getattr(pynvml, function)(self._handle, *arguments)
        except pynvml.NVMLError:
            return None


def open_gpu_sensor(device: str, root: int | None = None) -> GpuSensor | None:
    """The sensor of torch's GPU 0; None on the CPU, without NVML, or if NVML does not know the GPU.

    NVML numbers all GPUs in PCI order; torch numbers only those in CUDA_VISIBLE_DEVICES. So the GPU is found by UUID.
    Also None for a MIG slice, because its power, clocks and throttling are those of the whole GPU, which others may
    use. NVML stays open until the process ends.
    """
    if not device.startswith("cuda") or pynvml is None:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    except pynvml.NVMLError:
        return None
    try:
        sliced = pynvml.nvmlDeviceGetMigMode(handle)[0] != pynvml.NVML_DEVICE_MIG_DISABLE
    except pynvml.NVMLError:
        sliced = False  # a GPU without MIG
    return None if sliced else NvmlSensor(handle, root)


def gpu_meter(device: str) -> "Meter":
    """A meter for a worker process; `device` is that of its placement.

    Other processes of the same parent do not count as foreign, because they wait while this one computes.
    """
    return Meter(open_gpu_sensor(device, os.getppid()))


def throttle_names(reasons: int) -> frozenset[str]:
    """The names of NVML's bits `reasons`. A bit that this list does not know is named by its value."""
    bits = (1 << place for place in range(reasons.bit_length()))
    return frozenset(THROTTLING.get(bit, f"{bit:#x}") for bit in bits if reasons & bit & ~NOT_THROTTLING)


def foreign(pids: Iterable[int], root: int | None = None) -> frozenset[int] | None:
    """The `pids` that are not descendants of the process `root`, by default this one; None if they are unreliable.

    This process uses the GPU, so a list without it is from another namespace: in a container, the driver may show the
    host's process ids, or none.
    """
    own, seen = os.getpid(), frozenset(pids)
    if own not in seen:
        return None
    top = own if root is None else root
    return frozenset(pid for pid in seen if pid not in (own, top) and top not in _ancestors(pid))


def _ancestors(pid: int) -> set[int]:
    try:
        return {parent.pid for parent in psutil.Process(pid).parents()}
    except psutil.Error:  # the process ended meanwhile, or access is denied
        return set()


Span = list[tuple[float, GpuSample]]  # the time of each sample in seconds, and the sample


def waited_s() -> float | None:
    """Seconds that the threads of this process have spent runnable but waiting for a core, in total.

    This is the second number of schedstat (Linux, Documentation/scheduler/sched-stats). None on other systems.
    """
    try:
        found = [file.read_text(encoding="ascii").split() for file in Path("/proc/self/task").glob("*/schedstat")]
        return sum(int(numbers[1]) for numbers in found) / 1e9 if found else None
    except (OSError, ValueError, IndexError):  # a thread ended after it was listed, or there is no such file or number
        return None


@dataclass
class Meter:
    """Adds up the resources used in spans, each from `start` to `stop`. `with meter:` is one span.

    The sensor is read at `start`, every `INTERVAL_S` from a thread, and at `stop`. Readings at both ends are outside
    of the span's time. With `background=False` there is no thread, and the caller calls `sample`. CPU seconds cover all
    threads of the process.
    """

    sensor: GpuSensor | None
    background: bool = True
    clock: Callable[[], float] = time.perf_counter
    cpu_clock: Callable[[], float] = time.process_time
    # Seconds that the process's threads have waited for a core; None if not counted.
    wait_clock: Callable[[], float | None] = waited_s
    _began: tuple[float, float] | None = field(default=None, init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _span: Span = field(default_factory=list, init=False)
    _spans: list[Span] = field(default_factory=list, init=False)
    _wall_s: float = field(default=0.0, init=False)
    _cpu_s: float = field(default=0.0, init=False)
    _waited_s: float | None = field(default=None, init=False)
    _waits: list[float] = field(default_factory=list, init=False)
    _rss_bytes: int | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin a span; raises `RuntimeError` inside of one."""
        if self._began is not None:
            raise RuntimeError("the meter is already running")
        self._span = []
        self.sample()
        if self.sensor is not None and self.background:
            self._ended.clear()
            self._thread = threading.Thread(target=self._keep_sampling, name="gpu-sensor", daemon=True)
            self._thread.start()
        self._waited_s = self.wait_clock()
        self._began = self.clock(), self.cpu_clock()

    def stop(self) -> Resources:
        """End the span, and return the resources of all spans so far; raises `RuntimeError` outside of a span."""
        if self._began is None:
            raise RuntimeError("the meter is not running")
        wall_s = self.clock() - self._began[0]
        self._wall_s += wall_s
        self._cpu_s += self.cpu_clock() - self._began[1]
        waited_s = self.wait_clock()
        if waited_s is not None and self._waited_s is not None and wall_s > 0:
            # The count of a thread disappears when it ends, so the difference can be negative.
            self._waits.append(max(0.0, waited_s - self._waited_s) / wall_s)
        self._began = None
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None
        self.sample()
        if self._span and self._span[0][0] < self._span[-1][0]:
            self._spans.append(self._span)
        with suppress(psutil.Error, OSError):  # a row without this figure is still a row
            self._rss_bytes = psutil.Process().memory_info().rss
        return self.resources()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def sample(self) -> None:
        """Read the sensor once. If it raises, it is not read again, and all GPU readings become None."""
        if self.sensor is None:
            return
        now = self.clock()
        try:
            self._span.append((now, self.sensor.read()))
        except Exception:
            self.sensor = None

    def _keep_sampling(self) -> None:
        while self.sensor is not None and not self._ended.wait(INTERVAL_S):
            self.sample()

    def resources(self) -> Resources:
        """The resources of all finished spans."""
        spans = self._spans if self.sensor is not None else []
        seconds = math.fsum(span[-1][0] - span[0][0] for span in spans)
        energy_j = _counted_energy(spans)
        if energy_j is None:
            energy_j = _integral(spans, "power_w")
        clock_mhz_s = _integral(spans, "sm_clock_mhz")
        reasons, pids = _seen(spans, "throttle_reasons"), _seen(spans, "foreign_pids")
        return Resources(
            metered_s=self._wall_s or None,
            rss_bytes=self._rss_bytes,
            cpu_utilisation=self._cpu_s / self._wall_s if self._wall_s else None,
            cpu_waits=tuple(self._waits) or None,
            gpu_memory_process_bytes=max(_complete(spans, "process_memory_bytes"), default=None),
            gpu_clock_mhz=None if clock_mhz_s is None else clock_mhz_s / seconds,
            gpu_temperature_c=max(_complete(spans, "temperature_c"), default=None),
            gpu_power_w=None if energy_j is None else energy_j / seconds,
            gpu_energy_j=energy_j,
            gpu_throttle_reasons=None if reasons is None else tuple(sorted(reasons)),
            gpu_foreign_processes=None if pids is None else len(pids),
        )


def _complete(spans: list[Span], name: str) -> list[Any]:
    """The readings `name` of all samples; empty if a sample lacks it."""
    values = [getattr(sample, name) for span in spans for _, sample in span]
    return [] if None in values else values


def _integral(spans: list[Span], name: str) -> float | None:
    """The integral of a reading over the spans' seconds, by the trapezoid rule; None if it is missing.

    On most GPUs since Ampere, NVML's power is a mean over the last second, so it lags in short spans.
    """
    steps = [(late - early, a, b) for span in spans for (early, a), (late, b) in pairwise(span)]
    if not _complete(spans, name):
        return None
    return math.fsum(step * (getattr(a, name) + getattr(b, name)) / 2 for step, a, b in steps)


def _counted_energy(spans: list[Span]) -> float | None:
    """Energy in joules from the GPU's counter, which includes peaks between samples.

    None if there is no counter, or if it decreased or did not change. It is updated every few tens of milliseconds, so
    it says nothing about shorter spans.
    """
    ends = [(span[0][1].total_energy_j, span[-1][1].total_energy_j) for span in spans]
    used = [last - first for first, last in ends if first is not None and last is not None and last >= first]
    return math.fsum(used) or None if len(used) == len(ends) else None


def _seen(spans: list[Span], name: str) -> frozenset[Any] | None:
    """The union of a reading over all samples; None if it is empty and a sample lacks the reading."""
    values = [getattr(sample, name) for span in spans for _, sample in span]
    found: frozenset[Any] = frozenset().union(*(value for value in values if value))
    return found if found or (values and None not in values) else None
