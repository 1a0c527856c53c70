# SPDX-License-Identifier: Apache-2.0
"""Checks on the longer suites: exact answers under load, all GPUs at once, the goal of LLM inference. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import verdict_gates as gates
from .measure import is_measurement
from .verdict_record import (
    FAIL,
    NOT_APPLICABLE,
    NOT_MEASURED,
    PASS,
    SIMULATED_REASON,
    UNATTAINABLE,
    Check,
    Evidence,
    check,
    dig,
)
from .verdict_results import AGAIN, absent, asked, attempts_note, gpu_subjects, is_sliced, judged, of, shown

_Found = Sequence[Mapping[str, Any]]
_GOAL = {"pass": PASS, "fail": FAIL, "unattainable": UNATTAINABLE, "not_judged": NOT_APPLICABLE}


def suite_checks(evidence: Evidence) -> list[Check]:
    """Judge correctness, burn and the goal of LLM inference, where the benchmark was asked for them."""
    if evidence.measured is None:
        return []
    checks: list[Check] = []
    places = _places(evidence)
    for suite, judge in (("correctness", _correct), ("burn", _burn)):
        if not asked(evidence, suite):
            continue
        for key, subject, device in places:
            found = of(evidence, suite, key)
            checks.append(
                judge(evidence, found, subject, device)
                if found
                else absent(evidence, suite, key, subject, is_sliced(device))
            )
        if evidence.simulated:
            checks.append(check(f"benchmark.{suite}", NOT_APPLICABLE, "gpu", reason=SIMULATED_REASON))
    return checks + (_goals(evidence, places) if asked(evidence, "llm_inference") else [])


def _places(evidence: Evidence) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Torch's name, name in checks and facts of what was measured; a GPU that torch does not see fails elsewhere."""
    if not evidence.has_real_gpus:
        return [("cpu", "cpu", {})]
    pairs = zip(gpu_subjects(evidence), evidence.answering)
    return [(key, subject, device) for (key, subject), device in pairs if key is not None]


def _correct(_evidence: Evidence, found: _Found, subject: str, _device: Mapping[str, Any]) -> Check:
    wrong = [entry for entry in found if entry.get("value") != 0]
    if not wrong:
        return check("benchmark.correctness", PASS, subject, observed=0, expected=0)
    said = ", ".join(f"{entry.get('name')}: {entry.get('value')} {entry.get('unit')}" for entry in wrong)
    step = "Take the GPU out of service: its results cannot be trusted. Run the vendor's field diagnostics."
    common: dict[str, Any] = {"observed": shown(wrong), "expected": 0, "next_step": step}
    reason = f"answers that are known exactly came out wrong ({said})"
    return check("benchmark.correctness", FAIL, subject, reason=reason, **common)


def _burn(evidence: Evidence, found: _Found, subject: str, device: Mapping[str, Any]) -> Check:
    """Hold the sustained rate with all GPUs loaded against the gate of matrix products: it is made for exactly that."""
    usable = [entry for entry in found if is_measurement(entry)]
    if len(usable) < len(found):
        reason = "no proof: the result is not a finite number above zero"
        return check("benchmark.burn", FAIL, subject, reason=reason, next_step=AGAIN)
    rates = [entry for entry in usable if entry.get("unit") == "TFLOP/s"]
    row = evidence.catalogue.get(str(device.get("catalogue_id"))) or {}
    gate_name = gates.gemm_gate(row) if row and not is_sliced(device) else None
    peak = gates.peak_tflops(row, str(rates[0].get("dtype"))) if rates else None
    if gate_name is None or peak is None:
        reason = "measured, not judged: there is no peak for it that it could be held to"
        return check("benchmark.burn", PASS, subject, observed=shown(usable), reason=reason)
    return judged("benchmark.burn", subject, rates[0], (peak, "the catalogue's"), gate_name, evidence)


def _goals(evidence: Evidence, places: list[tuple[str, str, Mapping[str, Any]]]) -> list[Check]:
    names = {key: subject for key, subject, _device in places} | {"node": "node"}
    return [
        _goal(entry, names.get(str(entry.get("device")), str(entry.get("device"))))
        for entry in evidence.results
        if entry.get("suite") == "llm_inference" and str(entry.get("name")).startswith("llm_goal")
    ]


def _goal(entry: Mapping[str, Any], subject: str) -> Check:
    said = str(dig(entry, "details.verdict"))
    status = _GOAL.get(said, NOT_MEASURED)
    reason = str(dig(entry, "details.reason") or f"the benchmark gave the verdict {said} without a reason")
    observed = {**shown([entry])[0], "suite": "llm_inference", "point": dig(entry, "details.point")}
    expected = {"goal": dig(entry, "details.goal"), "ceiling": dig(entry, "details.ceiling")}
    step = {
        FAIL: "Compare the operating points in the report with the ceiling; clocks and throttle stand beside them.",
        UNATTAINABLE: "Choose a smaller goal, another workload or a card with more bandwidth: no setting reaches it.",
    }.get(status)
    return check(
        "benchmark.llm_goal",
        status,
        subject,
        observed=observed,
        expected=expected,
        reason=reason + attempts_note(entry),
        next_step=step,
    )
