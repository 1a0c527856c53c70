# SPDX-License-Identifier: Apache-2.0
"""The thresholds of the health checks: one table, each with unit and source, each to be overridden by name. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import InvalidInputError

_AZURE = "Azure azurehpc-health-checks conf/*.conf"
_DCGM = "NVIDIA/DCGM"
_FIELD = "no published value; Rackwright's choice"


@dataclass(frozen=True)
class Limit:
    """One threshold: what is above it (below, where it says ``least``) is a finding."""

    value: float
    unit: str
    meaning: str
    source: str


LIMITS: dict[str, Limit] = {
    "ecc_uncorrected_volatile": Limit(0, "errors", "uncorrected memory errors since the driver was loaded", _DCGM),
    "ecc_sram_aggregate_monitor": Limit(
        0, "errors", "uncorrected SRAM errors over the GPU's life that are watched", _AZURE
    ),
    "ecc_sram_aggregate_isolate": Limit(
        4,
        "errors",
        "uncorrected SRAM errors over the GPU's life that it is exchanged for",
        "stas00/ml-engineering: RMA above 4",
    ),
    "ecc_corrected_sram": Limit(10_000, "errors", "corrected SRAM errors over the GPU's life", _AZURE),
    "ecc_corrected_dram": Limit(20_000_000, "errors", "corrected DRAM errors over the GPU's life", _AZURE),
    "remap_uncorrectable": Limit(
        511, "rows", "rows remapped for uncorrectable errors", f"{_DCGM}: 512; Azure, OCI above 512"
    ),
    "retired_pages": Limit(62, "pages", "retired pages, Volta and older", f"{_DCGM}: 63 fail; Azure 62"),
    "nvlink_crc_per_s": Limit(100, "errors/s", "CRC errors of one NVLink", f"{_DCGM} DcgmHealthWatch: 100 per second"),
    "nvlink_effective_ber": Limit(
        1e-12, "errors/bit", "effective bit error rate of one NVLink (NVLink 5)", f"{_DCGM} DcgmHealthWatch: 1e-12"
    ),
    "throttle_hw_fraction": Limit(
        0.01,
        "of the time",
        "time below the clocks for heat or power brake, measured by counters",
        "field practice: 1 %; zero seconds never count (NVIDIA/DCGM#242)",
    ),
    "throttle_sw_thermal_monitor": Limit(
        0.05, "of the time", "time below the clocks by software for heat, watched", _FIELD
    ),
    "throttle_sw_thermal_isolate": Limit(
        0.20, "of the time", "time below the clocks by software for heat, too much", _FIELD
    ),
    "temperature_margin": Limit(5, "Celsius", "least distance to the temperature at which the GPU slows down", _FIELD),
    "power_range": Limit(1.1, "of the limit", "most draw as a part of the largest limit the card allows", _FIELD),
    "power_limit": Limit(1, "W", "difference between power limit and what it should be", "NVML rounds to milliwatts"),
    "application_clock": Limit(30, "MHz", "drift of the application clocks", "facebookresearch/gcm: warn 30 MHz"),
    "unaccounted_memory": Limit(
        1.0,
        "GiB",
        "memory used on a GPU that no process is seen on",
        "as in the benchmark's own check that a GPU is idle",
    ),
    "memory_tolerance": Limit(0.03, "part", "memory of the node below what it was", "Azure and others: 3 to 5 %"),
    "disk_used": Limit(95, "%", "use of a file system, of its space or its inodes", "imbue-ai/cluster-health: 95 %"),
    "leftovers": Limit(
        2, "processes", "processes of Ansible or sg_inq older than leftover_age", "imbue-ai/cluster-health: several"
    ),
    "leftover_age": Limit(3600, "s", "age from which such a process is left over", _FIELD),
    "nic_flaps_per_day": Limit(4, "times", "losses of link of a port within 24 hours", f"{_AZURE}: 5 in 24 h"),
    "nvme_percentage_used": Limit(
        99, "%", "wear of an NVMe drive by its own estimate", "NVM Express: 100 is the rated life"
    ),
}


def merged(overrides: Mapping[str, Any] | None) -> dict[str, float]:
    """Return every limit by name, with those that the site overrides.

    Raises:
        InvalidInputError: a name is not in the table, or a value is no number of zero or more.
    """
    values = {name: limit.value for name, limit in LIMITS.items()}
    for name, value in (overrides or {}).items():
        if name not in LIMITS:
            close = difflib.get_close_matches(str(name), LIMITS, 1)
            meant = f"Did you mean {close[0]}" if close else "docs/health.md lists all of them"
            raise InvalidInputError(
                "use a limit", f"limits.{name}", "there is no such limit", meant, expected=sorted(LIMITS), found=name
            )
        number = _number(value)
        if number is None:
            raise InvalidInputError(
                "use a limit",
                f"limits.{name}",
                f"{value!r} is no number of zero or more",
                f"Give a number in the unit {LIMITS[name].unit}",
                expected="a number >= 0",
                found=value,
            )
        values[name] = number
    return values


def _number(value: Any) -> float | None:
    """Ansible hands numbers of -e on as text."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < float("inf") else None
