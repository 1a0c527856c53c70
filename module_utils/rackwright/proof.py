# SPDX-License-Identifier: Apache-2.0
"""What a node was when it was last proven, to tell whether the proof still speaks for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import coherence


def fingerprint(gpu: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the fact ``gpu`` must not change between two proofs: situation, driver, what does not fit together
    (None for nothing), and every GPU's identity.

    Readings that move by themselves (temperature, clocks, memory in use) are left out.
    """
    driver = gpu.get("driver") or {}
    return {
        "situation": gpu.get("situation"),
        "simulated": bool(gpu.get("simulated")),
        "kernel_module": driver.get("kernel_module_version"),
        "library": driver.get("library_version"),
        "coherence": sorted({answer["id"] for answer in coherence.findings(gpu)}) or None,
        "devices": sorted(_device(device) for device in gpu.get("devices") or []),
    }


def _device(device: Mapping[str, Any]) -> str:
    address = (device.get("pci") or {}).get("address")
    parts = (device.get("uuid"), address, device.get("name"), device.get("vbios_version"), device.get("state"))
    return " ".join(str(part) for part in parts if part)


def due(last: Mapping[str, Any] | None, gpu: Mapping[str, Any]) -> str | None:
    """Return why a node has to be proven again, or None while its last proof holds.

    Args:
        last: the node's entry in the record of proofs: ``verdict``, ``run_id``, ``fingerprint``.
        gpu: the fact ``gpu`` of this run.
    """
    if not last:
        return "never proven"
    if last.get("verdict") not in ("pass", "warn"):
        return f"the last verdict was {last.get('verdict')} (run {last.get('run_id')})"
    before, now = last.get("fingerprint") or {}, fingerprint(gpu)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return f"{', '.join(changed).replace('_', ' ')} changed since the last proof" if changed else None


def entry(document: Mapping[str, Any], gpu: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what is kept of a verdict document until the next proof."""
    kept = {key: document[key] for key in ("verdict", "verdict_text", "simulated")}
    return {**kept, "fingerprint": fingerprint(gpu) if gpu else None}
