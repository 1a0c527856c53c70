# SPDX-License-Identifier: Apache-2.0
"""From the evidence of one run to a verdict per node. Pure: records in, records out.

A verdict is ``pass`` only where the proof was given: the checks named in :data:`PROOF` must have been made and passed.
That nothing failed is no proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import (
    history,
    verdict_benchmark,
    verdict_coherence,
    verdict_gpu,
    verdict_health,
    verdict_links,
    verdict_relative,
    verdict_suites,
)
from .verdict_record import (
    FAIL,
    NOT_APPLICABLE,
    NOT_MEASURED,
    PASS,
    STATUSES,
    UNATTAINABLE,
    WARN,
    Check,
    Evidence,
    check,
    dig,
)

SCHEMA = 1
KIND = "rackwright.verdict"
FLEET_KIND = "rackwright.fleet"

#: At least one check of each of these must have passed (or warned) before a node can pass; the suites that give them.
PROOF = {
    "facts.present": None,
    "torch.import": None,
    "torch.kernel": "kernel",
    "benchmark.gemm": "gemm",
    "benchmark.memory": "memory",
}
#: Verdicts, the worst first.
VERDICTS = (FAIL, UNATTAINABLE, WARN, PASS)

_SECTIONS: tuple[Callable[[Evidence], list[Check]], ...] = (
    verdict_gpu.situation_checks,
    verdict_gpu.count_checks,
    verdict_coherence.coherence_checks,
    verdict_gpu.device_checks,
    verdict_health.health_checks,
    verdict_benchmark.reboot_checks,
    verdict_benchmark.torch_checks,
    verdict_benchmark.number_checks,
    verdict_links.link_checks,
    verdict_suites.suite_checks,
    verdict_benchmark.throttle_checks,
    verdict_benchmark.error_checks,
)


def judge_node(evidence: Evidence, relative: Sequence[Check] = ()) -> dict[str, Any]:
    """Return the verdict document of one node, without time stamp.

    Args:
        relative: checks of its numbers against its peers and its past, which take the whole fleet to make.
    """
    checks = [*_checks(evidence), *relative]
    checks += [] if evidence.check_mode else _lacking(checks, evidence)
    verdict = overall(checks)
    simulated = evidence.simulated
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "node": evidence.node,
        "run_id": evidence.run_id,
        "verdict": verdict,
        "verdict_text": f"{verdict} (simulated)" if simulated else verdict,
        "simulated": simulated,
        "reasons": reasons(checks),
        "summary": {status: sum(1 for entry in checks if entry["status"] == status) for status in STATUSES},
        "checks": checks,
        "system": evidence.host or _system(evidence),
        "health": verdict_health.digest(evidence),
        "gpu": verdict_gpu.digest(evidence),
        "torch": evidence.torch,
        "benchmark": verdict_benchmark.digest(evidence),
    }


def _system(evidence: Evidence) -> dict[str, Any] | None:
    """What the GPU facts tell of the node where no benchmark ran."""
    system = dig(evidence.gpu, "os")
    if not isinstance(system, Mapping):
        return None
    return {"os": system.get("name"), "kernel": system.get("kernel"), "machine": system.get("machine")}


def _checks(evidence: Evidence) -> list[Check]:
    failure = evidence.failure()
    if failure is not None:
        return [failure]
    if evidence.gpu is None:
        return [
            check(
                "facts.present",
                FAIL,
                evidence.node,
                reason="no proof: the GPU facts of this run are missing",
                next_step="Run the proof on this node and read why gpu_facts gave no answer.",
            )
        ]
    present = check("facts.present", PASS, evidence.node, observed=evidence.gpu.get("source"))
    found = [entry for section in _SECTIONS for entry in section(evidence)]
    return [present, *verdict_health.once(evidence, found)]


def _lacking(checks: Sequence[Check], evidence: Evidence) -> list[Check]:
    """Return a failed check per part of the proof that nobody gave and whose absence nothing else explains."""
    if any(entry["status"] == FAIL for entry in checks):
        return []
    given = {entry["id"] for entry in checks if entry["status"] in (PASS, WARN)}
    open_ids = {entry["id"] for entry in checks if entry["status"] == NOT_MEASURED}
    return [
        check(
            missing,
            FAIL,
            "node",
            reason=f"no proof: {missing} was not shown",
            next_step="Run the proof with all benchmark suites.",
        )
        for missing, suite in PROOF.items()
        if missing not in given and missing not in open_ids and (suite is None or evidence.wants(suite))
    ]


def overall(checks: Sequence[Check]) -> str:
    """Return the worst status; what should have been measured and was not is worth a warning, never a pass."""
    statuses = {entry["status"] for entry in checks}
    if FAIL in statuses or not statuses & {PASS, WARN, UNATTAINABLE}:
        return FAIL
    if UNATTAINABLE in statuses:
        return UNATTAINABLE
    return WARN if statuses & {WARN, NOT_MEASURED} else PASS


def reasons(checks: Sequence[Check]) -> list[str]:
    """Return one line per thing that keeps the node from passing, failures first; equal ones share a line."""
    lines = []
    for status in (FAIL, UNATTAINABLE, WARN, NOT_MEASURED):
        label = status.replace("_", " ")
        subjects: dict[tuple[str, str], list[str]] = {}
        for entry in checks:
            if entry["status"] == status:
                subjects.setdefault((entry["id"], _said(entry)), []).append(entry["subject"])
        lines += [f"{label}: {name} on {', '.join(found)}: {said}" for (name, said), found in subjects.items()]
    return lines


def _said(entry: Check) -> str:
    text = str(entry["reason"] or "no reason given").rstrip(".") + "."
    step = str(entry["next_step"] or "")
    # errors of modules end with their next step already
    return f"{text} {step}".rstrip() if step.rstrip(".") not in text else text


def judge_fleet(
    evidence: Mapping[str, Evidence], past: Mapping[str, Any] | None = None
) -> tuple[dict[str, dict[str, Any]], verdict_relative.Relative]:
    """Return the verdict document of every node, by name, and what the comparison of their numbers gave.

    Args:
        past: the history (see history.py) to compare with; by default there is none.
    """
    relative = verdict_relative.compare(evidence, past or history.empty())
    return {node: judge_node(entry, relative.checks[node]) for node, entry in evidence.items()}, relative


def fleet_document(
    documents: Mapping[str, Mapping[str, Any]],
    run_id: str,
    files: Mapping[str, str],
    stragglers: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the fleet's document: counts, who is slow, one short entry per node. It passes when every node does."""
    verdicts = [document["verdict"] for document in documents.values()]
    return {
        "schema": SCHEMA,
        "kind": FLEET_KIND,
        "run_id": run_id,
        "verdict": worst_of(verdicts),
        "simulated": any(document["simulated"] for document in documents.values()),
        "summary": {verdict: verdicts.count(verdict) for verdict in reversed(VERDICTS)},
        "stragglers": list(stragglers),
        "nodes": {
            node: {
                "verdict": document["verdict"],
                "verdict_text": document["verdict_text"],
                "simulated": document["simulated"],
                "reasons": document["reasons"],
                "report": files[node],
            }
            for node, document in documents.items()
        },
    }


def worst_of(verdicts: Sequence[str]) -> str:
    """Return the worst verdict of several; of none, that nothing was shown."""
    return next((verdict for verdict in VERDICTS if verdict in verdicts), FAIL)


def counts_text(summary: Mapping[str, int]) -> str:
    """Return ``12 pass 1 warn 3 n/a``: what is zero is left out."""
    labels = {NOT_MEASURED: "not measured", NOT_APPLICABLE: "n/a"}
    order = (PASS, FAIL, UNATTAINABLE, WARN, NOT_MEASURED, NOT_APPLICABLE)
    return " ".join(f"{summary[name]} {labels.get(name, name)}" for name in order if summary.get(name)) or "none"
