# SPDX-License-Identifier: Apache-2.0
"""Readings that take more than one question: NVLink, MIG, processes and the NVSwitch fabric."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from . import nvml_ctypes
from . import nvml_names as names
from .nvml_errors import INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, NvmlFailure, UnreadableError
from .nvml_reader import DeviceReader
from .sysfs import process_name

_MAX_LINKS = 36
_COMPUTE = "nvmlDeviceGetComputeRunningProcesses"
_GRAPHICS = "nvmlDeviceGetGraphicsRunningProcesses"
_MPS = "nvmlDeviceGetMPSComputeRunningProcesses"


def read_nvlink(reader: DeviceReader) -> None:
    links: list[dict[str, Any]] = []
    for link in range(_MAX_LINKS):
        try:
            active: bool | None = bool(reader.ask("nvmlDeviceGetNvLinkState", link))
        except NvmlFailure as failure:
            if link and failure.value in (INVALID_ARGUMENT, NOT_SUPPORTED):
                break  # one past the last link
            if not link or reader.broken is not None:
                reader.record.miss("nvlink.links", str(failure))
                reader.record.miss("nvlink.version", str(failure))
                return
            active = None
            reader.record.missing[f"nvlink.links.{link}.active"] = str(failure)
        links.append({"link": link, "active": active, **_link_peer(reader, link)})
    reader.record.put("nvlink.links", links)
    reader.get(
        "nvlink.version",
        "nvmlDeviceGetNvLinkVersion",
        0,
        convert=lambda value: names.name_of(names.NVLINK_VERSIONS, value),
    )


def _link_peer(reader: DeviceReader, link: int) -> dict[str, Any]:
    peer: dict[str, Any] = {"remote_type": None, "remote_pci_address": None}
    readings: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("remote_type", "nvmlDeviceGetNvLinkRemoteDeviceType", lambda v: names.name_of(names.NVLINK_REMOTES, v)),
        ("remote_pci_address", "nvmlDeviceGetNvLinkRemotePciInfo", lambda info: names.pci_address(info.busId)),
    )
    for key, function, convert in readings:
        try:
            peer[key] = convert(reader.ask(function, link))
        except (NvmlFailure, UnreadableError) as failure:
            reader.record.missing[f"nvlink.links.{link}.{key}"] = str(failure)
    return peer


def read_mig(reader: DeviceReader) -> None:
    mode, _pending = reader.get_many(
        ("mig.mode", "mig.pending"),
        "nvmlDeviceGetMigMode",
        convert=lambda pair: (names.switch(pair[0]), names.switch(pair[1])),
    )
    if mode is None:
        reader.record.miss("mig.instances", reader.record.missing["mig.mode"])
        return
    instances: list[dict[str, Any]] = []
    if mode == "enabled":
        try:
            slots = reader.ask("nvmlDeviceGetMaxMigDeviceCount")
        except NvmlFailure as failure:
            reader.record.miss("mig.instances", str(failure))
            return
        for slot in range(slots):
            try:
                handle = reader.ask("nvmlDeviceGetMigDeviceHandleByIndex", slot)
            except NvmlFailure as failure:
                if failure.value in (NOT_FOUND, INVALID_ARGUMENT):
                    continue  # an empty slot
                reader.record.miss("mig.instances", str(failure))
                return
            instances.append(_mig_instance(reader, handle, len(instances)))
    reader.record.put("mig.instances", instances)


def _mig_instance(reader: DeviceReader, handle: Any, position: int) -> dict[str, Any]:
    readings: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("uuid", "nvmlDeviceGetUUID", names.text),
        ("name", "nvmlDeviceGetName", names.text),
        ("gpu_instance_id", "nvmlDeviceGetGpuInstanceId", int),
        ("compute_instance_id", "nvmlDeviceGetComputeInstanceId", int),
        ("memory_total_bytes", "nvmlDeviceGetMemoryInfo", lambda info: int(info.total)),
    )
    instance: dict[str, Any] = {}
    for key, function, convert in readings:
        try:
            instance[key] = convert(reader.nvml.call(function, handle))
        except NvmlFailure as failure:
            instance[key] = None
            reader.record.missing[f"mig.instances.{position}.{key}"] = str(failure)
    return instance


def read_processes(reader: DeviceReader) -> None:
    found: dict[int, dict[str, Any]] = {}
    failures = []
    for kind, function in (("compute", _COMPUTE), ("graphics", _GRAPHICS), ("mps", _MPS)):
        try:
            processes = reader.ask(function)
        except NvmlFailure as failure:
            failures.append(failure)
            continue
        for process in processes:
            entry = found.setdefault(int(process.pid), {"pid": int(process.pid), "types": [], "memory": None})
            entry["types"].append(kind)
            entry["memory"] = process.usedGpuMemory if entry["memory"] is None else entry["memory"]
    if len(failures) == 3:
        reader.record.miss("processes", str(failures[0]))
        return
    reader.record.put("processes", [_process(reader, i, found[pid]) for i, pid in enumerate(sorted(found))])


def _process(reader: DeviceReader, position: int, entry: dict[str, Any]) -> dict[str, Any]:
    name = process_name(entry["pid"], reader.sysroot)
    if name is None:
        reader.record.missing[f"processes.{position}.name"] = "the process is not visible from here"
    if entry["memory"] is None:
        reader.record.missing[f"processes.{position}.used_memory_bytes"] = "the driver does not account it here"
    return {"pid": entry["pid"], "types": entry["types"], "name": name, "used_memory_bytes": entry["memory"]}


def read_fabric(reader: DeviceReader) -> None:
    paths = ("fabric.state", "fabric.status_code")
    try:
        info = _fabric_info(reader)
        # the driver's field is one byte long, whatever the bindings declare; what follows it is padding
        state = names.name_of(names.FABRIC_STATES, int(info.state) & 0xFF)
    except (NvmlFailure, UnreadableError) as failure:
        for path in paths:
            reader.record.miss(path, str(failure))
        return
    reader.record.put(paths[0], state)
    reader.record.put(paths[1], int(info.status))


def _fabric_info(reader: DeviceReader) -> Any:
    # never the binding's own structures: in pynvml up to 12.570 they do not match the driver's
    newest: NvmlFailure | None = None
    for function, model in (
        ("nvmlDeviceGetGpuFabricInfoV", nvml_ctypes.c_nvmlGpuFabricInfo_v2_t),
        ("nvmlDeviceGetGpuFabricInfo", nvml_ctypes.c_nvmlGpuFabricInfo_t),
    ):
        info = model()
        try:
            reader.ask(function, ctypes.byref(info))
            return info
        except NvmlFailure as failure:
            newest = newest or failure
    raise newest or NvmlFailure(NOT_SUPPORTED)
