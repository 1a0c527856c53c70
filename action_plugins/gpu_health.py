# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``gpu_health``: what the last check knew of a node is kept here, where it survives the node."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import health_reports, reports
from rackwright.errors import RackwrightError


class ActionModule(ActionBase):
    """Give the module the baseline of the check before, and run it."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module ``gpu_health`` with what was before."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables: Mapping[str, Any] = task_vars or {}
        arguments = dict(self._task.args)
        directory = arguments.pop("reports_dir", None)
        if directory and not arguments.get("baseline"):
            try:
                path = health_reports.path_of(reports.from_here(str(directory)), str(variables["inventory_hostname"]))
                arguments["baseline"] = health_reports.baseline_of(path)
            except RackwrightError as error:
                return {**result, "failed": True, **error.to_result()}
        result.update(self._execute_module(module_name="gpu_health", module_args=arguments, task_vars=task_vars))
        return result
