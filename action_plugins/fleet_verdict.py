# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``fleet_verdict``: it needs what was registered about all hosts, which a module never sees."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import fleet_judge, reports
from rackwright.control_action import ControlAction
from rackwright.fleet_inputs import plain

ARGUMENT_SPEC = {
    "nodes": {"type": "dict"},
    "registered": {"type": "dict", "default": {}},
    "reports_dir": {"type": "path", "required": True},
    "run_id": {"type": "str", "required": True},
    "gates": {"type": "dict", "default": {}},
    "extra_gpus": {"type": "list", "elements": "dict", "default": []},
}
_COUNT = "gpu_expected_count"
_REBOOTS = ("os_base", "nvidia_driver")


class ActionModule(ControlAction):
    """Judge every host of the play; contacts no node."""

    SPEC = ARGUMENT_SPEC

    def answer(self) -> dict[str, Any]:
        """Judge, and write the reports."""
        options = self._options
        nodes = options["nodes"]
        if nodes is None:
            nodes = self._collect(options["registered"], self._vars)
        return fleet_judge.judge_run(
            nodes,
            options["run_id"],
            reports.from_here(options["reports_dir"]),
            options["gates"],
            options["extra_gpus"],
            self._task.check_mode,
        )

    def _collect(self, registered: Mapping[str, str], variables: Mapping[str, Any]) -> dict[str, Any]:
        """Take the evidence from where the tasks before left it. Read as it lies there: passed through a template,
        the facts of a large fleet would be copied several times."""
        promised = variables.get(registered.get("promised", "")) or {}
        found = {}
        # hosts that failed in an earlier play are judged as well: this list still names them
        for name in plain(variables.get("ansible_play_hosts_all") or []):
            raw = variables["hostvars"].raw_get(name)
            part = {key: raw.get(registered.get(key, "")) or {} for key in ("facts", "benchmark", "set_aside")}
            expected = (promised.get("expected") or {}).get(name) or {}
            found[name] = {
                **part,
                "expected": {"gpu_count": self._count(raw), **expected},
                "reboot": self._reboot(raw),
            }
        return found

    def _count(self, raw: Mapping[str, Any]) -> Any:
        """How many GPUs the inventory expects; people may have written it as a template."""
        value = raw.get(_COUNT)
        if isinstance(value, str):
            value = self._templar.copy_with_new_env(available_variables=dict(raw)).template(value)
        return plain(value)

    def _reboot(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        required = any(raw.get(f"{role}_reboot_required") for role in _REBOOTS)
        reasons = [raw.get(f"{role}_reboot_reason") for role in _REBOOTS]
        return {"required": required, "reason": next((reason for reason in reasons if reason), None)}
