# SPDX-License-Identifier: Apache-2.0
"""Measure once more before a number fails a node: which suites, and what counts of both. Pure.

Only numbers are repeated. What is wrong and not merely slow (errors, wrong answers, heat, a missing proof, a link that
stays down) fails at once, and a repetition never hides it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .peers import less_is_better
from .verdict_record import FAIL, Check, dig, entries

_BY_NUMBER = (
    "benchmark.gemm",
    "benchmark.memory",
    "benchmark.pcie",
    "benchmark.p2p",
    "benchmark.burn",
    "benchmark.llm_goal",
)
_RELATIVE = ("benchmark.peers.", "benchmark.history.")
_GOALS = ("fail", "unattainable", "pass")
_KEPT = ("value", "p5", "p95", "spread", "samples", "throttle", "clocks")


def suites(checks: Sequence[Check]) -> list[str]:
    """Return the suites whose numbers alone make a node fail; none where something else fails it as well."""
    failed = [entry for entry in checks if entry["status"] == FAIL]
    found = [_suite(entry) for entry in failed]
    return sorted({suite for suite in found if suite}) if all(found) else []


def _suite(entry: Check) -> str | None:
    """The suite of a failed number, None where it is no number that failed."""
    if entry["id"] not in _BY_NUMBER and not entry["id"].startswith(_RELATIVE):
        return None
    suite = dig(entry["observed"], "suite")
    return str(suite) if suite else None


def merged(first: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, Any]:
    """Return the benchmark document that is judged: of each number that was measured twice the better, with both told.

    Args:
        first: the document of the run.
        again: that of the repetition, of the same run.
    """
    later = {_identity(entry): entry for entry in entries(again, "results")}
    results = [_counted(entry, later.pop(_identity(entry), None)) for entry in entries(first, "results")]
    repeated = [str(suite) for suite in again.get("suites") or []]
    return {
        **first,
        "results": [*results, *(entry for entry in later.values() if entry.get("suite") in repeated)],
        "errors": [*entries(first, "errors"), *entries(again, "errors")],
        "repeated": repeated,
    }


def _identity(entry: Mapping[str, Any]) -> tuple[str, ...]:
    keys = ("suite", "name", "device", "dtype", "level")
    return (*(str(entry.get(key)) for key in keys), str(dig(entry, "details.peer")))


def _counted(first: Mapping[str, Any], again: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if again is None:
        return first
    attempts = [{"run": number, **{key: entry.get(key) for key in _KEPT}} for number, entry in ((1, first), (2, again))]
    return {**(again if _better(again, first) else first), "attempts": attempts}


def _better(again: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    if first.get("unit") == "wrong elements":  # a wrong answer is not made right by a later one
        return _number(again) > _number(first)
    ranks = [_rank(entry) for entry in (again, first)]
    if ranks[0] != ranks[1]:
        return ranks[0] > ranks[1]
    if less_is_better(str(first.get("unit"))):
        return 0 < _number(again) < _number(first)
    return _number(again) > _number(first)


def _rank(entry: Mapping[str, Any]) -> int:
    """What the goal of an LLM says of itself goes before its speed."""
    said = dig(entry, "details.verdict")
    return _GOALS.index(said) if said in _GOALS else -1


def _number(entry: Mapping[str, Any]) -> float:
    value = entry.get("value")
    return float(value) if isinstance(value, (int, float)) and value == value else 0.0
