# SPDX-License-Identifier: Apache-2.0
"""Where a GPU is attached: its NUMA node and that node's processors; and running on those while it matters."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .sysfs import Tree

#: Line rate of a PCIe lane in GT/s, and the part of it that carries data: 8b/10b, then 128b/130b, then no line code.
_LANE = {1: (2.5, 0.8), 2: (5.0, 0.8), 3: (8.0, 128 / 130), 4: (16.0, 128 / 130), 5: (32.0, 128 / 130), 6: (64.0, 1.0)}


def link_gbps(generation: int | None, width: int | None) -> float | None:
    """Return the decimal GB/s a PCIe link carries in one direction before packet headers; None for an unknown link."""
    if generation not in _LANE or not width:
        return None
    rate, part = _LANE[generation]
    return rate * part / 8 * width


def parse_cpulist(text: str | None) -> set[int]:
    """Return the processors of the kernel's ``0-3,8``; empty for anything else."""
    found: set[int] = set()
    for piece in (text or "").strip().split(","):
        numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", piece)
        if numbers is None:
            return set()
        found.update(range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1))
    return found


@contextmanager
def near(pci_address: str | None, sysroot: str = "/") -> Iterator[dict[str, Any]]:
    """Run the body on the processors next to a PCI device, so that host memory comes from the same NUMA node.

    Yields ``numa_node`` (None where the kernel names none), ``cpus`` (how many processors the body may use) and, where
    it runs wherever it ran before, ``unbound``: why.
    """
    tree = Tree(sysroot)
    where = f"sys/bus/pci/devices/{pci_address}"
    node = tree.line(f"{where}/numa_node") if pci_address else None
    allowed = os.sched_getaffinity(0)
    wanted = parse_cpulist(tree.line(f"{where}/local_cpulist")) & allowed if pci_address else set()
    numbered = int(node) if node is not None and node.isdigit() else None  # the kernel writes -1 where there is none
    place: dict[str, Any] = {"numa_node": numbered, "cpus": len(wanted or allowed)}
    if not wanted:
        place["unbound"] = "the PCI address is unknown" if not pci_address else "no processor next to it may be used"
        yield place
        return
    os.sched_setaffinity(0, wanted)
    try:
        yield place
    finally:
        os.sched_setaffinity(0, allowed)
