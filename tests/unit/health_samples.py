# SPDX-License-Identifier: Apache-2.0
"""A healthy node as the rules of health see it, and a way to damage one value of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.rackwright.health_limits import merged
from ansible.module_utils.rackwright.health_view import View

NOW = "2026-03-01T12:00:00+00:00"
EARLIER = "2026-03-01T11:00:00+00:00"
BOOT = "a" * 32
#: what NVML answers about a value that the hardware does not have, and one that could not be read
ABSENT = "not supported on this device (NVML 3)"
BROKEN = "the driver reports an unknown error (NVML 999)"

LINK = {"link": 0, "active": True, "remote_type": "switch", "remote_pci_address": None}


def device(index: int = 0) -> dict[str, Any]:
    """An H100 on its board, idle and healthy."""
    return {
        "index": index,
        "state": "ok",
        "error_code": 0,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA H100 80GB HBM3",
        "catalogue_id": "h100-sxm5-80gb",
        "architecture": "hopper",
        "vbios_version": "96.00.01",
        "gsp_firmware_version": "580.105.08",
        "pci": {"address": f"0000:{0x1B + index:02x}:00.0", "subsystem_id": "10de:16c1"},
        "memory": {"type": "dedicated"},
        "ecc": {
            "current": "enabled",
            "pending": "enabled",
            "counters": {"corrected": {"volatile": 0, "aggregate": 0}, "uncorrected": {"volatile": 0, "aggregate": 0}},
        },
        "row_remap": {
            "correctable": 0,
            "uncorrectable": 0,
            "pending": False,
            "failure": False,
            "banks": {"max": 640, "high": 0, "partial": 0, "low": 0, "none": 0},
        },
        "retired_pages": {"single_bit": 0, "double_bit": 0, "pending": False},
        "power": {
            "draw_watts": 70.0,
            "limit_watts": 700.0,
            "enforced_limit_watts": 700.0,
            "default_limit_watts": 700.0,
            "max_limit_watts": 700.0,
        },
        "temperature": {
            "gpu_celsius": 30,
            "memory_celsius": 35,
            "slowdown_celsius": 89,
            "gpu_max_celsius": 87,
            "memory_max_celsius": 95,
        },
        "utilization": {"gpu_percent": 0},
        "throttle": {"reasons": ["gpu_idle"]},
        "pcie": {"generation": 5, "width": 16, "max_generation": 5, "max_width": 16, "replay_count": 0},
        "nvlink": {"version": "4.0", "links": [{**LINK, "link": link} for link in range(18)]},
        "fabric": {"state": "completed", "status_code": 0},
        "mig": {"mode": "disabled", "pending": "disabled", "instances": []},
        "persistence_mode": True,
        "processes": [],
        "recovery_action": "none",
        "health": {
            "ecc": {
                **{
                    span: {kind: {"sram": 0, "dram": 0} for kind in ("corrected", "uncorrected")}
                    for span in ("volatile", "aggregate")
                },
                "sram_threshold_exceeded": False,
            },
            "repair": {"channel_pending": False, "tpc_pending": False},
            "inforom": {"valid": True, "image_version": "G520"},
            "memory": {"reserved_bytes": 0, "used_bytes": 0},
            "temperature": {"margin_celsius": 57},
            "clocks": {
                "application_graphics_mhz": 1980,
                "default_application_graphics_mhz": 1980,
                "application_memory_mhz": 2619,
                "default_application_memory_mhz": 2619,
            },
            "event_counters_ns": {
                "sw_power_cap": 0,
                "sync_boost": 0,
                "sw_thermal_slowdown": 0,
                "hw_thermal_slowdown": 0,
                "hw_power_brake_slowdown": 0,
            },
            "nvlink": {
                "speed_mbps": [26562] * 18,
                **{
                    name: [0] * 18
                    for name in ("replay", "recovery", "crc_flit", "crc_data", "ecc_data", "recovery_failed")
                },
                "effective_ber": [0.0] * 18,
            },
            "fabric": {
                "degraded_bandwidth": False,
                "route_recovery": False,
                "route_unhealthy": False,
                "access_timeout_recovery": False,
                "incorrect_configuration": "none",
            },
        },
        "missing": {},
    }


def gpu(count: int = 2) -> dict[str, Any]:
    """The fact of a node with so many of them, joined by NVSwitches, with a driver that is coherent."""
    return {
        "situation": "ready",
        "cause": "GPUs answer.",
        "next_step": "Nothing to do.",
        "simulated": False,
        "platform": "host",
        "os": {"id": "debian"},
        "count": count,
        "pci_count": count,
        "driver": {
            "kernel_module_version": "580.105.08",
            "library_version": "580.105.08",
            "flavour": "open",
            "nouveau_loaded": False,
            "kernel_modules": ["nvidia", "nvidia_uvm"],
        },
        "devices": [device(index) for index in range(count)],
        "topology": {
            "devices": list(range(count)),
            "matrix": [["X" if a == b else "NV18" for a in range(count)] for b in range(count)],
            "p2p": [["X" if a == b else "ok" for a in range(count)] for b in range(count)],
            "nvswitch_count": 4,
        },
        "software": {
            "packages": {},
            "held": [],
            "running": "6.1.0",
            "boots": "6.1.0",
            "modules": {
                "6.1.0": {
                    "version": "580.105.08",
                    "flavour": "open",
                    "origin": "package",
                    "path": "/lib/modules/6.1.0/nvidia.ko",
                    "dkms": "none",
                    "dkms_version": None,
                    "headers": True,
                }
            },
            "fabric_manager": {"installed": "580.105.08", "needed": True, "running": True},
            "container_toolkit": {"version": None, "packages": {}},
            "cdi": [],
        },
        "missing": {},
    }


def host() -> dict[str, Any]:
    """A host that is set up as it should be, up for ten days."""
    return {
        "uptime_s": 864000.0,
        "container": None,
        "virtual": False,
        "memory_total_bytes": 512 << 30,
        "swap": [],
        "governors": {"performance": 64},
        "thp": "madvise",
        "numa_balancing": 0,
        "iommu": "passthrough",
        "mounts": [{"path": "/", "type": "ext4", "read_only": False, "used_percent": 40.0, "inodes_percent": 3.0}],
        "arrays": [{"name": "md0", "state": "active", "members": "UU", "failed": []}],
        "clock": {"synchronised": True, "max_error_ms": 1.0},
        "failed_units": [],
        "leftovers": [],
        "environment": [],
        "nics": [
            {
                "name": "mlx5_0/1",
                "state": "ACTIVE",
                "physical": "LinkUp",
                "link_layer": "InfiniBand",
                "rate_gbps": 400.0,
                "link_downed": 0,
            }
        ],
        "nvme": [
            {
                "name": "nvme0",
                "serial": "S1",
                "state": "live",
                "smart": {"critical_warning": 0, "percent_used": 3, "avail_spare": 100, "spare_thresh": 10},
                "smart_reason": None,
            }
        ],
        "acs_bridges": [],
        "missing": {},
    }


def log(*events: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The kernel's log with these events in it."""
    return {
        "source": "journal",
        "missing": None,
        "boot_id": BOOT,
        "boots": [BOOT],
        "truncated": False,
        "lost": 0,
        "line_count": 1000,
        "oldest": EARLIER,
        "events": list(events),
        **more,
    }


def baseline() -> dict[str, Any]:
    """What the check an hour ago knew of this very node, in this boot."""
    zeros = {name: [0] * 18 for name in ("replay", "recovery", "crc_flit", "crc_data", "ecc_data", "recovery_failed")}
    card = {
        "nvlink_active": 18,
        "nvlink_speed_mbps": 26562,
        "pcie_max_generation": 5,
        "pcie_max_width": 16,
        "pcie_replays": 0,
        "nvlink_errors": zeros,
        "event_counters_ns": dict.fromkeys(device()["health"]["event_counters_ns"], 0),
    }
    return {
        "schema": 1,
        "collected_at": EARLIER,
        "boot_id": BOOT,
        "gpu_count": 2,
        "gpus": {"GPU-0": copy.deepcopy(card), "GPU-1": copy.deepcopy(card)},
        "memory_total_bytes": 512 << 30,
        "nics": {"mlx5_0/1": 400.0},
        "nic_downs": {"mlx5_0/1": 0},
        "nvme": ["S1"],
    }


def view(patch: Mapping[str, Any] | None = None, **limits: float) -> View:
    """A healthy node with the values of ``patch`` in place of its own.

    Keys are ``gpu.<path>`` for the first GPU, ``node.<path>`` for the fact, ``host.``, ``kernel.``, ``expected.``,
    ``modes.``, ``baseline.`` and ``dcgm.``; a name alone replaces the whole. ``Missing(reason)`` takes a value away.
    """
    parts: dict[str, Any] = {
        "node": gpu(),
        "host": host(),
        "kernel": log(),
        "expected": {},
        "modes": {},
        "baseline": baseline(),
        "dcgm": {"level": "1", "document": {"DCGM Diagnostic": {"test_categories": []}}},
    }
    for key, value in (patch or {}).items():
        name, _dot, path = key.partition(".")
        target = parts["node"]["devices"][0] if name == "gpu" else parts[name]
        if not path:
            parts[name] = value
        else:
            _put(target, path, value)
    fact = parts.pop("node")
    return View(gpu=fact, limits=merged(limits), now=NOW, boot_id=BOOT, **parts)


class Missing:
    """A value that is not there, with its reason."""

    def __init__(self, reason: str = BROKEN) -> None:
        self.reason = reason


def _put(target: dict[str, Any], path: str, value: Any) -> None:
    node = target
    *parents, leaf = path.split(".")
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    if isinstance(value, Missing):
        target.setdefault("missing", {})[path] = value.reason
        value = None
    if isinstance(node, list):
        node[int(leaf)] = value
    else:
        node[leaf] = value
