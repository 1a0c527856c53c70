# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``node_diagnosis``: it needs what was registered about all hosts, which a module never sees."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import diagnosis, diagnosis_fix, diagnosis_text, reports, tables
from rackwright.control_action import ControlAction
from rackwright.diagnosis_record import Evidence
from rackwright.stack_intent import Intent, planning_date

_TABLES = _ROOT / "roles" / "gpu_stack" / "files" / "tables"
_ERRORS = _TABLES / "errors.yml"
_PARTS = ("gpu", "host", "frameworks")
ARGUMENT_SPEC = {
    "registered": {"type": "dict", "required": True},
    "error": {"type": "str"},
    "report": {"type": "path"},
    "extra_tables": {"type": "raw"},
    "today": {"type": "str"},
}


class ActionModule(ControlAction):
    """Explain what was found on every host of the play; contacts no node."""

    SPEC = ARGUMENT_SPEC

    def answer(self) -> dict[str, Any]:
        """Explain every host."""
        options, variables = self._options, self._vars
        known = tables.load_tables(_TABLES, tables.extra_rows(options["extra_tables"]))
        table = diagnosis.check_errors(yaml.safe_load(_ERRORS.read_text(encoding="utf-8")), str(_ERRORS))
        today = planning_date(options["today"])
        nodes = []
        for name in variables.get("ansible_play_hosts_all") or []:
            evidence = _evidence(name, variables["hostvars"].raw_get(name), options["registered"])
            plan = diagnosis_fix.planned(name, evidence, known, Intent(), today)
            nodes.append(diagnosis.diagnose(replace(evidence, plan=plan), known, table, options["error"]))
        path = options["report"]
        if path and not self._task.check_mode:
            path = reports.from_here(path)
            reports.make_directory(os.path.dirname(path))
            reports.write_json(path, {"schema": 1, "error": options["error"], "nodes": nodes})
        return {
            "changed": False,
            "nodes": nodes,
            "with_errors": [node["node"] for node in nodes if diagnosis.has_errors(node)],
            "table_text": diagnosis_text.fleet_text(nodes, None if self._task.check_mode else path),
        }


def _evidence(name: str, variables: Mapping[str, Any], registered: Mapping[str, Any]) -> Evidence:
    """Collect what the tasks before left; a result without its answer gives its message as the reason."""
    results = {part: variables.get(registered.get(part, "")) or {} for part in _PARTS}
    facts = results["gpu"].get("ansible_facts") or {}
    found: dict[str, Any] = {
        "gpu": facts.get("gpu") or {},
        "node": facts.get("node") or {},
        "host": results["host"].get("host") or {},
        "frameworks": results["frameworks"].get("framework_state") or {},
    }
    # a node that does not answer is asked once: what was skipped after that has the same reason
    gone = next((f"unreachable: {_message(result)}" for result in results.values() if result.get("unreachable")), None)
    silent = {}
    for part in found:
        result = results.get(part, results["gpu"])
        if not found[part] and (gone or result.get("failed")):
            silent[part] = gone or _message(result)
    return Evidence(name, silent=silent, **found)


def _message(result: Mapping[str, Any]) -> str:
    return " ".join(str(result.get("msg") or "no message").split())
