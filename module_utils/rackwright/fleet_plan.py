# SPDX-License-Identifier: Apache-2.0
"""Solve a fleet, or hold it against its lock: one call for all nodes, each kind of node solved once. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import compat, lock, proof, receipts, rollout_state
from .errors import RackwrightError
from .stack_intent import Intent
from .stack_node import StackNode, node_from_description, node_from_facts
from .tables import Tables, tables_digest

_PLAN_AGAIN = "Plan again with playbooks/plan-stack.yml."
SOLVED, REFUSED, SILENT = "solved", "refused", "unreachable"
CONVERGED, STALE, SET_ASIDE = "converged", "stale", "set aside"


@dataclass(frozen=True)
class Member:
    """One host of the fleet, with everything this run knows about it.

    Attributes:
        name: inventory name.
        intent: what is wanted of it, or the error that its wishes are.
        gpu: fact ``gpu``, None when nothing answered.
        node: fact ``node``.
        description: ``node_description`` for a machine that does not exist yet.
        receipts: what ``node_probe`` returned about its receipts.
        receipts_problem: why they could not be read.
        failure: why the node was set aside before, None when it was not.
        expected: role name to what its receipt has to say (:func:`role_inputs.expected`).
        proof: its entry in the record of proofs.
        update: the record of its last update (rollout_state), None when there is none.
    """

    name: str
    intent: Intent | RackwrightError
    gpu: Mapping[str, Any] | None = None
    node: Mapping[str, Any] | None = None
    description: Mapping[str, Any] | None = None
    receipts: Mapping[str, Any] = field(default_factory=dict)
    receipts_problem: str | None = None
    failure: str | None = None
    expected: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    proof: Mapping[str, Any] | None = None
    update: Mapping[str, Any] | None = None


def machine_of(member: Member, tables: Tables) -> StackNode:
    """Return the machine a member is: its facts where it answered, else its description."""
    if member.gpu and member.node:
        return node_from_facts(member.name, dict(member.gpu), dict(member.node), tables.gpus)
    return node_from_description(member.name, dict(member.description or {}), tables.gpus)


class Solver:
    """Solves each kind of node once; a fleet has few kinds."""

    def __init__(self, tables: Tables, today: str) -> None:
        self.tables = tables
        self.today = today
        self._solved: dict[Any, compat.Solution] = {}
        self._checked: dict[Any, list[str]] = {}

    def tables_digest(self) -> str:
        """Return the digest of the tables that the answers come from."""
        return f"sha256:{tables_digest(self.tables)}"

    def solve(self, member: Member) -> dict[str, Any]:
        """Return the plan of one node: ``status``, and the solution or the refusal with its gate and alternatives."""
        if member.gpu is None and member.description is None:
            reason = member.failure or "the node did not answer and has no node_description"
            return {**_refusal(SILENT, None, reason), "machine": None}
        try:
            if isinstance(member.intent, RackwrightError):
                raise member.intent
            machine = machine_of(member, self.tables)
        except RackwrightError as error:
            return {**_refusal(REFUSED, "intent", str(error)), "machine": None}
        key = (dataclasses.replace(machine, name=""), member.intent)
        if key not in self._solved:
            self._solved[key] = compat.solve(machine, member.intent, self.tables, self.today)
        return {**_plan(self._solved[key], member.intent), "machine": _machine_record(machine)}

    def problems(self, machine: StackNode | None, name: str, stack: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with a locked stack, for one machine or (None) in itself."""
        key = (dataclasses.replace(machine, name="") if machine else None, name)
        if key not in self._checked:
            self._checked[key] = compat.check_stack(machine, dict(stack), self.tables)
        return self._checked[key]


def _refusal(status: str, gate: str | None, reason: str) -> dict[str, Any]:
    return {"status": status, "gate": gate, "reason": reason, "remedies": [], "alternatives": [], "decisions": []}


def _plan(solution: compat.Solution, intent: Intent) -> dict[str, Any]:
    common = {"status": solution.status, "decisions": solution.decisions, "intent": intent.as_dict()}
    if solution.status == SOLVED:
        return {**common, "stack": solution.stack}
    return {
        **common,
        "gate": solution.gate,
        "reason": solution.reason,
        "remedies": solution.remedies,
        "alternatives": solution.alternatives,
    }


def _machine_record(machine: StackNode) -> dict[str, Any]:
    record: dict[str, Any] = dataclasses.asdict(machine)
    return {**record, "gpus": [dataclasses.asdict(gpu) for gpu in machine.gpus]}


def content(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the lock holds of a solved node: the stack, the intent it answers, and why.

    A reason names the row of the table that it rests on; the sources of that row are in the table and in the report.
    """
    why = {
        str(decision["item"]): f"{decision['rule']} [{decision['row']}]" if decision.get("row") else decision["rule"]
        for decision in plan["decisions"]
    }
    return {"intent": dict(plan["intent"]), **plan["stack"], "why": why}


def plan_fleet(members: Sequence[Member], solver: Solver, old: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the plans of all members, the new lock, and what changes against the old one.

    Nodes of the old lock that are not members keep their entry, so do members that did not answer or whose wish or
    description is a slip of the pen. A member whose wish is refused loses its entry: nothing may touch it until the
    wish is possible.
    """
    plans = {member.name: solver.solve(member) for member in members}
    understood = {name for name, plan in plans.items() if plan["machine"] is not None}
    solved = {name: content(plan) for name, plan in plans.items() if plan["status"] == SOLVED}
    new = lock.build({**lock.kept_contents(old, understood), **solved}, solver.tables_digest())
    return {"plans": plans, "lock": new, "changes": changes(old, new, list(plans))}


def changes(old: Mapping[str, Any] | None, new: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return per node what the new lock changes: ``state``, ``items``, ``reboot``."""
    found: dict[str, Any] = {}
    for name in names:
        before, after = lock.content_of(old, name), lock.content_of(new, name)
        items = lock.difference(before, after)
        state = "same"
        if before != after:
            state = (
                "removed" if after is None else "new" if before is None else "changed" if items else "explained anew"
            )
        found[name] = {"state": state, "items": items, "reboot": bool(after) and lock.needs_reboot(items)}
    return found


def check_fleet(
    members: Sequence[Member], locked: Mapping[str, Any], solver: Solver, roles: Sequence[str], ignore: bool = False
) -> dict[str, Any]:
    """Hold every member against the lock and its receipts: what to run where, and why.

    Args:
        members: the nodes of this run.
        locked: the lock.
        solver: for the tables.
        roles: roles in the order in which they are applied.
        ignore: every role counts as stale, whatever the receipts say.

    Returns:
        Node name to ``{"state", "reason", "stale": {role: [why, ...]}, "prove": why or None, "stack"}``.
    """
    return {member.name: _check(member, locked, solver, roles, ignore) for member in members}


def _check(
    member: Member, locked: Mapping[str, Any], solver: Solver, roles: Sequence[str], ignore: bool
) -> dict[str, Any]:
    reason = member.failure or _updating(member) or cannot_touch(member, locked, solver)
    if reason:
        return {"state": SET_ASIDE, "reason": reason, "stale": {}, "prove": "the node was set aside", "stack": None}
    stale: dict[str, list[str]] = {}
    for role in roles:
        reasons = (
            ["receipts are ignored"]
            if ignore
            else receipts.stale_reasons(role, member.expected[role], member.receipts.get(role), member.receipts_problem)
        )
        if reasons:
            stale[role] = reasons
    name = locked["nodes"][member.name]
    due = proof.due(member.proof, member.gpu or {})
    return {
        "state": STALE if stale else CONVERGED,
        "reason": None,
        "stale": stale,
        "prove": "roles are applied" if stale else due,
        "stack": name,
    }


def _updating(member: Member) -> str | None:
    """Why an update that did not end well keeps the roles away."""
    role = member.expected.get("nvidia_driver")
    return rollout_state.set_aside(member.update, rollout_state.entries_digest(role["lock"]) if role else None)


def cannot_touch(member: Member, locked: Mapping[str, Any], solver: Solver, *, same_intent: bool = True) -> str | None:
    """Return why nothing may be done to this node, in one sentence, None when it may be touched.

    Args:
        same_intent: whether the node's wishes must be those the lock was planned from; in a rollback they are newer.
    """
    found = lock.content_of(locked, member.name)
    if found is None:
        return "the lock does not have this node. Plan it with playbooks/plan-stack.yml, or take it out of the run."
    if isinstance(member.intent, RackwrightError):
        return str(member.intent)
    wanted = member.intent.as_dict() if same_intent else found["intent"]
    changed = sorted(
        key for key in wanted.keys() | found["intent"].keys() if wanted.get(key) != found["intent"].get(key)
    )
    if changed:
        told = ", ".join(f"{key} {found['intent'].get(key)} → {wanted.get(key)}" for key in changed[:3])
        return f"the intent changed since the lock was written ({told}). {_PLAN_AGAIN}"
    try:
        machine = machine_of(member, solver.tables)
    except RackwrightError as error:
        return str(error)
    stack = lock.stack_of(locked, member.name)
    problems = solver.problems(machine, locked["nodes"][member.name], stack or {})
    if problems:
        return f"the locked stack does not fit this node: {'; '.join(problems[:3])}. {_PLAN_AGAIN}"
    return None


def placements(
    states: Mapping[str, Mapping[str, Any]], locked: Mapping[str, Any], prove_all: bool
) -> list[dict[str, Any]]:
    """Return which hosts join which groups with which variables: only those for whom something is to be done.

    Groups are ``stale_<role>`` and ``stale_prove``. ``__stack`` is what the roles read,
    ``__site_failure`` why nothing may be done.
    """
    placed = []
    for name, state in states.items():
        groups = [f"stale_{role}" for role in state["stale"]]
        if state["prove"] or prove_all:
            groups.append("stale_prove")
        if not groups:
            continue
        variables: dict[str, Any] = {"__stack": lock.stack_of(locked, name)}
        if state["state"] == SET_ASIDE:
            failure = {
                "role": None,
                "task": "Hold the fleet against its lock",
                "message": state["reason"],
                "next_step": "",
            }
            variables = {"__site_failure": failure}
        placed.append({"name": name, "groups": groups, "variables": variables})
    return placed
