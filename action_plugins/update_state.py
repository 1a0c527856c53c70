# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``update_state``: keeps the record on both sides; a node that is gone is an ordinary failure."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import rollout_place, update_check, update_report, update_store
from rackwright import rollout_state as state
from rackwright.errors import RackwrightError
from rackwright.fleet_inputs import plain

_SINGLE = ("step", "state", "phase", "reason")
ARGUMENT_SPEC: dict[str, Any] = {
    "update": {"type": "dict", "required": True},
    "step": {"type": "str"},
    "state": {"type": "str", "choices": list(state.STATES)},
    "phase": {"type": "str", "choices": list(state.PHASES)},
    "reason": {"type": "str"},
    "drain": {"type": "dict"},
    "before": {"type": "dict"},
    "return_point": {"type": "dict"},
    "measured": {"type": "dict"},
    "answer": {"type": "bool", "default": True},
    "path": {"type": "path", "default": state.PATH},
}


class ActionModule(ActionBase):
    """Write the next state of a node's update: first the control node's copy, then the node's own."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer one call; in check mode nothing is written on either side."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        options = plain(options)
        try:
            record = self._advance(options)
        except RackwrightError as error:
            return {**result, **error.to_result(), "failed": True}
        clock = datetime.datetime.now().strftime("%H:%M:%S")
        result.update(record=record, changed=False, answered=True, table_text=update_report.step_text(record, clock))
        untouched = record["state"] in (state.REFUSED, state.DONE) and not record["steps"]
        if self._task.check_mode or untouched:
            return result
        try:
            written = self._execute_module(
                module_name="update_state",
                module_args={"content": record, "path": options["path"]},
                task_vars=task_vars or {},
            )
        except AnsibleConnectionFailure as error:
            written = {"failed": True, "msg": " ".join(str(error).split())}
        judged = self._judged(written, options)
        if judged and record["state"] == state.STUCK:
            # nobody can say what became of it: that is another end than a node that answers and is not right
            gone = self._advance({**options, "state": state.UNREACHABLE})
            result.update(record=gone, table_text=update_report.step_text(gone, clock))
        return {**result, **judged}

    def _advance(self, options: dict[str, Any]) -> dict[str, Any]:
        given = options["update"]
        record = given["record"]
        path = rollout_place.mirror(given["reports"], record["node"])
        kept, _problem = update_store.read(path)
        if kept is not None and kept["run"] == record["run"]:
            record = kept
        changes = {
            key: options[key] for key in (*_SINGLE, "drain", "before", "return_point") if options[key] is not None
        }
        if options["measured"] is not None:
            changes["benchmark"] = update_check.measured(options["measured"])
        changes["run"] = record["run"]
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        record = state.advance(record, now, changes)
        if not self._task.check_mode:
            update_store.write(path, record)
        return record

    @staticmethod
    def _judged(written: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        if not written.get("failed") and not written.get("unreachable"):
            return {}
        msg = str(written.get("msg") or "no answer")
        if options["answer"]:
            return {"failed": True, "answered": False, "msg": f"{options['update']['record']['node']}: {msg}"}
        return {"answered": False, "msg": msg}
