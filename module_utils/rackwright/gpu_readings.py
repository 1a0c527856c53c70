# SPDX-License-Identifier: Apache-2.0
"""Readings of one GPU for the benchmark: clocks, power, event reasons, occupancy.

The binding is whatever the project's NVML code hands out (names as in ``pynvml``); this file only asks it questions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from .gpu_watch import Reading, Watch, busy_reason

#: Bits of the event (throttle) reasons, as in nvml.h.
REASON_BITS = {
    0x1: "idle",
    0x2: "applications_clocks",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake",
    0x100: "display_clocks",
}
#: Field values that count nanoseconds per reason (drivers from about 550 on); absent ones are simply not counted.
COUNTER_FIELDS = {
    "sw_power_cap": "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP",
    "sync_boost": "NVML_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST",
    "sw_thermal_slowdown": "NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN",
    "hw_thermal_slowdown": "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN",
    "hw_power_brake": "NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN",
}
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0


def open_watch(info: Mapping[str, Any], binding: Any = None) -> tuple[Watch, str | None]:
    """Return the watch of a device and why it is busy, or None.

    Without NVML the watch records why, and whether the GPU is busy stays unknown (None).
    """
    try:
        nvml = binding if binding is not None else load_binding()
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(info["uuid"])
        busy = _busy(nvml, handle, unified=bool(info.get("unified_memory")))
    except Exception as error:  # any binding, any NVML error: measured without clocks, and the reason is in the result
        return Watch(None, f"NVML gives no readings of this GPU: {type(error).__name__}: {error}"), None
    return Watch(lambda: reading(nvml, handle)), busy


def load_binding() -> Any:
    """Return a pynvml-compatible binding: nvidia-ml-py where it is installed, else the project's own."""
    from . import nvml

    return nvml.load_binding()


def reading(nvml: Any, handle: Any) -> Reading:
    """Return one reading; what the driver does not give is None."""
    power = _ask(nvml.nvmlDeviceGetPowerUsage, handle)
    return {
        "sm_mhz": _ask(nvml.nvmlDeviceGetClockInfo, handle, _CLOCK_SM),
        "memory_mhz": _ask(nvml.nvmlDeviceGetClockInfo, handle, _CLOCK_MEMORY),
        "power_w": power / 1000 if power is not None else None,
        "temperature_c": _ask(nvml.nvmlDeviceGetTemperature, handle, _TEMPERATURE_GPU),
        "reasons": _reasons(nvml, handle),
        "counters_ns": _counters(nvml, handle),
    }


def _ask(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except Exception:  # not supported, lost, no permission: this reading is null, and the series says so
        return None


def _reasons(nvml: Any, handle: Any) -> list[str] | None:
    # named ThrottleReasons before driver branch 535; a binding may know only one of the names
    for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
        function = getattr(nvml, name, None)
        bits = _ask(function, handle) if function is not None else None
        if bits is not None:
            return [reason for bit, reason in REASON_BITS.items() if bits & bit]
    return None


def _counters(nvml: Any, handle: Any) -> dict[str, int]:
    ids = {reason: getattr(nvml, field) for reason, field in COUNTER_FIELDS.items() if hasattr(nvml, field)}
    function = getattr(nvml, "nvmlDeviceGetFieldValues", None)
    values = _ask(function, handle, list(ids.values())) if function is not None and ids else None
    if values is None:
        return {}
    return {reason: int(item.value.ullVal) for reason, item in zip(ids, values) if item.nvmlReturn == 0}


def _busy(nvml: Any, handle: Any, unified: bool) -> str | None:
    processes = [
        {"pid": int(process.pid), "name": _process_name(int(process.pid))}
        for process in _ask(nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    ]
    memory = None if unified else _ask(nvml.nvmlDeviceGetMemoryInfo, handle)
    used, total = (int(memory.used), int(memory.total)) if memory is not None else (None, None)
    return busy_reason(processes, used, total, [os.getpid()])


def _process_name(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as handle:
            return handle.read().strip()
    except OSError:
        return None
