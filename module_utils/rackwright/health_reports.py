# SPDX-License-Identifier: Apache-2.0
"""The health of a fleet on the control node: one file per node, and the table that people read."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from . import reports
from .errors import InvalidInputError
from .health_record import LADDER, NONE, Check, findings, rank
from .text_table import MAX_ROWS, SIMULATED, table
from .text_table import WIDTH as _WIDTH

SILENT = "silent"
_COLUMNS = ("node", "gpus", "driver", "checks", "health")
_SHRINKABLE = ("gpus", "checks", "node")
_MOST_FINDINGS = 12
_WORDS = {"ok": "ok", "finding": "found", "not_applicable": "n/a", "not_measured": "unread"}

Node = Mapping[str, Any]


def folder_of(directory: str) -> str:
    """Where the documents of all nodes lie."""
    return os.path.join(directory, "health")


def path_of(directory: str, node: str) -> str:
    """Where the document of a node lies."""
    return os.path.join(folder_of(directory), reports.file_name(node))


def baseline_of(path: str) -> dict[str, Any]:
    """Return the baseline in the document of the last check; none yet is an empty one.

    Raises:
        InvalidInputError: the file is there and is no document.
    """
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as stream:
            baseline = json.load(stream)["baseline"]
        if not isinstance(baseline, dict):
            raise TypeError("its baseline is no mapping")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInputError(
            "read what the last check knew",
            path,
            f"it is no health document ({error})",
            "Remove the file: this check then starts anew, with what the node is now",
            found=path,
        ) from error
    return baseline


def write(directory: str, documents: Mapping[str, Node]) -> None:
    """Write the document of every node, whole or not at all."""
    if documents:
        reports.make_directory(folder_of(directory))
    for name, document in documents.items():
        reports.write_json(path_of(directory, name), document)


def failed(documents: Mapping[str, Node], silent: Mapping[str, str], fail_at: str) -> list[str]:
    """Return the nodes whose severity reaches ``fail_at``, and those that gave no answer."""
    bad = [name for name, document in documents.items() if rank(document["severity"]) >= rank(fail_at)]
    return [*bad, *silent]


# ---- what people read ----


def table_text(
    documents: Mapping[str, Node], silent: Mapping[str, str], location: str | None, fail_at: str = LADDER[1]
) -> str:
    """Return the fleet's table, worst first, the findings of each node with their actions, and where the files are."""
    order = sorted(documents, key=lambda name: -rank(documents[name]["severity"]))
    rows = [*(_silent_row(name) for name in silent), *(_row(name, documents[name]) for name in order)]
    lines = ["Rackwright health", "", *table(_COLUMNS, rows[:MAX_ROWS], _SHRINKABLE, {"node": 12, "gpus": 16})]
    if len(rows) > MAX_ROWS:
        lines.append(f"... and {len(rows) - MAX_ROWS} more nodes, none of them worse")
    for name, reason in silent.items():
        lines += ["", f"{name}: {SILENT}", *_wrapped(reason, "  - ", "    ")]
    for name in order[:MAX_ROWS]:
        found = findings(documents[name]["checks"])
        if found:
            lines += ["", *_node(name, documents[name], found)]
    lines += ["", *_wrapped(_totals(documents, silent, fail_at), "", "")]
    lines.append(f"Reports: {location}" if location else "Reports: none are written in check mode")
    return "\n".join(lines)


def _row(name: str, document: Node) -> dict[str, str]:
    gpu, counts = document["gpu"], document["summary"]
    names = " + ".join(text.removeprefix("NVIDIA ").removeprefix("GeForce ") for text in gpu["names"])
    gpus = f"{gpu['count']} x {names}" if names else f"none ({gpu['situation']})"
    return {
        "node": name,
        "gpus": gpus + (SIMULATED if document["simulated"] else ""),
        "driver": str(gpu["driver"] or "none"),
        "checks": ", ".join(f"{number} {_WORDS[state]}" for state, number in counts.items() if number),
        "health": "ok" if document["severity"] == NONE else document["severity"],
    }


def _silent_row(name: str) -> dict[str, str]:
    return {"node": name, "gpus": "unknown", "driver": "unknown", "checks": "none", "health": SILENT}


def _node(name: str, document: Node, found: Sequence[Check]) -> list[str]:
    lines = [f"{name}{SIMULATED if document['simulated'] else ''}: {document['severity']}"]
    for check in found[:_MOST_FINDINGS]:
        lines += _wrapped(f"{check['severity']}: {check['id']}, {check['subject']}: {check['reason']}", "  ", "      ")
        for number, step in enumerate(check["actions"], start=1):
            head = f"    {number}. "
            lines += _wrapped(step["text"], head, " " * len(head))
    if len(found) > _MOST_FINDINGS:
        lines.append(f"  ... and {len(found) - _MOST_FINDINGS} more, in the report")
    return lines


def _wrapped(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )


def _totals(documents: Mapping[str, Node], silent: Mapping[str, str], fail_at: str) -> str:
    severities = [document["severity"] for document in documents.values()]
    words = [f"{severities.count(word)} {word}" for word in reversed(LADDER) if word in severities]
    fine = severities.count(NONE)
    text = ", ".join([*words, f"{fine} ok", *([f"{len(silent)} silent"] if silent else [])])
    unmeasured = sum(bool(document["summary"]["not_measured"]) for document in documents.values())
    text = f"{len(documents) + len(silent)} node(s): {text}. The run fails from {fail_at} on."
    return f"{text} {unmeasured} node(s) with checks that could not be measured." if unmeasured else text
