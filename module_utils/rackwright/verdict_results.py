# SPDX-License-Identifier: Apache-2.0
"""Read a benchmark's document: which result belongs to which GPU of the facts, and how it is shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import verdict_gates as gates
from .measure import NOTABLE_SPREAD
from .verdict_gpu import device_name
from .verdict_record import FAIL, NOT_APPLICABLE, NOT_MEASURED, PASS, WARN, Check, Evidence, check, dig, entries, part

AGAIN = "Run the proof again and read what torch_benchmark reports for this node."
NO_SLICE = "MIG is enabled: CUDA gives a process one instance of the node at most, and it was none of this card"
ADVICE = "Read clocks and throttle beside the number: power cap, heat and a narrow link come before a bad card."


def of(evidence: Evidence, suite: str, device: str | None) -> list[Mapping[str, Any]]:
    """Return the results of one suite on one device, as torch names it."""
    return [entry for entry in evidence.by_device.get(str(device), []) if entry.get("suite") == suite]


def asked(evidence: Evidence, suite: str) -> bool:
    """True when the benchmark of this run was asked for a suite."""
    value = dig(evidence.measured, "suites")
    return isinstance(value, list) and suite in value


def absent(evidence: Evidence, suite: str, key: str, subject: str, sliced: bool = False) -> Check:
    """Return the check of a suite that was asked for and gave nothing on a device: an error says so itself.

    Args:
        sliced: whether MIG divides the card.
    """
    for entry in entries(evidence.measured, "not_applicable"):
        if entry.get("suite") == suite and entry.get("device") in (key, "node", None):
            reason = str(entry.get("reason") or "no reason given")
            return check(f"benchmark.{suite}", NOT_APPLICABLE, subject, reason=reason)
    reason = NO_SLICE if sliced else "it was asked for, and nothing was measured"
    return check(f"benchmark.{suite}", NOT_MEASURED, subject, reason=reason)


def gpu_subjects(evidence: Evidence) -> list[tuple[str | None, str]]:
    """Return, per answering GPU of the facts, torch's name for it (None where torch has none) and its name in checks.

    Matched by UUID, its own or of one of its MIG instances; where torch gives none, by position, which is right as long
    as torch sees all of them.
    """
    seen = part(evidence.measured, "devices")
    by_uuid = {_bare(info["uuid"]): key for key, info in seen.items() if isinstance(info, Mapping) and info.get("uuid")}
    pairs: list[tuple[str | None, str]] = []
    for position, device in enumerate(evidence.answering):
        positional = f"cuda:{position}" if not by_uuid and f"cuda:{position}" in seen else None
        found = [by_uuid[uuid] for uuid in _uuids(device) if uuid in by_uuid]
        pairs.append((found[0] if found else positional, device_name(device)))
    return pairs


def _bare(uuid: Any) -> str:
    """A UUID without the ``GPU-`` or ``MIG-`` in front: torch gives the number alone, of whichever of the two it is."""
    return str(uuid).partition("-")[2] if str(uuid).startswith(("GPU-", "MIG-")) else str(uuid)


def _uuids(device: Mapping[str, Any]) -> list[str]:
    return [_bare(entry.get("uuid")) for entry in (device, *entries(device, "mig.instances"))]


def is_sliced(device: Mapping[str, Any]) -> bool:
    """True where MIG divides the card."""
    return dig(device, "mig.mode") == "enabled"


def shown(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what of results stands in a check."""
    return [{key: entry.get(key) for key in ("name", "value", "unit", "spread")} for entry in found]


def spread_note(result: Mapping[str, Any]) -> str:
    """Return a remark where the rounds of a measurement disagree, else nothing."""
    spread = float(result.get("spread") or 0.0)
    return f"; rounds differ by {spread:.0%}, a sign of a power cap or heat" if spread > NOTABLE_SPREAD else ""


def attempts(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return every measurement of a number that was repeated, none where it was measured once."""
    return entries(result, "attempts")


def attempts_note(result: Mapping[str, Any]) -> str:
    """Return both numbers where one was measured twice, else nothing."""
    found = [entry.get("value") for entry in attempts(result)]
    values = [f"{value:.4g}" for value in found if isinstance(value, (int, float))]
    return f"; measured twice ({' and '.join(values)}), the better counts" if len(values) > 1 else ""


def judged(
    check_id: str, subject: str, result: Mapping[str, Any], peak: tuple[float, str], gate_name: str, evidence: Evidence
) -> Check:
    """Hold one number against a gate.

    Args:
        peak: what it could be at best, in the unit of the result, and where that is from (``the catalogue's``).
        gate_name: name of the gate, a fraction of the peak.
    """
    gate = evidence.limits[gate_name]
    most, source = peak
    fraction = float(result["value"]) / most
    observed = {
        **shown([result])[0],
        "suite": result.get("suite"),
        "fraction_of_peak": round(fraction, 4),
        "level": result.get("level"),
    }
    expected = {"peak": most, "gate": gate_name, **gate, "calibrated": gates.CALIBRATED}
    step = gates.step_for(fraction, gate)
    note = f"{fraction:.0%} of {source} {most:g} {result.get('unit')}"
    notes = spread_note(result) + attempts_note(result)
    if step == "pass":
        return check(check_id, PASS, subject, observed=observed, expected=expected, reason=note + notes)
    reason = f"{note}, below {gate[step]:.0%} (gate {gate_name}, not calibrated){notes}"
    status = FAIL if step == "fail" else WARN
    return check(check_id, status, subject, observed=observed, expected=expected, reason=reason, next_step=ADVICE)
