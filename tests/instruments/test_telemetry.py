"""The meter on a scripted sensor and clock, where every figure is exact, and NVML's readings through a fake module."""

import importlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from mrpcbench import instruments
from mrpcbench.instruments import telemetry
from mrpcbench.instruments.telemetry import (
    GpuSample,
    GpuSensor,
    Meter,
    NvmlSensor,
    open_gpu_sensor,
    throttle_names,
    waited_s,
)
from mrpcbench.schema.bench_results import Resources

GPU_FIELDS = [name for name in Resources.__dataclass_fields__ if name.startswith("gpu_")]
FULL = GpuSample(
    total_energy_j=1000.0,
    power_w=100.0,
    sm_clock_mhz=1500,
    temperature_c=50,
    throttle_reasons=frozenset(),
    process_memory_bytes=1 << 30,
    foreign_pids=frozenset(),
)
NO_COUNTER = replace(FULL, total_energy_j=None)


class Script:
    """A clock, a CPU clock and a sensor that show what a test has set."""

    def __init__(self) -> None:
        self.now = self.cpu = 0.0
        self.shows: GpuSample | Exception = NO_COUNTER
        self.reads = 0
        self.meter = Meter(self, background=False, clock=lambda: self.now, cpu_clock=lambda: self.cpu)

    def read(self) -> GpuSample:
        self.reads += 1
        if isinstance(self.shows, Exception):
            raise self.shows
        return self.shows

    def span(self, *timeline: tuple[float, GpuSample | Exception]) -> Resources:
        """A span whose samples come at these moments; the first is its start, the last its end."""
        (self.now, self.shows), *middle = timeline
        self.meter.start()
        for self.now, self.shows in middle[:-1]:
            self.meter.sample()
        self.now, self.shows = middle[-1]
        return self.meter.stop()


@pytest.fixture
def script() -> Script:
    return Script()


def watts(power: float) -> GpuSample:
    return replace(NO_COUNTER, power_w=power)


def counter(joules: float, power: float = 1.0) -> GpuSample:
    return replace(FULL, total_energy_j=joules, power_w=power)


# --- energy -----------------------------------------------------------------------------------------------------------


def test_without_a_counter_energy_is_integrated_power(script: Script) -> None:
    used = script.span((10.0, watts(100)), (10.5, watts(300)), (12.5, watts(200)))
    assert used.gpu_energy_j == 0.5 * 200 + 2.0 * 250
    assert used.gpu_power_w == 600 / 2.5


def test_with_a_counter_energy_is_its_difference_and_power_is_ignored(script: Script) -> None:
    used = script.span((0.0, counter(5000.0)), (1.0, counter(5001.0, power=700)), (4.0, counter(5600.0)))
    assert used.gpu_energy_j == 600.0
    assert used.gpu_power_w == 150.0


def test_spans_add_up_without_the_time_between_them(script: Script) -> None:
    assert script.span((0.0, watts(100)), (2.0, watts(100))).gpu_energy_j == 200.0
    used = script.span((100.0, watts(50)), (106.0, watts(50)))
    assert used.gpu_energy_j == 200.0 + 300.0
    assert used.gpu_power_w == 500 / 8


def test_energy_between_spans_does_not_count(script: Script) -> None:
    script.span((0.0, counter(100.0)), (1.0, counter(130.0)))
    used = script.span((50.0, counter(9000.0)), (51.0, counter(9012.0)))
    assert used.gpu_energy_j == 30.0 + 12.0
    assert used.gpu_power_w == 21.0


@pytest.mark.parametrize("end", [1000.0, 0.5])
def test_a_counter_that_is_constant_or_decreases_is_replaced_by_power(script: Script, end: float) -> None:
    assert script.span((0.0, counter(1000.0, power=80)), (0.25, counter(end, power=80))).gpu_energy_j == 20.0


def test_a_counter_that_changes_in_only_some_spans_is_used_for_all(script: Script) -> None:
    script.span((0.0, counter(10.0, power=999)), (1.0, counter(10.0, power=999)))
    assert script.span((1.0, counter(10.0)), (2.0, counter(18.0))).gpu_energy_j == 8.0


def test_a_counter_that_is_missing_at_one_end_is_replaced_by_power(script: Script) -> None:
    script.span((0.0, counter(5.0, power=3.0)), (1.0, counter(500.0, power=3.0)))
    assert script.span((1.0, counter(500.0, power=3.0)), (3.0, watts(3.0))).gpu_energy_j == 3.0 * 3.0


# --- the other readings -----------------------------------------------------------------------------------------------


def test_the_mean_clock_is_weighted_by_time(script: Script) -> None:
    slow, fast = replace(FULL, sm_clock_mhz=1000), replace(FULL, sm_clock_mhz=2000)
    script.span((0.0, slow), (3.0, slow))
    used = script.span((5.0, fast), (5.25, fast), (5.5, fast), (5.75, fast), (6.0, fast))
    assert used.gpu_clock_mhz == (3 * 1000 + 1 * 2000) / 4


def test_temperature_and_memory_are_the_largest_of_any_span(script: Script) -> None:
    hot = replace(FULL, temperature_c=83, process_memory_bytes=5 << 30)
    script.span((0.0, FULL), (1.0, hot), (2.0, FULL))
    used = script.span((3.0, FULL), (4.0, FULL))
    assert (used.gpu_temperature_c, used.gpu_memory_process_bytes) == (83, 5 << 30)


def test_throttle_reasons_are_the_union_over_all_samples(script: Script) -> None:
    one, two = (replace(FULL, throttle_reasons=frozenset({name})) for name in ("sw_power_cap", "hw_slowdown"))
    assert script.span((0.0, FULL), (1.0, FULL)).gpu_throttle_reasons == ()
    script.span((2.0, FULL), (3.0, one), (4.0, FULL))
    assert script.span((5.0, two), (6.0, FULL)).gpu_throttle_reasons == ("hw_slowdown", "sw_power_cap")


def test_another_process_counts_once(script: Script) -> None:
    def beside(*pids: int) -> GpuSample:
        return replace(FULL, foreign_pids=frozenset(pids))

    assert script.span((0.0, FULL), (1.0, FULL)).gpu_foreign_processes == 0
    script.span((2.0, beside(7)), (3.0, beside(7, 8)), (4.0, FULL))
    assert script.span((5.0, beside(8)), (6.0, FULL)).gpu_foreign_processes == 2


# --- what is absent ---------------------------------------------------------------------------------------------------


def test_a_sensor_that_reads_nothing_gives_null_and_never_zero(script: Script) -> None:
    used = script.span((0.0, GpuSample()), (1.0, GpuSample()))
    assert {getattr(used, name) for name in GPU_FIELDS} == {None}
    assert used.rss_bytes is not None


def test_without_a_sensor_there_are_no_gpu_readings_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda self: pytest.fail("a thread for nothing"))
    meter = Meter(None)
    meter.start()
    used = meter.stop()
    assert {getattr(used, name) for name in GPU_FIELDS} == {None}


def test_a_meter_that_never_ran_has_no_readings(script: Script) -> None:
    assert set(vars(script.meter.resources()).values()) == {None}


@pytest.mark.parametrize(
    ("reading", "results"),
    [
        ("sm_clock_mhz", ["gpu_clock_mhz"]),
        ("temperature_c", ["gpu_temperature_c"]),
        ("process_memory_bytes", ["gpu_memory_process_bytes"]),
        ("power_w", ["gpu_power_w", "gpu_energy_j"]),
        ("throttle_reasons", ["gpu_throttle_reasons"]),
        ("foreign_pids", ["gpu_foreign_processes"]),
    ],
)
def test_a_reading_that_one_sample_lacks_is_null_and_the_others_are_kept(
    script: Script, reading: str, results: list[str]
) -> None:
    lacking: Any = {reading: None}
    script.span((0.0, NO_COUNTER), (1.0, replace(NO_COUNTER, **lacking)), (2.0, NO_COUNTER))
    used = script.span((3.0, NO_COUNTER), (4.0, NO_COUNTER))
    assert [name for name in GPU_FIELDS if getattr(used, name) is None] == sorted(results, key=GPU_FIELDS.index)


def test_throttling_and_other_processes_count_even_if_a_sample_lacks_them(script: Script) -> None:
    seen = replace(FULL, throttle_reasons=frozenset({"hw_slowdown"}), foreign_pids=frozenset({7}))
    used = script.span((0.0, seen), (1.0, GpuSample()), (2.0, FULL))
    assert used.gpu_throttle_reasons == ("hw_slowdown",)
    assert used.gpu_foreign_processes == 1


@pytest.mark.parametrize("when", [0, 1, 2])
def test_a_failing_sensor_loses_gpu_readings_but_not_the_run(script: Script, when: int) -> None:
    script.span((0.0, FULL), (1.0, FULL))
    timeline: list[tuple[float, GpuSample | Exception]] = [(2.0, FULL), (3.0, FULL), (4.0, FULL)]
    timeline[when] = (timeline[when][0], OSError("the GPU fell off the bus"))
    used = script.span(*timeline)
    assert {getattr(used, name) for name in GPU_FIELDS} == {None}
    assert used.rss_bytes is not None
    reads = script.reads
    assert script.span((5.0, FULL), (6.0, FULL)).gpu_power_w is None
    assert script.reads == reads, "a sensor that raised is asked no more"


# --- CPU --------------------------------------------------------------------------------------------------------------


def test_cpu_utilisation_is_cpu_seconds_per_second_over_the_spans_only(script: Script) -> None:
    meter = Meter(None, clock=lambda: script.now, cpu_clock=lambda: script.cpu)
    for began, ended, cpu_began, cpu_ended in ((0.0, 4.0, 1.0, 8.0), (50.0, 54.0, 20.0, 21.0)):
        script.now, script.cpu = began, cpu_began
        meter.start()
        script.now, script.cpu = ended, cpu_ended
        used = meter.stop()
    assert used.cpu_utilisation == (7 + 1) / (4 + 4)


def test_waits_are_seconds_per_second_of_each_span(script: Script) -> None:
    waited = iter([1.0, 3.0, 3.0, 2.5, None, 9.0])
    meter = Meter(None, clock=lambda: script.now, cpu_clock=lambda: script.cpu, wait_clock=lambda: next(waited))
    for _ in range(3):
        meter.start()
        script.now += 4.0
        used = meter.stop()
    assert used.cpu_waits == (0.5, 0.0)  # a thread that ended took its count along, and the last span has none


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="Linux tells how long a thread waited")
def test_a_thread_that_shares_its_core_waits() -> None:
    core = min(os.sched_getaffinity(0))
    program = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    before = os.sched_getaffinity(0)
    with subprocess.Popen([sys.executable, "-c", program]) as other:
        try:
            os.sched_setaffinity(0, [core])
            began = waited_s() or 0.0
            until_s = time.process_time() + 0.3
            while time.process_time() < until_s:
                pass
            assert (waited_s() or 0.0) > began
        finally:
            os.sched_setaffinity(0, before)
            other.kill()


def test_sensor_reads_at_both_ends_do_not_count_as_cpu_time(script: Script) -> None:
    class Slow:
        def read(self) -> GpuSample:
            script.now += 1.0
            script.cpu += 1.0
            return FULL

    meter = Meter(Slow(), background=False, clock=lambda: script.now, cpu_clock=lambda: script.cpu)
    meter.start()
    script.now, script.cpu = script.now + 2.0, script.cpu + 3.0
    assert meter.stop().cpu_utilisation == 1.5


def test_rss_is_that_of_the_last_stop(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([111, 222])
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=next(sizes)))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    assert script.span((0.0, FULL), (1.0, FULL)).rss_bytes == 111
    assert script.span((2.0, FULL), (3.0, FULL)).rss_bytes == 222
    assert script.meter.resources().rss_bytes == 222


# --- the thread -------------------------------------------------------------------------------------------------------


def sampling_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gpu-sensor"]


class Counting:
    """A sensor that tells when it has been read so and so often, and raises from then on where it should."""

    def __init__(self, enough: int, then: Exception | None = None) -> None:
        self.enough, self.then, self.readers = enough, then, list[str]()
        self.reached = threading.Event()

    def read(self) -> GpuSample:
        self.readers.append(threading.current_thread().name)
        if len(self.readers) >= self.enough:
            self.reached.set()
            if self.then is not None:
                raise self.then
        return FULL


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "INTERVAL_S", 0.001)


@pytest.mark.usefixtures("no_pause")
def test_a_separate_thread_reads_the_sensor_in_every_span_and_ends_with_it() -> None:
    meter = Meter(sensor := Counting(5))
    for _ in range(2):
        sensor.reached.clear()
        sensor.readers.clear()
        meter.start()
        assert sensor.reached.wait(60)
        assert meter.stop().gpu_temperature_c == 50
        assert sampling_threads() == []
        here = threading.current_thread().name
        assert [sensor.readers[0], *set(sensor.readers[1:-1]), sensor.readers[-1]] == [here, "gpu-sensor", here]


@pytest.mark.usefixtures("no_pause")
def test_an_exception_in_the_measured_work_ends_the_thread_and_keeps_the_readings() -> None:
    meter = Meter(sensor := Counting(3))
    with pytest.raises(KeyboardInterrupt), meter:
        assert sensor.reached.wait(60)
        raise KeyboardInterrupt
    assert sampling_threads() == []
    assert meter.resources().gpu_temperature_c == 50


@pytest.mark.usefixtures("no_pause")
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_sensor_that_raises_ends_its_thread_quietly() -> None:
    meter = Meter(sensor := Counting(3, then=OSError("gone")))
    meter.start()
    assert sensor.reached.wait(60)
    for thread in sampling_threads():
        thread.join(60)
        assert not thread.is_alive()
    assert meter.stop().gpu_temperature_c is None
    assert len(sensor.readers) == 3


def test_nested_spans_and_a_stop_without_a_start_are_errors(script: Script) -> None:
    with pytest.raises(RuntimeError, match="not running"):
        script.meter.stop()
    script.meter.start()
    with pytest.raises(RuntimeError, match="already running"):
        script.meter.start()


# --- NVML -------------------------------------------------------------------------------------------------------------


class RefusedError(Exception):
    pass


class FakeNvml:
    """NVML as `pynvml` shows it, in NVML's units; a reading that is set to None is refused."""

    NVMLError = RefusedError
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0
    NVML_DEVICE_MIG_DISABLE = 0

    def __init__(self) -> None:
        self.uuids = {"GPU-aaaa": "first", "GPU-bbbb": "second"}
        self.starts = True
        self.energy_mj: int | None = 123_456
        self.power_mw: int | None = 345_678
        self.clocks: dict[int, int] | None = {0: 1111, 1: 1980, 2: 3201}
        self.temperatures: dict[int, int] | None = {0: 61}
        self.reasons: int | None = 0
        self.processes: dict[int, int | None] | None = {os.getpid(): 7 << 30}
        self.mig: list[int] | None = [0, 1]
        self.asked: set[str] = set()

    def answer(self, value: Any, handle: str) -> Any:
        self.asked.add(handle)
        if value is None:
            raise RefusedError
        return value

    def nvmlInit(self) -> None:
        if not self.starts:
            raise RefusedError

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.uuids:
            raise RefusedError
        return self.uuids[uuid]

    def nvmlDeviceGetMigMode(self, handle: str) -> Any:
        return self.answer(self.mig, handle)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> Any:
        return self.answer(self.energy_mj, handle)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> Any:
        return self.answer(self.power_mw, handle)

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> Any:
        return self.answer(self.clocks, handle)[kind]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> Any:
        return self.answer(self.temperatures, handle)[sensor]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> Any:
        return self.answer(self.reasons, handle)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: str) -> Any:
        listed = self.answer(self.processes, handle)
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in listed.items()]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """NVML with two GPUs, of which torch sees the second as its first."""
    fake = FakeNvml()
    monkeypatch.setattr(telemetry, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="bbbb"))
    return fake


def opened() -> GpuSensor:
    sensor = open_gpu_sensor("cuda")
    assert sensor is not None
    return sensor


def test_the_sensor_is_that_of_the_gpu_that_torch_uses_and_reads_in_our_units(nvml: FakeNvml) -> None:
    assert opened().read() == GpuSample(
        total_energy_j=123.456,
        power_w=345.678,
        sm_clock_mhz=1980,
        temperature_c=61,
        throttle_reasons=frozenset(),
        process_memory_bytes=7 << 30,
        foreign_pids=frozenset(),
    )
    assert nvml.asked == {"second"}


@pytest.mark.parametrize(
    ("answer", "readings"),
    [
        ("energy_mj", {"total_energy_j"}),
        ("power_mw", {"power_w"}),
        ("clocks", {"sm_clock_mhz"}),
        ("temperatures", {"temperature_c"}),
        ("reasons", {"throttle_reasons"}),
        ("processes", {"process_memory_bytes", "foreign_pids"}),
    ],
)
def test_readings_that_nvml_does_not_give_are_null(nvml: FakeNvml, answer: str, readings: set[str]) -> None:
    setattr(nvml, answer, None)
    assert {name for name, value in vars(opened().read()).items() if value is None} == readings


@pytest.mark.parametrize("size", [None, 0])
def test_memory_that_nvml_does_not_report_is_null_and_not_zero(nvml: FakeNvml, size: int | None) -> None:
    nvml.processes = {os.getpid(): size}
    assert opened().read().process_memory_bytes is None


def test_on_the_cpu_nvml_is_not_used(nvml: FakeNvml) -> None:
    assert open_gpu_sensor("cpu") is None
    assert not nvml.asked


@pytest.mark.usefixtures("nvml")
def test_without_the_nvml_package_there_is_no_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "pynvml", None)
    assert open_gpu_sensor("cuda") is None


def test_the_module_loads_without_the_nvml_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it then fails
    monkeypatch.delitem(sys.modules, telemetry.__name__)
    monkeypatch.setattr(instruments, "telemetry", telemetry)  # restored afterwards
    again = importlib.import_module(telemetry.__name__)
    assert again is not telemetry
    assert again.pynvml is None


def test_without_a_driver_there_is_no_sensor(nvml: FakeNvml) -> None:
    nvml.starts = False
    assert open_gpu_sensor("cuda") is None


def test_a_gpu_that_nvml_does_not_know_has_no_sensor(nvml: FakeNvml) -> None:
    del nvml.uuids["GPU-bbbb"]
    assert open_gpu_sensor("cuda") is None


def test_a_mig_slice_has_no_sensor(nvml: FakeNvml) -> None:
    nvml.mig = [1, 1]
    assert open_gpu_sensor("cuda") is None
    nvml.mig = None
    assert open_gpu_sensor("cuda") is not None


def test_an_idle_gpu_and_clocks_set_by_the_owner_are_not_throttling(nvml: FakeNvml) -> None:
    nvml.reasons = 0x1 | 0x2
    assert opened().read().throttle_reasons == frozenset()


def test_every_throttle_bit_has_a_name_and_an_unknown_one_has_its_value() -> None:
    assert [*throttle_names(0x4), *throttle_names(0x8), *throttle_names(0x10)] == [
        "sw_power_cap",
        "hw_slowdown",
        "sync_boost",
    ]
    assert throttle_names(0x20 | 0x40 | 0x1) == {"sw_thermal_slowdown", "hw_thermal_slowdown"}
    assert throttle_names(0x80 | 0x100 | 0x2) == {"hw_power_brake_slowdown", "display_clock_setting"}
    assert throttle_names(0x200 | 0x400 | 0x8000) == {"board_limit", "reliability", "0x8000"}


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def test_other_processes_are_foreign_and_this_one_and_its_children_are_not(nvml: FakeNvml, child: int) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    nvml.processes = {os.getpid(): 1 << 30, child: 1 << 20, os.getppid(): 1 << 20, ended.pid: None, 0: None}
    assert opened().read().foreign_pids == frozenset({os.getppid(), ended.pid, 0})


@pytest.mark.parametrize("others", [[], [4_000_001]])
def test_a_process_list_without_this_process_is_ignored(nvml: FakeNvml, others: list[int]) -> None:
    nvml.processes = dict.fromkeys(others, 1 << 30)
    sample = opened().read()
    assert sample.foreign_pids is None
    assert sample.process_memory_bytes is None


def test_every_nvml_name_that_is_used_exists_in_its_package() -> None:
    real = pytest.importorskip("pynvml")
    source = Path(telemetry.__file__).read_text(encoding="utf-8")
    asked = set(re.findall(r"\b(?:nvml[A-Z]\w+|NVML_\w+|NVMLError)", source))
    assert asked == {name for name in vars(FakeNvml) if name.lower().startswith("nvml")}
    assert {name for name in asked if not hasattr(real, name)} == set()
    constants = {name: getattr(real, name) for name in asked if name.isupper()}
    assert constants == {name: getattr(FakeNvml, name) for name in constants}


@pytest.mark.gpu
def test_a_real_gpu_is_read_while_it_works() -> None:
    sensor = open_gpu_sensor("cuda")
    assert isinstance(sensor, NvmlSensor), "no sensor: is nvidia-ml-py installed, and is the GPU not a MIG slice?"
    left = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    with Meter(sensor) as meter:
        for _ in range(1000):
            left @ left
        torch.cuda.synchronize()
    used = meter.resources()
    assert used.rss_bytes is not None and used.rss_bytes > left.nbytes
    assert used.cpu_utilisation is not None and used.cpu_utilisation > 0
    assert used.gpu_power_w is not None and 10 < used.gpu_power_w < 2000
    assert used.gpu_energy_j is not None and used.gpu_energy_j > 0
    assert used.gpu_clock_mhz is not None and 100 < used.gpu_clock_mhz < 5000
    assert used.gpu_temperature_c is not None and 10 < used.gpu_temperature_c < 120
    assert used.gpu_throttle_reasons is not None
    # In a container the driver may list this process under another number: null then, but never zero.
    assert used.gpu_memory_process_bytes is None or used.gpu_memory_process_bytes > left.nbytes
    if used.gpu_memory_process_bytes is not None:
        assert used.gpu_foreign_processes is not None
