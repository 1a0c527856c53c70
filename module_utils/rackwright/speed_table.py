# SPDX-License-Identifier: Apache-2.0
"""The table of a fleet's benchmark in the terminal: the worst node first, and who is slow by how much. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from .peers import difference, less_is_better
from .reports import explained, gpus_text, totals
from .text_table import MAX_ROWS, WIDTH, table
from .verdict import VERDICTS

COLUMNS = ("node", "gpus", "gemm", "memory", "pcie", "llm", "against", "verdict")
_SHRINK = ("gpus", "node", "against")
_LEAST = {"gpus": 14, "node": 12, "against": 16}
_MOST_STRAGGLERS = 40
_MOST_NAMED = 12


def text(
    documents: Sequence[Mapping[str, Any]],
    stragglers: Sequence[Mapping[str, Any]],
    location: str | None,
    run_id: str,
    skipped: Mapping[str, str],
    notes: Sequence[str] = (),
    check_mode: bool = False,
) -> str:
    """Return the whole summary of a benchmark.

    Args:
        documents: verdict documents of this run.
        stragglers: who is below its peers or its past, the slowest first.
        location: path of the fleet's report, None where none was written.
        skipped: node to the reason why it was not benchmarked again.
    """
    lines = ["Rackwright benchmark" + (" (check mode: nothing was measured)" if check_mode else "")]
    worst = _worst(stragglers)
    ordered = sorted(documents, key=lambda document: _rank(document, worst.get(str(document["node"]))))
    shown = ordered[:MAX_ROWS]
    if shown:
        lines.append("")
        rows = [row(document, worst.get(str(document["node"]))) for document in shown]
        lines += table(COLUMNS, rows, _SHRINK, _LEAST)
    if len(shown) < len(ordered):
        lines.append(f"... and {len(ordered) - len(shown)} more nodes, named in the fleet's report")
    lines += _straggler_lines(stragglers)
    lines += explained(shown, {str(document["node"]) for document in shown})
    lines += _skipped_lines(skipped)
    lines += ["", totals(documents) if documents else "No node was benchmarked."]
    for note in notes:
        lines += textwrap.wrap(f"Note: {note}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    if location:
        lines.append(f"Reports: {location} (run {run_id})")
    return "\n".join(lines)


def _rank(document: Mapping[str, Any], worst: Mapping[str, Any] | None) -> tuple[int, float, str]:
    return VERDICTS.index(document["verdict"]), worst["fraction"] if worst else 1.0, str(document["node"])


def _worst(stragglers: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The worst entry of every node that has one."""
    worst: dict[str, Mapping[str, Any]] = {}
    for entry in stragglers:
        known = worst.setdefault(str(entry["node"]), entry)
        if entry["fraction"] < known["fraction"]:
            worst[str(entry["node"])] = entry
    return worst


def row(document: Mapping[str, Any], worst: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the row of one node: of each number that of its slowest GPU, and its worst straggler where it has one."""
    every = [e for e in (document.get("benchmark") or {}).get("results") or [] if isinstance(e, Mapping)]
    results = [entry for entry in every if str(entry.get("device")) != "cpu"]
    found = {name: _slowest(results, *wanted) for name, wanted in _WANTED.items()}
    if not results:
        shown = {name: _slowest(every, *wanted) for name, wanted in _WANTED.items()}
        found = {name: text if text == "-" else f"{text} (CPU)" for name, text in shown.items()}
    return {
        "node": str(document["node"]),
        "gpus": gpus_text(document.get("gpu")),
        **found,
        "against": f"{worst['subject']} -{(1 - worst['fraction']) * 100:.0f} % {worst['against']}" if worst else "-",
        "verdict": str(document["verdict_text"]),
    }


#: Column to suite and beginning of the name of the numbers it shows.
_WANTED = {
    "gemm": ("gemm", ("gemm_bfloat16_8192", "gemm_float16_8192", "gemm_float32_8192", "gemm")),
    "memory": ("memory", ("memory_copy",)),
    "pcie": ("pcie", ("",)),
    "llm": ("llm_inference", ("llm_goal",)),
}


def _slowest(results: Sequence[Mapping[str, Any]], suite: str, names: Sequence[str]) -> str:
    for name in names:
        values = [
            (float(entry["value"]), str(entry.get("unit")))
            for entry in results
            if entry.get("suite") == suite
            and str(entry.get("name")).startswith(name)
            and _is_number(entry.get("value"))
        ]
        if values:
            value, unit = (max if less_is_better(values[0][1]) else min)(values)
            return f"{value:.4g} {unit}"
    return "-"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _straggler_lines(stragglers: Sequence[Mapping[str, Any]]) -> list[str]:
    if not stragglers:
        return []
    lines = ["", "Stragglers, the slowest first:"]
    for entry in stragglers[:_MOST_STRAGGLERS]:
        against = "its peers" if entry["against"] == "peers" else "its own past"
        said = (
            f"{entry['node']} {entry['subject']}: {entry['metric']} {entry['value']:.4g} {entry['unit']}, "
            f"{difference(entry['fraction'])} {against} ({entry['status']})"
        )
        lines += textwrap.wrap(said, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    if len(stragglers) > _MOST_STRAGGLERS:
        lines.append(f"  ... and {len(stragglers) - _MOST_STRAGGLERS} more, in the fleet's report")
    return lines


def _skipped_lines(skipped: Mapping[str, str]) -> list[str]:
    lines = ["", f"Not measured again, -e benchmark=all does ({len(skipped)} node(s)):"] if skipped else []
    for node, reason in list(skipped.items())[:_MOST_NAMED]:
        lines += textwrap.wrap(f"{node}: {reason}", WIDTH, initial_indent="  - ", subsequent_indent="    ")
    if len(skipped) > _MOST_NAMED:
        lines.append(f"  ... and {len(skipped) - _MOST_NAMED} more")
    return lines
