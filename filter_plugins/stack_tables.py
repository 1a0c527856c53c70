# SPDX-License-Identifier: Apache-2.0
"""The tables with a site's own rows, for roles that hold what the lock says against the node once more."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import tables
from rackwright.errors import RackwrightError
from rackwright.fleet_inputs import plain

_TABLES = _ROOT / "roles" / "gpu_stack" / "files" / "tables"


def stack_table(extra: Any, name: str) -> dict[str, Any]:
    """Return one table (``frameworks``) with the rows of ``stack_extra_tables`` merged in."""
    try:
        table: dict[str, Any] = getattr(tables.load_tables(_TABLES, tables.extra_rows(plain(extra))), name)
    except RackwrightError as error:
        raise AnsibleFilterError(str(error)) from error
    return table


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name them for templates."""
        return {"stack_table": stack_table}
