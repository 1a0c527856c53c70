# SPDX-License-Identifier: Apache-2.0
"""Readings of one GPU for the benchmark: clocks, power, event reasons, occupancy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from . import nvml_names
from .gpu_watch import Reading, Watch, busy_reason
from .nvml import Nvml, choose_binding
from .nvml_errors import NvmlFailure

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
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0


def open_watch(info: Mapping[str, Any], nvml: Nvml | None = None) -> tuple[Watch, str | None]:
    """Return the watch of a device and why it is busy, or None.

    Without NVML the watch records why, and whether the GPU is busy stays unknown (None).
    """
    nvml = nvml or choose_binding()[0]
    try:
        nvml.call("nvmlInit")
        handle = _find(nvml, str(info.get("uuid")))
    except NvmlFailure as failure:
        return Watch(None, f"NVML gives no readings of this GPU: {failure}"), None
    if handle is None:
        return Watch(None, f"NVML knows no GPU {info.get('uuid')}"), None
    return Watch(lambda: reading(nvml, handle)), _busy(nvml, handle, unified=bool(info.get("unified_memory")))


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


def _busy(nvml: Nvml, handle: Any, unified: bool) -> str | None:
    processes = [
        {"pid": int(process.pid), "name": _process_name(int(process.pid))}
        for process in _ask(nvml, "nvmlDeviceGetComputeRunningProcesses", handle) or []
    ]
    memory = None if unified else _ask(nvml, "nvmlDeviceGetMemoryInfo", handle)
    used, total = (int(memory.used), int(memory.total)) if memory is not None else (None, None)
    drawing = _ask(nvml, "nvmlDeviceGetGraphicsRunningProcesses", handle)
    return busy_reason(processes, used, total, [os.getpid()], desktop=bool(drawing) or os.path.exists(_WINDOWS_GPU))


def _process_name(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as handle:
            return handle.read().strip()
    except OSError:
        return None
