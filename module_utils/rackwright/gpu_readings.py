# SPDX-License-Identifier: Apache-2.0
"""Readings of one GPU for the benchmark: clocks, power, event reasons, occupancy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import nvml_names
from .gpu_peak import peak_of
from .gpu_watch import Reading, Watch, busy_reason
from .nvml import Nvml, choose_binding
from .nvml_errors import NvmlFailure, UnreadableError

#: Field values that count nanoseconds per event reason; a driver without them answers with an error per field.
COUNTER_FIELDS = {
    "sw_power_cap": 74,
    "sync_boost": 76,
    "sw_thermal_slowdown": 269,
    "hw_thermal_slowdown": 270,
    "hw_power_brake_slowdown": 271,
}
_WINDOWS_GPU = "/dev/dxg"
# named ThrottleReasons before driver branch 535
_REASONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
_LINK = {
    "generation": "nvmlDeviceGetCurrPcieLinkGeneration",
    "width": "nvmlDeviceGetCurrPcieLinkWidth",
    "max_generation": "nvmlDeviceGetMaxPcieLinkGeneration",
    "max_width": "nvmlDeviceGetMaxPcieLinkWidth",
}
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0


@dataclass(frozen=True)
class Meter:
    """What NVML tells of one GPU beside its clocks. Each value is None where the driver does not give it."""

    nvml: Nvml
    handle: Any
    unified: bool = False

    def energy_j(self) -> float | None:
        """Return the joules used since the driver was loaded."""
        millijoules = _ask(self.nvml, "nvmlDeviceGetTotalEnergyConsumption", self.handle)
        return millijoules / 1000 if millijoules is not None else None

    def used_bytes(self) -> int | None:
        """Return the bytes of device memory in use, by every process and the driver."""
        return self.memory()[0]

    def total_bytes(self) -> int | None:
        """Return the bytes of device memory in all."""
        return self.memory()[1]

    def memory(self) -> tuple[int | None, int | None]:
        """Return the bytes in use and in all, of one moment; None of a GPU that shares the system's memory."""
        # such a GPU counts the page cache as used
        memory = None if self.unified else _ask(self.nvml, "nvmlDeviceGetMemoryInfo", self.handle)
        return (int(memory.used), int(memory.total)) if memory is not None else (None, None)

    def utilisation(self) -> int | None:
        """Return the percentage of the last sampling period in which a kernel ran."""
        rates = _ask(self.nvml, "nvmlDeviceGetUtilizationRates", self.handle)
        return int(rates.gpu) if rates is not None else None

    def power_limit_w(self) -> float | None:
        """Return the power limit that is enforced, in watts."""
        milliwatts = _ask(self.nvml, "nvmlDeviceGetEnforcedPowerLimit", self.handle)
        return milliwatts / 1000 if milliwatts is not None else None

    def pci_address(self) -> str | None:
        """Return the address as sysfs writes it (``0000:1b:00.0``)."""
        info = _ask(self.nvml, "nvmlDeviceGetPciInfo", self.handle)
        try:
            return nvml_names.pci_address(info.busId) if info is not None else None
        except UnreadableError:
            return None

    def pcie_link(self) -> dict[str, int | None]:
        """Return generation and width of the PCIe link, now and at most."""
        return {key: _ask(self.nvml, function, self.handle) for key, function in _LINK.items()}

    def peak(self) -> tuple[dict[str, Any] | None, str | None]:
        """Return the catalogue's peaks of this model, or None and why there are none."""
        info = _ask(self.nvml, "nvmlDeviceGetPciInfo", self.handle)
        name = _ask(self.nvml, "nvmlDeviceGetName", self.handle)
        device_id = f"{info.pciDeviceId:08x}"[:4] if info is not None else None
        text = nvml_names.text(name) if name is not None else None
        return peak_of(text, device_id, self.total_bytes(), self.unified)


def open_gpu(info: Mapping[str, Any], nvml: Nvml | None = None) -> tuple[Meter | None, str | None]:
    """Return the meter of the GPU torch runs on, or None and why NVML gives nothing of it."""
    nvml = nvml or choose_binding()[0]
    try:
        nvml.call("nvmlInit")
        handle = _find(nvml, str(info.get("uuid")))
    except NvmlFailure as failure:
        return None, f"NVML gives no readings of this GPU: {failure}"
    if handle is None:
        return None, f"NVML knows no GPU {info.get('uuid')}"
    return Meter(nvml, handle, bool(info.get("unified_memory"))), None


def watch_of(meter: Meter | None, missing: str | None) -> Watch:
    """Return the watch of a GPU; without a meter one that says why it reads nothing."""
    if meter is None:
        return Watch(None, missing)
    return Watch(lambda: reading(meter.nvml, meter.handle))


def busy_of(meter: Meter | None) -> str | None:
    """Return why the GPU is busy, or None; without a meter it stays unknown, which is None too."""
    if meter is None:
        return None
    processes = [
        {"pid": int(process.pid), "name": _process_name(int(process.pid))}
        for process in _ask(meter.nvml, "nvmlDeviceGetComputeRunningProcesses", meter.handle) or []
    ]
    used, total = meter.memory()
    drawing = _ask(meter.nvml, "nvmlDeviceGetGraphicsRunningProcesses", meter.handle)
    return busy_reason(processes, used, total, [os.getpid()], desktop=bool(drawing) or os.path.exists(_WINDOWS_GPU))


def _find(nvml: Nvml, uuid: str) -> Any:
    """Return the handle of a GPU; one that does not answer (it may be lost) is not the one torch runs on."""
    for index in range(int(nvml.call("nvmlDeviceGetCount"))):
        handle = _ask(nvml, "nvmlDeviceGetHandleByIndex", index)
        if handle is not None and _ask(nvml, "nvmlDeviceGetUUID", handle) == uuid:
            return handle
    return None


def reading(nvml: Nvml, handle: Any) -> Reading:
    """Return one reading; what the driver does not give is None."""
    power = _ask(nvml, "nvmlDeviceGetPowerUsage", handle)
    mask = _ask(nvml, _REASONS, handle)
    return {
        "sm_mhz": _ask(nvml, "nvmlDeviceGetClockInfo", handle, _CLOCK_SM),
        "memory_mhz": _ask(nvml, "nvmlDeviceGetClockInfo", handle, _CLOCK_MEMORY),
        "power_w": power / 1000 if power is not None else None,
        "temperature_c": _ask(nvml, "nvmlDeviceGetTemperature", handle, _TEMPERATURE_GPU),
        "memory_used_bytes": Meter(nvml, handle).used_bytes(),
        "reasons": nvml_names.reasons_of(mask) if mask is not None else None,
        "counters_ns": _counters(nvml, handle),
    }


def _ask(nvml: Nvml, names: str | tuple[str, ...], *args: Any) -> Any:
    try:
        return nvml.call(names, *args)
    except NvmlFailure:
        return None


def _counters(nvml: Nvml, handle: Any) -> dict[str, int]:
    values = _ask(nvml, "nvmlDeviceGetFieldValues", handle, list(COUNTER_FIELDS.values()))
    if values is None:
        return {}
    return {reason: int(item.value.ullVal) for reason, item in zip(COUNTER_FIELDS, values) if item.nvmlReturn == 0}


def _process_name(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as handle:
            return handle.read().strip()
    except OSError:
        return None
