# SPDX-License-Identifier: Apache-2.0
"""Checks of a node's health: their states, the ladder of severities, the actions. Pure.

``ok`` says that something was measured and is right. ``not_applicable`` (the hardware has no such thing, or nothing was
declared to hold it against) and ``not_measured`` (it could not be read) have a reason and are never a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import kernel_rules
from .health_table import RULES

OK, FINDING, NOT_APPLICABLE, NOT_MEASURED = "ok", "finding", "not_applicable", "not_measured"
STATES = (OK, FINDING, NOT_APPLICABLE, NOT_MEASURED)
LADDER = kernel_rules.LADDER
MONITOR, RESET, REBOOT, ISOLATE = LADDER
NONE = "none"

ACTIONS: dict[str, str] = {
    **kernel_rules.ACTIONS,
    "reload_driver": "Unload the nvidia modules when no program uses a GPU, and load them again.",
    "power_cycle": "Switch the node off and on again; a restart does not take the power from every part.",
    "check_power": "Check power supplies, their cables and the power cap of the rack.",
    "check_slot": "Check riser, slot and their settings in the firmware.",
    "restart_service": "Restart the service and read its log (journalctl -u).",
    "start_fabric_manager": "Start nvidia-fabricmanager, in the driver's version, and read its log.",
    "set_modes": "Set the declared modes again: playbooks/site.yml, role nvidia_driver (gpu_modes).",
    "run_site": "Run playbooks/site.yml on this node.",
    "fix_configuration": "Correct the setting on the node.",
    "free_space": "Free space on the file system.",
    "update_firmware": "Bring the cards of one model to one firmware (VBIOS).",
    "close_leftovers": "End the processes that were left behind.",
    "accept": "If the change was wanted, run playbooks/check-health.yml with -e health_accept=true once.",
}

Check = dict[str, Any]


def steps(words: Iterable[str]) -> list[dict[str, str]]:
    """Return these actions in their order, each with its sentence."""
    return [{"action": word, "text": ACTIONS[word]} for word in words]


def _check(check_id: str, subject: str, state: str, **more: Any) -> Check:
    """One record; every check has all keys."""
    rule = RULES[check_id]
    blank: Check = {"observed": None, "expected": None, "severity": None, "actions": [], "reason": None}
    return {"id": check_id, "subject": subject, "state": state, **blank, "source": rule.source, **more}


def ok(check_id: str, subject: str, observed: Any = None, expected: Any = None) -> Check:
    return _check(check_id, subject, OK, observed=observed, expected=expected)


def finding(
    check_id: str,
    subject: str,
    severity: str,
    reason: str,
    *,
    observed: Any = None,
    expected: Any = None,
    actions: Iterable[str] | None = None,
    **more: Any,
) -> Check:
    """Return a finding; its actions are those of the rule unless others are named."""
    words = RULES[check_id].actions if actions is None else tuple(actions)
    return _check(
        check_id,
        subject,
        FINDING,
        observed=observed,
        expected=expected,
        severity=severity,
        actions=steps(words),
        reason=reason,
        **more,
    )


def not_applicable(check_id: str, subject: str, reason: str) -> Check:
    return _check(check_id, subject, NOT_APPLICABLE, reason=reason)


def not_measured(check_id: str, subject: str, reason: str, **more: Any) -> Check:
    return _check(check_id, subject, NOT_MEASURED, reason=reason, **more)


def rank(severity: str | None) -> int:
    """Return the place of a severity on the ladder, 0 for none."""
    return LADDER.index(severity) + 1 if severity in LADDER else 0


def worst(checks: Iterable[Mapping[str, Any]]) -> str:
    """Return the worst severity of the findings, ``none`` without one."""
    found = max((rank(check["severity"]) for check in checks if check["state"] == FINDING), default=0)
    return LADDER[found - 1] if found else NONE


def findings(checks: Iterable[Check]) -> list[Check]:
    """Return the findings, worst first; equal ones stay in their order."""
    return sorted((check for check in checks if check["state"] == FINDING), key=lambda check: -rank(check["severity"]))


def summary(checks: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many checks have each state."""
    states = [check["state"] for check in checks]
    return {state: states.count(state) for state in STATES}
