# SPDX-License-Identifier: Apache-2.0
"""A wish of package_set in which nothing is wished for yet."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.rackwright.package_set import Wish


def wish(**values: Any) -> Wish:
    """Return a wish with these values; everything else is nothing, lists an hour old will do."""
    base: dict[str, Any] = {
        "packages": [],
        "optional": [],
        "remove": [],
        "upgrade": "none",
        "cache_valid_time": 3600,
        "hold": [],
        "hold_sources": [],
        "release": [],
        "allow_downgrade": False,
    }
    return Wish(**{**base, **values})
