# SPDX-License-Identifier: Apache-2.0
"""NVML's setters, and the MIG functions around them: the only file with calls that change a GPU.

On ctypes alone: pynvml's functions of this kind take references in other ways from release to release, and the same
code has to run on nodes where nothing is installed. Unit tests compare every structure with pynvml's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import byref, c_char, c_uint, c_ulonglong
from typing import Any

from . import nvml_ctypes
from .mig_layout import Instance, Profile
from .nvml_ctypes import NVMLError
from .nvml_errors import FUNCTION_NOT_FOUND, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, NvmlFailure

#: activation status of nvmlDeviceSetMigMode when something uses the GPU
IN_USE = 19
_PROFILE_INDICES = 32
_PLACEMENTS = 32
_INSTANCES = 32
#: NVML_COMPUTE_INSTANCE_PROFILE_*: index of the compute instance of so many slices
_COMPUTE_INDEX = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4, 8: 5, 6: 6}
_FIELD_RESETLESS_MIG = 184
COMPUTE_MODES = {"default": 0, "prohibited": 2, "exclusive_process": 3}
_CLOCK_GRAPHICS, _CLOCK_MEMORY = 0, 2


class nvmlGpuInstancePlacement_t(ctypes.Structure):
    _fields_ = [("start", c_uint), ("size", c_uint)]


class c_nvmlGpuInstanceProfileInfo_v2_t(ctypes.Structure):
    _fields_ = [
        ("version", c_uint),
        ("id", c_uint),
        ("isP2pSupported", c_uint),
        ("sliceCount", c_uint),
        ("instanceCount", c_uint),
        ("multiprocessorCount", c_uint),
        ("copyEngineCount", c_uint),
        ("decoderCount", c_uint),
        ("encoderCount", c_uint),
        ("jpegCount", c_uint),
        ("ofaCount", c_uint),
        ("memorySizeMB", c_ulonglong),
        ("name", c_char * 96),
    ]

    def __init__(self) -> None:
        super().__init__(version=ctypes.sizeof(type(self)) | (2 << 24))


class c_nvmlGpuInstanceInfo_t(ctypes.Structure):
    _fields_ = [
        ("device", ctypes.c_void_p),
        ("id", c_uint),
        ("profileId", c_uint),
        ("placement", nvmlGpuInstancePlacement_t),
    ]


class c_nvmlComputeInstanceProfileInfo_t(ctypes.Structure):
    _fields_ = [
        ("id", c_uint),
        ("sliceCount", c_uint),
        ("instanceCount", c_uint),
        ("multiprocessorCount", c_uint),
        ("sharedCopyEngineCount", c_uint),
        ("sharedDecoderCount", c_uint),
        ("sharedEncoderCount", c_uint),
        ("sharedJpegCount", c_uint),
        ("sharedOfaCount", c_uint),
    ]


def call(symbol: str, *args: Any) -> None:
    """Call a function of the library, or raise NvmlFailure with its number."""
    try:
        code = nvml_ctypes._raw(symbol, *(c_uint(arg) if isinstance(arg, int) else arg for arg in args))
    except NVMLError as error:
        code = error.value
    if code:
        raise NvmlFailure(code)


def start() -> int:
    """Initialise NVML and return how many GPUs it sees."""
    count = c_uint()
    call("nvmlInitWithFlags", 0)
    call("nvmlDeviceGetCount_v2", byref(count))
    return int(count.value)


def handle_at(index: int) -> ctypes.c_void_p:
    """Return the handle of the GPU with one index."""
    handle = ctypes.c_void_p()
    call("nvmlDeviceGetHandleByIndex_v2", index, byref(handle))
    return handle


def number(symbol: str, handle: Any, *selectors: int) -> int:
    """Return what a getter of one number says."""
    cell = c_uint()
    call(symbol, handle, *selectors, byref(cell))
    return int(cell.value)


def pair(symbol: str, handle: Any) -> tuple[int, int]:
    """Return what a getter of two numbers says."""
    first, second = c_uint(), c_uint()
    call(symbol, handle, byref(first), byref(second))
    return int(first.value), int(second.value)


# ---- MIG ----


def needs_no_reset(handle: Any) -> bool:
    """Whether the GPU changes its MIG mode without a reset (Hopper and later); False where nobody says."""
    try:
        value = nvml_ctypes.nvmlDeviceGetFieldValues(handle, [_FIELD_RESETLESS_MIG])[0]
    except NVMLError:
        return False
    return value.nvmlReturn == 0 and bool(value.value.uiVal)


def mig_profiles(handle: Any) -> list[Profile]:
    """Return the profiles that the GPU offers; empty where it tells none with its MIG mode off."""
    found = []
    for index in range(_PROFILE_INDICES):
        info = c_nvmlGpuInstanceProfileInfo_v2_t()
        try:
            call("nvmlDeviceGetGpuInstanceProfileInfoV", handle, index, byref(info))
            starts, size = _placements(handle, int(info.id))
        except NvmlFailure as failure:
            if failure.value == INVALID_ARGUMENT:
                break
            if failure.value == NOT_SUPPORTED:
                continue
            raise
        name = info.name.decode("utf-8", "replace").removeprefix("MIG ").strip()
        most, memory = int(info.instanceCount), int(info.memorySizeMB)
        found.append(Profile(int(info.id), name, int(info.sliceCount), size, starts, most, memory))
    return found


def _placements(handle: Any, profile_id: int) -> tuple[tuple[int, ...], int]:
    places, count = (nvmlGpuInstancePlacement_t * _PLACEMENTS)(), c_uint(_PLACEMENTS)
    for symbol in ("nvmlDeviceGetGpuInstancePossiblePlacements_v2", "nvmlDeviceGetGpuInstancePossiblePlacements"):
        try:
            call(symbol, handle, profile_id, places, byref(count))
            break
        except NvmlFailure as failure:
            if failure.value != FUNCTION_NOT_FOUND:
                raise
    else:
        raise NvmlFailure(FUNCTION_NOT_FOUND)
    found = [places[i] for i in range(count.value)]
    if not found:
        raise NvmlFailure(NOT_SUPPORTED)
    return tuple(sorted(int(one.start) for one in found)), int(found[0].size)


def _listed(symbol: str, owner: Any, profile_id: int) -> Iterator[ctypes.c_void_p]:
    handles, count = (ctypes.c_void_p * _INSTANCES)(), c_uint(0)
    try:
        call(symbol, owner, profile_id, handles, byref(count))
    except NvmlFailure as failure:
        if failure.value in (NOT_SUPPORTED, INVALID_ARGUMENT, NOT_FOUND):
            return
        raise
    for value in handles[: count.value]:
        yield ctypes.c_void_p(value)


def mig_instances(handle: Any, profiles: list[Profile]) -> list[Instance]:
    """Return the GPU instances that are there, with the slices of their compute instances."""
    found: dict[int, Instance] = {}
    for profile in profiles:
        for instance in _listed("nvmlDeviceGetGpuInstances", handle, profile.id):
            info = c_nvmlGpuInstanceInfo_t()
            call("nvmlGpuInstanceGetInfo", instance, byref(info))
            compute = tuple(sorted(slices for slices, _ in _compute_instances(instance)))
            place = info.placement
            found[int(info.id)] = Instance(
                int(info.id), int(info.profileId), int(place.start), int(place.size), compute
            )
    return [found[key] for key in sorted(found)]


def _compute_profile(instance: Any, slices: int) -> int | None:
    info = c_nvmlComputeInstanceProfileInfo_t()
    try:
        call("nvmlGpuInstanceGetComputeInstanceProfileInfo", instance, _COMPUTE_INDEX[slices], 0, byref(info))
    except NvmlFailure as failure:
        if failure.value in (NOT_SUPPORTED, INVALID_ARGUMENT):
            return None
        raise
    return int(info.id)


def _compute_instances(instance: Any) -> list[tuple[int, ctypes.c_void_p]]:
    found = []
    for slices in _COMPUTE_INDEX:
        profile = _compute_profile(instance, slices)
        if profile is not None:
            found += [(slices, one) for one in _listed("nvmlGpuInstanceGetComputeInstances", instance, profile)]
    return found


def create_instance(handle: Any, profile_id: int, start: int, size: int, compute: tuple[int, ...]) -> int:
    """Make a GPU instance at its place, with compute instances of so many slices each; return its id.

    Where a compute instance cannot be made the GPU instance is taken away again.
    """
    instance, info = ctypes.c_void_p(), c_nvmlGpuInstanceInfo_t()
    place = nvmlGpuInstancePlacement_t(start, size)
    call("nvmlDeviceCreateGpuInstanceWithPlacement", handle, profile_id, byref(place), byref(instance))
    try:
        call("nvmlGpuInstanceGetInfo", instance, byref(info))
        for slices in compute:
            profile = _compute_profile(instance, slices)
            if profile is None:
                raise NvmlFailure(NOT_SUPPORTED)
            call("nvmlGpuInstanceCreateComputeInstance", instance, profile, byref(ctypes.c_void_p()))
    except NvmlFailure:
        _destroy(instance)
        raise
    return int(info.id)


def destroy_instance(handle: Any, instance_id: int) -> None:
    """Take a GPU instance away, its compute instances first."""
    instance = ctypes.c_void_p()
    call("nvmlDeviceGetGpuInstanceById", handle, instance_id, byref(instance))
    _destroy(instance)


def _destroy(instance: Any) -> None:
    for _slices, compute in _compute_instances(instance):
        call("nvmlComputeInstanceDestroy", compute)
    call("nvmlGpuInstanceDestroy", instance)


# ---- modes, limits, clocks ----


def set_mig_mode(handle: Any, enabled: bool) -> int:
    """Set the pending MIG mode; returns 0 when it took effect, else NVML's number of what kept it from it."""
    activation = c_uint()
    call("nvmlDeviceSetMigMode", handle, int(enabled), byref(activation))
    return int(activation.value)


def set_ecc(handle: Any, enabled: bool) -> None:
    """Set the pending ECC mode; it takes effect with the next reset of the GPU."""
    call("nvmlDeviceSetEccMode", handle, int(enabled))


def set_persistence(handle: Any, enabled: bool) -> None:
    """Switch persistence mode."""
    call("nvmlDeviceSetPersistenceMode", handle, int(enabled))


def set_compute_mode(handle: Any, mode: str) -> None:
    """Set the compute mode by its name in COMPUTE_MODES."""
    call("nvmlDeviceSetComputeMode", handle, COMPUTE_MODES[mode])


def set_power_limit(handle: Any, milliwatts: int) -> None:
    """Set the power limit."""
    call("nvmlDeviceSetPowerManagementLimit", handle, milliwatts)


def lock_clocks(handle: Any, low_mhz: int, high_mhz: int) -> None:
    """Keep the GPU's clock between two frequencies."""
    call("nvmlDeviceSetGpuLockedClocks", handle, low_mhz, high_mhz)


def unlock_clocks(handle: Any) -> None:
    """Let the GPU choose its clock again."""
    call("nvmlDeviceResetGpuLockedClocks", handle)


def application_clocks(handle: Any) -> tuple[int, int]:
    """Return the application clocks as (memory, graphics) in MHz."""
    return (
        number("nvmlDeviceGetApplicationsClock", handle, _CLOCK_MEMORY),
        number("nvmlDeviceGetApplicationsClock", handle, _CLOCK_GRAPHICS),
    )


def default_application_clocks(handle: Any) -> tuple[int, int]:
    """Return the default application clocks as (memory, graphics) in MHz."""
    return (
        number("nvmlDeviceGetDefaultApplicationsClock", handle, _CLOCK_MEMORY),
        number("nvmlDeviceGetDefaultApplicationsClock", handle, _CLOCK_GRAPHICS),
    )


def set_application_clocks(handle: Any, memory_mhz: int, graphics_mhz: int) -> None:
    """Set the application clocks."""
    call("nvmlDeviceSetApplicationsClocks", handle, memory_mhz, graphics_mhz)


def supported_clocks(handle: Any) -> list[int]:
    """Return the graphics clocks in MHz that the GPU supports at its highest memory clock, rising; empty: unknown."""
    try:
        memory = _clock_list("nvmlDeviceGetSupportedMemoryClocks", handle)
        return sorted(_clock_list("nvmlDeviceGetSupportedGraphicsClocks", handle, max(memory))) if memory else []
    except NvmlFailure as failure:
        if failure.value in (NOT_SUPPORTED, FUNCTION_NOT_FOUND):
            return []
        raise


def supported_memory_clocks(handle: Any) -> list[int]:
    """Return the memory clocks in MHz that the GPU supports, rising; empty: unknown."""
    try:
        return sorted(_clock_list("nvmlDeviceGetSupportedMemoryClocks", handle))
    except NvmlFailure as failure:
        if failure.value in (NOT_SUPPORTED, FUNCTION_NOT_FOUND):
            return []
        raise


def _clock_list(symbol: str, handle: Any, *selectors: int) -> list[int]:
    clocks, count = (c_uint * 1024)(), c_uint(1024)
    call(symbol, handle, *selectors, byref(count), clocks)
    return [int(clock) for clock in clocks[: count.value]]
