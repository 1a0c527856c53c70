# SPDX-License-Identifier: Apache-2.0
"""Every check of a node's health by its id: one table for the rules and for docs/health.md.

The tests hold the page against it. Limits are named as in health_limits.
"""

from __future__ import annotations

from .health_table_gpu import GPU_RULES, Rule
from .health_table_node import NODE_RULES

RULES: dict[str, Rule] = {**GPU_RULES, **NODE_RULES}
