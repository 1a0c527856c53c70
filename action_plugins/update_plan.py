# SPDX-License-Identifier: Apache-2.0
"""Control-side work of an update over a fleet: order, gates, judgement and report. Contacts no node."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.template import trust_as_template

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import (
    coherence,
    fleet_plan,
    lock_file,
    reports,
    rollout,
    rollout_fleet,
    rollout_place,
    tables,
    update_check,
    update_judge,
    update_report,
    update_store,
)
from rackwright import rollout_state as state
from rackwright.control_action import ControlAction
from rackwright.errors import InvalidInputError, RackwrightError
from rackwright.fleet_inputs import FleetInputs, plain
from rackwright.stack_intent import planning_date

_TABLES = _ROOT / "roles" / "gpu_stack" / "files" / "tables"
ARGUMENT_SPEC = {
    "mode": {
        "type": "str",
        "choices": ["validate", "plan", "gate", "precheck", "prove", "report"],
        "required": True,
    },
    "what": {"type": "str", "choices": ["driver", "kernel"], "default": "driver"},
    "settings": {"type": "dict", "default": {}},
    "reports": {"type": "path", "required": True},
    "run": {"type": "str"},
    "probe": {"type": "str", "default": "__site_probe"},
    "gpu": {"type": "dict"},
    "stack": {"type": "dict"},
    "found": {"type": "dict", "default": {}},
    "measured": {"type": "dict", "default": {}},
    "tolerance": {"type": "float", "default": 5.0},
    "extra_tables": {"type": "raw"},
    "today": {"type": "str"},
}
_PLAN_FIRST = "Run playbooks/plan-stack.yml, review what it writes, and commit it"


class ActionModule(ControlAction):
    """One class for all steps of a rollout that think: each reads documents and records, and answers."""

    SPEC = ARGUMENT_SPEC

    def answer(self) -> dict[str, Any]:
        """Do what the mode says."""
        self._options = plain(self._options)
        self._reports = reports.from_here(self._options["reports"])
        return {"changed": False, **getattr(self, f"_{self._options['mode']}")()}

    # -- before any node is contacted --------------------------------------------------------------------------------

    def _validate(self) -> dict[str, Any]:
        """Refuse what cannot be meant."""
        names = self._hosts()
        rollout.limits(self._options["settings"], names)
        rollout_fleet.check_names("update_forget", self._names("forget"), names)
        if self._options["what"] == "kernel" and self._flag("rollback"):
            step = "Set update_kernel_version to the older kernel"
            raise InvalidInputError("roll back", "the kernel", "update_rollback is of update-driver.yml", step)
        retry = [name for name in self._names("retry") if name != "all"]
        rollout_fleet.check_names("update_retry", retry, names)
        return {}

    # -- the plan ------------------------------------------------------------------------------------------------------

    def _plan(self) -> dict[str, Any]:
        """Decide what every node is to this run; write the document of the run."""
        settings, rollback = self._options["settings"], self._flag("rollback")
        names, run = self._hosts(), datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        limit = rollout.limits(settings, names)
        path = lock_file.locate(
            self._templar.template(self._vars.get("stack_lock_file")), self._vars.get("inventory_dir")
        )
        goal = lock_file.previous_path(path) if rollback else path
        locked = lock_file.read(goal, _ROOT, _PREVIOUS if rollback else _PLAN_FIRST)
        known = self._known(names, locked, lock_file.read(path, _ROOT, _PLAN_FIRST) if rollback else None)
        options = rollout.Options(rollback, tuple(self._names("retry")), self._flag("without_return_point"))
        head = {
            "id": run,
            "what": self._options["what"],
            "direction": "rollback" if rollback else "update",
            "lock": goal,
            "settings": settings,
            "began": _now(),
        }
        forget = self._names("forget")
        document = rollout_fleet.document(head, known, options, limit, forget)
        places = rollout_fleet.placements(document, known, locked, self._reports, bool(forget))
        if not self._task.check_mode:
            self._close_silent(known, document)
            self._save(document)
        return {
            "run": run,
            "batches": [len(batch) for batch in document["batches"]],
            "placements": places,
            "document": document if self._task.check_mode else None,
            "table_text": "" if self._task.check_mode else update_report.began_text(document),
        }

    def _known(
        self, names: list[str], locked: Mapping[str, Any], present: Mapping[str, Any] | None
    ) -> list[rollout.Seen]:
        extra = tables.extra_rows(self._options["extra_tables"])
        solver = fleet_plan.Solver(
            tables.load_tables(_TABLES, extra, _ROOT / ".cache" / "tables.json"), planning_date(self._options["today"])
        )
        # stacks of the two locks may have one name, so each lock has inputs of its own
        inputs, beside = (FleetInputs(_ROOT, [rollout_fleet.ROLE], self._template, trust_as_template) for _ in range(2))
        known = []
        for name in names:
            raw = self._vars["hostvars"].raw_get(name)
            member = inputs.host(name, raw, self._options["probe"], locked=locked)
            refusal = (
                fleet_plan.cannot_touch(member, locked, solver, same_intent=present is None) if member.gpu else None
            )
            before = None if present is None else beside.host(name, raw, self._options["probe"], locked=present)
            entries = before.expected[rollout_fleet.ROLE]["lock"] if before else None
            node = rollout_fleet.seen(member, locked, entries, self._record(name, member), refusal)
            if self._options["what"] == "kernel":
                node = rollout_fleet.for_kernel(node, member, str(self._options["settings"].get("kernel") or "newest"))
            known.append(node)
        return known

    def _record(self, name: str, member: fleet_plan.Member) -> tuple[dict[str, Any] | None, str | None]:
        mirror, problem = update_store.read(rollout_place.mirror(self._reports, name))
        newer, note = state.newer(member.update, mirror)
        own = (self._vars["hostvars"].raw_get(name).get(self._options["probe"]) or {}).get("update_problem")
        notes = [str(text) for text in (note if member.gpu else None, own, problem) if text]
        return newer, "; ".join(notes) or None

    def _close_silent(self, known: list[rollout.Seen], document: Mapping[str, Any]) -> None:
        """Close the control node's record of nodes that are forgotten and do not answer."""
        for node in known:
            if document["nodes"][node.name]["plan"] == state.FORGOTTEN and node.record is not None:
                closed = state.advance(node.record, _now(), {"state": state.FORGOTTEN, "run": document["id"]})
                update_store.write(rollout_place.mirror(self._reports, node.name), closed, 0o600)

    # -- between the batches -------------------------------------------------------------------------------------------

    def _gate(self) -> dict[str, Any]:
        """Say which nodes of this batch may begin; in check mode all of them are only looked at."""
        batch = list(plain(self._vars.get("ansible_play_batch") or []))
        if self._task.check_mode:
            return {"go": True, "admitted": batch, "table_text": ""}
        document = self._document()
        found = rollout.gate(
            batch, document, self._records(document), rollout.limits(document["settings"], list(document["nodes"]))
        )
        self._save(
            {
                **document,
                "held": {**document["held"], **found["held"]},
                "stopped": document["stopped"] or found["reason"],
            }
        )
        told = [f"{_clock()}  {name}: not begun: {why}" for name, why in found["held"].items()]
        return {**found, "table_text": "\n".join(told)}

    # -- one node ------------------------------------------------------------------------------------------------------

    def _precheck(self) -> dict[str, Any]:
        """Hold a node against what an update needs; return the picture that it is compared with afterwards."""
        gpu, stack, name = self._options["gpu"] or {}, self._options["stack"], self._host()
        found = coherence.findings(gpu, stack)
        problems = update_judge.obstacles(gpu, found, self._options["found"], self._flag("without_return_point"))
        if problems:
            raise InvalidInputError("update", name, "; ".join(problems), update_judge.STEP)
        return {"before": update_judge.picture(gpu, found)}

    def _prove(self) -> dict[str, Any]:
        """Hold a node against what it was before, and against the stack it was brought to."""
        name, gpu, stack = self._host(), self._options["gpu"] or {}, self._options["stack"]
        record, problem = update_store.read(rollout_place.mirror(self._reports, name))
        if record is None:
            step = "Run the playbook again; it goes on with the node's own record"
            raise InvalidInputError("prove", name, problem or "its record is gone from the control node", step)
        problems = update_judge.problems(
            record,
            gpu,
            stack,
            coherence.findings(gpu, stack),
            update_check.measured(self._options["measured"]),
            self._options["tolerance"],
        )
        if problems:
            raise RackwrightError("prove the update", name, "; ".join(problems), update_judge.AFTER)
        return {"proven": True}

    # -- the end -------------------------------------------------------------------------------------------------------

    def _report(self) -> dict[str, Any]:
        """Write what became of every node, exchange the locks after a rollback, and say it."""
        if self._task.check_mode:
            return self._foresee()
        document = self._document()
        records = self._records(document)
        final = {**update_report.ended(document, records), "ended": _now()}
        locks = self._exchange(final)
        path = self._save({**final, "locks": locks})
        return {"table_text": update_report.ended_text(final, path, locks), "bad": update_report.bad(final)}

    def _foresee(self) -> dict[str, Any]:
        variables = self._vars["hostvars"]
        first = variables.raw_get(self._hosts()[0])
        document = plain(first["__update_plan"]["document"])
        foreseen = {name: plain(variables.raw_get(name).get("__update_foreseen") or {}) for name in document["nodes"]}
        failures = {name: seen["failure"] for name, seen in foreseen.items() if seen.get("failure")}
        planned = {n for n, node in document["nodes"].items() if node["plan"] in rollout.PLANNED}
        final = update_report.ended(document, {})
        bad = {name: why for name, why in update_report.bad(final).items() if name not in planned}
        return {"table_text": update_report.foreseen_text(document, foreseen), "bad": {**bad, **failures}}

    def _exchange(self, final: Mapping[str, Any]) -> str | None:
        """After a rollback the lock says of the nodes that went back what they have now."""
        if final["direction"] != "rollback":
            return None
        back = [name for name, node in final["nodes"].items() if node["end"] in (state.DONE, rollout.CURRENT)]
        previous = str(final["lock"])
        path = lock_file.present_path(previous)
        if not any(final["nodes"][name]["end"] == state.DONE for name in back):
            return f"{path} and {previous} are as they were: no node went back."
        here, there = lock_file.exchange(
            lock_file.read(path, _ROOT, _PLAN_FIRST), lock_file.read(previous, _ROOT, _PREVIOUS), back
        )
        lock_file.write(path, here)
        lock_file.write(previous, there)
        files = f"{os.path.basename(path)} and {os.path.basename(previous)}"
        return (
            f"{files} changed places for {len(back)} node(s). Take the wishes (stack_* variables) back too, then "
            "commit all of it: site.yml leaves alone nodes whose wishes are not those of the lock."
        )

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _hosts(self) -> list[str]:
        return list(plain(self._vars.get("ansible_play_hosts_all") or []))

    def _host(self) -> str:
        return str(plain(self._vars["inventory_hostname"]))

    def _flag(self, name: str) -> bool:
        return rollout_place.truth(self._options["settings"].get(name))

    def _names(self, name: str) -> list[str]:
        return rollout_place.names(self._options["settings"].get(name))

    def _document(self) -> dict[str, Any]:
        return rollout_place.read_run(self._reports, str(self._options["run"]))

    def _records(self, document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        found = {name: update_store.read(rollout_place.mirror(self._reports, name))[0] for name in document["nodes"]}
        return {name: record for name, record in found.items() if record is not None}

    def _save(self, document: Mapping[str, Any]) -> str:
        path = rollout_place.run_path(self._reports, str(document["id"]))
        reports.make_directory(os.path.dirname(path))
        reports.write_json(path, document)
        return path

    def _template(self, value: Any, variables: Mapping[str, Any]) -> Any:
        return self._templar.copy_with_new_env(available_variables=dict(variables)).template(value)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _clock() -> str:
    return datetime.datetime.now().strftime("%H:%M:%S")


_PREVIOUS = "There is nothing to go back to: playbooks/plan-stack.yml keeps the lock that it replaces there"
