# SPDX-License-Identifier: Apache-2.0
"""Read Access Control Services of the PCI bridges out of their configuration space in sysfs."""

from __future__ import annotations

import struct

from .record import Answer
from .sysfs import Tree

_BUS = "sys/bus/pci/devices"
_HEADER_BYTES = 64  # all that an unprivileged user may read
_CONFIG_BYTES = 4096
_EXTENDED = 0x100
_ACS = 0x000D
#: request redirect, completion redirect, upstream forwarding: what sends peer traffic to the root complex
_REDIRECT = 0x04 | 0x08 | 0x10
_BRIDGE_CLASS = "0604"


def acs_bridges(tree: Tree) -> Answer:
    """Addresses of PCI bridges that redirect peer traffic, or why that is not known."""
    addresses = tree.names(_BUS)
    if addresses is None:
        return None, tree.why(_BUS)
    found, short = [], 0
    for address in addresses:
        if (tree.line(f"{_BUS}/{address}/class") or "")[2:6] != _BRIDGE_CLASS:
            continue
        config = tree.data(f"{_BUS}/{address}/config", _CONFIG_BYTES) or b""
        if len(config) <= _HEADER_BYTES:
            short += 1
        elif (acs_control(config) or 0) & _REDIRECT:
            found.append(address)
    if short and not found:
        return None, f"the configuration of {short} PCI bridge(s) is readable for root only (become: true)"
    return found, None


def acs_control(config: bytes) -> int | None:
    """The ACS control register out of a configuration space of 4096 bytes; None without the capability."""
    offset, seen = _EXTENDED, set()
    while _EXTENDED <= offset <= len(config) - 8 and offset not in seen:
        seen.add(offset)
        header = struct.unpack_from("<I", config, offset)[0]
        if header in (0, 0xFFFFFFFF):
            return None
        if header & 0xFFFF == _ACS:
            return int(struct.unpack_from("<H", config, offset + 6)[0])
        offset = header >> 20
    return None
