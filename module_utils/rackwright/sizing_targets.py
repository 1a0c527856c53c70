# SPDX-License-Identifier: Apache-2.0
"""What a model could run on: cards of the catalogue, nodes that are described, nodes whose facts are known.

Pure. A node's memory is what NVML reported; a card's is the catalogue's marketing number, which NVML undercuts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import InvalidInputError
from .sizing_memory import GIB
from .stack_node import node_from_description

#: What NVML shows of the marketing size, taken as GiB: 0.93 to 1.0 on known boards (see ``catalogue.py``).
LEAST_VISIBLE = 0.93
#: GPUs of one catalogue card that are tried.
CARD_COUNTS = (1, 2, 4, 8)


def counts_up_to(gpus: int) -> tuple[int, ...]:
    """Return the numbers of GPUs worth trying on a node: powers of two, which models divide by, and all of them."""
    return (*(1 << power for power in range(gpus.bit_length()) if 1 << power < gpus), gpus)


@dataclass(frozen=True)
class Card:
    """One kind of GPU. Bytes, bytes/s, TFLOP/s, GB/s; None means unknown.

    Attributes:
        least_memory: what it has at least; equal to ``memory`` where NVML told it.
        nvlink: bidirectional GB/s of one GPU, None without NVLink.
    """

    name: str
    id: str | None = None
    capability: tuple[int, int] | None = None
    memory: int | None = None
    least_memory: int | None = None
    bandwidth: float | None = None
    peaks: Mapping[str, float | None] = field(default_factory=dict)
    derived_tflops: float | None = None
    nvlink: float | None = None
    pcie: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Target:
    """Equal GPUs that can work together. ``counts`` are the numbers of GPUs to try, ascending."""

    name: str
    card: Card
    counts: tuple[int, ...]
    origin: str
    link: str
    simulated: bool = False
    problem: str | None = None


def capability(text: Any) -> tuple[int, int] | None:
    """``"8.9"`` as (8, 9)."""
    major, _, minor = str(text or "").partition(".")
    return (int(major), int(minor or 0)) if major.isdigit() else None


def card_of_row(row: Mapping[str, Any]) -> Card:
    """Return the card of a row of ``gpus.yml``."""
    gigabytes, bandwidth = row.get("memory_gb"), row.get("memory_bandwidth_gbps")
    memory = round(gigabytes * GIB) if gigabytes else None
    return Card(
        name=str((row.get("nvml_names") or [row["id"]])[0]),
        id=row["id"],
        capability=capability(row.get("compute_capability")),
        memory=memory,
        least_memory=round(memory * LEAST_VISIBLE) if memory else None,
        bandwidth=bandwidth * 1e9 if bandwidth else None,
        peaks=row.get("peak_dense_tflops") or {},
        derived_tflops=row.get("derived_fp16_tflops_at_boost"),
        nvlink=row.get("nvlink_total_gbps"),
        pcie=row.get("pcie_generation"),
        note=row.get("note"),
    )


def from_catalogue(rows: Iterable[Mapping[str, Any]], ids: Iterable[str]) -> list[Target]:
    """Return one target per card id; ``all`` means every card of the catalogue.

    Raises:
        InvalidInputError: the catalogue has no such id.
    """
    known = {row["id"]: row for row in rows}
    wanted = list(ids)
    if wanted == ["all"]:
        wanted = list(known)
    for name in wanted:
        if name not in known:
            raise InvalidInputError(
                "size the model",
                f"card {name}",
                "the catalogue has no such id",
                "Use an id of roles/gpu_stack/files/tables/gpus.yml",
                expected=sorted(known),
                found=name,
            )
    return [_target(name, card_of_row(known[name]), CARD_COUNTS, "catalogue") for name in wanted]


def from_description(name: str, description: Mapping[str, Any], table: Mapping[str, Any]) -> list[Target]:
    """Return one target per kind of GPU of a described node.

    Raises:
        InvalidInputError: the description cannot be used; see ``stack_node.node_from_description``.
    """
    node = node_from_description(name, description, table)
    rows = {row["id"]: row for row in table["gpus"]}
    kinds = [gpu for gpu in node.gpus if gpu.id in rows]
    if not kinds:
        return [unknown_target(name, "the description has no GPU of the catalogue", "description")]
    found = []
    for gpu in kinds:
        card = card_of_row(rows[str(gpu.id)])
        label = name if len(kinds) == 1 else f"{name} ({gpu.id})"
        target = _target(label, card, counts_up_to(gpu.count), "description")
        found.append(replace(target, simulated=node.simulated))
    return found


def from_facts(name: str, gpu: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[Target]:
    """Return one target per kind of GPU that answers, from the facts of gpu_facts; MIG instances stand alone."""
    known = {row["id"]: row for row in rows}
    devices = [device for device in gpu.get("devices") or [] if device.get("state") == "ok"]
    if not devices:
        why = f"it shows no usable GPU ({gpu.get('situation')})"
        return [unknown_target(name, why, "facts", bool(gpu.get("simulated")))]
    kinds: dict[tuple[Any, ...], list[tuple[Card, Mapping[str, Any]]]] = {}
    for device in devices:
        for card, whole in _cards_of(device, known):
            kinds.setdefault((card.name, card.memory, whole), []).append((card, device))
    found = []
    for (label, memory, whole), members in kinds.items():
        card = members[0][0]
        title = name if len(kinds) == 1 else f"{name} ({label}, {memory // GIB if memory else '?'} GiB)"
        counts = counts_up_to(len(members)) if whole else (1,)
        target = _target(title, card, counts, "facts")
        indices = [device.get("index") for _, device in members]
        link = _link_of(gpu, indices) or target.link
        found.append(replace(target, link=link, simulated=bool(gpu.get("simulated"))))
    return found


def _cards_of(device: Mapping[str, Any], known: Mapping[str, Any]) -> list[tuple[Card, bool]]:
    """The whole GPU, or its MIG instances, whose share of the bandwidth and the arithmetic is unknown."""
    row = known.get(str(device.get("catalogue_id")))
    base = card_of_row(row) if row else Card(name=str(device.get("name") or "unknown GPU"))
    base = replace(base, capability=capability(device.get("compute_capability")) or base.capability)
    instances = (device.get("mig") or {}).get("instances") or []
    if instances:
        sliced = replace(base, bandwidth=None, peaks={}, derived_tflops=None, nvlink=None)
        return [
            (
                _sized(replace(sliced, name=str(one.get("name") or f"{base.name} MIG")), one.get("memory_total_bytes")),
                False,
            )
            for one in instances
        ]
    return [(_sized(base, (device.get("memory") or {}).get("total_bytes")), True)]


def _sized(card: Card, total: int | None) -> Card:
    return replace(card, memory=total, least_memory=total) if total else card


def _target(name: str, card: Card, counts: tuple[int, ...], origin: str) -> Target:
    if card.nvlink:
        link = f"NVLink {card.nvlink:g} GB/s"
        if card.note and "bridge" in card.note:
            link += " with a bridge"
    else:
        link = f"PCIe gen {card.pcie}" if card.pcie else "link unknown"
    problem = None if card.memory else f"the memory of {card.name} is unknown; gather its facts"
    return Target(name, card, counts, origin, link, problem=problem)


def unknown_target(name: str, why: str, origin: str = "unknown", simulated: bool = False) -> Target:
    """Return a target of which nothing can be said but why."""
    return Target(name, Card("none"), (), origin, "none", simulated, why)


def _link_of(gpu: Mapping[str, Any], indices: list[Any]) -> str | None:
    """How the GPUs reach each other, by the worst pair of the topology matrix."""
    topology = gpu.get("topology") or {}
    order, matrix = topology.get("devices") or [], topology.get("matrix") or []
    places = [order.index(index) for index in indices if index in order]
    paths = {str(matrix[a][b]) for a in places for b in places if a != b}
    if not paths:
        return None
    if all(path.startswith("NV") for path in paths):
        return "NVLink on every pair"
    if any(path.startswith("NV") for path in paths):
        return "NVLink on some pairs, PCIe on others"
    return f"PCIe ({', '.join(sorted(paths))})"
