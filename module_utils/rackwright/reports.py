# SPDX-License-Identifier: Apache-2.0
"""Verdicts as files and as a table in the terminal."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Container, Mapping, Sequence
from typing import Any

from . import atomic
from .errors import InvalidInputError, RackwrightError
from .text_table import MAX_ROWS, SIMULATED, WIDTH, bullets, table
from .verdict import PASS, VERDICTS, counts_text, fleet_document
from .verdict_record import UNATTAINABLE, dig

COLUMNS = ("node", "os", "gpus", "driver", "torch", "checks", "verdict")
#: Columns that give way, widest first, when a row is longer than the terminal; never the verdict or the checks.
_SHRINKABLE = ("gpus", "os", "node", "torch", "driver", "checks")
_LEAST = {"gpus": 20, "os": 9, "node": 12}


class ReportError(RackwrightError):
    """A report could not be written."""

    kind = "report"


def row(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the table row of one verdict document."""
    return {
        "node": str(document["node"]),
        "os": os_text(dig(document, "system.os")),
        "gpus": gpus_text(document.get("gpu")),
        "driver": str(
            dig(document, "gpu.driver.library_version") or dig(document, "gpu.driver.kernel_module_version") or "none"
        ),
        "torch": str(dig(document, "torch.version") or "none"),
        "checks": counts_text(document["summary"]),
        "verdict": str(document["verdict_text"]),
    }


def os_text(name: Any) -> str:
    """Return ``Debian 12`` for ``Debian GNU/Linux 12 (bookworm)``; the report has the whole name."""
    return re.sub(r" GNU/Linux| \([^)]*\)", "", str(name)) if name else "unknown"


def gpus_text(gpu: Mapping[str, Any] | None) -> str:
    """Return ``8 x H100 80GB HBM3 (simulated)``; several kinds are joined by a plus."""
    if gpu is None:
        return "unknown"
    counts: dict[str, int] = {}
    for device in gpu.get("devices") or []:
        name = re.sub(r"^NVIDIA (GeForce )?", "", str(device.get("name") or "unknown GPU"))
        counts[name] = counts.get(name, 0) + 1
    text = " + ".join(f"{count} x {name}" for name, count in counts.items())
    if not text:
        situation = str(gpu.get("situation"))
        return "none" if situation == "no_gpu" else f"none ({situation})"
    return f"{text}{SIMULATED}" if gpu.get("simulated") else text


def table_text(
    documents: Sequence[Mapping[str, Any]],
    location: str | None,
    run_id: str,
    check_mode: bool = False,
    notes: Sequence[str] = (),
) -> str:
    """Return the whole summary: table, reasons of everything that did not pass, notes, where the reports are."""
    rows = [row(document) for document in documents]
    shown = (
        rows
        if len(rows) <= MAX_ROWS
        else [entry for entry, document in zip(rows, documents) if document["verdict"] != PASS][:MAX_ROWS]
    )
    lines = ["Rackwright verdicts" + (" (check mode: nothing was changed or measured)" if check_mode else ""), ""]
    lines += table(COLUMNS, shown, _SHRINKABLE, _LEAST)
    if len(shown) < len(rows):
        lines.append(f"... and {len(rows) - len(shown)} more nodes, named in the fleet's report")
    lines += explained(documents, {entry["node"] for entry in shown})
    lines += ["", totals(documents)]
    for note in notes:
        lines += textwrap.wrap(f"Note: {note}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    if location or check_mode:
        lines.append(f"Reports: {location} (run {run_id})" if location else "Reports: none are written in check mode")
    return "\n".join(lines)


def explained(documents: Sequence[Mapping[str, Any]], shown: Container[str]) -> list[str]:
    """Return, per node of those shown that did not pass, its verdict and every reason."""
    lines: list[str] = []
    for document in documents:
        if document["verdict"] != PASS and document["node"] in shown:
            lines += ["", f"{document['node']}: {document['verdict_text']}", *bullets(document["reasons"])]
    return lines


def totals(documents: Sequence[Mapping[str, Any]]) -> str:
    """Return how many nodes have which verdict, in a sentence."""
    verdicts = [document["verdict"] for document in documents]
    named = [name for name in reversed(VERDICTS) if name != UNATTAINABLE or name in verdicts]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in named)
    text = f"{len(verdicts)} node(s): {counts}."
    if any(document["simulated"] for document in documents):
        text += " Simulated GPUs run nothing: their speed is not measured."
    return text


def file_name(node: str) -> str:
    """Return the report's file name; a node whose name is no file name is refused, never redirected elsewhere."""
    if not node or "/" in node or "\0" in node or node in (".", "..") or len(node) > 200:
        raise InvalidInputError(
            "name the report", f"node {node!r}", "the name cannot be a file name", "Rename the node in the inventory"
        )
    return f"{node}.json"


def report_path(node: str, run_id: str) -> str:
    """Return where a node's report of a run is, below the directory of the reports.

    Raises:
        InvalidInputError: node or run has a name that is no file name.
    """
    return os.path.join(_folder(run_id), file_name(node))


def _folder(run_id: str) -> str:
    """The name of a run as that of a folder; a bad one is refused like that of a node."""
    return file_name(run_id)[: -len(".json")]


def write_reports(
    directory: str,
    run_id: str,
    documents: Mapping[str, Mapping[str, Any]],
    stragglers: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write one file per node below ``directory/run_id`` and then the fleet's file; return the fleet's document.

    Each file appears whole or not at all, and the fleet's file, written last, never names a report that is not there.
    """
    files = {node: report_path(node, run_id) for node in documents}
    fleet = fleet_document(documents, run_id, files, stragglers)
    make_directory(os.path.join(directory, _folder(run_id)))
    for node, document in documents.items():
        write_json(os.path.join(directory, files[node]), document)
    write_json(os.path.join(directory, "fleet.json"), fleet)
    return fleet


def from_here(path: str) -> str:
    """Return a whole path; a relative one starts where Ansible was called: action plugins stand there."""
    return os.path.abspath(os.path.expanduser(path))


def make_directory(path: str) -> None:
    """Make a directory for reports, with its parents."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_json(path: str, document: Mapping[str, Any]) -> None:
    """Write a document beside its place and move it there: readers see the old file or the new one, whole."""
    try:
        atomic.replace(path, _text(document).encode("utf-8"), mode=0o644, prefix=".report-")
    except OSError as error:
        raise _cannot_write(path, error) from error


def _text(document: Mapping[str, Any]) -> str:
    """One line per entry of a list or dictionary at the top: a check, a result or a node is one line to search and to
    compare, and the encoder need not indent tens of thousands of values."""
    parts = []
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            lines = (f"{json.dumps(str(name))}: {_encode(entry)}" for name, entry in value.items())
            text = "{\n    " + ",\n    ".join(lines) + "\n  }"
        elif isinstance(value, (list, tuple)) and value:
            text = "[\n    " + ",\n    ".join(map(_encode, value)) + "\n  ]"
        else:
            text = _encode(value)
        parts.append(f"  {json.dumps(str(key))}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _encode(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _cannot_write(path: str, error: OSError) -> ReportError:
    return ReportError(
        "write the report",
        path,
        error.strerror or str(error),
        "Free space or choose another directory with rackwright_reports; the reports of earlier runs are intact",
        found=error.errno,
    )


def proofs_path(directory: str) -> str:
    """Return where the record of the last proof of every node is kept."""
    return os.path.join(directory, "proofs.json")


def read_proofs(path: str | None) -> dict[str, Any]:
    """Return node name to its last proof; no record yet is an empty one.

    Raises:
        InvalidInputError: the file is there and is no record.
    """
    if path is None or not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as stream:
            nodes = json.load(stream)["nodes"]
        if not isinstance(nodes, dict) or not all(isinstance(entry, dict) for entry in nodes.values()):
            raise TypeError("its nodes are no dictionary of proofs")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInputError(
            "read the record of proofs", path, f"{error}", "Remove the file; every node is then proven again"
        ) from error
    return nodes


def record_proofs(directory: str, run_id: str, proven: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the proofs of one run to the record; nodes that were not proven in it keep theirs."""
    path = proofs_path(directory)
    nodes = {**read_proofs(path), **{node: {"run_id": run_id, **entry} for node, entry in proven.items()}}
    write_json(path, {"schema": 1, "kind": "rackwright-proofs", "nodes": dict(sorted(nodes.items()))})
