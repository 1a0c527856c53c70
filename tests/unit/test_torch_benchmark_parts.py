# SPDX-License-Identifier: Apache-2.0
"""What the suites are made of: waiting for idle, the place of a GPU, peaks, summaries over a node, exact integers."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_cuda import install

from ansible.module_utils.rackwright import exact_answers, gpu_peak, gpu_place, torch_bench, torch_device, torch_runner
from ansible.module_utils.rackwright.benchmark_node import burn_summaries, checksum_errors
from ansible.module_utils.rackwright.catalogue_data import GPUS
from ansible.module_utils.rackwright.gpu_readings import Meter
from ansible.module_utils.rackwright.gpu_watch import Watch
from ansible.module_utils.rackwright.nvml import Nvml
from ansible.module_utils.rackwright.torch_bench import Bench, NotIdleError, WaitedTooLongError


class _Busy:
    """A meter whose GPU is busy for some readings."""

    def __init__(self, *readings: int | None) -> None:
        self.readings = itertools.chain(readings, itertools.repeat(readings[-1]))
        self.asked = 0

    def utilisation(self) -> int | None:
        self.asked += 1
        return next(self.readings)


def bench(meter: Any = None, **more: Any) -> Bench:
    return Bench(None, "cuda:0", "quick", 1, {"name": "x"}, Watch(None, "no NVML"), meter=meter, **more)


@pytest.mark.parametrize(
    ("readings", "asked"), [((0,), 1), ((9,), 1), ((100, 40, 3), 3), ((None,), 1), ((100, None), 2)]
)
def test_idle_is_waited_for_and_no_longer(
    readings: tuple[int | None, ...], asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_bench, "_IDLE_POLL_S", 0.0)
    meter = _Busy(*readings)
    bench(meter).wait_for_idle(limit_s=30)
    assert meter.asked == asked


def test_without_nvml_nothing_is_waited_for() -> None:
    bench(None).wait_for_idle(limit_s=0)


def test_a_gpu_that_stays_busy_is_an_error_that_says_by_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_bench, "busy_of", lambda meter: "1 process(es) use it: python (pid 7)")
    with pytest.raises(NotIdleError, match=r"87 % of the time.*pid 7") as caught:
        bench(_Busy(87)).wait_for_idle(limit_s=0)
    assert torch_runner.classify(caught.value)["reason"] == "not_idle"


def test_a_suite_on_a_busy_gpu_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    progress: Any = _Written()
    monkeypatch.setattr(torch_bench, "busy_of", lambda meter: None)
    monkeypatch.setattr(Bench.wait_for_idle, "__defaults__", (0.0,))
    assert torch_runner._idle(bench(_Busy(50)), "gemm", {"allow_busy": False}, progress) is False
    assert (progress.records[0]["error"]["suite"], progress.records[0]["error"]["reason"]) == ("gemm", "not_idle")
    assert torch_runner._idle(bench(_Busy(50)), "gemm", {"allow_busy": True}, progress) is True


class _Written:
    """A progress that keeps what is written."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, **record: Any) -> None:
        self.records.append(record)


@pytest.mark.parametrize(
    ("busy", "settle_s", "allow", "refused"),
    [
        (["7"], 0.0, False, True),
        (["7", "7", None], 30.0, False, False),
        ([None], 0.0, False, False),
        (["7"], 0.0, True, False),
        (["7"], 0.05, False, True),
    ],
)
def test_what_an_earlier_phase_leaves_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, busy: list[str | None], settle_s: float, allow: bool, refused: bool
) -> None:
    readings = itertools.chain(busy, itertools.repeat(busy[-1]))
    monkeypatch.setattr(torch_runner, "busy_of", lambda meter: next(readings))
    monkeypatch.setattr(torch_runner, "_SETTLE_POLL_S", 0.001)
    progress: Any = _Written()
    request = {"allow_busy": allow, "settle_s": settle_s}
    assert torch_runner._busy(None, "cuda:3", request, progress) is refused
    reasons = [(record["error"]["device"], record["error"]["reason"]) for record in progress.records]
    assert reasons == ([("cuda:3", "busy")] if refused else [])


def test_a_torch_that_tells_no_uuid_leaves_it_to_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        """The driver's library of a node whose second device has a UUID."""

        def cuInit(self, flags: int) -> int:
            return 0

        def cuDeviceGet(self, device: Any, index: int) -> int:
            device._obj.value = index + 40
            return 0 if index < 2 else 101

        def cuDeviceGetUuid(self, found: Any, device: Any) -> int:
            for position in range(16):
                found._obj[position] = device.value + position
            return 0

    monkeypatch.setattr(torch_device.ctypes, "CDLL", lambda name: Driver())
    assert torch_device.driver_uuid(1) == "292a2b2c-2d2e-2f30-3132-333435363738"
    assert torch_device.driver_uuid(2) is None
    known = {"name": "x", "major": 7, "minor": 5, "total_memory": 1, "multi_processor_count": 1}
    properties = type("Properties", (), known)
    torch = type("Torch", (), {"cuda": type("Cuda", (), {"get_device_properties": staticmethod(lambda n: properties)})})
    assert torch_device.device_info(torch, "cuda:1")["uuid"] == "GPU-292a2b2c-2d2e-2f30-3132-333435363738"

    def absent(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(torch_device.ctypes, "CDLL", absent)
    assert torch_device.device_info(torch, "cuda:1")["uuid"] is None


def test_torch_is_imported_with_the_interpreters_own_functions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Ansible replaces sys.intern in its modules by an object, which torch's compiler refuses
    genuine = sys.intern
    patch = type("Patch", (), {"unpatched_implementation": staticmethod(genuine), "__call__": lambda self, x: x})()
    monkeypatch.setattr(sys, "intern", patch)
    install(tmp_path, monkeypatch)("cpu")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    torch_runner._import_torch()
    sys.modules.pop("torch")
    assert sys.intern is genuine


def test_a_turn_is_free_again_after_an_error(tmp_path: Path) -> None:
    one, other = bench(scratch=str(tmp_path)), bench(scratch=str(tmp_path))

    def fail_inside() -> None:
        with one.turn():
            with pytest.raises(WaitedTooLongError, match="host link"), other.turn(limit_s=0):
                pass
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    with other.turn(limit_s=0):
        pass


def test_alone_there_is_nobody_to_meet_and_no_turn(tmp_path: Path) -> None:
    assert bench().meet() == 1
    assert bench(scratch=str(tmp_path)).meet() == 1
    with bench().turn(limit_s=0):
        pass


def test_who_does_not_come_is_not_waited_for_long(tmp_path: Path) -> None:
    options = {"rank": 1, "world_size": 3}
    assert bench(scratch=str(tmp_path), options=options).meet(limit_s=0.05) == 1
    (tmp_path / "here-0").touch()
    (tmp_path / "here-2").touch()
    assert bench(scratch=str(tmp_path), options=options).meet(limit_s=30) == 3


def test_only_the_first_work_heats_the_device() -> None:
    cpu = Bench(None, "cpu", "quick", 1, {}, Watch(None, "a CPU"))
    records = [cpu.measured(lambda: sum(range(9999)), {"suite": "memory"}, 1.0, 1.0) for _ in range(2)]
    assert [record["conditions"]["warmup_s"] for record in records] == [cpu.level.heat_s, cpu.level.warmup_s]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0-3,8", {0, 1, 2, 3, 8}),
        ("5\n", {5}),
        ("", set()),
        (None, set()),
        ("0-3,x", set()),
        ("0-", set()),
        ("-1", set()),
    ],
)
def test_lists_of_processors(text: str | None, found: set[int]) -> None:
    assert gpu_place.parse_cpulist(text) == found


def _device(root: Path, **files: str) -> str:
    folder = root / "sys/bus/pci/devices/0000:1b:00.0"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return "0000:1b:00.0"


def test_work_runs_next_to_the_gpu_and_back_where_it_was(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    mine = min(before)
    address = _device(tmp_path, numa_node="1\n", local_cpulist=f"{mine},9999\n")
    with gpu_place.near(address, str(tmp_path)) as place:
        assert os.sched_getaffinity(0) == {mine}
        assert place == {"numa_node": 1, "cpus": 1}
    assert os.sched_getaffinity(0) == before
    with pytest.raises(RuntimeError), gpu_place.near(address, str(tmp_path)):
        raise RuntimeError("a copy failed")
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("files", "node", "why"),
    [
        ({"numa_node": "-1\n", "local_cpulist": "9998-9999\n"}, None, "no processor next to it may be used"),
        ({"numa_node": "0\n"}, 0, "no processor next to it may be used"),
        ({}, None, "no processor next to it may be used"),
        (None, None, "the PCI address is unknown"),
    ],
)
def test_a_place_that_is_unknown_binds_nothing(
    tmp_path: Path, files: dict[str, str] | None, node: int | None, why: str
) -> None:
    before = os.sched_getaffinity(0)
    address = _device(tmp_path, **files) if files is not None else None
    with gpu_place.near(address, str(tmp_path)) as place:
        assert os.sched_getaffinity(0) == before
    assert place == {"numa_node": node, "cpus": len(before), "unbound": why}


@pytest.mark.parametrize(
    ("generation", "width", "gbps"),
    [
        (1, 16, 4.0),
        (3, 16, 15.75),
        (4, 8, 15.75),
        (5, 16, 63.0),
        (6, 16, 128.0),
        (None, 16, None),
        (4, 0, None),
        (9, 1, None),
    ],
)
def test_what_a_link_carries(generation: int | None, width: int, gbps: float | None) -> None:
    assert gpu_place.link_gbps(generation, width) == (pytest.approx(gbps, abs=0.02) if gbps else None)


@given(st.sampled_from(["bfloat16", "float16", "float32", "int8"]), st.integers(1, 1 << 15))
def test_integers_leave_room_for_every_sum(dtype: str, terms: int) -> None:
    exact = exact_answers.exact_operands(dtype, terms)
    limit = {"bfloat16": 1 << 8, "float16": 1 << 11, "float32": 1 << 24, "int8": 1 << 31}[dtype]
    mean = terms * ((exact.magnitude + 1) / 2 / exact.one_in) ** 2
    assert mean < limit
    assert exact.one_in == 1 or terms * ((exact.magnitude + 1) / 2 / (exact.one_in - 1)) ** 2 > limit / 4, (
        "not sparser than needed"
    )


def test_a_data_type_without_exact_products_has_none() -> None:
    with pytest.raises(KeyError):
        exact_answers.exact_operands("float8_e4m3fn", 256)


def _row(catalogue_id: str) -> dict[str, Any]:
    return next(row for row in GPUS if row["id"] == catalogue_id)


def peak(catalogue_id: str) -> tuple[dict[str, Any] | None, str | None]:
    row = _row(catalogue_id)
    total = int(row["memory_gb"] * (1 << 30) * 0.98)
    return gpu_peak.peak_of(row["nvml_names"][0], row["pci_device_ids"][0], total)


@pytest.mark.parametrize(
    ("catalogue_id", "bandwidth", "tflops", "derived", "source"),
    [
        ("h100-sxm5-80gb", 3350, {"bf16": 989.0, "fp8": 1979.0, "tf32": 494.5}, [], "catalogue"),
        ("rtx-a5000", 768, {"bf16": 111.1, "fp16": 111.1, "fp32": 27.8}, ["bf16", "fp16"], "derived"),
        ("rtx-2080-ti", 616, {"fp16": 53.8, "int8": 227.7}, ["fp16"], "derived"),
    ],
)
def test_peaks_of_a_model(
    catalogue_id: str, bandwidth: float, tflops: dict[str, float], derived: list[str], source: str
) -> None:
    found, reason = peak(catalogue_id)
    assert reason is None
    assert found is not None
    assert (found["catalogue_id"], found["bandwidth_gbps"], found["source"]) == (catalogue_id, bandwidth, source)
    assert tflops.items() <= found["tflops"].items()
    assert found["derived"] == derived
    assert "bf16" not in found["tflops"] or catalogue_id != "rtx-2080-ti", "Turing has no units for it"


def test_every_row_of_the_catalogue_has_peaks_or_none_and_none_of_them_is_zero() -> None:
    for row in GPUS:
        if row.get("memory_gb"):
            found, reason = peak(row["id"])
            if found is not None:  # two rows may share name, id and size
                assert all(value > 0 for value in found["tflops"].values()), row["id"]
            else:
                assert reason


@pytest.mark.parametrize(
    ("name", "device_id", "reason"),
    [
        ("No such GPU", "ffff", "the catalogue has neither"),
        (None, "2330", "without the name"),
        ("x", None, "PCI device id"),
    ],
)
def test_a_model_that_is_not_recognised_says_why(name: str | None, device_id: str | None, reason: str) -> None:
    found, why = gpu_peak.peak_of(name, device_id, 80 << 30)
    assert found is None
    assert reason in str(why)


class _Binding:
    """A driver that knows a few things of one GPU and refuses all others."""

    class Error(Exception):
        value = 3

    class Memory:
        used, total = 5 << 30, 80 << 30

    class Rates:
        gpu, memory = 37, 12

    class Pci:
        busId, pciDeviceId = b"00000000:1B:00.0", 0x233010DE

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: Any) -> Any:
            raise self.Error

        return refuse

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        return 1_234_500

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return 700_000

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return self.Memory()

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return self.Rates()

    def nvmlDeviceGetPciInfo(self, handle: int) -> Any:
        return self.Pci()

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: int) -> int:
        return 5


def test_a_meter_tells_what_the_driver_gives_and_none_of_the_rest() -> None:
    meter = Meter(Nvml(_Binding(), "test"), 0)
    assert (meter.energy_j(), meter.used_bytes(), meter.total_bytes()) == (1234.5, 5 << 30, 80 << 30)
    assert (meter.utilisation(), meter.power_limit_w(), meter.pci_address()) == (37, 700.0, "0000:1b:00.0")
    assert meter.pcie_link() == {"generation": 5, "width": None, "max_generation": None, "max_width": None}
    found, _ = meter.peak()
    assert found is not None
    assert found["catalogue_id"] == "h100-sxm5-80gb"
    gpu = bench(meter)
    assert (gpu.energy_j(), gpu.nvml_used_bytes(), gpu.nvml_total_bytes()) == (1234.5, 5 << 30, 80 << 30)
    assert Meter(Nvml(_Binding(), "test"), 0, unified=True).used_bytes() is None


def test_without_a_meter_everything_is_none() -> None:
    gpu = bench(None)
    assert (gpu.energy_j(), gpu.nvml_used_bytes(), gpu.nvml_total_bytes(), dict(gpu.peak_tflops)) == (
        None,
        None,
        None,
        {},
    )


def test_series_are_thinned_and_keep_their_time() -> None:
    numbers = itertools.count()
    recorder_of = Watch(lambda: {"power_w": float(next(numbers)), "reasons": [], "counters_ns": {}}, interval_s=0.01)
    with recorder_of.during() as record:
        pass
    record.readings = [{"t": n / 10, "power_w": float(n)} for n in range(50)]
    series = record.series(1.0)
    assert [(entry["t"], entry["power_w"]) for entry in series] == [(n, n * 10.0) for n in (0.0, 1.0, 2.0, 3.0, 4.0)]
    assert series[0]["sm_mhz"] is None


def _burn(device: str, value: float, power: float | None = 700.0) -> dict[str, Any]:
    clocks = {"power_w": {"median": power}, "temperature_c": {"median": 70.0}, "sm_mhz": None} if power else None
    details = {"gpus_at_once": 4, "drift": 0.99}
    common = {"suite": "burn", "unit": "TFLOP/s", "dtype": "bfloat16", "shape": [1], "level": "full", "conditions": {}}
    return {**common, "device": device, "value": value, "clocks": clocks, "details": details}


def test_the_slowest_gpu_of_a_burn_is_named() -> None:
    values = {"cuda:0": 700.0, "cuda:1": 690.0, "cuda:2": 600.0, "cuda:3": 710.0}
    (found,) = burn_summaries([_burn(device, value) for device, value in values.items()])
    assert (found["device"], found["value"], found["details"]["slowest"]) == ("node", 600.0, "cuda:2")
    assert found["details"]["spread_over_gpus"] == pytest.approx(110 / 695)
    assert found["details"]["power_w"] == 2800.0
    assert found["details"]["gpus"]["cuda:2"] == {
        "value": 600.0,
        "drift": 0.99,
        "power_w": 700.0,
        "temperature_c": 70.0,
        "sm_mhz": None,
    }


def test_power_of_a_node_is_known_only_when_that_of_every_gpu_is() -> None:
    (found,) = burn_summaries([_burn("cuda:0", 1.0), _burn("cuda:1", 1.0, power=None)])
    assert found["details"]["power_w"] is None
    assert burn_summaries([{"suite": "gemm"}]) == []


def test_two_kinds_of_gpu_in_a_node_are_not_each_others_measure() -> None:
    kinds = [{**_burn(f"cuda:{n}", 700.0 - n), "device_name": "A100"} for n in range(2)]
    kinds.append({**_burn("cuda:2", 40.0), "device_name": "T4", "dtype": "float16"})
    found = {entry["device_name"]: entry["details"] for entry in burn_summaries(kinds)}
    assert {name: details["slowest"] for name, details in found.items()} == {"A100": "cuda:1", "T4": "cuda:2"}
    assert found["A100"]["spread_over_gpus"] < 0.01
    assert found["T4"]["spread_over_gpus"] == 0


def _sum(device: str, checksum: str, name: str = "correctness_int8") -> dict[str, Any]:
    details = {"checksum": checksum}
    return {"suite": "correctness", "name": name, "shape": [4, 4, 4], "device": device, "details": details}


@pytest.mark.parametrize(
    ("sums", "named"),
    [
        (["a", "a", "a"], []),
        (["a"], []),
        ([], []),
        (["a", "b", "a"], ["cuda:1"]),
        (["a", "b"], ["cuda:0", "cuda:1"]),
        (["a", "b", "c", "a"], ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
    ],
)
def test_devices_whose_checksum_differs(sums: list[str], named: list[str]) -> None:
    errors = checksum_errors([_sum(f"cuda:{index}", value) for index, value in enumerate(sums)])
    assert [error["device"] for error in errors] == named
    assert all(error["reason"] == "wrong_answer" and error["next_step"].endswith(".") for error in errors)


def test_checksums_of_different_products_are_not_compared() -> None:
    assert checksum_errors([_sum("cuda:0", "a"), _sum("cuda:1", "b", "correctness_bfloat16")]) == []
