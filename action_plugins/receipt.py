# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``receipt``: what the role was run with is known here, what it left is seen on the node."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright.errors import RackwrightError
from rackwright.role_inputs import expected, role_facts


class ActionModule(ActionBase):
    """Compute the digest of a role's inputs and run the module that writes or removes its receipt."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module ``receipt`` with what the role was run with."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        if arguments.get("state", "present") != "absent":
            try:
                arguments["expected"] = self._expected(str(arguments.get("role")), variables)
            except RackwrightError as error:
                return {**result, "failed": True, **error.to_result()}
        result.update(self._execute_module(module_name="receipt", module_args=arguments, task_vars=variables))
        return result

    def _expected(self, role: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        values = {
            name: self._value(role, name, variables) for name in role_facts(_ROOT, role).options if name in variables
        }
        stack = self._value(role, "__stack", variables) if "__stack" in variables else None
        return expected(_ROOT, role, values, stack)

    def _value(self, role: str, name: str, variables: Mapping[str, Any]) -> Any:
        try:
            return self._templar.template(variables[name])
        except AnsibleError as error:
            raise AnsibleError(
                f"Could not write the receipt of the role {role}: {name} has no value ({error}). "
                "Give it one, or correct its template in the inventory."
            ) from error
