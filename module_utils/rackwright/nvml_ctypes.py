# SPDX-License-Identifier: Apache-2.0
"""The part of pynvml that Rackwright uses, on ctypes alone, under pynvml's own names and signatures.

Serves nodes where nothing is installed. The reading code cannot tell the two apart, so there is only one such code;
unit tests compare every structure here with pynvml's. There is no function in this file that changes a device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import byref, c_char, c_int, c_int32, c_int64, c_uint, c_uint32, c_ulong, c_ulonglong
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
WSL_LIBRARY = "/usr/lib/wsl/lib/libnvidia-ml.so.1"

_SUCCESS = 0
_INSUFFICIENT_SIZE = 7
_LIBRARY_NOT_FOUND = 12
_FUNCTION_NOT_FOUND = 13
_NOT_AVAILABLE = 0xFFFFFFFFFFFFFFFF

_ENGINES = tuple(f"shared{name}Count" for name in ("CopyEngine", "Decoder", "Encoder", "Jpeg", "Ofa"))
_SRAM_KINDS = ("UncParity", "UncSecDed", "Cor")

nvmlLib: Any = None


class NVMLError(Exception):
    """An NVML call failed; ``value`` is the return code."""

    def __init__(self, value: int) -> None:
        self.value = value
        super().__init__(f"NVML error {value}")


class nvmlPciInfo_t(ctypes.Structure):
    _fields_ = [
        ("busIdLegacy", c_char * 16),
        *((name, c_uint) for name in ("domain", "bus", "device", "pciDeviceId", "pciSubSystemId")),
        ("busId", c_char * 32),
    ]


class c_nvmlMemory_t(ctypes.Structure):
    _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]


class c_nvmlMemory_v2_t(ctypes.Structure):
    _fields_ = [("version", c_uint), *((name, c_ulonglong) for name in ("total", "reserved", "free", "used"))]


class c_nvmlUtilization_t(ctypes.Structure):
    _fields_ = [("gpu", c_uint), ("memory", c_uint)]


class c_nvmlProcessInfo_v2_t(ctypes.Structure):
    _fields_ = [
        ("pid", c_uint),
        ("usedGpuMemory", c_ulonglong),
        ("gpuInstanceId", c_uint),
        ("computeInstanceId", c_uint),
    ]


class c_nvmlViolationTime_t(ctypes.Structure):
    _fields_ = [("referenceTime", c_ulonglong), ("violationTime", c_ulonglong)]


class c_nvmlRowRemapperHistogramValues(ctypes.Structure):
    _fields_ = [("max", c_uint), ("high", c_uint), ("partial", c_uint), ("low", c_uint), ("none", c_uint)]


class c_nvmlDeviceAttributes(ctypes.Structure):
    _fields_ = [
        *((name, c_uint) for name in ("multiprocessorCount", *_ENGINES, "gpuInstanceSliceCount")),
        ("computeInstanceSliceCount", c_uint),
        ("memorySizeMB", c_ulonglong),
    ]


class c_nvmlValue_t(ctypes.Union):
    _fields_ = [
        ("dVal", ctypes.c_double),
        ("uiVal", c_uint),
        ("ulVal", c_ulong),
        ("ullVal", c_ulonglong),
        ("sllVal", ctypes.c_longlong),
        ("siVal", c_int),
        ("usVal", ctypes.c_ushort),
    ]


class c_nvmlFieldValue_t(ctypes.Structure):
    _fields_ = [
        ("fieldId", c_uint32),
        ("scopeId", c_uint32),
        ("timestamp", c_int64),
        ("latencyUsec", c_int64),
        ("valueType", c_uint),
        ("nvmlReturn", c_uint),
        ("value", c_nvmlValue_t),
    ]


class c_nvmlGpuFabricInfo_t(ctypes.Structure):
    _fields_ = [("clusterUuid", ctypes.c_uint8 * 16), ("status", c_uint), ("cliqueId", c_uint32), ("state", c_uint)]


class c_nvmlGpuFabricInfo_v2_t(ctypes.Structure):
    _fields_ = [
        ("version", c_uint),
        ("clusterUuid", ctypes.c_uint8 * 16),
        ("status", c_uint),
        ("cliqueId", c_uint32),
        ("state", c_uint),
        ("healthMask", c_uint32),
    ]

    def __init__(self) -> None:
        super().__init__(version=ctypes.sizeof(type(self)) | (2 << 24))


class c_nvmlEccSramErrorStatus_v1_t(ctypes.Structure):
    _fields_ = [
        ("version", c_uint),
        *((f"{span}{kind}", c_ulonglong) for span in ("aggregate", "volatile") for kind in _SRAM_KINDS),
        *((f"aggregateUncBucket{place}", c_ulonglong) for place in ("L2", "Sm", "Pcie", "Mcu", "Other")),
        ("bThresholdExceeded", c_uint),
    ]


class c_nvmlMarginTemperature_v1_t(ctypes.Structure):
    _fields_ = [("version", c_uint), ("marginTemperature", c_int)]


class c_nvmlRepairStatus_t(ctypes.Structure):
    _fields_ = [("version", c_uint), ("bChannelRepairPending", c_uint), ("bTpcRepairPending", c_uint)]


def version_1(model: Any) -> Any:
    """An empty structure that announces its size and version, as the driver wants it."""
    return model(version=ctypes.sizeof(model) | 1 << 24)


def _load() -> None:
    global nvmlLib
    if nvmlLib is not None:
        return
    for name in (LIBRARY, WSL_LIBRARY):
        try:
            nvmlLib = ctypes.CDLL(name)
            return
        except OSError:
            continue
    raise NVMLError(_LIBRARY_NOT_FOUND)


def _raw(symbol: str, *args: Any) -> int:
    """Call a function of the library and return its code; a symbol it does not export answers as NVML would."""
    _load()
    try:
        function = getattr(nvmlLib, symbol)
    except AttributeError:
        return _FUNCTION_NOT_FOUND
    return int(function(*args))


def _check(code: int) -> None:
    if code != _SUCCESS:
        raise NVMLError(code)


def _system_text(symbol: str, size: int = 96) -> Callable[[], str]:
    def get() -> str:
        buffer = ctypes.create_string_buffer(size)
        _check(_raw(symbol, buffer, c_uint(size)))
        return buffer.value.decode("utf-8", "replace")

    return get


def _system_number(symbol: str, ctype: Any = c_uint) -> Callable[[], int]:
    def get() -> int:
        cell = ctype()
        _check(_raw(symbol, byref(cell)))
        return int(cell.value)

    return get


def _text(symbol: str, size: int = 96) -> Callable[[Any], str]:
    def get(handle: Any) -> str:
        buffer = ctypes.create_string_buffer(size)
        _check(_raw(symbol, handle, buffer, c_uint(size)))
        return buffer.value.decode("utf-8", "replace")

    return get


def _number(symbol: str, ctype: Any = c_uint) -> Callable[..., int]:
    """A getter of one number; whatever selects it (sensor, clock, link, second device) is passed on."""

    def get(handle: Any, *selectors: Any) -> int:
        cell = ctype()
        _check(_raw(symbol, handle, *(_argument(s) for s in selectors), byref(cell)))
        return int(cell.value)

    return get


def _numbers(symbol: str, count: int, ctype: Any = c_uint) -> Callable[[Any], tuple[int, ...]]:
    def get(handle: Any) -> tuple[int, ...]:
        cells = [ctype() for _ in range(count)]
        _check(_raw(symbol, handle, *(byref(cell) for cell in cells)))
        return tuple(int(cell.value) for cell in cells)

    return get


def _struct(symbol: str, model: Any) -> Callable[..., Any]:
    def get(handle: Any, *selectors: Any) -> Any:
        cell = model()
        _check(_raw(symbol, handle, *(_argument(s) for s in selectors), byref(cell)))
        return cell

    return get


def _handle(symbol: str) -> Callable[..., Any]:
    def get(*selectors: Any) -> Any:
        cell = ctypes.c_void_p()
        _check(_raw(symbol, *(_argument(s) for s in selectors), byref(cell)))
        return cell

    return get


def _argument(value: Any) -> Any:
    return c_uint(value) if isinstance(value, int) else value


def _processes(symbol: str) -> Callable[[Any], list[Any]]:
    def get(handle: Any) -> list[Any]:
        count = c_uint(0)
        code = _raw(symbol, handle, byref(count), None)
        if code == _SUCCESS:
            return []
        if code != _INSUFFICIENT_SIZE:
            raise NVMLError(code)
        count.value = count.value * 2 + 5  # more may start between the two calls
        entries = (c_nvmlProcessInfo_v2_t * count.value)()
        _check(_raw(symbol, handle, byref(count), entries))
        return [_Process(entries[i]) for i in range(count.value)]

    return get


class _Process:
    def __init__(self, entry: c_nvmlProcessInfo_v2_t) -> None:
        self.pid = int(entry.pid)
        self.usedGpuMemory = None if entry.usedGpuMemory == _NOT_AVAILABLE else int(entry.usedGpuMemory)


def _into(symbol: str) -> Callable[[Any, Any], int]:
    """A getter that fills what the caller points at, a buffer or a structure."""

    def get(handle: Any, target: Any) -> int:
        _check(_raw(symbol, handle, target))
        return _SUCCESS

    return get


def nvmlInit() -> None:
    _check(_raw("nvmlInitWithFlags", c_uint(0)))


def nvmlShutdown() -> None:
    _check(_raw("nvmlShutdown"))


def nvmlDeviceGetRetiredPages(handle: Any, cause: int) -> list[int]:
    count = c_uint(0)
    code = _raw("nvmlDeviceGetRetiredPages", handle, c_uint(cause), byref(count), None)
    if code not in (_SUCCESS, _INSUFFICIENT_SIZE):
        raise NVMLError(code)
    count.value = count.value * 2 + 5
    pages = (c_ulonglong * count.value)()
    _check(_raw("nvmlDeviceGetRetiredPages", handle, c_uint(cause), byref(count), pages))
    return [int(page) for page in pages[: count.value]]


def nvmlDeviceGetCpuAffinity(handle: Any, words: int) -> Any:
    mask = (c_ulonglong * words)()
    _check(_raw("nvmlDeviceGetCpuAffinity", handle, c_uint(words), byref(mask)))
    return mask


def nvmlDeviceGetFieldValues(handle: Any, field_ids: Sequence[Any]) -> Any:
    """Ask several fields at once; one with a scope (a link) is the pair ``(field, scope)``."""
    values = (c_nvmlFieldValue_t * len(field_ids))()
    for value, field_id in zip(values, field_ids):
        value.fieldId, value.scopeId = field_id if isinstance(field_id, tuple) else (field_id, 0)
    _check(_raw("nvmlDeviceGetFieldValues", handle, c_int32(len(field_ids)), byref(values)))
    return values


def nvmlDeviceGetMemoryInfo(handle: Any, version: int | None = None) -> Any:
    info = c_nvmlMemory_v2_t(version=version) if version else c_nvmlMemory_t()
    _check(_raw("nvmlDeviceGetMemoryInfo_v2" if version else "nvmlDeviceGetMemoryInfo", handle, byref(info)))
    return info


def nvmlDeviceValidateInforom(handle: Any) -> None:
    _check(_raw("nvmlDeviceValidateInforom", handle))


def nvmlDeviceGetRepairStatus(handle: Any) -> list[int]:
    status = version_1(c_nvmlRepairStatus_t)
    _check(_raw("nvmlDeviceGetRepairStatus", handle, byref(status)))
    return [int(status.bChannelRepairPending), int(status.bTpcRepairPending)]


def nvmlDeviceGetMarginTemperature(handle: Any) -> int:
    info = version_1(c_nvmlMarginTemperature_v1_t)
    _check(_raw("nvmlDeviceGetMarginTemperature", handle, byref(info)))
    return int(info.marginTemperature)


nvmlDeviceGetCount = _system_number("nvmlDeviceGetCount_v2")
nvmlSystemGetCudaDriverVersion = _system_number("nvmlSystemGetCudaDriverVersion", c_int)
nvmlSystemGetDriverVersion = _system_text("nvmlSystemGetDriverVersion")
nvmlSystemGetNVMLVersion = _system_text("nvmlSystemGetNVMLVersion")
nvmlDeviceGetHandleByIndex = _handle("nvmlDeviceGetHandleByIndex_v2")
nvmlDeviceGetMigDeviceHandleByIndex = _handle("nvmlDeviceGetMigDeviceHandleByIndex")
nvmlDeviceGetName = _text("nvmlDeviceGetName")
nvmlDeviceGetUUID = _text("nvmlDeviceGetUUID")
nvmlDeviceGetSerial = _text("nvmlDeviceGetSerial")
nvmlDeviceGetVbiosVersion = _text("nvmlDeviceGetVbiosVersion")
nvmlDeviceGetInforomImageVersion = _text("nvmlDeviceGetInforomImageVersion", 16)
nvmlDeviceGetApplicationsClock = _number("nvmlDeviceGetApplicationsClock")
nvmlDeviceGetDefaultApplicationsClock = _number("nvmlDeviceGetDefaultApplicationsClock")
nvmlDeviceGetMemoryErrorCounter = _number("nvmlDeviceGetMemoryErrorCounter", c_ulonglong)
nvmlDeviceGetNvLinkErrorCounter = _number("nvmlDeviceGetNvLinkErrorCounter", c_ulonglong)
nvmlDeviceGetGpuFabricInfo = _into("nvmlDeviceGetGpuFabricInfo")
nvmlDeviceGetGpuFabricInfoV = _into("nvmlDeviceGetGpuFabricInfoV")
nvmlDeviceGetGspFirmwareVersion = _into("nvmlDeviceGetGspFirmwareVersion")
nvmlDeviceGetSramEccErrorStatus = _into("nvmlDeviceGetSramEccErrorStatus")
nvmlDeviceGetArchitecture = _number("nvmlDeviceGetArchitecture")
nvmlDeviceGetClockInfo = _number("nvmlDeviceGetClockInfo")
nvmlDeviceGetComputeInstanceId = _number("nvmlDeviceGetComputeInstanceId")
nvmlDeviceGetComputeMode = _number("nvmlDeviceGetComputeMode")
nvmlDeviceGetCurrPcieLinkGeneration = _number("nvmlDeviceGetCurrPcieLinkGeneration")
nvmlDeviceGetCurrPcieLinkWidth = _number("nvmlDeviceGetCurrPcieLinkWidth")
nvmlDeviceGetCurrentClocksEventReasons = _number("nvmlDeviceGetCurrentClocksEventReasons", c_ulonglong)
nvmlDeviceGetCurrentClocksThrottleReasons = _number("nvmlDeviceGetCurrentClocksThrottleReasons", c_ulonglong)
nvmlDeviceGetEnforcedPowerLimit = _number("nvmlDeviceGetEnforcedPowerLimit")
nvmlDeviceGetFanSpeed = _number("nvmlDeviceGetFanSpeed")
nvmlDeviceGetGpuInstanceId = _number("nvmlDeviceGetGpuInstanceId")
nvmlDeviceGetMaxClockInfo = _number("nvmlDeviceGetMaxClockInfo")
nvmlDeviceGetMaxMigDeviceCount = _number("nvmlDeviceGetMaxMigDeviceCount")
nvmlDeviceGetMaxPcieLinkGeneration = _number("nvmlDeviceGetMaxPcieLinkGeneration")
nvmlDeviceGetMaxPcieLinkWidth = _number("nvmlDeviceGetMaxPcieLinkWidth")
nvmlDeviceGetMinorNumber = _number("nvmlDeviceGetMinorNumber")
nvmlDeviceGetNumGpuCores = _number("nvmlDeviceGetNumGpuCores")
nvmlDeviceGetNvLinkRemoteDeviceType = _number("nvmlDeviceGetNvLinkRemoteDeviceType")
nvmlDeviceGetNvLinkState = _number("nvmlDeviceGetNvLinkState")
nvmlDeviceGetNvLinkVersion = _number("nvmlDeviceGetNvLinkVersion")
nvmlDeviceGetP2PStatus = _number("nvmlDeviceGetP2PStatus")
nvmlDeviceGetPcieReplayCounter = _number("nvmlDeviceGetPcieReplayCounter")
nvmlDeviceGetPerformanceState = _number("nvmlDeviceGetPerformanceState")
nvmlDeviceGetPersistenceMode = _number("nvmlDeviceGetPersistenceMode")
nvmlDeviceGetPowerManagementDefaultLimit = _number("nvmlDeviceGetPowerManagementDefaultLimit")
nvmlDeviceGetPowerManagementLimit = _number("nvmlDeviceGetPowerManagementLimit")
nvmlDeviceGetPowerUsage = _number("nvmlDeviceGetPowerUsage")
nvmlDeviceGetRetiredPagesPendingStatus = _number("nvmlDeviceGetRetiredPagesPendingStatus")
nvmlDeviceGetTemperature = _number("nvmlDeviceGetTemperature")
nvmlDeviceGetTemperatureThreshold = _number("nvmlDeviceGetTemperatureThreshold")
nvmlDeviceGetTopologyCommonAncestor = _number("nvmlDeviceGetTopologyCommonAncestor")
nvmlDeviceGetTotalEccErrors = _number("nvmlDeviceGetTotalEccErrors", c_ulonglong)
nvmlDeviceGetTotalEnergyConsumption = _number("nvmlDeviceGetTotalEnergyConsumption", c_ulonglong)
nvmlDeviceGetCudaComputeCapability = _numbers("nvmlDeviceGetCudaComputeCapability", 2, c_int)
nvmlDeviceGetEccMode = _numbers("nvmlDeviceGetEccMode", 2)
nvmlDeviceGetMigMode = _numbers("nvmlDeviceGetMigMode", 2)
nvmlDeviceGetPowerManagementLimitConstraints = _numbers("nvmlDeviceGetPowerManagementLimitConstraints", 2)
nvmlDeviceGetRemappedRows = _numbers("nvmlDeviceGetRemappedRows", 4)
nvmlDeviceGetAttributes = _struct("nvmlDeviceGetAttributes_v2", c_nvmlDeviceAttributes)
nvmlDeviceGetNvLinkRemotePciInfo = _struct("nvmlDeviceGetNvLinkRemotePciInfo_v2", nvmlPciInfo_t)
nvmlDeviceGetPciInfo = _struct("nvmlDeviceGetPciInfo_v3", nvmlPciInfo_t)
nvmlDeviceGetRowRemapperHistogram = _struct("nvmlDeviceGetRowRemapperHistogram", c_nvmlRowRemapperHistogramValues)
nvmlDeviceGetUtilizationRates = _struct("nvmlDeviceGetUtilizationRates", c_nvmlUtilization_t)
nvmlDeviceGetViolationStatus = _struct("nvmlDeviceGetViolationStatus", c_nvmlViolationTime_t)
nvmlDeviceGetComputeRunningProcesses = _processes("nvmlDeviceGetComputeRunningProcesses_v3")
nvmlDeviceGetGraphicsRunningProcesses = _processes("nvmlDeviceGetGraphicsRunningProcesses_v3")
nvmlDeviceGetMPSComputeRunningProcesses = _processes("nvmlDeviceGetMPSComputeRunningProcesses_v3")
