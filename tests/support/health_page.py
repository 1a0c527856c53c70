# SPDX-License-Identifier: Apache-2.0
"""Rows of the tables in docs/health.md, from the tables that the rules use.

``PYTHONPATH=tests:module_utils python -m support.health_page`` prints them.
"""

from __future__ import annotations

from rackwright.health_limits import LIMITS
from rackwright.health_table_gpu import GPU_RULES
from rackwright.health_table_node import NODE_RULES


def rows() -> list[str]:
    """Every row in the order of the page: checks of GPUs, checks of the node, limits."""
    checks = [
        f"| `{name}` | {rule.signal} | {rule.finding} | {rule.severity} | {', '.join(rule.actions)} | {rule.source} |"
        for name, rule in (*GPU_RULES.items(), *NODE_RULES.items())
    ]
    limits = [
        f"| `{name}` | {limit.value:g} {limit.unit} | {limit.meaning} | {limit.source} |"
        for name, limit in LIMITS.items()
    ]
    return [*checks, *limits]


if __name__ == "__main__":
    print("\n".join(rows()))
