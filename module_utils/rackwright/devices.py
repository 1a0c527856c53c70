# SPDX-License-Identifier: Apache-2.0
"""Turn what NVML and the kernel say into one record per GPU. Pure: evidence in, records out."""

from __future__ import annotations

from typing import Any

from . import catalogue
from .record import Record

#: every value a device has; one that no source gives is None with a reason
DEVICE_PATHS = (
    *("index", "state", "error_code", "uuid", "serial", "name", "catalogue_id", "catalogue_candidates"),
    *("architecture", "compute_capability", "cuda_cores", "vbios_version", "gsp_firmware_version", "minor_number"),
    *("pci.address", "pci.vendor_id", "pci.device_id", "pci.subsystem_id", "pci.kernel_driver"),
    *("memory.total_bytes", "memory.used_bytes", "memory.free_bytes", "memory.type"),
    *("utilization.gpu_percent", "utilization.memory_percent"),
    *("ecc.current", "ecc.pending"),
    *(f"ecc.counters.{kind}.{span}" for kind in ("corrected", "uncorrected") for span in ("volatile", "aggregate")),
    *(f"row_remap.{name}" for name in ("correctable", "uncorrectable", "pending", "failure")),
    *(f"row_remap.banks.{name}" for name in ("max", "high", "partial", "low", "none")),
    *("retired_pages.single_bit", "retired_pages.double_bit", "retired_pages.pending"),
    *(f"clocks.{edge}{name}_mhz" for name in ("graphics", "sm", "memory", "video") for edge in ("", "max_")),
    *(f"power.{name}_watts" for name in ("draw", "limit", "enforced_limit", "default_limit", "min_limit", "max_limit")),
    "power.energy_joules",
    *(f"temperature.{name}_celsius" for name in ("gpu", "memory", "slowdown", "shutdown", "gpu_max", "memory_max")),
    *("fan_percent", "performance_state", "throttle.reasons"),
    *(
        f"throttle.counters_ns.{name}"
        for name in ("power", "thermal", "sync_boost", "board_limit", "low_utilization", "reliability")
    ),
    *("pcie.generation", "pcie.width", "pcie.max_generation", "pcie.max_width", "pcie.replay_count"),
    *("nvlink.version", "nvlink.links", "mig.mode", "mig.pending", "mig.instances"),
    *("numa_node", "cpu_affinity", "processes", "persistence_mode", "compute_mode", "recovery_action"),
    *("fabric.state", "fabric.status_code"),
)
_FROM_KERNEL = {
    "pci.address": "address",
    "pci.vendor_id": "vendor_id",
    "pci.device_id": "device_id",
    "pci.subsystem_id": "subsystem_id",
    "pci.kernel_driver": "kernel_driver",
    "numa_node": "numa_node",
    "cpu_affinity": "cpu_affinity",
    "pcie.generation": "generation",
    "pcie.width": "width",
    "pcie.max_generation": "max_generation",
    "pcie.max_width": "max_width",
}
_ONLY_KERNEL = {
    "pci.kernel_driver": "no kernel driver is bound to the device",
    "numa_node": "the kernel names no NUMA node for the device",
}


def build(host: dict[str, Any], nvml: dict[str, Any] | None, rows: list[dict[str, Any]], silence: str) -> list[Any]:
    """Return the records of all GPUs.

    With answers of NVML there is one record per device it counts, else one per GPU on the PCI bus; ``silence`` is then
    the reason for all that only a driver knows.
    """
    pci = {gpu["address"]: gpu for gpu in host["pci"]["gpus"]}
    if nvml is None or not nvml["devices"]:
        return [_from_pci(gpu, rows, silence) for gpu in pci.values()]
    attributed = attribute(nvml["devices"], list(pci))
    return [_from_nvml(device, pci.get(attributed.get(device["index"], "")), host, rows) for device in nvml["devices"]]


def attribute(devices: list[dict[str, Any]], addresses: list[str]) -> dict[int, str]:
    """Match NVML's devices with PCI addresses; a device that cannot say its own gets the only one left, or none."""
    known = {device["index"]: device["pci"]["address"] for device in devices if device["pci"]["address"]}
    silent = [device["index"] for device in devices if not device["pci"]["address"]]
    left = [address for address in addresses if address not in known.values()]
    if len(silent) == len(left) == 1:
        known[silent[0]] = left[0]
    return known


def unseen(devices: list[dict[str, Any]], host: dict[str, Any]) -> list[str]:
    """PCI addresses of GPUs that should answer but do not: neither working through NVML nor given to another driver."""
    working = {device["pci"]["address"] for device in devices if device["state"] == "ok"}
    return [
        gpu["address"]
        for gpu in host["pci"]["gpus"]
        if gpu["address"] not in working and gpu["kernel_driver"] in (None, "nvidia")
    ]


def _from_nvml(
    device: dict[str, Any], gpu: dict[str, Any] | None, host: dict[str, Any], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    record = Record(DEVICE_PATHS)
    values = {key: value for key, value in device.items() if key not in ("missing", "memory_is_systems")}
    _overlay(record.data, values)
    record.missing.update(device["missing"])
    _add_kernel_view(record, gpu)
    unified = bool(device["memory_is_systems"])
    if unified:
        _add_system_memory(record, host["meminfo"])
    _add_model(record, rows, unified)
    record.close("no source on this node gives it")
    return record.result()


def _from_pci(gpu: dict[str, Any], rows: list[dict[str, Any]], silence: str) -> dict[str, Any]:
    record = Record(DEVICE_PATHS)
    record.put("state", "unanswered")
    _add_kernel_view(record, gpu)
    _add_model(record, rows, unified=False)
    record.close(silence)
    return record.result()


def _overlay(base: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _overlay(base[key], value)
        else:
            base[key] = value


def _add_kernel_view(record: Record, gpu: dict[str, Any] | None) -> None:
    for path, key in _FROM_KERNEL.items():
        record.fill(path, gpu[key] if gpu else None)
    for path, reason in _ONLY_KERNEL.items():
        if record.get(path) is None:
            record.miss(path, reason if gpu else "the PCI bus of this node does not show the device")


def _add_system_memory(record: Record, meminfo: dict[str, int]) -> None:
    """The GPU uses the memory of the system: what the kernel has and can still give away is what the GPU has."""
    total, available = meminfo.get("MemTotal"), meminfo.get("MemAvailable")
    record.put("memory.type", "unified")
    record.fill("memory.total_bytes", total)
    record.fill("memory.free_bytes", available)
    if total is not None and available is not None:
        record.fill("memory.used_bytes", total - available)


def _add_model(record: Record, rows: list[dict[str, Any]], unified: bool) -> None:
    """Catalogue id by name, PCI id and memory; architecture also from less, where that suffices."""
    device_id = record.get("pci.device_id")
    ids = catalogue.candidates(rows, device_id) if device_id else []
    record.put("catalogue_candidates", ids)
    model, reason = catalogue.recognise(rows, device_id, record.get("name"), record.get("memory.total_bytes"), unified)
    record.put("catalogue_id", model, reason)
    record.fill("compute_capability", catalogue.common_value(rows, ids, "compute_capability"))
    record.fill("architecture", catalogue.architecture_of(record.get("compute_capability")))
    record.fill("architecture", catalogue.architecture_name(catalogue.common_value(rows, ids, "architecture")))
