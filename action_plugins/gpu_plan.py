# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``gpu_plan``: it needs the variables and facts of all hosts, which a module never sees."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.template import trust_as_template

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import ages, fleet_plan, lock, lock_file, plan_report, reports, tables
from rackwright.control_action import ControlAction
from rackwright.errors import InvalidInputError, MissingError
from rackwright.fleet_inputs import FleetInputs, plain
from rackwright.stack_intent import planning_date

_TABLES = _ROOT / "roles" / "gpu_stack" / "files" / "tables"
_KEPT = _ROOT / ".cache"
ARGUMENT_SPEC = {
    "mode": {"type": "str", "choices": ["plan", "check", "entry", "expect"], "required": True},
    "lock": {"type": "path"},
    "roles": {"type": "list", "elements": "str", "default": []},
    "probe": {"type": "str", "default": "__site_probe"},
    "facts": {"type": "str", "choices": ["gather", "cache"], "default": "gather"},
    "max_age": {"type": "float", "default": ages.MAX_AGE_HOURS},
    "receipts": {"type": "str", "choices": ["use", "ignore"], "default": "use"},
    "prove": {"type": "str", "choices": ["changed", "all"], "default": "changed"},
    "proofs": {"type": "path"},
    "report": {"type": "path"},
    "extra_tables": {"type": "raw"},
    "today": {"type": "str"},
}


class ActionModule(ControlAction):
    """Plan the fleet, hold it against its lock, or read one node's entry; contacts no node."""

    SPEC = ARGUMENT_SPEC

    def answer(self) -> dict[str, Any]:
        """Do what the mode says."""
        self._lock = self._lock_path()
        answer: dict[str, Any] = getattr(self, f"_{self._options['mode']}")()
        return answer

    def _lock_path(self) -> str:
        """Where the lock is: as said, else beside the inventory."""
        said = self._options["lock"] or self._templar.template(self._vars.get("stack_lock_file"))
        return lock_file.locate(plain(said), plain(self._vars.get("inventory_dir")))

    def _entry(self) -> dict[str, Any]:
        """The stack of this host."""
        name = plain(self._vars["inventory_hostname"])
        stack = lock.stack_of(self._read_lock(), name)
        if stack is None:
            raise MissingError("read the locked stack", name, "the lock does not have this node", _PLAN_FIRST)
        return {"changed": False, "stack": stack}

    def _expect(self) -> dict[str, Any]:
        """What the proof has to find on each host; without a lock nothing is promised."""
        locked = self._read_lock() if os.path.exists(self._lock) else None
        return {"changed": False, "expected": {name: lock.promises(locked, name) for name in self._hosts()}}

    def _plan(self) -> dict[str, Any]:
        """Solve every node, write the lock, tell the differences."""
        solver = self._solver()
        inputs = FleetInputs(_ROOT, [], self._template, trust_as_template)
        path = self._lock
        old = self._read_lock() if os.path.exists(path) else None
        members = [self._member(inputs, name) for name in self._hosts()]
        planned = fleet_plan.plan_fleet(members, solver, old)
        before = Path(path).read_text(encoding="utf-8") if old else ""
        after = lock.to_text(planned["lock"])
        if before != after and not self._task.check_mode:
            self._keep_previous(old, planned["lock"])
            lock_file.write(path, planned["lock"])
        written = "unchanged" if before == after else "not written: check mode" if self._task.check_mode else "written"
        self._write_report(plan_report.plan_document(planned, path))
        unsolved = [name for name, plan in planned["plans"].items() if plan["status"] != fleet_plan.SOLVED]
        return {
            "changed": before != after,
            "diff": [{"before_header": path, "after_header": path, "before": before, "after": after}],
            "table_text": "\n".join([plan_report.plan_text(planned, path, written), *self._ages(members)]),
            "unsolved": unsolved,
            "changes": {n: {"state": c["state"], "reboot": c["reboot"]} for n, c in planned["changes"].items()},
        }

    def _ages(self, members: Sequence[fleet_plan.Member]) -> list[str]:
        """How old what was believed without asking is."""
        if self._options["facts"] != "cache":
            return []
        times = {member.name: member.gpu.get("collected_at") for member in members if member.gpu and member.node}
        return ages.cache_lines(plain(times), datetime.datetime.now(datetime.timezone.utc), self._options["max_age"])

    def _keep_previous(self, old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> None:
        """Leave what nodes had before beside the lock: the target of a rollback by hand."""
        path = lock_file.previous_path(self._lock)
        earlier = lock_file.read(path, _ROOT, _PLAN_FIRST) if os.path.exists(path) else None
        kept = lock_file.keep(old, new, earlier) if old else None
        if kept:
            lock_file.write(path, kept)

    def _check(self) -> dict[str, Any]:
        """Hold every node against the lock and its receipts."""
        solver = self._solver()
        locked = self._read_lock()
        for name, content in locked["stacks"].items():
            problems = solver.problems(None, name, lock.stack_in(content))
            if problems:
                raise InvalidInputError("use the lock", self._lock, f"stack {name}: {problems[0]}", _PLAN_AGAIN)
        inputs = FleetInputs(_ROOT, self._options["roles"], self._template, trust_as_template)
        proofs = reports.read_proofs(self._options["proofs"])
        members = [self._member(inputs, name, locked, proofs) for name in self._hosts()]
        ignore = self._options["receipts"] == "ignore"
        states = fleet_plan.check_fleet(members, locked, solver, self._options["roles"], ignore)
        notes = self._notes(locked, solver)
        path = self._lock
        self._write_report(plan_report.drift_document(states, path))
        return {
            "changed": False,
            "table_text": plan_report.state_text(states, proofs, path, notes),
            "stale": {name: state["stale"] for name, state in states.items() if state["stale"]},
            "set_aside": [name for name, state in states.items() if state["state"] == fleet_plan.SET_ASIDE],
            "placements": fleet_plan.placements(states, locked, self._options["prove"] == "all"),
        }

    def _notes(self, locked: Mapping[str, Any], solver: fleet_plan.Solver) -> list[str]:
        notes = []
        if locked["digests"]["tables"] != solver.tables_digest():
            notes.append(
                "the tables changed since the lock was written; playbooks/plan-stack.yml shows what that means"
            )
        return notes

    def _solver(self) -> fleet_plan.Solver:
        extra = tables.extra_rows(plain(self._options["extra_tables"]))
        return fleet_plan.Solver(
            tables.load_tables(_TABLES, extra, _KEPT / "tables.json"), planning_date(self._options["today"])
        )

    def _hosts(self) -> list[str]:
        return list(plain(self._vars.get("ansible_play_hosts_all") or []))

    def _member(
        self,
        inputs: FleetInputs,
        name: str,
        locked: Mapping[str, Any] | None = None,
        proofs: Mapping[str, Any] | None = None,
    ) -> fleet_plan.Member:
        raw = self._vars["hostvars"].raw_get(name)
        proof = (proofs or {}).get(name)
        cached = self._options["facts"] == "cache"
        return inputs.host(name, raw, self._options["probe"], cached=cached, locked=locked, proof=proof)

    def _template(self, value: Any, variables: Mapping[str, Any]) -> Any:
        return self._templar.copy_with_new_env(available_variables=dict(variables)).template(value)

    def _read_lock(self) -> dict[str, Any]:
        return lock_file.read(self._lock, _ROOT, _PLAN_FIRST)

    def _write_report(self, document: Mapping[str, Any]) -> None:
        path = self._options["report"]
        if path and not self._task.check_mode:
            path = reports.from_here(path)
            reports.make_directory(os.path.dirname(path))
            reports.write_json(path, plain(document))


_PLAN_FIRST = "Run playbooks/plan-stack.yml, review what it writes, and commit it"
_PLAN_AGAIN = "Take the lock back from version control, or plan again with playbooks/plan-stack.yml"
