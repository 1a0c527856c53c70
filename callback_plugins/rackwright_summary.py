# SPDX-License-Identifier: Apache-2.0
"""Print the verdicts at the end of a run."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rackwright_summary
type: aggregate
short_description: Print the table of verdicts at the end of a run
description:
  - Prints what the module fleet_verdict returned, below the recap: the verdicts are the last thing on the screen.
  - Prints nothing when no proof was made.
requirements:
  - Listed in C(callbacks_enabled) of ansible.cfg.
"""

from typing import Any

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    """Keeps the text of the last fleet_verdict task and shows it after the recap; no logic of its own."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "rackwright_summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._text: str | None = None

    def v2_runner_on_ok(self, result: Any) -> None:
        """Remember the table when the task was the fleet's verdict."""
        if result.task.action == "fleet_verdict":
            self._text = result.result.get("table_text")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print the table below the recap."""
        if self._text:
            self._display.display(f"\n{self._text}\n")
