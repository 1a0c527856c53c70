# SPDX-License-Identifier: Apache-2.0
"""Checks of every number against the node's peers in the fleet and against its own past. Pure.

Per node and metric there is one check for what is in order, naming the GPUs, and one for each GPU that is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import history, peers
from .speed_metrics import Reading, readings
from .verdict_record import FAIL, NOT_APPLICABLE, PASS, WARN, Check, Evidence, check, dig
from .verdict_results import ADVICE

PEERS, HISTORY = "peers", "history"
_STATUS = {"pass": PASS, "warn": WARN, "fail": FAIL}
_HISTORY_ADVICE = (
    "If what changed explains it, measure a few nodes with the old and the new state; otherwise look for heat, "
    "a power cap and a narrow link first."
)
_NO_PEER = "no other GPU or node of its kind was measured"
_NO_PAST = "these GPUs were not measured before with the same model, memory, power limit and ECC"


@dataclass
class Relative:
    """What the comparison of a run gave."""

    checks: dict[str, list[Check]] = field(default_factory=dict)
    stragglers: list[dict[str, Any]] = field(default_factory=list)
    measured: dict[str, list[tuple[Reading, dict[str, Any]]]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Group:
    distribution: peers.Distribution
    outside: int


def compare(evidence: Mapping[str, Evidence], past: Mapping[str, Any]) -> Relative:
    """Hold every number of a run against those of its peers and against the past of its card.

    Args:
        evidence: per node.
        past: the history (see history.py).
    """
    found = Relative()
    for node, entry in evidence.items():
        known = readings(entry)
        once = {(reading.cards, reading.of_node): reading for reading in known}
        told = {key: _context(entry, reading) for key, reading in once.items()}
        found.measured[node] = [(reading, told[(reading.cards, reading.of_node)]) for reading in known]
    groups = _groups([reading for pairs in found.measured.values() for reading, _context in pairs], past)
    for node, pairs in found.measured.items():
        found.checks[node] = _node(evidence[node], pairs, groups, past, found.stragglers) if pairs else []
    found.stragglers.sort(key=lambda entry: (entry["fraction"], entry["node"], entry["subject"]))
    return found


def _context(evidence: Evidence, reading: Reading) -> dict[str, Any]:
    card = next((device for device in evidence.answering if device.get("uuid") == reading.cards[0]), {})
    return {
        "at": dig(evidence.gpu, "collected_at"),
        "node": evidence.node,
        "driver": dig(evidence.gpu, "driver.kernel_module_version"),
        "vbios": None if reading.of_node else card.get("vbios_version"),
        "torch": reading.torch or None,
        "kernel": dig(evidence.host, "kernel"),
    }


def _groups(every: Sequence[Reading], past: Mapping[str, Any]) -> dict[tuple[str, str], _Group]:
    alike: dict[tuple[str, str], list[Reading]] = {}
    for reading in every:
        alike.setdefault(_place(reading), []).append(reading)
    torches = {place: {reading.torch for reading in found} for place, found in alike.items()}
    present = {card for reading in every for card in reading.cards}
    before = history.peers_of_before(past, torches, present) if every else {}
    groups = {}
    for place, found in alike.items():
        outside = before.get(place, [])
        numbers = [reading.value for reading in found]
        distribution = peers.describe([*numbers, *outside], peers.less_is_better(found[0].unit))
        groups[place] = _Group(distribution, len(outside))
    return groups


def _place(reading: Reading) -> tuple[str, str]:
    """What is equal for two numbers that are compared, as the history names it."""
    return reading.kind, history.key_of(reading)


def _node(
    evidence: Evidence,
    pairs: Sequence[tuple[Reading, dict[str, Any]]],
    groups: Mapping[tuple[str, str], _Group],
    past: Mapping[str, Any],
    stragglers: list[dict[str, Any]],
) -> list[Check]:
    limits, checks = evidence.limits, []
    fine: dict[tuple[str, str], list[tuple[Reading, float]]] = {}
    compared = {PEERS: False, HISTORY: False}
    for reading, context in pairs:
        group = groups[_place(reading)]
        against: list[tuple[str, Any]] = [
            (PEERS, group.distribution.standing(reading.value, limits[PEERS])),
            (HISTORY, history.stand(past, reading, context, limits[HISTORY])),
        ]
        for name, standing in against:
            if standing is None:
                continue
            compared[name] = True
            if standing.step == "pass":
                fine.setdefault((name, reading.slug), []).append((reading, standing.fraction))
                continue
            said = (
                peers.text(standing, reading.value, reading.unit, group.outside)
                if name == PEERS
                else history.text(standing, reading)
            )
            checks.append(_flagged(name, reading, standing, said, limits[name]))
            stragglers.append(_straggler(name, reading, standing))
    checks += [_fine(name, slug, found) for (name, slug), found in fine.items()]
    for name, reason in ((PEERS, _NO_PEER), (HISTORY, _NO_PAST)):
        if not compared[name]:
            checks.append(check(f"benchmark.{name}", NOT_APPLICABLE, "node", reason=reason))
    return checks


def _flagged(name: str, reading: Reading, standing: Any, said: str, limits: Mapping[str, Any]) -> Check:
    observed = {
        "suite": reading.suite,
        "name": reading.metric[1],
        "value": reading.value,
        "unit": reading.unit,
        "fraction": round(standing.fraction, 4),
        "n": standing.n,
    }
    if name == PEERS:
        observed["modified_z"] = None if standing.z is None else round(standing.z, 2)
        expected = {standing.against: standing.reference, "kind": reading.kind, **limits}
        advice = ADVICE
    else:
        expected = {"base": standing.base, "last": standing.last, "kind": reading.kind, **limits}
        advice = _HISTORY_ADVICE
    return check(
        f"benchmark.{name}.{reading.slug}",
        _STATUS[standing.step],
        reading.subject,
        observed=observed,
        expected=expected,
        reason=said,
        next_step=advice,
    )


def _straggler(name: str, reading: Reading, standing: Any) -> dict[str, Any]:
    return {
        "node": reading.node,
        "subject": reading.subject,
        "metric": reading.metric[1],
        "against": name,
        "status": standing.step,
        "value": reading.value,
        "unit": reading.unit,
        "fraction": round(standing.fraction, 4),
    }


def _fine(name: str, slug: str, found: Sequence[tuple[Reading, float]]) -> Check:
    subjects = ", ".join(dict.fromkeys(reading.subject for reading, _fraction in found))
    slowest, fraction = min(found, key=lambda pair: pair[1])
    observed = {"slowest": slowest.value, "unit": slowest.unit, "fraction": round(fraction, 4)}
    return check(f"benchmark.{name}.{slug}", PASS, subjects, observed=observed)
