# SPDX-License-Identifier: Apache-2.0
"""A coherent node for the tests of coherence: facts and lock, in which single values are then changed."""

from __future__ import annotations

import copy
from typing import Any

V = "580.178.04"
OLD = "580.65.06"
K1, K2 = "6.8.0-45-generic", "6.8.0-51-generic"
UUID = "GPU-11111111-2222-3333-4444-55555555555{}"
TOOLKIT_NAMES = (
    "libnvidia-container-tools",
    "libnvidia-container1",
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
)


def module(**changes: Any) -> dict[str, Any]:
    """Return the module of one kernel as DKMS installs it."""
    return {
        "version": V,
        "flavour": "open",
        "origin": "dkms",
        "path": "updates/dkms/nvidia.ko.zst",
        "dkms": "installed",
        "dkms_version": V,
        "headers": True,
        **changes,
    }


def without_module(**changes: Any) -> dict[str, Any]:
    """Return the entry of a kernel that has no module."""
    nothing = {"version": None, "flavour": None, "origin": "none", "path": None, "dkms": "none", "dkms_version": None}
    return {**nothing, "headers": True, **changes}


def node() -> dict[str, Any]:
    """Return the facts of a coherent HGX node on Ubuntu with two kernels."""
    return {
        "situation": "ready",
        "platform": "host",
        "simulated": False,
        "next_step": "Nothing to do.",
        "os": {"id": "ubuntu", "kernel": K1},
        "driver": {"kernel_module_version": V, "library_version": V, "flavour": "open"},
        "devices": [
            {"index": index, "uuid": UUID.format(index), "mig": {"mode": "disabled", "instances": []}}
            for index in range(2)
        ],
        "software": {
            "packages": {
                "libnvidia-compute-580-server": f"{V}-0ubuntu1",
                "nvidia-dkms-580-server-open": f"{V}-0ubuntu1",
                "nvidia-utils-580-server": f"{V}-0ubuntu1",
                "nvidia-persistenced": f"{V}-0ubuntu1",
                "nvidia-fabricmanager-580": f"{V}-1",
            },
            "held": ["libnvidia-compute-580-server", "nvidia-dkms-580-server-open", "nvidia-fabricmanager-580"],
            "running": K1,
            "boots": K2,
            "modules": {K1: module(), K2: module()},
            "fabric_manager": {"installed": V, "needed": True, "running": True},
            "container_toolkit": {"version": "1.18.1-1", "packages": dict.fromkeys(TOOLKIT_NAMES, "1.18.1-1")},
            "cdi": [
                {
                    "path": "/etc/cdi/nvidia.yaml",
                    "driver_version": V,
                    "devices": ["0", UUID.format(0), "1", UUID.format(1), "all"],
                }
            ],
        },
        "missing": {},
    }


def stack() -> dict[str, Any]:
    """Return the lock's entry that fits :func:`node`."""
    return {
        "driver": {
            "version": V,
            "flavour": "open",
            "holds": ["libnvidia-compute-580-server", "nvidia-dkms-580-server-open"],
        },
        "fabric_manager": {"package": "nvidia-fabricmanager-580", "version": V, "extras": []},
    }


def changed(record: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a copy with values at paths replaced; parts are joined by ``/`` because kernels have dots."""
    result = copy.deepcopy(record)
    for path, value in changes.items():
        *parents, leaf = path.split("/")
        place: Any = result
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place[int(leaf) if isinstance(place, list) else leaf] = value
    return result
