# SPDX-License-Identifier: Apache-2.0
"""``dcgmi diag -r LEVEL -j`` where it was asked for and is installed: run it, read its two forms of JSON, judge it.

A test that was skipped or whose result is unknown is not measured; it never counts as passed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .health_record import ISOLATE, MONITOR, OK, RESET, Check, finding, not_applicable, not_measured, ok
from .health_view import View, listed
from .programs import Run

LEVELS = ("none", "1", "2", "3", "4")
#: seconds that a level may take; DCGM documents about 2, 15 and 90 minutes for levels 2, 3 and 4
TIMEOUTS_S = {"1": 180.0, "2": 600.0, "3": 2400.0, "4": 7200.0}
#: dcgmErrorSeverity_enum: 1 monitor, 2 isolate, 3 unknown, 4 triage, 5 configuration, 6 reset
_SEVERITIES = {1: MONITOR, 2: ISOLATE, 5: MONITOR, 6: RESET}
_ACTIONS = {RESET: ("stop_workload", "drain", "reset_gpu"), MONITOR: ("fix_configuration", "watch")}
_ROOTS = ("DCGM Diagnostic", "DCGM GPU Diagnostic")
_ID = "dcgm.diag"


def run_diagnostics(level: str, run: Run) -> dict[str, Any]:
    """Return ``document``, or why there is none: ``absent`` where dcgmi is not installed, else ``missing``."""
    if level == "none":
        return {"level": level}
    try:
        status, output, complaint = run(["dcgmi", "diag", "-r", level, "-j"], TIMEOUTS_S[level])
    except FileNotFoundError:
        return {"level": level, "absent": "dcgmi (datacenter-gpu-manager) is not installed"}
    except OSError as error:
        return {"level": level, "missing": f"dcgmi does not run ({error})"}
    # a failed test ends dcgmi with a status of its own: the document counts, not the status
    start = output.find("{")
    try:
        document = json.loads(output[start:]) if start >= 0 else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        said = " ".join((complaint or output).split())[:300] or "no output"
        return {"level": level, "missing": f"dcgmi ended with status {status} and gave no JSON ({said})"}
    return {"level": level, "document": document}


def dcgm_checks(view: View) -> list[Check]:
    """Return the checks of DCGM's diagnostics."""
    told = view.dcgm or {"level": "none"}
    if told.get("level") == "none":
        return [not_applicable(_ID, "node", "it was not asked for (dcgm_level)")]
    if told.get("absent"):
        return [not_applicable(_ID, "node", str(told["absent"]))]
    if told.get("missing"):
        return [not_measured(_ID, "node", str(told["missing"]))]
    return judge(told.get("document") or {})


def judge(document: Mapping[str, Any]) -> list[Check]:
    """Return one check per test and entity that failed, one per test that did not run, one for all that passed."""
    root = next((document[key] for key in _ROOTS if isinstance(document.get(key), Mapping)), None)
    if root is None:
        return [not_measured(_ID, "node", "the answer of dcgmi has no part that is known")]
    if root.get("runtime_error"):
        return [not_measured(_ID, "node", f"dcgmi: {root['runtime_error']}")]
    results = [_check(*result) for result in _results(root)]
    passed = [check["subject"] for check in results if check["state"] == OK]
    checks = [check for check in results if check["state"] != OK]
    if passed:
        checks.append(ok(_ID, "node", f"{len(passed)} passed: {listed(dict.fromkeys(passed))}", "Pass"))
    return checks or [not_measured(_ID, "node", "dcgmi ran no test")]


def _results(root: Mapping[str, Any]) -> Iterator[tuple[str, str, str, list[Any]]]:
    """Name of the test, subject, status and warnings, from the form of DCGM 4 and that of DCGM 3."""
    categories = root.get("test_categories") or [{"tests": root.get("tests") or []}]
    for category in _mappings(categories):
        for test in _mappings(category.get("tests")):
            name = str(test.get("name") or "unnamed")
            results = list(_mappings(test.get("results")))
            if not results:
                yield name, "node", str((test.get("test_summary") or {}).get("status") or "unknown"), []
            for result in results:
                yield name, _entity(result), str(result.get("status") or "unknown"), _warnings(result)


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    return (item for item in (value if isinstance(value, list) else []) if isinstance(item, Mapping))


def _entity(result: Mapping[str, Any]) -> str:
    if result.get("gpu_ids") is not None:  # DCGM 3: "0,1,2"
        return ", ".join(f"gpu{one.strip()}" for one in str(result["gpu_ids"]).split(","))
    group, number = result.get("entity_group"), result.get("entity_id")
    if number is None:
        return "node"
    return f"gpu{number}" if str(group or "GPU") == "GPU" else f"{str(group).lower()} {number}"


def _warnings(result: Mapping[str, Any]) -> list[Any]:
    found = result.get("warnings")
    return found if isinstance(found, list) else [found] if found else []


def _check(name: str, who: str, status: str, warnings: list[Any]) -> Check:
    word = status.strip().lower()
    if word == "pass":
        return ok(_ID, name)
    subject = f"{who} {name}"
    if word not in ("fail", "warn"):
        return not_measured(_ID, subject, f"the test {name} did not run ({status})")
    texts = [str(one.get("warning") or one) if isinstance(one, Mapping) else str(one) for one in warnings]
    codes = [one.get("error_severity") for one in warnings if isinstance(one, Mapping)]
    severity = _worst(codes) if word == "fail" else MONITOR
    reason = f"DCGM's test {name} says {status}: {'; '.join(texts) or 'no explanation'}"
    return finding(_ID, subject, severity, reason, observed=status, expected="Pass", actions=_ACTIONS.get(severity))


def _worst(codes: list[Any]) -> str:
    """The worst of what DCGM says; a failure whose severity is unknown, missing or to be examined keeps work away."""
    known = [_SEVERITIES.get(code, ISOLATE) for code in codes] or [ISOLATE]
    return max(known, key=(MONITOR, RESET, ISOLATE).index)
