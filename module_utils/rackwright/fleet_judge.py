# SPDX-License-Identifier: Apache-2.0
"""Judge a fleet, keep the reports and the record of proofs, return what the run shows. Control node only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from . import proof, reports, verdict
from .evidence import read_evidence

_SHOWN = ("verdict", "verdict_text", "simulated", "reasons")


def judge_run(
    nodes: Mapping[str, Any],
    run_id: str,
    directory: str,
    gates: Mapping[str, Any],
    extra_gpus: Sequence[Mapping[str, Any]] = (),
    check_mode: bool = False,
) -> dict[str, Any]:
    """Return what fleet_verdict returns, after writing the reports below ``directory`` (not in check mode).

    Raises:
        InvalidInputError: evidence, gates or rows that mean nothing.
        ReportError: a report could not be written.
    """
    evidence = read_evidence(nodes, run_id, gates, extra_gpus, check_mode)
    documents = verdict.judge_fleet(evidence)
    if not check_mode:
        reports.write_reports(directory, run_id, documents)
        proven = {node: proof.entry(document, evidence[node].gpu) for node, document in documents.items()}
        reports.record_proofs(directory, run_id, proven)
    location = None if check_mode else os.path.join(directory, "fleet.json")
    ordered = list(documents.values())
    return {
        "changed": False,
        "verdicts": {node: {key: document[key] for key in _SHOWN} for node, document in documents.items()},
        "failed_nodes": [document["node"] for document in ordered if document["verdict"] == verdict.FAIL],
        "table": [reports.row(document) for document in ordered],
        "table_text": reports.table_text(ordered, location, run_id, check_mode),
        **({"fleet_report": location} if location else {}),
    }
