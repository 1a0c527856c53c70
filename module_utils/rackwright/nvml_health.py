# SPDX-License-Identifier: Apache-2.0
"""What only a check of health asks of a device: error counters by place, repairs, fabric bits, time below the clocks.

Hundreds of calls for a node of eight GPUs, so they stay out of the facts that every run gathers. Each value is guarded
as those of nvml_device are; counters of NVLinks are lists by link, None as a whole where no link has them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from . import nvml_ctypes
from . import nvml_names as names
from .nvml_device import field_number
from .nvml_errors import NOT_SUPPORTED, NvmlFailure, UnreadableError, reason_for
from .nvml_reader import DeviceReader

_MEMORY_V2 = 0x02000028
_CORRUPTED = 14  # the InfoROM, as nvmlDeviceValidateInforom says it
_CLOCKS = {"graphics": 0, "memory": 2}
_PLACES = {"dram": 2, "sram": 7}
_KINDS = {"corrected": 0, "uncorrected": 1}
_SPANS = {"volatile": 0, "aggregate": 1}
#: field values that count nanoseconds below the wanted clocks, by reason
EVENT_FIELDS = {
    "sw_power_cap": 74,
    "sync_boost": 76,
    "sw_thermal_slowdown": 269,
    "hw_thermal_slowdown": 270,
    "hw_power_brake_slowdown": 271,
}
#: counters of a link up to NVLink 4, by nvmlDeviceGetNvLinkErrorCounter
LINK_COUNTERS = {"replay": 0, "recovery": 1, "crc_flit": 2, "crc_data": 3, "ecc_data": 4}
_FIELD_SPEED, _FIELD_RECOVERY_FAILED, _FIELD_EFFECTIVE_BER = 164, 214, 220
# two bits each in the fabric's health mask: 0 not supported, 1 true, 2 false
_FABRIC_BITS = {"degraded_bandwidth": 0, "route_recovery": 2, "route_unhealthy": 4, "access_timeout_recovery": 6}
_FABRIC_CONFIGURATIONS = {
    1: "none",
    2: "incorrect_system_guid",
    3: "incorrect_chassis_serial",
    4: "no_partition",
    5: "insufficient_nvlinks",
    6: "incompatible_gpu_firmware",
    7: "invalid_location",
    8: "gpu_state_invalid",
}
#: paths of the part ``health`` that are a value or a list each; the schema has the same
PATHS = (
    *(f"ecc.{span}.{kind}.{place}" for span in _SPANS for kind in _KINDS for place in _PLACES),
    *("ecc.sram_threshold_exceeded", "repair.channel_pending", "repair.tpc_pending"),
    *("inforom.valid", "inforom.image_version", "memory.reserved_bytes", "memory.used_bytes"),
    "temperature.margin_celsius",
    *(f"clocks.{edge}{name}_mhz" for name in _CLOCKS for edge in ("application_", "default_application_")),
    *(f"event_counters_ns.{name}" for name in EVENT_FIELDS),
    *(f"nvlink.{name}" for name in ("speed_mbps", *LINK_COUNTERS, "recovery_failed", "effective_ber")),
    *(f"fabric.{name}" for name in (*_FABRIC_BITS, "incorrect_configuration")),
)


def read_health(reader: DeviceReader) -> None:
    """Fill the part ``health`` of the reader's record, which read_device has filled with the rest."""
    for part in (_ecc, _repair, _inforom, _memory, _temperature, _clocks, _event_counters, _nvlink, _fabric):
        part(reader)


def _ecc(reader: DeviceReader) -> None:
    for span, counter in _SPANS.items():
        for kind, error in _KINDS.items():
            for place, location in _PLACES.items():
                path = f"health.ecc.{span}.{kind}.{place}"
                reader.get(path, "nvmlDeviceGetMemoryErrorCounter", error, counter, location, convert=int)
    status = nvml_ctypes.version_1(nvml_ctypes.c_nvmlEccSramErrorStatus_v1_t)
    reader.get(
        "health.ecc.sram_threshold_exceeded",
        "nvmlDeviceGetSramEccErrorStatus",
        ctypes.byref(status),
        convert=lambda _: bool(status.bThresholdExceeded),
    )


def _repair(reader: DeviceReader) -> None:
    paths = ("health.repair.channel_pending", "health.repair.tpc_pending")
    reader.get_many(paths, "nvmlDeviceGetRepairStatus", convert=lambda pair: (bool(pair[0]), bool(pair[1])))


def _inforom(reader: DeviceReader) -> None:
    path = "health.inforom.valid"
    try:
        reader.ask("nvmlDeviceValidateInforom")
        reader.record.put(path, True)
    except NvmlFailure as failure:
        if failure.value == _CORRUPTED:
            reader.record.put(path, False)
        else:
            reader.record.miss(path, str(failure))
    reader.get("health.inforom.image_version", "nvmlDeviceGetInforomImageVersion", convert=names.text)


def _memory(reader: DeviceReader) -> None:
    """Version 2 of the memory information keeps what the driver reserves apart from what is used."""
    reader.get_many(
        ("health.memory.reserved_bytes", "health.memory.used_bytes"),
        "nvmlDeviceGetMemoryInfo",
        _MEMORY_V2,
        convert=lambda info: (int(info.reserved), int(info.used)),
    )


def _temperature(reader: DeviceReader) -> None:
    """Distance to the slowdown; Hopper and later tell this in place of thresholds."""
    reader.get("health.temperature.margin_celsius", "nvmlDeviceGetMarginTemperature", convert=int)


def _clocks(reader: DeviceReader) -> None:
    for name, clock in _CLOCKS.items():
        reader.get(f"health.clocks.application_{name}_mhz", "nvmlDeviceGetApplicationsClock", clock)
        reader.get(f"health.clocks.default_application_{name}_mhz", "nvmlDeviceGetDefaultApplicationsClock", clock)


def _event_counters(reader: DeviceReader) -> None:
    answers = _fields(reader, list(EVENT_FIELDS.values()))
    for name, answer in zip(EVENT_FIELDS, answers):
        _put(reader, f"health.event_counters_ns.{name}", answer)


def _nvlink(reader: DeviceReader) -> None:
    count = len(reader.record.get("nvlink.links") or [])
    why = reader.record.missing.get("nvlink.links", "")
    columns: dict[str, list[Any]] = {name: [] for name in LINK_COUNTERS}
    for link in range(count):
        for name, counter in LINK_COUNTERS.items():
            columns[name].append(_guarded(reader, "nvmlDeviceGetNvLinkErrorCounter", link, counter))
    for name, field in (
        ("speed_mbps", _FIELD_SPEED),
        ("recovery_failed", _FIELD_RECOVERY_FAILED),
        ("effective_ber", _FIELD_EFFECTIVE_BER),
    ):
        columns[name] = _fields(reader, [(field, link) for link in range(count)]) if count else []
    columns["effective_ber"] = [bit_error_rate(one) for one in columns["effective_ber"]]
    for name, answers in columns.items():
        _put_list(reader, f"health.nvlink.{name}", answers, why)


def bit_error_rate(answer: Any) -> Any:
    """A rate out of the driver's encoding: mantissa in bits 8 to 11, negative decimal exponent in bits 0 to 7."""
    return (answer >> 8 & 0xF) * 10.0 ** -(answer & 0xFF) if isinstance(answer, int) else answer


def _fabric(reader: DeviceReader) -> None:
    info = nvml_ctypes.c_nvmlGpuFabricInfo_v2_t()
    mask, why = 0, reason_for(NOT_SUPPORTED)
    try:
        reader.ask("nvmlDeviceGetGpuFabricInfoV", ctypes.byref(info))
        mask = int(info.healthMask)
    except NvmlFailure as failure:
        why = str(failure)
    for name, shift in _FABRIC_BITS.items():
        reader.record.put(f"health.fabric.{name}", {1: True, 2: False}.get(mask >> shift & 3), why)
    configuration = _FABRIC_CONFIGURATIONS.get(mask >> 8 & 0xF)
    reader.record.put("health.fabric.incorrect_configuration", configuration, why)


def _guarded(reader: DeviceReader, function: str, *args: Any) -> int | NvmlFailure:
    try:
        return int(reader.ask(function, *args))
    except NvmlFailure as failure:
        return failure


def _fields(reader: DeviceReader, wanted: Sequence[Any]) -> list[Any]:
    """Ask field values; each answer is a number or the failure in its place."""
    try:
        values = reader.ask("nvmlDeviceGetFieldValues", list(wanted))
    except NvmlFailure as failure:
        return [failure] * len(wanted)
    return [_field(value) for value in list(values)[: len(wanted)]]


def _field(value: Any) -> int | NvmlFailure | UnreadableError:
    if value.nvmlReturn:
        return NvmlFailure(int(value.nvmlReturn))
    try:
        return field_number(value)
    except UnreadableError as error:
        return error


def _put(reader: DeviceReader, path: str, answer: Any) -> None:
    failed = isinstance(answer, Exception)
    reader.record.put(path, None if failed else answer, str(answer) if failed else None)


def _put_list(reader: DeviceReader, path: str, answers: Sequence[Any], why: str) -> None:
    """One list by link, or None where no link has a value; a link alone without one has its own reason."""
    if all(isinstance(answer, Exception) for answer in answers):
        reader.record.miss(path, str(answers[0]) if answers else why or reason_for(NOT_SUPPORTED))
        return
    reader.record.put(path, [None if isinstance(answer, Exception) else answer for answer in answers])
    for link, answer in enumerate(answers):
        if isinstance(answer, Exception):
            reader.record.missing[f"{path}.{link}"] = str(answer)
