# SPDX-License-Identifier: Apache-2.0
"""How a GPU is timed and watched, on a stand-in that records the order of what it is asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import benchmark_errors, gpu_readings, torch_bench, torch_device
from ansible.module_utils.rackwright.gpu_watch import Watch, busy_reason
from ansible.module_utils.rackwright.nvml import Nvml
from ansible.module_utils.rackwright.nvml_errors import NvmlFailure
from ansible.module_utils.rackwright.torch_bench import Bench, NotEnoughMemoryError, WrongAnswerError


class FakeTorch:
    """Records allocations, event records, flushes and synchronisations; its events tell scripted times."""

    float32 = "float32"

    def __init__(self) -> None:
        self.log: list[str] = []
        self.milliseconds = iter([2.0, 1.0, 4.0, 3.0, 5.0])
        fake = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing
                fake.log.append("event")

            def record(self) -> None:
                fake.log.append("record")

            def elapsed_time(self, end: Any) -> float:
                assert fake.log[-1] == "sync", "a time was read before the synchronisation"
                return next(fake.milliseconds)

        class Buffer:
            def sum(self) -> None:
                fake.log.append("flush")

        class Cuda:
            Event: Any = None

            def synchronize(self, device: str) -> None:
                fake.log.append("sync")

        self.cuda = Cuda()
        self.cuda.Event = Event
        self.buffer = Buffer()
        self.allocated = 0

    def zeros(self, size: int, dtype: Any, device: str) -> Any:
        self.allocated = size * 4
        return self.buffer


def bench(torch: Any, device: str = "cuda:0", watch: Watch | None = None, **info: Any) -> Bench:
    return Bench(torch, device, "quick", 1, {"name": "x", **info}, watch or Watch(None, "no NVML"))


def test_a_gpu_is_timed_by_events_allocated_first_flushed_and_synchronised_once() -> None:
    torch = FakeTorch()
    gpu = bench(torch, l2_bytes=50 << 20)
    assert gpu.prepare_flush() == torch.allocated == 256 << 20
    seconds = gpu.timed(lambda: torch.log.append("work"), 3)
    assert torch.log == ["event"] * 6 + ["flush", "record", "work", "record"] * 3 + ["sync"]
    assert seconds == [0.002, 0.001, 0.004]


def test_the_flush_buffer_exceeds_a_large_cache() -> None:
    torch = FakeTorch()
    assert bench(torch, l2_bytes=200 << 20).prepare_flush() == 400 << 20


def test_a_cpu_needs_no_flush_and_reports_median_and_work() -> None:
    cpu = bench(None, "cpu")
    started = time.monotonic()
    record = cpu.measured(lambda: time.sleep(0.002), {"suite": "memory", "name": "n", "unit": "GB/s"}, 2e6, 1e9)
    assert time.monotonic() - started >= cpu.level.warmup_s
    assert record["min"] <= record["value"] == record["median"] <= record["max"] <= 1.0
    assert cpu.level.min_samples <= record["samples"] <= cpu.level.max_samples
    assert record["conditions"]["l2_flush_bytes"] == 0
    assert (record["clocks"], record["missing"]["clocks"]) == (None, "no NVML")


def test_a_watch_reads_before_during_and_after() -> None:
    readings = iter(range(1000))

    def read() -> dict[str, Any]:
        number = next(readings)
        return {
            "sm_mhz": 1000 + number,
            "memory_mhz": None,
            "power_w": 300.0,
            "temperature_c": 40,
            "memory_used_bytes": 7 + number,
            "reasons": ["sw_power_cap"] if number else [],
            "counters_ns": {"hw_thermal_slowdown": number * 1_000_000},
        }

    with Watch(read, interval_s=0.01).during() as record:
        time.sleep(0.1)
    result = record.result()
    assert result["clocks"]["readings"] >= 4
    assert result["clocks"]["before"]["sm_mhz"] == 1000
    assert result["clocks"]["after"]["sm_mhz"] == 1000 + result["clocks"]["readings"] - 1
    assert result["clocks"]["memory_mhz"] is None
    assert result["clocks"]["memory_used_bytes"]["max"] == 6 + result["clocks"]["readings"]
    assert result["missing"] == {"clocks.memory_mhz": "the driver gives no reading"}
    throttle = result["throttle"]
    assert throttle["source"] == {"sw_power_cap": "samples", "hw_thermal_slowdown": "counter"}
    assert 0 < throttle["fractions"]["hw_thermal_slowdown"] < 1
    assert throttle["active"] == ["hw_thermal_slowdown", "sw_power_cap"]


def test_a_reading_that_fails_is_a_reason_and_no_end_of_the_measurement() -> None:
    def read() -> dict[str, Any]:
        raise OSError("GPU is lost")

    with Watch(read, interval_s=0.01).during() as record:
        time.sleep(0.03)
    result = record.result()
    assert result["clocks"] is None
    assert result["missing"]["throttle"] == "OSError: GPU is lost"


def test_a_driver_without_event_reasons_says_so() -> None:
    with Watch(lambda: {"sm_mhz": 1, "reasons": None, "counters_ns": {}}, interval_s=1).during() as record:
        pass
    assert "neither event counters nor event reasons" in record.result()["missing"]["throttle"]


GIB = 1 << 30


def test_a_desktop_on_the_same_gpu_is_not_somebodys_work() -> None:
    assert busy_reason([], 3 * GIB, 24 * GIB, [7], desktop=True) is None
    assert "3.0 GiB" in str(busy_reason([], 3 * GIB, 24 * GIB, [7]))
    assert "9.0 GiB" in str(busy_reason([], 9 * GIB, 24 * GIB, [7], desktop=True))


@pytest.mark.parametrize(
    ("processes", "used", "total", "busy"),
    [
        ([], 600 << 20, 80 * GIB, None),
        ([], None, 128 * GIB, None),
        ([{"pid": 7, "name": "me"}], 0, 80 * GIB, None),
        ([{"pid": 8, "name": "python"}], 0, 80 * GIB, "1 process(es) use it: python (pid 8)"),
        ([{"pid": n, "name": None} for n in range(10, 15)], 0, 80 * GIB, "and 2 more"),
        ([], 40 * GIB, 80 * GIB, "40.0 GiB of its memory are in use"),
    ],
)
def test_when_a_gpu_counts_as_busy(processes: Any, used: Any, total: Any, busy: str | None) -> None:
    reason = busy_reason(processes, used, total, own_pids=[7])
    assert (reason is None) if busy is None else (busy in str(reason))


class Binding:
    """A binding with two GPUs, the first of them lost, on a driver that knows only the old name of the reasons."""

    class Error(Exception):
        def __init__(self, value: int) -> None:
            self.value = value

    class Memory:
        used, total = 20 * GIB, 80 * GIB

    class Field:
        def __init__(self, number: int) -> None:
            self.nvmlReturn = 0 if number == 270 else 3
            self.value = type("Value", (), {"ullVal": 5_000_000})()

    def nvmlInit(self) -> None:
        return None

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 0:
            raise self.Error(15)
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetClockInfo(self, handle: int, clock: int) -> int:
        return {1: 1755, 2: 2619}[clock]

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 312_500

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        raise self.Error(3)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return 0x44

    def nvmlDeviceGetFieldValues(self, handle: int, fields: list[int]) -> list[Any]:
        return [self.Field(number) for number in fields]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        raise self.Error(3)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return self.Memory()


def test_readings_of_the_gpu_torch_runs_on() -> None:
    nvml = Nvml(Binding(), "test")
    assert gpu_readings.reading(nvml, 1) == {
        "sm_mhz": 1755,
        "memory_mhz": 2619,
        "power_w": 312.5,
        "temperature_c": None,
        "memory_used_bytes": 20 * GIB,
        "reasons": ["sw_power_cap", "hw_thermal_slowdown"],
        "counters_ns": {"hw_thermal_slowdown": 5_000_000},
    }
    meter, _ = gpu_readings.open_gpu({"uuid": "GPU-1"}, nvml)
    watch, busy = gpu_readings.watch_of(meter, None), gpu_readings.busy_of(meter)
    assert busy == "20.0 GiB of its memory are in use although no process is visible"
    with watch.during() as record:
        pass
    assert record.result()["clocks"]["sm_mhz"] == {"min": 1755.0, "median": 1755.0, "max": 1755.0}
    unified, _ = gpu_readings.open_gpu({"uuid": "GPU-1", "unified_memory": True}, nvml)
    assert gpu_readings.busy_of(unified) is None


@pytest.mark.parametrize(
    ("uuid", "failure", "reason"), [("GPU-9", None, "knows no GPU GPU-9"), ("GPU-1", 9, "not loaded")]
)
def test_without_nvml_the_reason_is_kept(
    uuid: str, failure: int | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = Nvml(Binding(), "test")
    if failure is not None:

        def broken(*_: Any) -> Any:
            raise NvmlFailure(failure)

        monkeypatch.setattr(nvml, "call", broken)
    meter, missing = gpu_readings.open_gpu({"uuid": uuid}, nvml)
    assert gpu_readings.busy_of(meter) is None
    watch = gpu_readings.watch_of(meter, missing)
    with watch.during() as record:
        pass
    assert reason in record.result()["missing"]["clocks"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out_of_memory"),
        (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "busy"),
        (NotEnoughMemoryError("only 5 bytes are free"), "out_of_memory"),
        (WrongAnswerError("1 of 2 elements are wrong"), "wrong_answer"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "error"),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "no_kernel_image"),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might"), "error"),
    ],
)
def test_what_torch_raises_is_named(error: Exception, reason: str) -> None:
    found = benchmark_errors.classify(error)
    assert found["reason"] == reason
    assert "\n" not in found["detail"]


def test_memory_and_processor_of_the_node_are_read(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable:    50 kB\n")
    assert torch_bench.available_memory(str(meminfo)) == 51_200
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: A Processor : fast\n")
    assert torch_device.cpu_name(str(cpuinfo)) == "A Processor : fast"
    cpuinfo.write_text("processor : 0\n")
    assert torch_device.cpu_name(str(cpuinfo)) is None


def test_a_gpu_without_memory_of_its_own_can_use_what_the_kernel_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = type("Cuda", (), {"mem_get_info": staticmethod(lambda device: (2 * GIB, 120 * GIB))})
    torch = type("Torch", (), {"cuda": cuda})
    monkeypatch.setattr(torch_bench, "available_memory", lambda: 100 * GIB)
    assert bench(torch, unified_memory=True).free_bytes() == 100 * GIB
    assert bench(torch, unified_memory=False).free_bytes() == 2 * GIB
