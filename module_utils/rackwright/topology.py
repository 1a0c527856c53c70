# SPDX-License-Identifier: Apache-2.0
"""How the GPUs of one node are connected, in the words of ``nvidia-smi topo``. Pure: records in, matrix out."""

from __future__ import annotations

from typing import Any

from .record import Record

SELF = "X"


def build(
    record: Record, devices: list[dict[str, Any]], pairs: list[dict[str, Any]], host: dict[str, Any], silence: str
) -> None:
    """Add ``topology`` to the facts: NVSwitches on the PCI bus, and per pair of GPUs the link and peer access."""
    pci = host["pci"]
    record.put("topology.nvswitch_count", len(pci["switches"]) if pci["reason"] is None else None, pci["reason"])
    indices = [device["index"] for device in devices]
    if not devices or None in indices:
        reason = silence if devices else "there is no GPU"
        for name in ("devices", "matrix", "p2p"):
            record.put(f"topology.{name}", None if devices else [], reason)
        return
    record.put("topology.devices", indices)
    record.put("topology.matrix", [[SELF if a == b else None for b in indices] for a in indices])
    record.put("topology.p2p", [[SELF if a == b else None for b in indices] for a in indices])
    place = {index: position for position, index in enumerate(indices)}
    by_index = {device["index"]: device for device in devices}
    for pair in pairs:
        a, b = by_index[pair["a"]], by_index[pair["b"]]
        connection, why = connection_of(a, b, pair)
        for first, second in ((pair["a"], pair["b"]), (pair["b"], pair["a"])):
            i, j = place[first], place[second]
            _cell(record, "topology.matrix", i, j, connection, why)
            _cell(record, "topology.p2p", i, j, pair["p2p_read"], pair.get("p2p_read_reason"))


def connection_of(a: dict[str, Any], b: dict[str, Any], pair: dict[str, Any]) -> tuple[str | None, str | None]:
    """``NV<links>`` where NVLink joins the two, else the nearest PCI ancestor: PIX, PXB, PHB, NODE or SYS."""
    links = nvlinks_between(a, b)
    if links and pair["p2p_nvlink"] in ("ok", None):
        return f"NV{links}", None
    return pair["level"], pair.get("level_reason")


def nvlinks_between(a: dict[str, Any], b: dict[str, Any]) -> int:
    """Active NVLinks from one GPU to the other: direct ones, or as many as both have to the switches."""
    direct = [link for link in _active(a) if link["remote_pci_address"] == b["pci"]["address"] is not None]
    if direct:
        return len(direct)
    through_switch = [sum(link["remote_type"] == "switch" for link in _active(gpu)) for gpu in (a, b)]
    return min(through_switch)


def _active(device: dict[str, Any]) -> list[dict[str, Any]]:
    return [link for link in device["nvlink"]["links"] or [] if link["active"]]


def _cell(record: Record, matrix: str, i: int, j: int, value: str | None, reason: str | None) -> None:
    record.get(matrix)[i][j] = value
    if value is None:
        record.missing[f"{matrix}.{i}.{j}"] = reason or "the driver does not tell"
