# SPDX-License-Identifier: Apache-2.0
"""What does not fit together on a node, for playbooks that show it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright.coherence import lines
from rackwright.fleet_inputs import plain


def coherence_lines(gpu: Any) -> list[str]:
    """Return one line with cause and cure for each mismatch that the fact ``gpu`` shows."""
    return lines(plain(gpu))


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name them for templates."""
        return {"coherence_lines": coherence_lines}
