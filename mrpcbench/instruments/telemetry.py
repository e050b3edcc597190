"""What a row uses while it is timed: the GPU's energy, power, clock, temperature, throttling, memory; CPU and RSS.

The GPU is read through NVML (`nvidia-ml-py`). What NVML refuses is None, never zero, and a reading that was absent in
one sample is None for the row: a mean over a part of a row is not the row's. What was seen, throttling or another
process, counts all the same.

Cost: ten samples a second from a thread of its own, on GPU rows alone. NVML's calls let go of Python's lock; what is
left holds it for about 30 microseconds a sample, during which the timed thread can wait.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable
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

# NVML's bits (API reference, "Clocks event reasons"), named as nvidia-smi names them. An idle GPU (0x1) and clocks that
# its owner has set (0x2) are lower clocks, but nothing slowed the GPU down.
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
    """One look at a GPU; None is a reading that it does not give."""

    total_energy_j: float | None = None  # since the driver was loaded
    power_w: float | None = None
    sm_clock_mhz: float | None = None
    temperature_c: float | None = None
    throttle_reasons: frozenset[str] | None = None
    process_memory_bytes: int | None = None
    foreign_pids: frozenset[int] | None = None  # computing on the GPU; neither this process nor its children


class GpuSensor(Protocol):
    """What a `Meter` reads."""

    def read(self) -> GpuSample:
        """The GPU as it is now; called from another thread. If it raises, the row has no GPU readings."""


class NvmlSensor:
    """NVML's readings of the GPU behind `handle`, each None where NVML refuses it."""

    def __init__(self, handle: Any, root: int | None = None) -> None:
        self._handle = handle
        self._root = root

    def read(self) -> GpuSample:
        """The energy comes first, for it must belong to the moment that the sample is taken for."""
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
            # Zero is no answer: who is on the list has a context, and that alone takes memory.
            process_memory_bytes=memory.get(os.getpid()) or None,
            foreign_pids=foreign(memory, self._root),
        )

    def _ask(self, question: str, *details: int) -> Any:
        try:
            return getattr(pynvml, question)(self._handle, *details)
        except pynvml.NVMLError:
            return None


def open_gpu_sensor(device: str, root: int | None = None) -> GpuSensor | None:
    """The sensor of the GPU that torch calls 0, or None on the CPU, without NVML, or where NVML does not know the GPU.

    NVML counts the GPUs of the machine in PCI order, torch those that CUDA_VISIBLE_DEVICES leaves it: only the UUID is
    the same for both. None too for a slice of a GPU (MIG): power, clocks and throttling are of the whole GPU, which
    others may use. NVML stays open until the process ends.
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
        sliced = False  # a GPU that cannot be
    return None if sliced else NvmlSensor(handle, root)


def gpu_meter(device: str) -> "Meter":
    """A meter of the GPU that a placement names as `device`, for one of the processes that its parent has started.

    The others of that parent are not foreign: they wait while this one works.
    """
    return Meter(open_gpu_sensor(device, os.getppid()))


def throttle_names(reasons: int) -> frozenset[str]:
    """The names of NVML's bits `reasons`; a bit that is newer than this list is named by its value, not passed over."""
    bits = (1 << place for place in range(reasons.bit_length()))
    return frozenset(THROTTLING.get(bit, f"{bit:#x}") for bit in bits if reasons & bit & ~NOT_THROTTLING)


def foreign(pids: Iterable[int], root: int | None = None) -> frozenset[int] | None:
    """Those of `pids` that are not below the process `root`, by default this one; None where they cannot be trusted.

    A list without this process, which has the GPU open, counts in another namespace: a container's driver may show the
    host's numbers, or nobody at all.
    """
    own, seen = os.getpid(), frozenset(pids)
    if own not in seen:
        return None
    top = own if root is None else root
    return frozenset(pid for pid in seen if pid not in (own, top) and top not in _ancestors(pid))


def _ancestors(pid: int) -> set[int]:
    try:
        return {parent.pid for parent in psutil.Process(pid).parents()}
    except psutil.Error:  # ended meanwhile, or not ours to look at
        return set()


Span = list[tuple[float, GpuSample]]  # seconds on the meter's clock, and what was seen then


def waited_s() -> float | None:
    """Seconds that the threads of this process were ready and waited for a core, all together, since they began.

    The second number of schedstat, in nanoseconds (Linux, Documentation/scheduler/sched-stats). None elsewhere.
    """
    try:
        found = [file.read_text(encoding="ascii").split() for file in Path("/proc/self/task").glob("*/schedstat")]
    except OSError:  # a thread has ended since it was listed, or there is no such file
        return None
    return sum(int(numbers[1]) for numbers in found) / 1e9 if found else None


@dataclass
class Meter:
    """Adds up what is used between each `start` and its `stop`; what happens between two spans does not count.

    The sensor is read at `start`, every `INTERVAL_S` from a thread, and at `stop`; a caller that takes the time inside
    of the span has none of it on its clock. `background=False` leaves the readings in between to calls of `sample`.
    CPU seconds are those of all the process's threads, this one's included. `with meter:` is one span.
    """

    sensor: GpuSensor | None
    background: bool = True
    clock: Callable[[], float] = time.perf_counter
    cpu_clock: Callable[[], float] = time.process_time
    # Seconds that the process's threads waited for a core so far; None where they are not counted.
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
            raise RuntimeError("this meter runs already")
        self._span = []
        self.sample()
        if self.sensor is not None and self.background:
            self._ended.clear()
            self._thread = threading.Thread(target=self._keep_sampling, name="gpu-sensor", daemon=True)
            self._thread.start()
        self._waited_s = self.wait_clock()
        self._began = self.clock(), self.cpu_clock()

    def stop(self) -> Resources:
        """End the span and its thread, and give what all spans so far have used; raises `RuntimeError` outside."""
        if self._began is None:
            raise RuntimeError("this meter does not run")
        wall_s = self.clock() - self._began[0]
        self._wall_s += wall_s
        self._cpu_s += self.cpu_clock() - self._began[1]
        waited_s = self.wait_clock()
        if waited_s is not None and self._waited_s is not None and wall_s > 0:
            # A thread that has ended takes its own count with it.
            self._waits.append(max(0.0, waited_s - self._waited_s) / wall_s)
        self._began = None
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None
        self.sample()
        if self._span and self._span[0][0] < self._span[-1][0]:
            self._spans.append(self._span)
        self._rss_bytes = psutil.Process().memory_info().rss
        return self.resources()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def sample(self) -> None:
        """Read the sensor once. If it raises, it is let go, and all GPU readings become null; the run goes on."""
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
        """What the spans that have ended used together."""
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
    """A reading of every sample; empty where one lacks it."""
    values = [getattr(sample, name) for span in spans for _, sample in span]
    return [] if None in values else values


def _integral(spans: list[Span], name: str) -> float | None:
    """A reading over the seconds of the spans by the trapezoid rule; None where it is absent.

    NVML's power is a mean over the last second on most GPUs since Ampere, so that it lags behind in short spans.
    """
    steps = [(late - early, a, b) for span in spans for (early, a), (late, b) in pairwise(span)]
    if not _complete(spans, name):
        return None
    return math.fsum(step * (getattr(a, name) + getattr(b, name)) / 2 for step, a, b in steps)


def _counted_energy(spans: list[Span]) -> float | None:
    """Joules by the GPU's own counter, which misses no peak between two samples.

    None where there is none, where it fell, or where it stood still: it moves in steps of some tens of milliseconds,
    and spans that are shorter than one tell nothing.
    """
    ends = [(span[0][1].total_energy_j, span[-1][1].total_energy_j) for span in spans]
    used = [last - first for first, last in ends if first is not None and last is not None and last >= first]
    return math.fsum(used) or None if len(used) == len(ends) else None


def _seen(spans: list[Span], name: str) -> frozenset[Any] | None:
    """All that any sample saw; None where nothing was seen but a sample, or every one, could not look."""
    values = [getattr(sample, name) for span in spans for _, sample in span]
    found: frozenset[Any] = frozenset().union(*(value for value in values if value))
    return found if found or (values and None not in values) else None
