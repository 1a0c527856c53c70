# SPDX-License-Identifier: Apache-2.0
"""Options of the module vendor_repository out of the lock and the site's own mirror and key."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright.repository_options import repository_options


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name them for templates."""
        return {"repository_options": repository_options}
