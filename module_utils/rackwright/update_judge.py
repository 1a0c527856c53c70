# SPDX-License-Identifier: Apache-2.0
"""May a node be updated, and is it proven after it was? Pure: facts, findings and records in, reasons out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import rollout_state as state
from . import update_check

STEP = "Put that right first; playbooks/diagnose-nodes.yml explains it. Nothing was changed on this node"
AFTER = "playbooks/diagnose-nodes.yml explains what is wrong with a node"
#: what the installation of another driver cures
CURED = (
    "module-library",
    "module-disk",
    "dkms-kernel",
    "boot-kernel",
    "package-skew",
    "lock-version",
    "lock-flavour",
    "fabric-manager",
    "container-toolkit",
    "cdi",
    "holds",
)
#: situations that are no reason against an update: the GPUs answer, or the driver alone is what is wrong
_MAY_BEGIN = ("ready", "version_mismatch", "driver_not_loaded")


def picture(gpu: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what a node is compared with afterwards; None where its GPUs did not answer."""
    if gpu.get("situation") != "ready":
        return None
    known = sorted(f"{finding['id']} {finding.get('subject')}" for finding in findings)
    return {**update_check.picture(gpu), "findings": known}


def obstacles(
    gpu: Mapping[str, Any],
    findings: Sequence[Mapping[str, Any]],
    found: Mapping[str, Any],
    without_return_point: bool,
) -> list[str]:
    """Return every reason against beginning an update on a node.

    Args:
        gpu: fact ``gpu``.
        findings: what coherence finds against the stack that the node has.
        found: what the module return_point found: ``free_mib``, ``needed_mib`` (path to MiB), ``reboot_pending``,
            ``unobtainable`` (packages as ``name=version``).
        without_return_point: whether the user gave up the way back.
    """
    reasons = []
    if gpu.get("situation") not in _MAY_BEGIN:
        reasons.append(f"its GPUs are {gpu.get('situation')} ({str(gpu.get('cause')).rstrip('.')})")
    for finding in findings:
        if finding.get("severity") == "fail" and finding["id"] not in CURED:
            reasons.append(f"{finding['id']}: {str(finding.get('cause')).rstrip('.')}")
    for path, needed in sorted((found.get("needed_mib") or {}).items()):
        free = (found.get("free_mib") or {}).get(path)
        if free is not None and free < needed:
            reasons.append(f"{path} has {free} MiB free and {needed} are needed (update_min_free_mib)")
    if found.get("reboot_pending"):
        reasons.append(f"a reboot is pending ({found['reboot_pending']})")
    lost = list(found.get("unobtainable") or [])
    if lost and not without_return_point:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        reasons.append(
            f"there is no return point: no source of the node has {', '.join(lost[:3])}{more} any more; "
            "update_without_return_point=true accepts that"
        )
    return reasons


def problems(
    record: Mapping[str, Any],
    gpu: Mapping[str, Any],
    stack: Mapping[str, Any] | None,
    findings: Sequence[Mapping[str, Any]],
    measured: Mapping[str, Any] | None,
    tolerance: float,
) -> list[str]:
    """Return every reason why a node is not proven; an empty list is the proof.

    What was not right before the update, and is no reason for GPU programs to fail, is not held against it. A node that
    was put back may be exactly as wrong as it was.
    """
    before, back = record.get("before"), record["phase"] == state.BACK
    known = set((before or {}).get("findings") or [])
    counted = [
        finding
        for finding in findings
        if f"{finding['id']} {finding.get('subject')}" not in known or (finding["severity"] == "fail" and not back)
    ]
    driver = (stack or {}).get("driver") or {}
    return update_check.problems(
        before,
        update_check.picture(gpu),
        driver.get("version") if record.get("what") == "driver" or back else None,
        counted,
        (record.get("benchmark"), measured),
        tolerance,
    )
