# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``fleet_verdict``: it needs what was registered about all hosts, which a module never sees."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import benchmark_due, fleet_judge, reports
from rackwright.control_action import ControlAction
from rackwright.fleet_inputs import plain

ARGUMENT_SPEC = {
    "mode": {"type": "str", "choices": ["judge", "repeat", "due"], "default": "judge"},
    "nodes": {"type": "dict"},
    "registered": {"type": "dict", "default": {}},
    "reports_dir": {"type": "path", "required": True},
    "run_id": {"type": "str", "required": True},
    "gates": {"type": "dict", "default": {}},
    "extra_gpus": {"type": "list", "elements": "dict", "default": []},
    "level": {"type": "str", "choices": ["quick", "standard", "full"], "default": "quick"},
    "suites": {"type": "list", "elements": "str"},
    "again": {"type": "bool", "default": False},
    "skipped": {"type": "dict"},
}
_COUNT, _GATES = "gpu_expected_count", "prove_gates"
_REBOOTS = ("os_base", "nvidia_driver")
_REGISTERED = ("facts", "health", "benchmark", "again", "set_aside")


class ActionModule(ControlAction):
    """Judge every host of the play; contacts no node."""

    SPEC = ARGUMENT_SPEC

    def answer(self) -> dict[str, Any]:
        """Judge and write the reports, or say what has to be measured, once more or at all."""
        options = self._options
        nodes = options["nodes"]
        if nodes is None:
            nodes = self._collect(options["registered"], self._vars)
        if options["mode"] == "due":
            return self._due(nodes)
        judged = fleet_judge.Options(
            run_id=options["run_id"],
            directory=reports.from_here(options["reports_dir"]),
            gates=options["gates"],
            extra_gpus=options["extra_gpus"],
            suites=options["suites"],
            check_mode=self._task.check_mode,
            skipped=options["skipped"],
        )
        if options["mode"] == "repeat":
            return {"changed": False, "repeat": fleet_judge.repeats(nodes, judged)}
        return fleet_judge.judge_run(nodes, judged)

    def _due(self, nodes: Mapping[str, Any]) -> dict[str, Any]:
        proofs = reports.read_proofs(reports.proofs_path(reports.from_here(self._options["reports_dir"])))
        wanted = benchmark_due.Wanted(self._options["level"], self._options["suites"], self._options["again"])
        return {"changed": False, **benchmark_due.decide(nodes, proofs, wanted)}

    def _collect(self, registered: Mapping[str, str], variables: Mapping[str, Any]) -> dict[str, Any]:
        """Take the evidence from where the tasks before left it. Read as it lies there: passed through a template,
        the facts of a large fleet would be copied several times."""
        promised = variables.get(registered.get("promised", "")) or {}
        found = {}
        # hosts that failed in an earlier play are judged as well: this list still names them
        for name in plain(variables.get("ansible_play_hosts_all") or []):
            if name in (self._options["skipped"] or {}):
                continue
            raw = variables["hostvars"].raw_get(name)
            part = {key: raw.get(registered.get(key, "")) or {} for key in _REGISTERED}
            expected = (promised.get("expected") or {}).get(name) or {}
            found[name] = {
                **part,
                "expected": {"gpu_count": self._own(raw, _COUNT), **expected},
                "gates": self._own(raw, _GATES) or {},
                "reboot": self._reboot(raw),
            }
        return found

    def _own(self, raw: Mapping[str, Any], name: str) -> Any:
        """What the inventory says of one host, its groups or the command line; people may have written a template."""
        value = raw.get(name)
        if isinstance(value, (str, dict)):
            value = self._templar.copy_with_new_env(available_variables=dict(raw)).template(value)
        return plain(value)

    def _reboot(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        required = any(raw.get(f"{role}_reboot_required") for role in _REBOOTS)
        reasons = [raw.get(f"{role}_reboot_reason") for role in _REBOOTS]
        return {"required": required, "reason": next((reason for reason in reasons if reason), None)}
