# SPDX-License-Identifier: Apache-2.0
"""dnf's side of the driver plan: not there yet, so it refuses."""

from __future__ import annotations

from typing import Any

from .driver_plan import Found, Request
from .errors import InvalidInputError
from .packages import Installed
from .packages_apt import Run


class DnfSide:
    """What dnf and the repositories of one node say about a driver."""

    manager = "dnf"

    def __init__(self, run: Run, node: str, lock_timeout: int) -> None:
        self._run, self.node, self.lock_timeout = run, node, lock_timeout

    def statuses(self) -> dict[str, Installed]:
        """Return what is installed."""
        return {}

    def resolve(self, request: Request, host: dict[str, Any], with_module: bool) -> Found:
        """Refuse: nothing is known of this node's packages."""
        raise InvalidInputError(
            "choose the driver packages",
            self.node,
            f"{host['platform']['name']} installs packages with dnf, which this role does not use yet",
            "Use Debian or Ubuntu",
            expected="apt",
            found="dnf",
        )
