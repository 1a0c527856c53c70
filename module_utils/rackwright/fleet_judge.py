# SPDX-License-Identifier: Apache-2.0
"""Judge a fleet, keep the reports and what is remembered of it, return what the run shows. Control node only."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import history, history_store, proof, reports, speed_table, verdict, verdict_repeat
from .errors import RackwrightError
from .evidence import read_evidence
from .verdict_record import Evidence
from .verdict_relative import Relative

_SHOWN = ("verdict", "verdict_text", "simulated", "reasons")


@dataclass(frozen=True)
class Options:
    """How a run is judged.

    Attributes:
        run_id: identifier of the run.
        directory: where reports, proofs and history are.
        gates: fractions that replace the built-in ones; a node's own ones win.
        extra_gpus: rows for cards that are not in the catalogue.
        suites: what was asked of the benchmark, None for all of a proof.
        check_mode: whether nothing is written.
        skipped: None for a proof; for a benchmark, node to the reason why it was not measured again.
    """

    run_id: str
    directory: str
    gates: Mapping[str, Any] = field(default_factory=dict)
    extra_gpus: Sequence[Mapping[str, Any]] = ()
    suites: Sequence[str] | None = None
    check_mode: bool = False
    skipped: Mapping[str, str] | None = None


def repeats(nodes: Mapping[str, Any], options: Options) -> dict[str, list[str]]:
    """Return node to the suites that are measured once more before their numbers fail it; writes nothing.

    Raises:
        InvalidInputError: evidence, gates or rows that mean nothing.
    """
    evidence = _evidence(nodes, options) if nodes or options.skipped is None else {}
    # only a node with a finished benchmark of real GPUs can fail by a number
    if options.check_mode or not any(entry.measured and entry.has_real_gpus for entry in evidence.values()):
        return {}
    past = history_store.read(options.directory).document
    found: dict[str, list[str]] = {}
    # whoever is measured again may move the median of the others: they are held against what is left without them
    while evidence:
        documents, _relative = verdict.judge_fleet(evidence, past)
        doubts = {node: verdict_repeat.suites(document["checks"]) for node, document in documents.items()}
        doubtful = {node: suites for node, suites in doubts.items() if suites}
        if not doubtful:
            break
        found.update(doubtful)
        evidence = {node: entry for node, entry in evidence.items() if node not in doubtful}
    return {node: found[node] for node in nodes if node in found}


def judge_run(nodes: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Return what fleet_verdict returns, after writing reports, proofs and history (not in check mode).

    Where those cannot be written, ``unwritten`` says why, beside a whole answer: what took an hour to measure is told.

    Raises:
        InvalidInputError: evidence, gates or rows that mean nothing.
    """
    evidence = _evidence(nodes, options) if nodes or options.skipped is None else {}
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kept = history_store.read(options.directory)
    documents, relative = verdict.judge_fleet(evidence, kept.document)
    notes = [kept.problem] if kept.problem else []
    writes = bool(documents) and not options.check_mode
    unwritten = None
    if writes:
        for node in documents:  # a name that can be no file is a mistake of the inventory, not of the disk
            reports.file_name(node)
        try:
            notes += _write(options, documents, evidence, relative, at)
        except RackwrightError as error:
            unwritten = str(error)
            notes.append(unwritten)
    location = os.path.join(options.directory, "fleet.json") if writes and not unwritten else None
    ordered = list(documents.values())
    if options.skipped is None:
        text = reports.table_text(ordered, location, options.run_id, options.check_mode, notes)
    else:
        text = speed_table.text(
            ordered, relative.stragglers, location, options.run_id, options.skipped, notes, options.check_mode
        )
    return {
        "changed": False,
        "unwritten": unwritten,
        "verdicts": {node: {key: document[key] for key in _SHOWN} for node, document in documents.items()},
        "digests": {node: _digest(document, at) for node, document in documents.items() if _speaks(document, options)},
        "failed_nodes": [document["node"] for document in ordered if document["verdict"] == verdict.FAIL],
        "stragglers": relative.stragglers,
        "notes": notes,
        "table": [reports.row(document) for document in ordered],
        "table_text": text,
        **({"fleet_report": location} if location else {}),
    }


def _write(
    options: Options,
    documents: Mapping[str, Mapping[str, Any]],
    evidence: Mapping[str, Evidence],
    relative: Relative,
    at: str,
) -> list[str]:
    """Write reports, proofs and history; return what there is to say about them."""
    reports.write_reports(options.directory, options.run_id, documents, relative.stragglers)
    with history_store.locked(options.directory):
        _remember_proofs(options, documents, evidence, at)
        moved = _remember_numbers(options, documents, relative)
    return [f"The damaged history is now {moved}; a new one begins with this run."] if moved else []


def _evidence(nodes: Mapping[str, Any], options: Options) -> dict[str, Evidence]:
    return read_evidence(
        nodes, options.run_id, options.gates, options.extra_gpus, options.check_mode, suites=options.suites
    )


def _speaks(document: Mapping[str, Any], options: Options) -> bool:
    """Whether a verdict is one about the node: a part of a proof that went well proves nothing."""
    return options.suites is None or document["verdict"] == verdict.FAIL


def _digest(document: Mapping[str, Any], at: str) -> dict[str, Any]:
    """What of a verdict goes into the fact cache, for groups of the inventory."""
    return {**{key: document[key] for key in ("verdict", "run_id", "simulated")}, "at": at}


def _remember_proofs(
    options: Options, documents: Mapping[str, Mapping[str, Any]], evidence: Mapping[str, Evidence], at: str
) -> None:
    before = reports.read_proofs(reports.proofs_path(options.directory))
    proven = {
        node: proof.updated(before.get(node), document, evidence[node].gpu, at, whole=options.suites is None)
        for node, document in documents.items()
    }
    reports.record_proofs(options.directory, options.run_id, {node: entry for node, entry in proven.items() if entry})


def _remember_numbers(options: Options, documents: Mapping[str, Mapping[str, Any]], relative: Relative) -> str | None:
    """Add the numbers of nodes that did not fail to the history; return where a damaged one was moved to."""
    good = [node for node, document in documents.items() if document["verdict"] in proof.GOOD]
    measured = [pair for node in good for pair in relative.measured.get(node) or []]
    if not measured:
        return None
    kept = history_store.read(options.directory)  # under the lock: another run may have added to it
    document = history.add(kept.document, options.run_id, measured)
    return history_store.write(options.directory, document, kept, options.run_id)
