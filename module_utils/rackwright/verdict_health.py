# SPDX-License-Identifier: Apache-2.0
"""What gpu_health found in this run, as checks of a verdict. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .health_record import LADDER, MONITOR
from .verdict_record import FAIL, NOT_APPLICABLE, NOT_MEASURED, PASS, WARN, Check, Evidence, check, dig, entries

#: Rules that verdicts have themselves: the same fault is told once.
_JUDGED_ELSEWHERE = ("coherence", "gpu.situation", "gpu.count")
#: Checks on the facts, and the rules of gpu_health that say the same with more behind them.
_SAID_BY_HEALTH = {
    "gpu.ecc_mode": ("ecc.mode",),
    "gpu.ecc_errors": ("ecc.uncorrected_volatile",),
    "gpu.row_remap": ("remap.failure", "remap.pending"),
    "gpu.recovery": ("gpu.recovery_action",),
}
_FINE = ("ready", "wsl2", "no_gpu")
_STATES = {"not_applicable": NOT_APPLICABLE, "not_measured": NOT_MEASURED}


def health_checks(evidence: Evidence) -> list[Check]:
    """Return one check per finding, and one per rule for what it found in order, not there or not readable.

    Nothing where gpu_health was not asked; one failed check where it was and gave no answer.
    """
    if not evidence.health:
        return []
    document = evidence.health_document
    if document is None:
        return [_silent(evidence.health)]
    grouped: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    checks = []
    for entry in entries(document, "checks"):
        if str(entry.get("id")).split(".")[0] in _JUDGED_ELSEWHERE or entry.get("id") in _JUDGED_ELSEWHERE:
            continue
        if entry.get("state") == "finding":
            checks.append(_finding(entry))
        else:
            reason = "" if entry.get("state") == "ok" else str(entry.get("reason") or "no reason given")
            grouped.setdefault((_id(entry), str(entry.get("state")), reason), []).append(entry)
    answers = evidence.situation in _FINE
    return checks + [_rest(*key, found, answers) for key, found in grouped.items()]


def once(evidence: Evidence, checks: Sequence[Check]) -> list[Check]:
    """Return the checks without those on facts that gpu_health made as well on the same subject."""
    told = {
        (entry.get("id"), subject)
        for entry in entries(evidence.health_document, "checks")
        if entry.get("state") in ("ok", "finding")
        for subject in str(entry.get("subject")).split(", ")  # alike checks of several GPUs are one
    }
    return [
        entry
        for entry in checks
        if not any((rule, entry["subject"]) in told for rule in _SAID_BY_HEALTH.get(entry["id"], ()))
    ]


def asks_for(evidence: Evidence) -> str | None:
    """Return the worst thing that health asks for where a benchmark would be wasted or harmful, else None."""
    severity = dig(evidence.health_document, "severity")
    return str(severity) if severity in LADDER[2:] else None


def digest(evidence: Evidence) -> dict[str, Any] | None:
    """Return what of the health document belongs into a report; its checks stand among those of the verdict."""
    document = evidence.health_document
    if document is None:
        return None
    return {key: document.get(key) for key in ("severity", "summary", "collected_at", "boot_id", "window_s")}


def _silent(result: Mapping[str, Any]) -> Check:
    if result.get("skipped"):
        return check("health.answer", NOT_MEASURED, "node", reason="gpu_health was not run")
    message = " ".join(str(result.get("msg") or "it gave no document").split())
    step = str(result.get("hint") or "Run playbooks/check-health.yml on this node.")
    return check("health.answer", FAIL, "node", reason=f"no proof: gpu_health failed: {message}", next_step=step)


def _id(entry: Mapping[str, Any]) -> str:
    return "health." + (re.sub(r"[^a-z0-9_]+", "_", str(entry.get("id")).lower().removeprefix("health.")) or "unnamed")


def _finding(entry: Mapping[str, Any]) -> Check:
    severity = str(entry.get("severity"))
    said = severity if severity in LADDER else f"severity {severity}, which is not known"
    reason = str(entry.get("reason") or "no reason given").rstrip(".")
    return check(
        _id(entry),
        # whatever asks for more than to keep an eye on it keeps the node from work
        WARN if severity == MONITOR else FAIL,
        str(entry.get("subject") or "node"),
        observed=entry.get("observed"),
        expected=entry.get("expected"),
        reason=f"{reason} ({said})",
        next_step=_actions(entry),
    )


def _actions(entry: Mapping[str, Any]) -> str | None:
    actions = entry.get("actions")
    said = [_action(action).rstrip(".") + "." for action in (actions if isinstance(actions, list) else []) if action]
    return " Then: ".join(said) or None


def _action(action: Any) -> str:
    if isinstance(action, Mapping):
        return str(action.get("text") or action.get("action"))
    return str(action).replace("_", " ")


def _rest(check_id: str, state: str, reason: str, found: list[Mapping[str, Any]], answers: bool) -> Check:
    subjects = [str(entry.get("subject") or "node") for entry in found]
    subject = ", ".join(dict.fromkeys(subjects))
    if state == "ok":
        observed = found[0].get("observed") if len(found) == 1 else None
        return check(check_id, PASS, subject, observed=observed, expected=found[0].get("expected"))
    status = _STATES.get(state, NOT_MEASURED)
    if status == NOT_MEASURED and not answers:
        # gpu.situation fails with the cause: what is unknown because of it is said once, not once per rule
        return check(
            check_id, NOT_APPLICABLE, subject, reason=f"cannot be told while the driver does not answer: {reason}"
        )
    return check(check_id, status, subject, reason=reason if state in _STATES else f"state {state} is not known")
