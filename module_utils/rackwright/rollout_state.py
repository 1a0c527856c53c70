# SPDX-License-Identifier: Apache-2.0
"""The record of one node's update: what it is, how it moves on, and which of two copies is to be believed. Pure.

The same record lies on the node (it survives reboots and a new control node) and on the control node (it survives a
node that does not answer). Every write raises ``serial``, so the copy with more of it is the newer one.

A record: ``schema``, ``node``, ``what`` (driver or kernel), ``id`` (of the run that began it; also that of its drain),
``run`` (of the run that last worked on it), ``serial``, ``state``, ``phase``, ``step``, ``reason``, ``from`` and ``to``
(``version`` and ``entries``: what of the locked stack the role uses), ``drain`` (what node_drain returned), ``before``
(update_check.picture), ``benchmark`` (numbers measured before), ``return_point`` (what return_point found), ``steps``,
``began``, ``ended``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .receipts import hash_of

SCHEMA = 1
#: where a node keeps it
PATH = "/var/lib/rackwright/update.json"

OPEN, DONE, ROLLED_BACK, STUCK = "open", "done", "rolled_back", "stuck"
REFUSED, BUSY, UNREACHABLE, FORGOTTEN = "refused", "busy", "unreachable", "forgotten"
STATES = (OPEN, DONE, ROLLED_BACK, STUCK, REFUSED, BUSY, UNREACHABLE, FORGOTTEN)
#: the node was not left as a good node is: it waits for a run, or for a person
UNFINISHED = (OPEN, STUCK, UNREACHABLE)
#: what counts against update_max_failures
FAILED = (ROLLED_BACK, STUCK, UNREACHABLE)

#: nothing was changed yet; the new version is being installed and proven; the node is being put back
PREPARE, FORWARD, BACK = "prepare", "forward", "back"
PHASES = (PREPARE, FORWARD, BACK)
#: the step in which a node is waited for before anything of the way back is done
WAIT = "back: wait"

_KEYS = {"schema": int, "node": str, "what": str, "id": str, "serial": int, "state": str, "phase": str, "to": dict}


def begin(
    node: str, what: str, run: str, before: Mapping[str, Any] | None, target: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record of an update that begins.

    Args:
        node: name of the node.
        what: ``driver`` or ``kernel``.
        run: id of this run.
        before: ``version`` and ``entries`` the node comes from, None where there is no way back.
        target: the same of where it goes.
    """
    return {
        "schema": SCHEMA,
        "node": node,
        "what": what,
        "id": run,
        "run": run,
        "serial": 0,
        "state": OPEN,
        "phase": PREPARE,
        "step": None,
        "reason": None,
        "from": None if before is None else dict(before),
        "to": dict(target),
        "drain": None,
        "before": None,
        "benchmark": None,
        "return_point": None,
        "steps": [],
        "began": None,
        "ended": None,
    }


def entries_digest(entries: Mapping[str, Any] | None) -> str:
    """Return the digest of a role's entries of the lock, to tell whether two stacks are the same to it."""
    return hash_of(dict(entries or {}))


def advance(record: Mapping[str, Any], now: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record after one more thing became known.

    Args:
        record: as it was.
        now: time of the write, ISO 8601 in UTC.
        changes: ``step`` that begins (ends the one before), ``state``, ``phase``, ``reason``, and any of ``drain``,
            ``before``, ``benchmark``, ``return_point``, ``run``. A return point, once there, is never replaced.
    """
    new = {**record, "serial": record["serial"] + 1, "steps": [dict(step) for step in record["steps"]]}
    new["began"] = record["began"] or now
    for key in ("state", "phase", "reason", "drain", "run"):
        if key in changes:
            new[key] = changes[key]
    for key in ("before", "benchmark", "return_point"):
        if changes.get(key) is not None and record[key] is None:
            new[key] = changes[key]
    ends = new["state"] != OPEN
    if (changes.get("step") or ends) and new["steps"] and new["steps"][-1]["ended"] is None:
        new["steps"][-1].update(ended=now)
    if changes.get("step"):
        new["step"] = changes["step"]
        new["steps"].append({"step": changes["step"], "began": now, "ended": None})
    new["ended"] = now if ends else None
    return new


def text(record: Mapping[str, Any]) -> str:
    """Return the file's text: the same for equal records."""
    return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def parse(content: str) -> tuple[dict[str, Any] | None, str | None]:
    """Return the record in a file's text, or None and why it is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None, "the record of its update is damaged (not JSON)"
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        return None, "the record of its update is damaged or of another version"
    wrong = sorted(key for key, kind in _KEYS.items() if not isinstance(found.get(key), kind))
    if wrong or found["state"] not in STATES or found["phase"] not in PHASES:
        return None, f"the record of its update is damaged ({', '.join(wrong) or 'state or phase unknown'})"
    blank = begin(found["node"], found["what"], found["id"], None, found["to"])
    return {**blank, **found}, None


def newer(
    of_node: Mapping[str, Any] | None, of_control: Mapping[str, Any] | None
) -> tuple[dict[str, Any] | None, str | None]:
    """Return the copy to go on with, and a note for people where the two copies differ in what matters.

    A node that lost its record goes on from the control node's copy, and the other way round. Of two copies of one
    update the one that was written more often is newer; of two updates the one with the later id is.
    """
    if of_node is None and of_control is None:
        return None, None
    if of_control is None:
        lost = of_node is not None and of_node["state"] in UNFINISHED
        return dict(of_node or {}), "the control node had no record of it: taken from the node" if lost else None
    if of_node is None:
        touched = of_control["state"] in UNFINISHED and of_control["drain"] is not None
        return dict(of_control), "the node lost its own record: the control node's copy is used" if touched else None
    key = max((of_node, of_control), key=lambda record: (record["id"], record["serial"]))
    return dict(key), None


def unfinished(record: Mapping[str, Any] | None) -> bool:
    """Whether an update was begun on a node and its end is not known to be good or undone."""
    return record is not None and record["state"] in UNFINISHED


def last_step(record: Mapping[str, Any]) -> str:
    """Return the step that was begun last, in words for people."""
    return str(record.get("step") or "its beginning")


def where(record: Mapping[str, Any]) -> str:
    """Return ``to 590.48.01`` for messages."""
    version = (record.get("to") or {}).get("version")
    return f"to {version}" if version else "to what its lock says"


def set_aside(record: Mapping[str, Any] | None, digest_now: str | None) -> str | None:
    """Return why a site run leaves a node alone because of its update, None when it need not.

    Args:
        record: the node's record.
        digest_now: :func:`entries_digest` of what the lock gives the node now. A node that was put back is in the way
            only as long as the lock still wants what failed.
    """
    if record is None:
        return None
    playbook = f"playbooks/update-{record['what']}.yml"
    name, reason = record["node"], str(record.get("reason") or "no reason was recorded").rstrip(".")
    if record["state"] in (OPEN, UNREACHABLE):
        return (
            f"its update {where(record)} was interrupted at {last_step(record)} (run {record['run']}). "
            f"Run {playbook}, which goes on where it was."
        )
    if record["state"] == STUCK:
        return (
            f"its update {where(record)} failed and it stays drained: {reason}. Repair it, then run {playbook} "
            f"with -e update_retry={name}, or with -e update_forget={name} to have it treated like any other node."
        )
    if record["state"] == ROLLED_BACK and entries_digest(record["to"].get("entries")) == digest_now:
        return (
            f"its update {where(record)} failed and it was put back: {reason}. Run {playbook} to try again, or plan "
            "the version it has."
        )
    return None


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many records are in which state."""
    return {state: count for state in STATES if (count := sum(1 for r in records if r["state"] == state))}
