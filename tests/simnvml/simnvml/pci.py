# SPDX-License-Identifier: Apache-2.0
"""The PCI devices of a profile as the files that lspci and Rackwright read below /sys/bus/pci/devices."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from .profiles import merge

_COMMAND, _STATUS, _REVISION, _CACHE_LINE = 0x0547, 0x0010, 0xA1, 0x10
_IRQ = 64
_PCI_EXPRESS_CAPABILITY = 0x60
_SPEEDS = {1: "2.5", 2: "5.0", 3: "8.0", 4: "16.0", 5: "32.0", 6: "64.0"}


def devices(profile: dict[str, Any]) -> list[dict[str, Any]]:
    """Every NVIDIA device of the node: GPUs first, then switches."""
    found = []
    for index in range(len(profile["gpus"])):
        gpu = merge(profile["gpu"], profile["gpus"][index])
        found.append({**gpu["pci"], "numa_node": gpu.get("numa_node", -1), "pcie": gpu.get("pcie", {})})
    return found + list(profile["pci_devices"])


def address(device: dict[str, Any]) -> str:
    """The name of the device's folder."""
    return f"{device.get('domain', 0):04x}:{device['bus']:02x}:{device.get('device', 0):02x}.0"


def config_space(device: dict[str, Any]) -> bytes:
    """256 bytes of configuration space: a type 0 header and a PCI Express capability with the link."""
    vendor, number = device["id"] & 0xFFFF, device["id"] >> 16
    subsystem = device.get("subsystem") or 0
    pcie = device.get("pcie") or {}
    config = bytearray(256)
    struct.pack_into("<HHHH", config, 0x00, vendor, number, _COMMAND, _STATUS)
    struct.pack_into("<BBBB", config, 0x08, _REVISION, 0, device["class"] & 0xFF, device["class"] >> 8)
    config[0x0C] = _CACHE_LINE
    struct.pack_into("<HH", config, 0x2C, subsystem & 0xFFFF, subsystem >> 16)
    config[0x34] = _PCI_EXPRESS_CAPABILITY
    config[0x3C], config[0x3D] = _IRQ, 1
    at = _PCI_EXPRESS_CAPABILITY
    struct.pack_into("<BBH", config, at, 0x10, 0x00, 0x0002)  # the last capability, version 2, endpoint
    most = int(pcie.get("max_gen") or 1) | int(pcie.get("max_width") or 16) << 4
    now = int(pcie.get("gen") or 1) | int(pcie.get("width") or 16) << 4
    struct.pack_into("<I", config, at + 0x0C, most)
    struct.pack_into("<H", config, at + 0x12, now)
    return bytes(config)


def files(device: dict[str, Any]) -> dict[str, bytes]:
    """Name and content of every file in the device's folder."""
    subsystem = device.get("subsystem") or 0
    pcie = device.get("pcie") or {}
    texts = {
        "vendor": f"0x{device['id'] & 0xFFFF:04x}",
        "device": f"0x{device['id'] >> 16:04x}",
        "class": f"0x{device['class']:04x}00",
        "subsystem_vendor": f"0x{subsystem & 0xFFFF:04x}",
        "subsystem_device": f"0x{subsystem >> 16:04x}",
        "revision": f"0x{_REVISION:02x}",
        "irq": str(_IRQ),
        "enable": "1",
        "numa_node": str(device.get("numa_node", -1)),
        "resource": "\n".join(["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 13),
        "modalias": f"pci:v{device['id'] & 0xFFFF:08X}d{device['id'] >> 16:08X}sv{subsystem & 0xFFFF:08X}"
        f"sd{subsystem >> 16:08X}bc{device['class'] >> 8:02X}sc{device['class'] & 0xFF:02X}i00",
    }
    for name, speed, width in (("current", "gen", "width"), ("max", "max_gen", "max_width")):
        if pcie.get(speed):
            texts[f"{name}_link_speed"] = f"{_SPEEDS[int(pcie[speed])]} GT/s PCIe"
            texts[f"{name}_link_width"] = str(pcie[width])
    return {**{name: f"{text}\n".encode() for name, text in texts.items()}, "config": config_space(device)}


def write(profile: dict[str, Any], folder: Path) -> list[str]:
    """Fill a folder that a node mounts over /sys/bus/pci/devices; returns the addresses."""
    written = []
    for device in devices(profile):
        target = folder / address(device)
        target.mkdir(parents=True, exist_ok=True)
        for name, content in files(device).items():
            (target / name).write_bytes(content)
        written.append(address(device))
    return written
