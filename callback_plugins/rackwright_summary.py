# SPDX-License-Identifier: Apache-2.0
"""Print what plan, fit and proof have to tell people."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rackwright_summary
type: aggregate
short_description: Print the tables of plans, fits and verdicts
description:
  - Prints what the module fleet_verdict returned, below the recap: the verdicts are the last thing on the screen.
  - Prints what fleet_export, gpu_plan, health_report, model_fit, node_diagnosis and serving_benchmark returned at once,
    where they ran, and the progress of an update.
requirements:
  - Listed in C(callbacks_enabled) of ansible.cfg.
"""

from typing import Any

from ansible.plugins.callback import CallbackBase

_AT_ONCE = (
    "fleet_export",
    "gpu_plan",
    "health_report",
    "model_fit",
    "node_diagnosis",
    "serving_benchmark",
    "update_plan",
    "update_state",
)


class CallbackModule(CallbackBase):
    """Shows texts of plans, fits and diagnoses at once and the last fleet_verdict after the recap; has no logic."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "rackwright_summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._text: str | None = None

    def v2_runner_on_ok(self, result: Any) -> None:
        """Print a plan; remember the table when the task was the fleet's verdict."""
        # asking for a result makes Ansible copy it: milliseconds for every task of every host that is none of these
        if result.task.action not in (*_AT_ONCE, "fleet_verdict"):
            return
        text = result.result.get("table_text")
        if result.task.action == "fleet_verdict":
            self._text = text
        elif text:
            self._display.display(text if result.task.action == "update_state" else f"\n{text}\n")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print the table below the recap."""
        if self._text:
            self._display.display(f"\n{self._text}\n")
