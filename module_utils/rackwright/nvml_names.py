# SPDX-License-Identifier: Apache-2.0
"""Names of NVML's numbers as Rackwright reports them."""

from __future__ import annotations

from typing import Any

from .nvml_errors import UnreadableError

ARCHITECTURES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}
EVENT_REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
VIOLATIONS = {
    0: "power",
    1: "thermal",
    2: "sync_boost",
    3: "board_limit",
    4: "low_utilization",
    5: "reliability",
}
COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}
RECOVERY_ACTIONS = {
    0: "none",
    1: "gpu_reset",
    2: "node_reboot",
    3: "drain_p2p",
    4: "drain_and_reset",
    5: "recover_imex_domain",
    6: "bus_reset",
    7: "system_reboot",
}
FABRIC_STATES = {0: "not_supported", 1: "not_started", 2: "in_progress", 3: "completed"}
NVLINK_REMOTES = {0: "gpu", 1: "ibm_npu", 2: "switch"}
NVLINK_VERSIONS = {1: "1.0", 2: "2.0", 3: "2.2", 4: "3.0", 5: "3.1", 6: "4.0", 7: "5.0", 8: "6.0"}
TOPOLOGY_LEVELS = {0: "INT", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
P2P_STATUSES = {
    0: "ok",
    1: "chipset_not_supported",
    2: "gpu_not_supported",
    3: "topology_not_supported",
    4: "disabled_by_regkey",
    5: "not_supported",
}
#: NVML_VALUE_NOT_AVAILABLE of unsigned int, as some readings answer instead of an error
NOT_AVAILABLE_UINT = 0xFFFFFFFF


def name_of(table: dict[int, str], value: int) -> str:
    """Look a number up; one that is not in the table is no reading."""
    if value not in table:
        raise UnreadableError(f"the driver answers {value}, which Rackwright has no name for")
    return table[value]


def reasons_of(mask: int) -> list[str]:
    """Split a mask of clock event reasons; unknown bits are kept as numbers rather than lost."""
    return [EVENT_REASONS.get(1 << bit, f"bit_{bit}") for bit in range(64) if mask >> bit & 1]


def cpu_list(words: list[int]) -> str:
    """Turn a CPU mask (64 bits a word) into the kernel's list form, for example ``0-3,8``."""
    cpus = [i * 64 + bit for i, word in enumerate(words) for bit in range(64) if word >> bit & 1]
    ranges: list[list[int]] = []
    for cpu in cpus:
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def pci_address(bus_id: str | bytes) -> str:
    """Turn NVML's ``00000000:1B:00.0`` into the kernel's ``0000:1b:00.0``."""
    text = bus_id.decode("ascii", "replace") if isinstance(bus_id, bytes) else bus_id
    domain, _, rest = text.strip().lower().partition(":")
    if not rest:
        raise UnreadableError(f"the driver answers the PCI address {text!r}")
    return f"{int(domain, 16):04x}:{rest}"


def text(value: Any) -> str | None:
    """A string of the driver; older bindings give bytes, and an empty one is no value."""
    plain = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return plain.strip() or None


def watts(milliwatts: int) -> float:
    return round(milliwatts / 1000, 3)


def switch(value: int) -> str:
    return name_of({0: "disabled", 1: "enabled"}, value)
