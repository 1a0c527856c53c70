# SPDX-License-Identifier: Apache-2.0
"""What a rollout plans, does and did, as text for people and as documents for programs. Pure."""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from . import rollout
from . import rollout_state as state
from .text_table import MAX_ROWS, WIDTH, bullets, table

SCHEMA = 1
COLUMNS = ("node", "from", "to", "batch", "steps", "time", "end")
FORESEEN = ("node", "from", "to", "batch", "would install", "would drain by", "would activate by")
_SHRINK = ("steps", "node", "end")
_LEAST = {"node": 14, "end": 11, "steps": 10}
#: end states that are no reason to look at a node
_GOOD = (state.DONE, rollout.CURRENT, rollout.SKIPPED, state.FORGOTTEN)
_WORDS = {
    state.DONE: "done",
    state.ROLLED_BACK: "rolled back",
    state.STUCK: "stuck",
    state.REFUSED: "refused",
    state.BUSY: "busy",
    state.UNREACHABLE: "unreachable",
    rollout.WAITING: "not begun",
    rollout.CURRENT: "has it",
    rollout.SKIPPED: "left alone",
    rollout.DUE: "to do",
    rollout.RESUME: "resumes",
    state.OPEN: "interrupted",
    state.FORGOTTEN: "forgotten",
}


def ended(run: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the run's document with what became of every node.

    Args:
        run: the document as it was planned.
        records: node to its record.

    Returns:
        The document; each node with ``end``, ``reason``, ``steps`` (names), ``seconds``.
    """
    nodes = {name: {**node, **_end(name, node, run, records.get(name))} for name, node in run["nodes"].items()}
    summary = {word: sum(1 for node in nodes.values() if node["end"] == word) for word in _WORDS}
    return {**run, "nodes": nodes, "summary": {word: count for word, count in summary.items() if count}}


def _end(
    name: str, node: Mapping[str, Any], run: Mapping[str, Any], record: Mapping[str, Any] | None
) -> dict[str, Any]:
    if record is None or record.get("run") != run["id"]:
        planned = node["plan"] in rollout.PLANNED
        reason = (run.get("held") or {}).get(name, node.get("reason")) if planned else node.get("reason")
        return {"end": rollout.WAITING if planned else node["plan"], "reason": reason, "steps": [], "seconds": None}
    steps = record["steps"][node.get("steps_before", 0) :]
    seconds = _seconds(steps[0]["began"], record.get("ended") or steps[-1]["began"]) if steps else None
    reason = record.get("reason")
    if record["state"] == state.OPEN:
        reason = f"the run ended while it was at {state.last_step(record)}; run the playbook again, which goes on there"
    return {"end": record["state"], "reason": reason, "steps": [step["step"] for step in steps], "seconds": seconds}


def _seconds(began: str, now: str) -> int:
    return round((datetime.datetime.fromisoformat(now) - datetime.datetime.fromisoformat(began)).total_seconds())


def bad(document: Mapping[str, Any]) -> dict[str, str]:
    """Return node to the reason why it was not updated, for every node that should have been."""
    return {
        name: f"{_WORDS[node['end']]}: {node['reason'] or 'no reason was recorded'}"
        for name, node in document["nodes"].items()
        if node["end"] not in _GOOD
    }


def began_text(run: Mapping[str, Any]) -> str:
    """Return what a run is about to do: batches, and every node that it leaves alone or goes on with."""
    lines = [f"Rackwright {title(run)} (run {run['id']})", ""]
    for number, batch in enumerate(run["batches"], 1):
        role = _role(batch, run)
        lines += textwrap.wrap(f"batch {number}{role}: {', '.join(batch)}", WIDTH, subsequent_indent="  ")
    if not run["batches"]:
        lines.append("No node has to be updated.")
    for name, node in run["nodes"].items():
        if node.get("reason") and node["plan"] != rollout.CURRENT:
            word = "" if node["plan"] == rollout.RESUME else f"{_WORDS[node['plan']]}: "
            lines += bullets([f"{name}: {word}{node['reason']}"])
        lines += bullets([f"{name}: {note}" for note in node.get("notes") or []])
    return "\n".join(lines)


def _role(batch: Sequence[str], run: Mapping[str, Any]) -> str:
    if all(run["nodes"][name]["plan"] == rollout.RESUME for name in batch):
        return " (interrupted before)"
    return " (canary)" if all(name in run["canaries"] for name in batch) else ""


def title(run: Mapping[str, Any]) -> str:
    """Return ``update of the driver`` or what else a run does."""
    return f"{'rollback' if run['direction'] == 'rollback' else 'update'} of the {run['what']}"


def ended_text(document: Mapping[str, Any], location: str | None, locks: str | None) -> str:
    """Return table, reasons and the closing sentence.

    Args:
        document: what :func:`ended` returned.
        location: where it was written.
        locks: what happened to the lock files, None where nothing did.
    """
    rows = [_row(name, node) for name, node in document["nodes"].items()]
    rows = rows if len(rows) <= MAX_ROWS else [row for row in rows if row["end"] not in ("done", "has it")][:MAX_ROWS]
    lines = [f"Rackwright {title(document)}", "", *table(COLUMNS, rows, _SHRINK, _LEAST)]
    if len(rows) < len(document["nodes"]):
        lines.append(f"... and {len(document['nodes']) - len(rows)} more nodes, named in the report")
    for name, node in document["nodes"].items():
        if node["end"] not in (state.DONE, rollout.CURRENT) and node["reason"]:
            lines += ["", f"{name}: {_WORDS[node['end']]}", *bullets([str(node["reason"])])]
    lines += ["", closing(document)]
    lines += textwrap.wrap(locks, WIDTH) if locks else []
    return "\n".join([*lines, f"Report: {location}"] if location else lines)


def _row(name: str, node: Mapping[str, Any]) -> dict[str, str]:
    seconds = node.get("seconds")
    return {
        "node": name,
        "from": str((node.get("from") or {}).get("version") or "-"),
        "to": str((node.get("to") or {}).get("version") or "-"),
        "batch": str(node.get("batch") or "-"),
        "steps": ", ".join(node.get("steps") or []) or "-",
        "time": "-" if seconds is None else f"{seconds // 60}:{seconds % 60:02d}",
        "end": _WORDS[node["end"]],
    }


def closing(document: Mapping[str, Any]) -> str:
    """Return the one sentence that says how it ended."""
    counts = [f"{count} {_WORDS[end]}" for end, count in document["summary"].items()]
    stopped = f"; stopped: {document['stopped']}" if document.get("stopped") else ""
    return f"{len(document['nodes'])} node(s): {', '.join(counts)}{stopped}."


def foreseen_text(run: Mapping[str, Any], foreseen: Mapping[str, Mapping[str, Any]]) -> str:
    """Return, node by node, what a run would do; nothing was changed.

    Args:
        run: the planned document.
        foreseen: node to ``pending`` (packages), ``drain``, ``activate``, ``failure``.
    """
    rows, failures = [], {}
    for name, node in run["nodes"].items():
        seen = foreseen.get(name) or {}
        planned = node["plan"] in rollout.PLANNED
        row = _row(name, {**node, "end": node["plan"]})
        pending = seen.get("pending")
        packages = f"{len(pending)} package(s)" if pending is not None else "unknown"
        row["would install"] = packages if planned and not seen.get("failure") else _WORDS[node["plan"]]
        row["would drain by"] = str(seen.get("drain") or "-") if planned else "-"
        row["would activate by"] = str(seen.get("activate") or "-") if planned else "-"
        if seen.get("failure"):
            row["would install"] = "refused"
            failures[name] = str(seen["failure"])
        rows.append({column: row[column] for column in FORESEEN})
    lines = [f"Rackwright {title(run)} (check mode: nothing was changed)", ""]
    lines += table(FORESEEN, rows[:MAX_ROWS], ("node", "would drain by"), _LEAST)
    for name, failure in failures.items():
        lines += ["", f"{name}: would be refused", *bullets([failure])]
    return "\n".join([*lines, "", began_text(run)])


def step_text(record: Mapping[str, Any], clock: str) -> str:
    """Return one line of progress."""
    if record["state"] != state.OPEN:
        reason = f": {record['reason']}" if record.get("reason") else ""
        return f"{clock}  {record['node']}: {_WORDS.get(record['state'], record['state'])}{reason}"
    return f"{clock}  {record['node']}: {record['step']} ({state.where(record)})"
