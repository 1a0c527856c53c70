# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``health_report``: it needs what was registered about all hosts, which a module never sees."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import health_reports, reports
from rackwright.control_action import ControlAction
from rackwright.errors import RackwrightError
from rackwright.fleet_inputs import plain
from rackwright.health_record import LADDER, findings

ARGUMENT_SPEC = {
    "registered": {"type": "str", "required": True},
    "reports_dir": {"type": "path", "required": True},
    "fail_at": {"type": "str", "choices": list(LADDER), "default": LADDER[1]},
}


class ActionModule(ControlAction):
    """Write and tell what was found on every host of the play; contacts no node."""

    SPEC = ARGUMENT_SPEC

    def answer(self) -> dict[str, Any]:
        """Collect, write, tell."""
        options, variables = self._options, self._vars
        documents: dict[str, Any] = {}
        silent: dict[str, str] = {}
        for name in plain(variables.get("ansible_play_hosts_all") or []):
            result = variables["hostvars"].raw_get(name).get(options["registered"]) or {}
            told = result.get("gpu_health")
            if isinstance(told, Mapping):
                documents[name] = told
            else:
                silent[name] = _why(result)
        directory = reports.from_here(options["reports_dir"])
        location, unwritten = None, None
        if not self._task.check_mode:
            location = health_reports.folder_of(directory)
            # a full disk here is no reason to keep silent about broken nodes: the table comes first, then the failure
            try:
                health_reports.write(directory, documents)
            except RackwrightError as error:
                unwritten = str(error)
                location = f"not all are written. {unwritten}"
        failed = health_reports.failed(documents, silent, options["fail_at"])
        return {
            "changed": False,
            "unwritten": unwritten,
            "severities": {
                **{name: told["severity"] for name, told in documents.items()},
                **dict.fromkeys(silent, "silent"),
            },
            "failed_nodes": failed,
            "reasons": {name: _reason(name, documents, silent) for name in failed},
            "table_text": health_reports.table_text(documents, silent, location, options["fail_at"]),
        }


def _why(result: Mapping[str, Any]) -> str:
    if result.get("unreachable"):
        return f"unreachable: {result.get('msg') or 'no message'}"
    return str(result.get("msg") or "gpu_health was not run on it")


def _reason(name: str, documents: Mapping[str, Any], silent: Mapping[str, str]) -> str:
    if name in silent:
        return f"not checked: {silent[name]}"
    worst = findings(documents[name]["checks"])[0]
    return f"{worst['severity']}: {worst['id']} on {worst['subject']}: {worst['reason']}"
