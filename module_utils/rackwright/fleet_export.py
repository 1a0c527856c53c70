# SPDX-License-Identifier: Apache-2.0
"""Write what is known of the fleet where other programs read it. Control node only."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import atomic, fleet_facts, inventory_text, metrics_text, reports
from .errors import InvalidInputError, RackwrightError
from .fleet_groups import SEVERITIES
from .text_table import bullets

INVENTORY, FACTS, METRICS = "inventory", "facts", "metrics"
PARTS = (INVENTORY, FACTS, METRICS)
FOLDER = "export"
VARIABLES = ("ansible_host", "ansible_port", "ansible_user", "ansible_connection", "ansible_python_interpreter")
_SECRET = re.compile(r"(^|_)(pass|passwd|password|passphrase|secret|token|credentials?|apikey|api_key)(_|$)", re.I)
#: reports that cannot be read and are named on the screen
_SHOWN = 3
_AGAIN = "Prove the node again with playbooks/prove-nodes.yml"


def export(
    hosts: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    directory: str,
    now: datetime.datetime,
    *,
    include: Sequence[str] = PARTS,
    check_mode: bool = False,
) -> dict[str, Any]:
    """Write the files below ``directory/export`` and return what the task returns.

    Args:
        hosts: per host ``facts`` (cached ones by name), ``variables`` (those that may be exported, plain),
            ``max_age`` (hours) and ``textfile`` (whether the node wants its own metrics).
        groups: group name to its hosts.
        directory: where the reports are.
        now: with a time zone.
        include: which of :data:`PARTS` to write; the files of others stay as they are.
        check_mode: write nothing.

    Raises:
        InvalidInputError: there is no host, or the record of proofs cannot be read.
        ReportError: a file could not be written.
    """
    if not hosts:
        raise InvalidInputError("export the fleet", directory, "there is no node", "Check the host pattern of the run")
    proofs = reports.read_proofs(reports.proofs_path(directory))
    found = {name: newest_report(directory, name, host["facts"], proofs) for name, host in hosts.items()}
    nodes = {
        name: fleet_facts.node_facts(host["facts"], found[name][0], host["max_age"], now)
        for name, host in hosts.items()
    }
    problems = [sentence for _report, sentences in found.values() for sentence in sentences]
    variables = {name: {**host["variables"], "rackwright": hostvars(nodes[name])} for name, host in hosts.items()}
    document = fleet_facts.document(nodes, now)
    texts = _texts(include, variables, groups, document)
    folder = os.path.join(directory, FOLDER)
    changed = [name for name, text in texts.items() if _differs(os.path.join(folder, name), text)]
    if not check_mode:
        _write(folder, texts)
    return {
        "changed": bool(changed),
        "directory": folder,
        "files": list(texts),
        "changed_files": changed,
        "summary": document["summary"],
        "node_metrics": {
            name: metrics_text.to_text({name: nodes[name]})
            for name, host in hosts.items()
            if host["textfile"] and METRICS in include
        },
        "table_text": summary_text(document, problems, folder, changed, check_mode),
    }


def newest_report(
    directory: str, node: str, facts: Mapping[str, Any], proofs: Mapping[str, Any]
) -> tuple[dict[str, Any] | str | None, list[str]]:
    """Return the newest report of a node that has a benchmark, or the newest one, or why none can be read, or None
    where it was never proven; and a sentence for each report on the way that cannot be read.
    """
    newest: dict[str, Any] | None = None
    problems: list[str] = []
    for run_id in _runs(facts.get("gpu_verdict"), proofs.get(node)):
        found = _read_report(directory, node, run_id)
        if isinstance(found, str):
            problems.append(found)
        elif found.get("benchmark"):
            return found, problems
        else:
            newest = newest or found
    return newest or (problems[0] if problems else None), problems


def _runs(verdict: Any, proof: Any) -> list[str]:
    """Identifiers of the runs that reported on a node, the latest first: an identifier is a time."""
    entries = [entry for entry in (verdict, proof) if isinstance(entry, Mapping)]
    for entry in tuple(entries):
        benchmarks = entry.get("benchmarks")
        entries += [one for one in (benchmarks or {}).values() if isinstance(one, Mapping)]
    return sorted({str(entry["run_id"]) for entry in entries if entry.get("run_id")}, reverse=True)


def _read_report(directory: str, node: str, run_id: str) -> dict[str, Any] | str:
    try:
        name = reports.report_path(node, run_id)
    except RackwrightError as error:
        return str(error)
    try:
        with open(os.path.join(directory, name), encoding="utf-8") as stream:
            document = json.load(stream)
        if document["kind"] != "rackwright.verdict" or document["node"] != node:
            raise ValueError("it is no verdict of this node")
    except FileNotFoundError:
        return str(InvalidInputError("read the report", name, "it is not there", _AGAIN))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        cause = (error.strerror if isinstance(error, OSError) else "") or f"it is damaged ({error})"
        return str(InvalidInputError("read the report", name, cause, _AGAIN))
    return dict(document)


def hostvars(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an exported inventory says of a node: nothing that differs at every look, no list of devices."""
    kept = {
        "gpu": ("situation", "count", "models", "driver", "collected_at"),
        "health": ("severity", "collected_at"),
        "verdict": ("verdict", "run_id", "at"),
    }
    parts = {
        part: {key: record[part][key] for key in keys} if record[part] is not None else None
        for part, keys in kept.items()
    }
    return {"simulated": record["simulated"], **parts}


def check_names(names: Sequence[str]) -> None:
    """Refuse to export variables whose name says that they are secret.

    Raises:
        InvalidInputError: naming the first of them.
    """
    for name in names:
        if _SECRET.search(name):
            raise InvalidInputError(
                "export the variable",
                name,
                "its name says that it is a secret",
                "Take it out of export_vars; whoever uses the export has to know its secrets from elsewhere",
                found=name,
            )


def summary_text(
    document: Mapping[str, Any], problems: Sequence[str], folder: str, changed: Sequence[str], check_mode: bool
) -> str:
    """Return what the run shows: counts, what is stale, unknown or unreadable, where the files are."""
    summary = document["summary"]
    health = {SEVERITIES.get(word, word): count for word, count in summary["health"].items()}
    marks = [bool(node["simulated"]) for node in document["nodes"].values() if node["gpu"]]
    simulated = ", simulated" if marks and all(marks) else ", some of them simulated" if any(marks) else ""
    lines = [
        f"Exported {summary['nodes']} node(s) with {summary['gpus']} GPU(s){simulated}",
        f"  verdict: {_counted(summary['verdict'])}",
        f"  health:  {_counted(health)}",
    ]
    lines += bullets([*_remarks(document["nodes"]), *problems[:_SHOWN]])
    if len(problems) > _SHOWN:
        lines.append(f"  ... and {len(problems) - _SHOWN} more reports that cannot be read; facts.json names them")
    did = "would change" if check_mode else "changed"
    lines.append(f"{folder}: {', '.join(changed)} {did}" if changed else f"{folder}: nothing changed")
    return "\n".join(lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def _remarks(nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line per kind of thing that a reader should not overlook."""
    told: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for part, word in (("gpu", "GPU facts"), ("health", "health"), ("verdict", "verdict")):
            if node[part] and node[part]["stale"]:
                told.setdefault(f"stale {word}", []).append(f"{name} ({node[part]['age']})")
        if node["gpu"] is None:
            told.setdefault(node["missing"]["gpu"], []).append(name)
    return [f"{what}: {', '.join(names[:8])}{_more(len(names) - 8)}" for what, names in told.items()]


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _texts(
    include: Sequence[str],
    variables: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    document: Mapping[str, Any],
) -> dict[str, str]:
    texts = {}
    if INVENTORY in include:
        texts["inventory.json"] = inventory_text.to_json(variables, groups)
        texts["inventory.yml"] = inventory_text.to_yaml(variables, groups)
    if FACTS in include:
        texts["facts.json"] = json.dumps(document, indent=2, allow_nan=False) + "\n"
    if METRICS in include:
        texts["rackwright.prom"] = metrics_text.to_text(document["nodes"])
    return texts


def _differs(path: str, text: str) -> bool:
    """Whether a file says something else than before; a file that cannot be read does."""
    try:
        with open(path, encoding="utf-8") as stream:
            before = stream.read()
        if before == text or not path.endswith("facts.json"):
            return before != text
        return bool(fleet_facts.settled(json.loads(before)) != fleet_facts.settled(json.loads(text)))
    except (OSError, ValueError, RecursionError):
        return True


def _write(folder: str, texts: Mapping[str, str]) -> None:
    """Replace each file whole; ages are written anew even where nothing else changed."""
    reports.make_directory(folder)
    for name, text in texts.items():
        path = os.path.join(folder, name)
        try:
            atomic.replace(path, text.encode("utf-8", "replace"), mode=0o644, prefix=".export-")
        except OSError as error:
            raise reports.ReportError(
                "write the export",
                path,
                error.strerror or str(error),
                "Free space or choose another directory with rackwright_reports; the export before is intact",
                found=error.errno,
            ) from error
