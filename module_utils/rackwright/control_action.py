# SPDX-License-Identifier: Apache-2.0
"""What action plugins have in common that only think: they run on the control node and contact no node."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible.plugins.action import ActionBase

from .errors import RackwrightError


class ControlAction(ActionBase):
    """An action that answers from variables, files and facts; an error it explains is a failed task."""

    TRANSFERS_FILES = False
    _requires_connection = False
    SPEC: ClassVar[dict[str, Any]] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check the options and answer one call."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(self.SPEC)
        self._options: dict[str, Any] = options
        self._vars: dict[str, Any] = task_vars or {}
        try:
            result.update(self.answer())
        except RackwrightError as error:
            result.update(error.to_result(), failed=True)
        return result

    def answer(self) -> dict[str, Any]:
        """Return what the task returns, or raise RackwrightError."""
        raise NotImplementedError
