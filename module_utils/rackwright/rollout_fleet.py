# SPDX-License-Identifier: Apache-2.0
"""From what was found out about every node to the document of a run and what each host of it is given. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from . import fleet_plan, lock, rollout
from . import rollout_state as state
from .errors import InvalidInputError
from .rollout import Decision, Limits, Options, Seen
from .update_report import SCHEMA

ROLE = "nvidia_driver"


def seen(
    member: fleet_plan.Member,
    target: Mapping[str, Any],
    present: Mapping[str, Any] | None,
    record: tuple[Mapping[str, Any] | None, str | None],
    refusal: str | None,
) -> Seen:
    """Return what is known of one node.

    Args:
        member: the node, with what its receipt has to say under the lock it goes to.
        target: the lock it goes to.
        present: the entries of its stack in the present lock, where it goes back to another one.
        record: the newer of both records, and a note about them.
        refusal: why the lock cannot be applied to it.
    """
    stack = lock.stack_of(target, member.name)
    receipt = member.receipts.get(ROLE) or {}
    problem = receipt.get("problem") or (None if receipt else member.receipts_problem or "no receipt")
    notes = [f"drifted since it was installed: {text}" for text in (receipt.get("drift") or [])[:3]]
    driver = (member.gpu or {}).get("driver") or {}
    return Seen(
        member.name,
        kind=target["nodes"].get(member.name),
        refusal=refusal,
        silent=member.failure if member.gpu is None else None,
        target=_side(member.expected[ROLE]["lock"]) if stack and stack.get("driver") else None,
        current=None if problem else _side(receipt["lock"]),
        problem=problem,
        installed=any(
            driver.get(key) for key in ("library_version", "kernel_module_version", "installed_module_version")
        ),
        record=record[0],
        locked=None if present is None else state.entries_digest(present),
        notes=tuple([*notes, *([record[1]] if record[1] else [])]),
    )


def for_kernel(node: Seen, member: fleet_plan.Member, wanted: str) -> Seen:
    """Return what a run that updates kernels has to know of a node: its kernels in the place of its drivers.

    A node whose driver is not the lock's is refused: the role would bring both at once.
    """
    target, current = (state.entries_digest(side["entries"]) if side else None for side in (node.target, node.current))
    refusal = node.refusal
    if refusal is None and None not in (target, current) and target != current:
        refusal = "its driver is not what the lock says. Run playbooks/update-driver.yml first"
    running = ((member.node or {}).get("kernel") or {}).get("running")
    return dataclasses.replace(
        node,
        refusal=refusal,
        target=None if node.target is None else {"version": wanted, "entries": {"kernel": wanted}},
        current=None if node.current is None else {"version": running, "entries": {"kernel": running}},
    )


def _side(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {"version": (entries.get("driver") or {}).get("version"), "entries": dict(entries)}


def with_entries(stack: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stack in which a role finds other entries: what the node had, under the names the role reads."""
    changed: dict[str, Any] = dict(stack)
    for key, value in entries.items():
        *parents, last = key.split(".")
        place = changed
        for parent in parents:
            place[parent] = dict(place.get(parent) or {})
            place = place[parent]
        place[last] = value
    return changed


def proven_kinds(known: Sequence[Seen], decisions: Sequence[Decision]) -> set[str | None]:
    """Return the kinds of which a node was brought to this very stack and proven."""
    found = set()
    for node, decision in zip(known, decisions):
        done = node.record is not None and node.record["state"] == state.DONE
        if decision.what == rollout.CURRENT and done:
            found.add(node.kind)
    return found


def document(
    run: Mapping[str, Any], known: Sequence[Seen], options: Options, limit: Limits, forget: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the document of a run as it is planned.

    Args:
        run: ``id``, ``what``, ``direction``, ``lock``, ``settings``, ``began``.
        known: every node, in the order of the inventory.
        options: decisions of the user.
        limit: how fast it may go.
        forget: nodes whose update is to be forgotten; then the run does nothing else.
    """
    decisions = [forgotten(node, forget) if forget else rollout.decide(node, options) for node in known]
    kinds = {node.name: node.kind for node in known}
    proven = proven_kinds(known, decisions)
    if forget:
        found = [batch for batch in [[d.name for d in decisions if d.what == rollout.RESUME]] if batch]
        canaries: list[str] = []
    else:
        found, canaries = rollout.batches(decisions, kinds, proven, limit)
    number = {name: place for place, batch in enumerate(found, 1) for name in batch}
    nodes = {}
    for node, decision in zip(known, decisions):
        before = (node.record or {}).get("from") if decision.what == rollout.RESUME else node.current
        nodes[node.name] = {
            "kind": node.kind,
            "plan": decision.what,
            "phase": decision.phase,
            "reason": decision.reason,
            "notes": list(decision.notes),
            "batch": number.get(node.name),
            # what earlier runs did on the node is not this run's time
            "steps_before": len((node.record or {}).get("steps") or []) if decision.what == rollout.RESUME else 0,
            "from": _short(before or node.current),
            "to": _short(node.target),
        }
    return {
        "schema": SCHEMA,
        "kind": "rackwright-update",
        **run,
        "ended": None,
        "batches": found,
        "canaries": canaries,
        "proven": sorted(str(kind) for kind in proven),
        "held": {},
        "stopped": None,
        "nodes": nodes,
    }


def _short(side: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if side is None else {"version": side.get("version"), "digest": state.entries_digest(side["entries"])}


def forgotten(node: Seen, forget: Sequence[str]) -> Decision:
    """Return what a run that only forgets updates does with a node."""
    if node.name not in forget:
        return Decision(node.name, rollout.SKIPPED, None)
    if not state.unfinished(node.record):
        return Decision(node.name, rollout.SKIPPED, "it has no unfinished update")
    if node.silent:
        return Decision(node.name, state.FORGOTTEN, "it does not answer: only the control node's record was closed")
    return Decision(node.name, rollout.RESUME, "its update is forgotten")


def check_names(variable: str, named: Sequence[str], names: Sequence[str]) -> None:
    """Refuse names that are no nodes of the run."""
    unknown = sorted(set(named) - set(names))
    if unknown:
        cause = f"{', '.join(unknown)} is no node of this run, and no node was contacted"
        raise InvalidInputError(f"use {variable}", "the update", cause, "Name nodes of this run, separated by commas")


def placement(
    run: Mapping[str, Any], node: Seen, stack: Mapping[str, Any], reports: str, forget: bool
) -> dict[str, Any]:
    """Return what one host is given: its place, its record as this run begins with it, both stacks."""
    planned = run["nodes"][node.name]
    target = node.target or {"version": None, "entries": {}}
    if planned["plan"] == rollout.RESUME and node.record is not None:
        record = {**node.record, "run": run["id"], "state": state.OPEN, "phase": planned["phase"], "ended": None}
        if not forget:
            record.update(to=dict(target), reason=node.record["reason"] if planned["phase"] == state.BACK else None)
    else:
        record = state.begin(node.name, str(run["what"]), str(run["id"]), node.current, target)
    before = record["from"]
    return {
        "name": node.name,
        "groups": ["update_nodes"],
        "variables": {
            "__update": {
                "run": run["id"],
                "what": run["what"],
                "forget": forget,
                "record": record,
                "reports": reports,
                "version": target["version"],
                "stack": dict(stack),
                "return_stack": _return_stack(run, stack, before),
            }
        },
    }


def _return_stack(
    run: Mapping[str, Any], stack: Mapping[str, Any], before: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    if before is None:
        return None
    return dict(stack) if run["what"] == "kernel" else with_entries(stack, before["entries"])


def placements(
    run: Mapping[str, Any], known: Sequence[Seen], locked: Mapping[str, Any], reports: str, forget: bool
) -> list[dict[str, Any]]:
    """Return the hosts of the rollout in its order, each with what it is given."""
    by_name = {node.name: node for node in known}
    order = [name for batch in run["batches"] for name in batch]
    return [placement(run, by_name[name], lock.stack_of(locked, name) or {}, reports, forget) for name in order]
