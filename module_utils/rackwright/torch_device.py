# SPDX-License-Identifier: Apache-2.0
"""What torch says a device is, on a torch that is handed in."""

from __future__ import annotations

import ctypes
import uuid
from typing import Any


def device_info(torch: Any, device: str) -> dict[str, Any]:
    """Return what identifies a device and bounds its shapes, before anything is allocated on it."""
    if device == "cpu":
        return {"device": "cpu", "name": cpu_name(), "threads": int(torch.get_num_threads())}
    properties = torch.cuda.get_device_properties(device_index(device))
    number = str(getattr(properties, "uuid", "") or driver_uuid(device_index(device)) or "")
    return {
        "device": device,
        "name": str(properties.name),
        "uuid": f"GPU-{number}" if number and not number.startswith(("GPU-", "MIG-")) else number or None,
        "compute_capability": [int(properties.major), int(properties.minor)],
        "total_memory_bytes": int(properties.total_memory),
        "multiprocessors": int(properties.multi_processor_count),
        "l2_bytes": int(getattr(properties, "L2_cache_size", 0) or 0),
        "unified_memory": bool(getattr(properties, "is_integrated", False)),
    }


def driver_uuid(index: int) -> str | None:
    """Return the UUID the driver gives a CUDA device of this process; torch itself tells it from 2.4 on.

    None where the driver's library is absent or refuses.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, found = ctypes.c_int(), (ctypes.c_uint8 * 16)()
    # with MIG the newer function gives the instance's own; drivers before 11.4 have only the older one
    ask = getattr(driver, "cuDeviceGetUuid_v2", None) or getattr(driver, "cuDeviceGetUuid", None)
    if ask is None or driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return None
    return str(uuid.UUID(bytes=bytes(found))) if ask(ctypes.byref(found), device) == 0 else None


def device_index(device: str) -> int:
    """Return 3 for ``cuda:3``."""
    return int(device.partition(":")[2])


def cpu_name(path: str = "/proc/cpuinfo") -> str | None:
    """Return the processor's name as the kernel gives it; None on machines whose kernel gives none."""
    with open(path, encoding="utf-8", errors="replace") as handle:
        for line in handle:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    return None
