# SPDX-License-Identifier: Apache-2.0
"""A diagnosis of many nodes as text for a terminal. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from .text_table import MAX_ROWS, SIMULATED, WIDTH


def fleet_text(nodes: Sequence[Mapping[str, Any]], report: str | None) -> str:
    """Return everything people read: each node with its findings, then the totals and where the report is."""
    shown = [node for node in nodes if node["findings"]][:MAX_ROWS]
    lines = ["Rackwright diagnosis"]
    for node in shown:
        lines += ["", *_node(node)]
    hidden = sum(1 for node in nodes if node["findings"]) - len(shown)
    if hidden:
        lines += ["", f"... and {hidden} more nodes with findings, in the report (-e diagnose_report=FILE)"]
    quiet = [node["node"] + (SIMULATED if node["simulated"] else "") for node in nodes if not node["findings"]]
    if quiet:
        lines += ["", *_wrapped(f"Nothing found on {', '.join(quiet)}.", "", "  ")]
    lines += ["", _totals(nodes)]
    if report:
        lines.append(f"Report: {report}")
    return "\n".join(lines)


def _node(node: Mapping[str, Any]) -> list[str]:
    counts = ", ".join(f"{number} {severity}" for severity, number in node["counts"].items() if number)
    lines = [f"{node['node']}{SIMULATED if node['simulated'] else ''}: {counts or 'no finding of its own'}"]
    for finding in node["findings"]:
        lines += ["", *_finding(finding)]
    if node["not_measured"]:
        lines += ["", "  Not measured:"]
        for entry in node["not_measured"]:
            lines += _wrapped(f"{entry['id']}, {entry['subject']}: {entry['reason']}", "    - ", "      ")
    return lines


def _finding(finding: Mapping[str, Any]) -> list[str]:
    lines = _wrapped(f"{finding['severity'].upper()} {finding['id']}, {finding['subject']}", "  ", "    ")
    lines += _wrapped(finding["cause"], "    ", "    ")
    if finding["observed"] is not None and finding["expected"] is not None:
        lines += _wrapped(f"Found {finding['observed']}; expected {finding['expected']}.", "    ", "    ")
    for number, step in enumerate(finding["steps"], start=1):
        head = f"    {number}. "
        lines += _wrapped(step, head, " " * len(head))
    return [*lines, *_wrapped(f"Source: {finding['source']}", "    ", "    ")]


def _wrapped(text: str, first: str, later: str) -> list[str]:
    # commands are copied from here: never broken inside a word or at a hyphen
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )


def _totals(nodes: Sequence[Mapping[str, Any]]) -> str:
    errors = sum(1 for node in nodes if node["counts"]["error"])
    unmeasured = sum(1 for node in nodes if node["not_measured"])
    text = f"{len(nodes)} node(s): {errors} with errors"
    return f"{text}, {unmeasured} with checks that could not be made." if unmeasured else f"{text}."
