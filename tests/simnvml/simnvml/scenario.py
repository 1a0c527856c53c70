# SPDX-License-Identifier: Apache-2.0
"""A profile as the flat ``key = value`` text that the C library reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .errors import ProfileError
from .keys import check

_MIB = re.compile(r"(\d+)MiB")


def text_of(value: Any) -> str:
    """One value as the library writes and reads it; None is a value the hardware does not have."""
    if value is None:
        return "N/A"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    mebibytes = _MIB.fullmatch(str(value))
    return str(int(mebibytes[1]) * 1024 * 1024) if mebibytes else str(value)


def leaves(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of every leaf."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def marker(index: int) -> dict[str, Any]:
    """Identity of a simulated GPU, recognisable at sight."""
    return {
        "uuid": f"GPU-{index + 1:08x}-aaaa-bbbb-cccc-{index + 1:012x}",
        "serial": f"16500000000{index + 1:02d}",
        "minor": index,
        "pdi": index + 1,
    }


def _links(profile: dict[str, Any], index: int) -> dict[str, str]:
    """Who is at the other end of each NVLink: switches in turn, or the peers the profile names."""
    nvlink = profile["gpu"].get("nvlink", {})
    count = int(nvlink.get("links") or 0)
    switches = [device for device in profile["pci_devices"] if device.get("kind") == "nvswitch"]
    ends: dict[str, str] = {}
    if nvlink.get("switches") and switches:
        for link in range(count):
            switch = switches[link % len(switches)]
            ends[f"nvlink.{link}.remote"] = f"switch {switch.get('domain', 0):x} {switch['bus']:x} 0"
    elif nvlink.get("switches"):
        for link in range(count):  # NVSwitches that are no PCI device of this host
            ends[f"nvlink.{link}.remote"] = "switch 0 0 0"
    elif nvlink.get("mesh"):
        peers = [gpu for gpu in range(len(profile["gpus"])) if gpu != index]
        for link in range(count):
            ends[f"nvlink.{link}.remote"] = f"gpu {peers[link * len(peers) // count]}"
    return ends


def gpu_values(profile: dict[str, Any], index: int) -> dict[str, str]:
    """The values that only this GPU has."""
    defaults = dict(leaves(profile["gpu"]))
    values: dict[str, Any] = {}
    for key, value in marker(index).items():
        if key not in defaults:
            values[key] = value
    values.update(leaves(profile["gpus"][index]))
    values.setdefault("pci.domain", 0)
    values.setdefault("pci.device", 0)
    bus = values.get("pci.bus")
    if bus is None:
        raise ProfileError(f"place GPU {index}", "it has no pci.bus", "Give each entry of gpus a pci bus number")
    values.setdefault("board_id", int(bus) << 8)
    values.update(_links(profile, index))
    return {key: text_of(value) for key, value in values.items()}


# what describes the profile to people and to the other half of this package, not to the library
_HOST_ONLY = {"architecture", "nvlink.switches", "nvlink.mesh"}


def system_values(profile: dict[str, Any]) -> dict[str, str]:
    """Versions and counts."""
    driver = profile["driver"]
    values: dict[str, str] = {}
    version = driver.get("version")
    if version is not None:
        cuda = int(driver["cuda"])
        values = {
            "driver_version": str(version),
            "lib_version": str(version),
            "nvml_version": f"{cuda // 1000}.{version}",
            "cuda_version": str(cuda),
            "kernel_module": str(driver.get("kernel_module", "proprietary")),
        }
        if "generation" in driver:
            values["generation"] = str(driver["generation"])
    values["count"] = str(len(profile["gpus"]))
    return values


def flatten(profile: dict[str, Any], name: str) -> str:
    """The whole scenario; raises when a key or a value is not one that the library knows."""
    lines = [f"# simulated node {name}: {profile.get('description', '')}".rstrip()]
    values = system_values(profile)
    values.update(
        {f"gpu.{key}": text_of(value) for key, value in leaves(profile["gpu"]) if key not in _HOST_ONLY}
        if profile["gpus"]
        else {}
    )
    for index in range(len(profile["gpus"])):
        values.update({f"gpu.{index}.{key}": value for key, value in gpu_values(profile, index).items()})
    addresses = [
        tuple(values[f"gpu.{index}.pci.{part}"] for part in ("domain", "bus", "device"))
        for index in range(len(profile["gpus"]))
    ]
    if len(set(addresses)) != len(addresses):
        raise ProfileError(f"flatten {name}", "two GPUs have the same PCI address", "Give each its own pci.bus")
    check(values, name)
    lines += [f"{key} = {value}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
