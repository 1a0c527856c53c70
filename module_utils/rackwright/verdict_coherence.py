# SPDX-License-Identifier: Apache-2.0
"""The gate ``coherence`` of a verdict: everything that has to be of one version is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import coherence
from .coherence_view import FAIL as STOPS
from .coherence_view import NOT_APPLICABLE, OK, UNKNOWN
from .verdict_record import FAIL, NOT_MEASURED, PASS, WARN, Check, Evidence, check
from .verdict_record import NOT_APPLICABLE as SKIPPED

_STATUS = {OK: PASS, UNKNOWN: NOT_MEASURED, NOT_APPLICABLE: SKIPPED}
_FIRST = coherence.IDS[0]
_FINE = ("ready", "wsl2", "no_gpu")


def coherence_checks(evidence: Evidence) -> list[Check]:
    """Return one check per answer of the coherence rules, as ``coherence.<rule>``.

    Where the driver does not answer at all, ``gpu.situation`` fails with the cause: what is unknown because of it is
    said once, not once per rule.
    """
    answers = coherence.examine(evidence.gpu or {}, _stack(evidence))
    return [_check(answer, evidence.situation in _FINE or answer["id"] == _FIRST) for answer in answers]


def _stack(evidence: Evidence) -> Mapping[str, Any] | None:
    """The lock's entry; a driver version that is asked for without a lock is held against the node all the same."""
    stack, version = evidence.expected.get("stack"), evidence.expected.get("driver_version")
    if isinstance(stack, Mapping):
        return stack
    return {"driver": {"version": str(version)}} if version else None


def _check(answer: Mapping[str, Any], loud: bool) -> Check:
    status = _STATUS.get(answer["state"]) or (FAIL if answer["severity"] == STOPS else WARN)
    reason = answer["cause"]
    if answer["state"] == UNKNOWN and not loud:
        status, reason = SKIPPED, f"cannot be told while the driver does not answer: {reason}"
    return check(
        f"coherence.{answer['id'].replace('-', '_')}",
        status,
        answer["subject"],
        observed=answer["found"],
        expected=answer["expected"],
        reason=reason,
        next_step=answer["cure"],
    )
