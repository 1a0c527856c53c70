# SPDX-License-Identifier: Apache-2.0
"""Read one device completely."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

from . import nvml_names as names
from .nvml_compound import read_fabric, read_mig, read_nvlink, read_processes
from .nvml_errors import NOT_SUPPORTED, NvmlFailure, UnreadableError, reason_for
from .nvml_reader import DeviceReader

_FIELD_MEMORY_TEMPERATURE = 82
_FIELD_RECOVERY_ACTION = 230
_CLOCKS = {"graphics": 0, "sm": 1, "memory": 2, "video": 3}
_THRESHOLDS = {"shutdown_celsius": 0, "slowdown_celsius": 1, "memory_max_celsius": 2, "gpu_max_celsius": 3}


def read_device(reader: DeviceReader) -> None:
    """Fill the reader's record with every value of its device."""
    reader.record.put("index", reader.index)
    reader.open()
    for part in (
        read_identity,
        read_pci,
        read_memory,
        read_ecc,
        read_clocks,
        read_power,
        read_thermal,
        read_throttle,
        read_pcie,
        read_nvlink,
        read_mig,
        read_placement,
        read_processes,
        read_modes,
        read_fabric,
    ):
        part(reader)


def read_identity(reader: DeviceReader) -> None:
    reader.get("uuid", "nvmlDeviceGetUUID", convert=names.text)
    reader.get("serial", "nvmlDeviceGetSerial", convert=names.text)
    reader.get("name", "nvmlDeviceGetName", convert=names.text)
    reader.get("vbios_version", "nvmlDeviceGetVbiosVersion", convert=names.text)
    gsp = ctypes.create_string_buffer(64)  # the caller's own buffer is the one signature all versions of pynvml share
    reader.get("gsp_firmware_version", "nvmlDeviceGetGspFirmwareVersion", gsp, convert=lambda _: names.text(gsp.value))
    reader.get("minor_number", "nvmlDeviceGetMinorNumber")
    reader.get(
        "architecture",
        "nvmlDeviceGetArchitecture",
        convert=lambda value: names.name_of(names.ARCHITECTURES, value),
    )
    reader.get(
        "compute_capability",
        "nvmlDeviceGetCudaComputeCapability",
        convert=lambda pair: f"{pair[0]}.{pair[1]}",
    )
    reader.get("cuda_cores", "nvmlDeviceGetNumGpuCores")


def read_pci(reader: DeviceReader) -> None:
    def convert(info: Any) -> tuple[str, str, str, str]:
        device, subsystem = f"{info.pciDeviceId:08x}", f"{info.pciSubSystemId:08x}"
        return (
            names.pci_address(info.busId),
            device[4:],
            device[:4],
            f"{subsystem[4:]}:{subsystem[:4]}",
        )

    paths = ("pci.address", "pci.vendor_id", "pci.device_id", "pci.subsystem_id")
    reader.get_many(paths, "nvmlDeviceGetPciInfo", convert=convert)


def read_memory(reader: DeviceReader) -> None:
    paths = ("memory.total_bytes", "memory.used_bytes", "memory.free_bytes")
    values = reader.get_many(
        paths, "nvmlDeviceGetMemoryInfo", convert=lambda info: (int(info.total), int(info.used), int(info.free))
    )
    reader.record.put("memory.type", "dedicated" if values[0] else None, reader.record.missing.get(paths[0]))
    # GPUs that share the memory of the CPU answer exactly this; the caller takes the values from the system then
    unified = reader.record.missing.get(paths[0]) == reason_for(NOT_SUPPORTED)
    reader.record.put("memory_is_systems", unified)


def read_ecc(reader: DeviceReader) -> None:
    reader.get_many(
        ("ecc.current", "ecc.pending"),
        "nvmlDeviceGetEccMode",
        convert=lambda pair: (names.switch(pair[0]), names.switch(pair[1])),
    )
    for kind, error_type in (("corrected", 0), ("uncorrected", 1)):
        for span, counter in (("volatile", 0), ("aggregate", 1)):
            reader.get(f"ecc.counters.{kind}.{span}", "nvmlDeviceGetTotalEccErrors", error_type, counter, convert=int)
    reader.get_many(
        ("row_remap.correctable", "row_remap.uncorrectable", "row_remap.pending", "row_remap.failure"),
        "nvmlDeviceGetRemappedRows",
        convert=lambda v: (int(v[0]), int(v[1]), bool(v[2]), bool(v[3])),
    )
    histogram = ("max", "high", "partial", "low", "none")
    reader.get_many(
        tuple(f"row_remap.banks.{name}" for name in histogram),
        "nvmlDeviceGetRowRemapperHistogram",
        convert=lambda values: tuple(int(getattr(values, name)) for name in histogram),
    )
    reader.get("retired_pages.single_bit", "nvmlDeviceGetRetiredPages", 0, convert=len)
    reader.get("retired_pages.double_bit", "nvmlDeviceGetRetiredPages", 1, convert=len)
    reader.get("retired_pages.pending", "nvmlDeviceGetRetiredPagesPendingStatus", convert=bool)


def read_clocks(reader: DeviceReader) -> None:
    for name, clock in _CLOCKS.items():
        reader.get(f"clocks.{name}_mhz", "nvmlDeviceGetClockInfo", clock)
        reader.get(f"clocks.max_{name}_mhz", "nvmlDeviceGetMaxClockInfo", clock)
    reader.get("performance_state", "nvmlDeviceGetPerformanceState", convert=_performance_state)
    reader.get_many(
        ("utilization.gpu_percent", "utilization.memory_percent"),
        "nvmlDeviceGetUtilizationRates",
        convert=lambda rates: (int(rates.gpu), int(rates.memory)),
    )


def read_power(reader: DeviceReader) -> None:
    reader.get("power.draw_watts", "nvmlDeviceGetPowerUsage", convert=names.watts)
    reader.get("power.limit_watts", "nvmlDeviceGetPowerManagementLimit", convert=names.watts)
    reader.get("power.enforced_limit_watts", "nvmlDeviceGetEnforcedPowerLimit", convert=names.watts)
    reader.get("power.default_limit_watts", "nvmlDeviceGetPowerManagementDefaultLimit", convert=names.watts)
    reader.get_many(
        ("power.min_limit_watts", "power.max_limit_watts"),
        "nvmlDeviceGetPowerManagementLimitConstraints",
        convert=lambda pair: (names.watts(pair[0]), names.watts(pair[1])),
    )
    reader.get("power.energy_joules", "nvmlDeviceGetTotalEnergyConsumption", convert=names.watts)


def read_thermal(reader: DeviceReader) -> None:
    reader.get("temperature.gpu_celsius", "nvmlDeviceGetTemperature", 0)
    for name, threshold in _THRESHOLDS.items():
        reader.get(f"temperature.{name}", "nvmlDeviceGetTemperatureThreshold", threshold)
    reader.get("fan_percent", "nvmlDeviceGetFanSpeed")
    _field(reader, "temperature.memory_celsius", _FIELD_MEMORY_TEMPERATURE, int)
    _field(
        reader,
        "recovery_action",
        _FIELD_RECOVERY_ACTION,
        lambda value: names.name_of(names.RECOVERY_ACTIONS, value),
    )


def _field(reader: DeviceReader, path: str, field: int, convert: Callable[[int], Any]) -> None:
    def take(values: Any) -> Any:
        value = values[0]
        if value.nvmlReturn:
            raise NvmlFailure(int(value.nvmlReturn))
        return convert(field_number(value))

    reader.get(path, "nvmlDeviceGetFieldValues", [field], convert=take)


def read_throttle(reader: DeviceReader) -> None:
    twins = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    reader.get("throttle.reasons", twins, convert=names.reasons_of)
    for policy, name in names.VIOLATIONS.items():
        reader.get(
            f"throttle.counters_ns.{name}",
            "nvmlDeviceGetViolationStatus",
            policy,
            convert=lambda status: int(status.violationTime),
        )


def read_pcie(reader: DeviceReader) -> None:
    reader.get("pcie.generation", "nvmlDeviceGetCurrPcieLinkGeneration")
    reader.get("pcie.width", "nvmlDeviceGetCurrPcieLinkWidth")
    reader.get("pcie.max_generation", "nvmlDeviceGetMaxPcieLinkGeneration")
    reader.get("pcie.max_width", "nvmlDeviceGetMaxPcieLinkWidth")
    reader.get("pcie.replay_count", "nvmlDeviceGetPcieReplayCounter")


def read_placement(reader: DeviceReader) -> None:
    words = max(1, -(-(os.cpu_count() or 1) // 64))
    reader.get("cpu_affinity", "nvmlDeviceGetCpuAffinity", words, convert=lambda mask: names.cpu_list(list(mask)))


def read_modes(reader: DeviceReader) -> None:
    reader.get("persistence_mode", "nvmlDeviceGetPersistenceMode", convert=bool)
    reader.get(
        "compute_mode",
        "nvmlDeviceGetComputeMode",
        convert=lambda value: names.name_of(names.COMPUTE_MODES, value),
    )


def _performance_state(value: int) -> str:
    if not 0 <= value <= 15:
        raise UnreadableError("the driver does not know the performance state")
    return f"P{value}"


def field_number(value: Any) -> int:
    """The number in a field value; which member of the union holds it is in ``valueType``."""
    members = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
    return int(getattr(value.value, names.name_of(members, int(value.valueType))))
