# SPDX-License-Identifier: Apache-2.0
"""Read the modes of the GPUs and carry out one step, through NVML. Runs in a child process: any call may hang."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from . import nvml_ctypes, nvml_modes
from .nvml_errors import FUNCTION_NOT_FOUND, NOT_SUPPORTED, NvmlFailure
from .sysfs import process_name

_ABSENT = (NOT_SUPPORTED, FUNCTION_NOT_FOUND)


def read_devices(sysroot: str = "/") -> list[dict[str, Any]]:
    """Return the modes of every GPU. A GPU that does not answer has only ``error`` beside its index."""
    return [read_device(index, sysroot) for index in range(nvml_modes.start())]


def read_device(index: int, sysroot: str = "/") -> dict[str, Any]:
    """Return the modes of one GPU as plain data.

    ``mig``: current, pending, resetless, profiles, instances; ``ecc``: current, pending; ``power_limit_w``: current,
    default, min, max in watts; ``application_clocks_mhz``: current and default as memory and graphics, and the
    supported ones; ``locked_clocks_mhz``: the supported clocks, rising; ``persistence_mode``, ``compute_mode``.
    """
    record: dict[str, Any] = {"index": index, "uuid": None, "name": None, "error": None, "missing": {}, "processes": []}
    try:
        handle = nvml_modes.handle_at(index)
        record["uuid"] = nvml_ctypes.nvmlDeviceGetUUID(handle)
        record["name"] = nvml_ctypes.nvmlDeviceGetName(handle)
        record["pci"] = nvml_ctypes.nvmlDeviceGetPciInfo(handle).busId.decode("ascii", "replace")
        record["minor"] = nvml_modes.number("nvmlDeviceGetMinorNumber", handle)
        record["processes"] = _processes(handle, sysroot)
        for mode, read in _READERS.items():
            try:
                record[mode] = read(handle)
            except NvmlFailure as failure:
                if failure.value not in _ABSENT:
                    raise
                record[mode], record["missing"][mode] = None, str(failure)
    except (NvmlFailure, nvml_ctypes.NVMLError) as failure:
        record["error"] = str(NvmlFailure(failure.value))
    return record


def _mig(handle: Any) -> dict[str, Any]:
    current, pending = nvml_modes.pair("nvmlDeviceGetMigMode", handle)
    profiles = nvml_modes.mig_profiles(handle)
    instances = nvml_modes.mig_instances(handle, profiles) if current else []
    return {
        "current": bool(current),
        "pending": bool(pending),
        "resetless": nvml_modes.needs_no_reset(handle),
        "profiles": [dataclasses.asdict(one) for one in profiles],
        "instances": [dataclasses.asdict(one) for one in instances],
    }


def _ecc(handle: Any) -> dict[str, bool]:
    current, pending = nvml_modes.pair("nvmlDeviceGetEccMode", handle)
    return {"current": bool(current), "pending": bool(pending)}


def _power(handle: Any) -> dict[str, float]:
    low, high = nvml_modes.pair("nvmlDeviceGetPowerManagementLimitConstraints", handle)
    return {
        "current": nvml_modes.number("nvmlDeviceGetPowerManagementLimit", handle) / 1000,
        "default": nvml_modes.number("nvmlDeviceGetPowerManagementDefaultLimit", handle) / 1000,
        "min": low / 1000,
        "max": high / 1000,
    }


def _application_clocks(handle: Any) -> dict[str, Any]:
    return {
        "current": dict(zip(("memory", "graphics"), nvml_modes.application_clocks(handle))),
        "default": dict(zip(("memory", "graphics"), nvml_modes.default_application_clocks(handle))),
        "supported_memory": nvml_modes.supported_memory_clocks(handle),
        "supported_graphics": nvml_modes.supported_clocks(handle),
    }


def _locked_clocks(handle: Any) -> dict[str, list[int]]:
    return {"supported": nvml_modes.supported_clocks(handle)}


def _persistence(handle: Any) -> bool:
    return bool(nvml_modes.number("nvmlDeviceGetPersistenceMode", handle))


def _compute_mode(handle: Any) -> str:
    value = nvml_modes.number("nvmlDeviceGetComputeMode", handle)
    names = {number: name for name, number in nvml_modes.COMPUTE_MODES.items()}
    return names.get(value, f"mode {value}")


_READERS: dict[str, Callable[[Any], Any]] = {
    "mig": _mig,
    "ecc": _ecc,
    "power_limit_w": _power,
    "application_clocks_mhz": _application_clocks,
    "locked_clocks_mhz": _locked_clocks,
    "persistence_mode": _persistence,
    "compute_mode": _compute_mode,
}


def _processes(handle: Any, sysroot: str) -> list[dict[str, Any]]:
    """Return the processes NVML knows on a GPU, on all of its MIG instances too."""
    found: set[int] = set()
    for kind in ("Compute", "Graphics", "MPSCompute"):
        get = getattr(nvml_ctypes, f"nvmlDeviceGet{kind}RunningProcesses")
        try:
            found |= {process.pid for process in get(handle)}
        except nvml_ctypes.NVMLError as error:
            if error.value not in _ABSENT:
                raise
    return [{"pid": pid, "name": process_name(pid, sysroot)} for pid in sorted(found)]


# ---- steps ----


def carry_out(index: int, kind: str, value: Any) -> int:
    """Do one step on one GPU; returns 0, or NVML's number of why a MIG mode is only pending. Raises NvmlFailure."""
    nvml_modes.start()
    handle = nvml_modes.handle_at(index)
    if kind == "mig_mode":
        return _switch_mig(handle, value)
    _DOERS[kind](handle, value)
    return 0


def _switch_mig(handle: Any, enabled: bool) -> int:
    """Switch the MIG mode. The persistence daemon keeps the GPU in use, which can keep the driver from resetting it:
    then once more without persistence mode, which comes back afterwards."""
    status = nvml_modes.set_mig_mode(handle, enabled)
    if status != nvml_modes.IN_USE or not _persistent(handle):
        return status
    nvml_modes.set_persistence(handle, False)
    try:
        return nvml_modes.set_mig_mode(handle, enabled)
    finally:
        nvml_modes.set_persistence(handle, True)


def _persistent(handle: Any) -> bool:
    try:
        return _persistence(handle)
    except NvmlFailure as failure:
        if failure.value in _ABSENT:
            return False
        raise


def _application(handle: Any, value: dict[str, int]) -> None:
    nvml_modes.set_application_clocks(handle, value["memory"], value["graphics"])


def _lock(handle: Any, value: list[int] | None) -> None:
    if value is None:
        nvml_modes.unlock_clocks(handle)
    else:
        nvml_modes.lock_clocks(handle, *value)


def _create(handle: Any, value: list[Any]) -> None:
    profile_id, start, size, compute = value
    slices = compute if isinstance(compute, list) else [compute]
    nvml_modes.create_instance(handle, profile_id, start, size, tuple(slices))


def _destroy_at(handle: Any, value: list[int]) -> None:
    profile_id, start = value
    for one in nvml_modes.mig_instances(handle, nvml_modes.mig_profiles(handle)):
        if (one.profile_id, one.start) == (profile_id, start):
            nvml_modes.destroy_instance(handle, one.id)


_DOERS: dict[str, Callable[[Any, Any], None]] = {
    "ecc": nvml_modes.set_ecc,
    "persistence_mode": nvml_modes.set_persistence,
    "power_limit_w": lambda handle, watts: nvml_modes.set_power_limit(handle, round(watts * 1000)),
    "compute_mode": nvml_modes.set_compute_mode,
    "application_clocks_mhz": _application,
    "locked_clocks_mhz": _lock,
    "create": _create,
    "destroy": nvml_modes.destroy_instance,
    "destroy_at": _destroy_at,
}
