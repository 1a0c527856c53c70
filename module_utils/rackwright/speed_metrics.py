# SPDX-License-Identifier: Apache-2.0
"""The numbers of one run that are compared with those of other GPUs and of other runs. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .measure import is_measurement
from .peers import less_is_better
from .verdict_gpu import device_name
from .verdict_record import Evidence, dig
from .verdict_results import gpu_subjects, is_sliced

#: Suites that give answers, not speeds: a verdict judges them, comparing or plotting them shows nothing.
NO_SPEED = ("import", "kernel", "correctness")
#: How the names of sums of other numbers begin.
_SUMS = ("llm_goal",)
#: Suites whose speed depends on the slot the card sits in.
_LINK_SUITES = ("pcie",)
_NODE = "node"


@dataclass(frozen=True)
class Reading:
    """One number of one GPU (or node) of this run.

    Attributes:
        node: inventory name.
        subject: ``gpu3``, or ``node`` for a number of the whole node.
        cards: UUID of the GPU; of all GPUs of the node for a number of the node.
        kind: what has to be equal before two numbers are compared: model, memory, power limit, ECC.
        metric: suite, name, data type, level, unit, and what else tells two numbers of one name apart: for the host
            link what it is capable of, for a node the kind of its GPUs.
        value: in ``unit``.
        torch: release of torch it was measured with.
    """

    node: str
    subject: str
    cards: tuple[str, ...]
    kind: str
    metric: tuple[str, ...]
    value: float
    torch: str

    @property
    def suite(self) -> str:
        return self.metric[0]

    @property
    def unit(self) -> str:
        return self.metric[4]

    @property
    def of_node(self) -> bool:
        return self.subject == _NODE

    @property
    def slug(self) -> str:
        """The name of the metric as part of a check's id."""
        return re.sub(r"[^a-z0-9_]+", "_", self.metric[1].lower())


def readings(evidence: Evidence) -> list[Reading]:
    """Return the comparable numbers of a node: real GPUs, whole cards, finite values; the slowest where one repeats."""
    if evidence.measured is None or not evidence.has_real_gpus:
        return []
    cards = {key: device for (key, _), device in zip(gpu_subjects(evidence), evidence.answering) if key is not None}
    whole = {key: device for key, device in cards.items() if not is_sliced(device)}
    every = tuple(sorted(str(device["uuid"]) for device in cards.values()))
    kinds = {key: kind_of(device) for key, device in whole.items()}
    of_node = " + ".join(f"{list(kinds.values()).count(kind)} x {kind}" for kind in sorted(set(kinds.values())))
    torch = str(dig(evidence.torch, "version") or "")
    found: dict[tuple[str, tuple[str, ...]], Reading] = {}
    for result in evidence.results:
        place = str(result.get("device"))
        if not _compared(result) or (place not in whole and (place != _NODE or len(whole) < len(cards))):
            continue
        device = whole.get(place)
        metric = _metric(result, device)
        reading = Reading(
            node=evidence.node,
            subject=device_name(device) if device else _NODE,
            cards=(str(device["uuid"]),) if device else every,
            kind=kinds[place] if device else of_node,
            metric=metric,
            value=float(result["value"]),
            torch=torch,
        )
        known = found.get((place, metric))
        if known is None or better(known.value, reading.value, reading.unit):
            found[(place, metric)] = reading
    return list(found.values())


def kind_of(device: Mapping[str, Any]) -> str:
    """Return what makes two cards comparable: model, memory, power limit and ECC, in words."""
    total, watts = dig(device, "memory.total_bytes"), dig(device, "power.limit_watts")
    parts = [
        str(device.get("catalogue_id") or device.get("name") or "unknown GPU"),
        f"{round(total / (1 << 30))} GiB" if isinstance(total, int) else "memory unknown",
        f"{round(watts)} W" if isinstance(watts, (int, float)) else "power limit unknown",
        f"ECC {dig(device, 'ecc.current') or 'unknown'}",
    ]
    return ", ".join(parts)


def better(one: float, other: float, unit: str) -> bool:
    """True when the first value is better than the second."""
    return one < other if less_is_better(unit) else one > other


def _compared(result: Mapping[str, Any]) -> bool:
    suite, name = str(result.get("suite")), str(result.get("name"))
    if suite in NO_SPEED or name.startswith(_SUMS) or not is_measurement(result):
        return False
    # what did not fit, or was not measured for another reason, is told in the report and is no speed
    return dig(result, "details.state") in (None, "measured")


def _metric(result: Mapping[str, Any], device: Mapping[str, Any] | None) -> tuple[str, ...]:
    parts = [str(result.get(key) or "") for key in ("suite", "name", "dtype", "level", "unit")]
    if parts[0] in _LINK_SUITES and device is not None:
        parts.append(f"gen{dig(device, 'pcie.max_generation')} x{dig(device, 'pcie.max_width')}")
    if device is None and result.get("device_name"):
        # a node with several kinds of GPUs has a number of the same name for each of them
        parts.append(str(result["device_name"]))
    return tuple(parts)
