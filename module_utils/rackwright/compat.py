# SPDX-License-Identifier: Apache-2.0
"""The resolver: one node and one wish in, one consistent stack with reasons or one refusal with alternatives out. Pure.

The gates are passed in order and a refusal names the one that failed: platform, GPU -> driver (with kernel),
driver -> CUDA, build -> GPU code, Python and C library. ``docs/planning.md`` tells every rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .compat_alternatives import find_alternatives
from .compat_check import check_stack
from .compat_rules import Case, Refusal, TablesLike
from .compat_stack import solve_case
from .errors import sentence
from .stack_intent import Intent
from .stack_node import StackNode

__all__ = ["Solution", "check_stack", "solve"]


@dataclass
class Solution:
    """What came out. ``stack`` is empty when the wish was refused; ``docs/planning.md`` has its layout.

    ``decisions``: ``{"item": dotted path in the stack, "value", "rule", "row", "source"}``.
    ``alternatives``: ``{"change": {variable: value}, "sentence", "stack_summary"}``, nearest first, each one solved.
    """

    node: StackNode
    status: str
    stack: dict[str, Any] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    gate: str | None = None
    reason: str | None = None
    remedies: list[str] = field(default_factory=list)
    alternatives: list[dict[str, Any]] = field(default_factory=list)


def solve(node: StackNode, intent: Intent, tables: TablesLike, today: str) -> Solution:
    """Return the stack of a node, or why there is none and what would be possible.

    Args:
        node: the node, from facts or a description.
        intent: what is wanted.
        tables: the tables, with the site's own rows.
        today: ISO date that ends of life are compared with; it appears in no result.
    """
    case = Case(node, intent, tables, today)
    try:
        stack = solve_case(case)
    except Refusal as refusal:
        return Solution(
            node,
            "refused",
            decisions=case.decisions,
            gate=refusal.gate,
            reason=sentence(refusal.reason),
            remedies=refusal.remedies,
            alternatives=find_alternatives(case, refusal),
        )
    return Solution(node, "solved", stack, case.decisions)
