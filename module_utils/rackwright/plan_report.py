# SPDX-License-Identifier: Apache-2.0
"""Plans, differences and drift as text for people and as documents for programs. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from .fleet_plan import CONVERGED, REFUSED, SET_ASIDE, SILENT, SOLVED, STALE
from .reports import os_text
from .text_table import MAX_ROWS, SIMULATED, WIDTH, bullets, table

SCHEMA = 1
PLAN_COLUMNS = ("node", "os", "gpus", "driver", "framework", "python", "plan")
STATE_COLUMNS = ("node", "stack", "state", "stale roles", "last proof")
_SHRINK = ("gpus", "stack", "node", "os", "framework", "stale roles")
_LEAST = {"gpus": 16, "stack": 20, "node": 14}
_MOST_CHANGES = 12
#: how rules of decisions begin that a person has to know of
_ATTENTION = ("warning: ", "unknown: ")


def plan_text(result: Mapping[str, Any], path: str, written: str) -> str:
    """Return table, refusals and differences of a plan.

    Args:
        result: what :func:`fleet_plan.plan_fleet` returned.
        path: where the lock is.
        written: what happened to it: ``written``, ``unchanged`` or ``not written (check mode)``.
    """
    plans, changes = result["plans"], result["changes"]
    rows = [_plan_row(name, plan, changes[name]) for name, plan in plans.items()]
    shown = (
        rows
        if len(rows) <= MAX_ROWS
        else sorted((r for r in rows if r["plan"] != "unchanged"), key=_urgency)[:MAX_ROWS]
    )
    lines = ["Rackwright plan", "", *table(PLAN_COLUMNS, shown, _SHRINK, _LEAST)]
    if len(shown) < len(rows):
        lines.append(f"... and {len(rows) - len(shown)} more nodes, all named in the lock and in the report")
    for name, plan in plans.items():
        if plan["status"] != SOLVED:
            lines += ["", f"{name}: {plan['status']}" + (f" by the gate {plan['gate']}" if plan["gate"] else "")]
            lines += bullets(_refusal_lines(plan))
    lines += _difference_lines(changes)
    lines += _attention_lines(plans)
    counts = [plan["status"] for plan in plans.values()]
    told = ", ".join(f"{counts.count(status)} {status}" for status in (SOLVED, REFUSED, SILENT) if status in counts)
    return "\n".join([*lines, "", f"{len(plans)} node(s): {told}.", f"Lock: {path} ({written})"])


def _urgency(row: Mapping[str, str]) -> int:
    """What needs a decision comes first, new nodes last."""
    return 0 if row["plan"] in (REFUSED, SILENT) else 2 if row["plan"] == "new" else 1


def _plan_row(name: str, plan: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, str]:
    machine = plan["machine"] or {}
    row = {
        "node": name,
        "os": os_text(machine.get("os_name")),
        "gpus": _gpus(machine),
        "driver": "-",
        "framework": "-",
        "python": str(machine.get("python") or "-"),
        "plan": plan["status"],
    }
    if plan["status"] == SOLVED:
        stack = plan["stack"]
        row.update(driver=_driver(stack), framework=_framework(stack), python=str(stack["python"]["version"]))
        states = {"same": "unchanged", "explained anew": "unchanged", "new": "new", "changed": "changed"}
        row["plan"] = states[change["state"]] + (
            ", reboot" if change["reboot"] and change["state"] == "changed" else ""
        )
    return row


def _gpus(machine: Mapping[str, Any]) -> str:
    if not machine:
        return "unknown"
    names = [f"{gpu['count']} x {re.sub(r'^NVIDIA (GeForce )?', '', gpu['name'])}" for gpu in machine.get("gpus") or []]
    text = " + ".join(names)
    return (f"{text}{SIMULATED}" if machine.get("simulated") else text) if text else "none"


def _driver(stack: Mapping[str, Any]) -> str:
    driver = stack["driver"]
    return f"{driver['version']} {driver['flavour']}" if driver else "none"


def _framework(stack: Mapping[str, Any]) -> str:
    framework = stack["framework"]
    serving = stack["serving"]
    text = f"{framework['name']} {framework['version']}" if framework else "none"
    if framework and framework.get("build"):
        text += f"+{framework['build']}"
    return text + (f", {serving['engine']} {serving['version']}" if serving else "")


def _refusal_lines(plan: Mapping[str, Any]) -> list[str]:
    lines = [str(plan["reason"])]
    lines += [f"possible with: {remedy}" for remedy in plan["remedies"]]
    lines += [f"nearest: {alternative['sentence']}" for alternative in plan["alternatives"]]
    return lines


def _attention_lines(plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was decided and still needs somebody's attention: ends of life, and what nobody has told."""
    groups: dict[str, list[str]] = {}
    for name, plan in plans.items():
        for decision in plan["decisions"] if plan["status"] == SOLVED else []:
            if decision["rule"].startswith(_ATTENTION):
                groups.setdefault(f"{decision['item']}: {decision['rule']}", []).append(name)
    lines = [""] if groups else []
    for text, names in groups.items():
        lines += textwrap.wrap(f"{text} (on {_some(names)})", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return lines


def _difference_lines(changes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The same change on many nodes is told once."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, change in changes.items():
        if change["state"] in ("changed", "removed"):
            key = (
                change["state"],
                *((c["item"], _value(c["from"]), _value(c["to"]), c["why"]) for c in change["items"]),
            )
            groups.setdefault((change["reboot"], *key), []).append(name)
    lines: list[str] = []
    for (reboot, state, *items), names in groups.items():
        ending = "; these nodes will need a reboot" if reboot else ""
        lines += ["", f"{_some(names)}: {'leaves the lock' if state == 'removed' else 'changes'}{ending}"]
        if state == "removed":
            continue
        for item, before, after, why in items[:_MOST_CHANGES]:
            text = f"{item}: {before} → {after}" + (f" ({why})" if why else "")
            lines += textwrap.wrap(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")
        if len(items) > _MOST_CHANGES:
            lines.append(f"  ... and {len(items) - _MOST_CHANGES} more values")
    return lines


def _value(value: Any) -> str:
    """Write a value of the lock as people do: a list by its entries, a package with its pin, nothing as none."""
    if isinstance(value, list):
        return ", ".join(_value(entry) for entry in value) or "none"
    if isinstance(value, Mapping):
        return " ".join(str(part) for part in value.values() if part is not None)
    return "none" if value is None else str(value)


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def plan_document(result: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the whole plan for programs: every chosen value with its rule and source, every refusal with its gate."""
    nodes = {}
    for name, plan in result["plans"].items():
        change = result["changes"][name]
        nodes[name] = {
            **plan,
            "change": {"state": change["state"], "reboot": change["reboot"], "items": change["items"]},
        }
    return {
        "schema": SCHEMA,
        "kind": "rackwright-plan",
        "lock": path,
        "tables": result["lock"]["digests"]["tables"],
        "summary": {
            status: sum(1 for plan in result["plans"].values() if plan["status"] == status)
            for status in (SOLVED, REFUSED, SILENT)
        },
        "nodes": nodes,
    }


def state_text(
    states: Mapping[str, Mapping[str, Any]], proofs: Mapping[str, Any], path: str, notes: Sequence[str]
) -> str:
    """Return the table of a check: which node is converged, which role is stale where, and why."""
    rows = [
        {
            "node": name,
            "stack": str(state["stack"] or "-"),
            "state": state["state"],
            "stale roles": ", ".join(state["stale"]) or "-",
            "last proof": _proof(proofs.get(name)),
        }
        for name, state in states.items()
    ]
    shown = rows if len(rows) <= MAX_ROWS else [row for row in rows if row["state"] != CONVERGED][:MAX_ROWS]
    lines = [f"Rackwright state (lock {path})", "", *table(STATE_COLUMNS, shown, _SHRINK, _LEAST)]
    if len(shown) < len(rows):
        lines.append(f"... and {len(rows) - len(shown)} more nodes")
    lines += _stale_lines(states)
    for name, state in states.items():
        if state["state"] == SET_ASIDE:
            lines += ["", f"{name}: set aside", *bullets([str(state["reason"])])]
    lines += [f"Note: {note}" for note in notes]
    counts = [state["state"] for state in states.values()]
    told = ", ".join(f"{counts.count(word)} {word}" for word in (CONVERGED, STALE, SET_ASIDE) if word in counts)
    return "\n".join([*lines, "", f"{len(states)} node(s): {told}."])


def _stale_lines(states: Mapping[str, Mapping[str, Any]]) -> list[str]:
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, state in states.items():
        for role, reasons in state["stale"].items():
            groups.setdefault((role, tuple(reasons)), []).append(name)
        if state["state"] == CONVERGED and state["prove"]:
            groups.setdefault(("proof due", (state["prove"],)), []).append(name)
    lines: list[str] = [""] if groups else []
    for (role, reasons), names in groups.items():
        for reason in reasons[:_MOST_CHANGES]:
            text = f"{role}: {reason} (on {_some(names)})"
            lines += textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        if len(reasons) > _MOST_CHANGES:
            lines.append(f"  ... and {len(reasons) - _MOST_CHANGES} more reasons")
    return lines


def _proof(entry: Mapping[str, Any] | None) -> str:
    return (
        f"{entry.get('verdict_text', entry.get('verdict'))}, {entry.get('run_id')}"
        if entry and entry.get("verdict")
        else "never"
    )


def drift_document(states: Mapping[str, Mapping[str, Any]], path: str) -> dict[str, Any]:
    """Return a check for programs."""
    return {
        "schema": SCHEMA,
        "kind": "rackwright-drift",
        "lock": path,
        "nodes": {
            name: {
                "state": s["state"],
                "reason": s["reason"],
                "stale": s["stale"],
                "stack": s["stack"],
                "prove": s["prove"],
            }
            for name, s in states.items()
        },
    }
