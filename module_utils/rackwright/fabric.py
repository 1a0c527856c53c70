# SPDX-License-Identifier: Apache-2.0
"""NVSwitch, the fabric manager and what stands beside the driver: who needs them, which packages, what is left over.

Pure. Where NVSwitches are seen: up to NVLink 4 (HGX A100, H100, H200) as NVIDIA bridges on the PCI bus. On HGX B200 and
B300 they are no PCI devices of the host; it reaches them through ConnectX-7 functions whose VPD says ``SMDL=SW_MNG``,
and once the driver is loaded the GPUs' NVLinks say that they end at a switch. In GB200 and GB300 racks they do that
too, but those switches have a fabric manager of their own.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import InvalidInputError

#: what fabric managers are called, in every repository and branch
MANAGERS = (
    "cuda-drivers-fabricmanager*",
    "nvidia-fabricmanager",
    "nvidia-fabricmanager-[0-9]*",
    "nvidia-fabric-manager*",
    "nvlsm",
)
_HIDDEN = ("b200", "b300")
_RACK = ("gb200", "gb300")
#: comes with the driver in every repository; versioned with it, or on its own in a distribution's archive
_DAEMONS = ("nvidia-modprobe", "nvidia-persistenced")
IMEX = "nvidia-imex"
_SUFFIX = re.compile(r"-(?:dev|devel)$")


def nvswitch(gpu: Mapping[str, Any]) -> tuple[bool | None, str]:
    """Return whether a node has NVSwitches of its own, and what says so. ``gpu`` is the fact of gpu_facts."""
    count = (gpu.get("topology") or {}).get("nvswitch_count")
    if count:
        return True, f"it has {count} NVSwitch{'es' if count > 1 else ''} on the PCI bus"
    devices = gpu.get("devices") or []
    models = [_models(device) for device in devices]
    if any(model.startswith(_RACK) for found in models for model in found):
        return False, "its NVSwitches are in the rack, which has a fabric manager of its own"
    if any(_ends_at_switch(device) for device in devices):
        return True, "NVLinks of its GPUs end at switches"
    if any(model.startswith(_HIDDEN) for found in models for model in found) and not _links_known(devices):
        return None, "NVSwitches of HGX B200 and B300 are seen only once the driver is loaded"
    if count is None:
        return None, "its PCI bus cannot be read"
    return False, "it has no NVSwitch"


def _models(device: Mapping[str, Any]) -> list[str]:
    known = device.get("catalogue_id")
    return [str(known)] if known else [str(one) for one in device.get("catalogue_candidates") or []]


def _links(device: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return (device.get("nvlink") or {}).get("links") or []


def _ends_at_switch(device: Mapping[str, Any]) -> bool:
    return any(link.get("remote_type") == "switch" for link in _links(device))


def _links_known(devices: Iterable[Mapping[str, Any]]) -> bool:
    """Whether some NVLink says where it ends."""
    return any(link.get("remote_type") is not None for device in devices for link in _links(device))


def refuse_mismatch(
    gpu: Mapping[str, Any], driver: Mapping[str, Any] | None, manager: Mapping[str, Any] | None, node: str
) -> None:
    """Raise InvalidInputError where lock and node disagree about NVSwitch, or no package is known for it.

    A container's fabric manager is its host's, and a simulated board has none to manage: there a lock without one is
    right whatever the PCI bus shows.
    """
    there, why = nvswitch(gpu)
    action = "choose the fabric manager"
    if manager is None:
        excused = driver is None or gpu.get("simulated") or gpu.get("platform") in ("container", "wsl2")
        if there and not excused:
            step = "Run playbooks/plan-stack.yml again; a node_description needs nvswitch: true"
            raise InvalidInputError(
                action, node, f"the lock has none and {why}, without which CUDA fails with error 802", step
            )
        return
    if there is False:
        step = "Run playbooks/plan-stack.yml again; a node_description needs nvswitch: false"
        raise InvalidInputError(
            action,
            node,
            f"the lock has {manager['package']} {manager['version']} and {why}, where it cannot start",
            step,
        )
    if not manager.get("package"):
        step = "Set stack_driver_source to nvidia, whose repositories have it, and plan again"
        raise InvalidInputError(action, node, f"{why}, and the source of its driver has no fabric manager", step)
    if driver and manager["version"] != driver["version"]:
        step = "Plan again: both have to be one version, or the fabric manager refuses to start"
        raise InvalidInputError(
            action, node, f"the lock has it in {manager['version']} and the driver in {driver['version']}", step
        )


def with_services(driver: dict[str, Any] | None, manager: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the driver of the lock with the packages of its daemons, so that one transaction brings all of them.

    The fabric manager and NSCQ have the driver's version; the other packages have versions of their own.
    """
    if driver is None:
        return None
    names = {row["name"] for row in driver["packages"]}
    rows = [{"name": name, "version": None} for name in _DAEMONS]
    if manager and manager.get("package"):
        exact = f"{manager['version']}*"
        rows.append({"name": manager["package"], "version": exact})
        for extra in manager.get("extras") or []:
            same = extra["package"].startswith("libnvidia-nscq")
            rows.append({"name": extra["package"], "version": exact if same else None})
    return {**driver, "packages": [*driver["packages"], *(row for row in rows if row["name"] not in names)]}


def leftovers(installed: Iterable[str], manager: Mapping[str, Any] | None) -> list[str]:
    """Return the installed fabric managers that the lock does not have, with what only they need."""
    wanted = set()
    if manager:
        wanted = {str(manager.get("package")), *(str(one["package"]) for one in manager.get("extras") or [])}
    found = [name for name in installed if any(fnmatch.fnmatchcase(name, pattern) for pattern in MANAGERS)]
    return sorted(name for name in found if _SUFFIX.sub("", name) not in wanted)


def has_imex(driver: Mapping[str, Any] | None) -> bool:
    """Whether the lock gives the node ``nvidia-imex``."""
    return driver is not None and any(row["name"] == IMEX for row in driver["packages"])
