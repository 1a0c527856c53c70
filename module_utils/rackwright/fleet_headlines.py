# SPDX-License-Identifier: Apache-2.0
"""The numbers of a benchmark that are worth keeping beside a node. Pure: a report in, a few results out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .ages import parse_time
from .speed_metrics import NO_SPEED, better

#: suites with a result per operating point, and how the name of their summary begins
_SUMMARIES = {"llm_inference": "llm_goal_"}
_KEYS = ("device", "suite", "name", "dtype", "level", "unit", "value", "spread")


def headlines(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return run, time, level, torch and the headline results of a verdict document; None where it has no benchmark.

    Several results of one name on one device (pairs of GPUs, both directions) are told by the worst of them.
    """
    benchmark = report.get("benchmark")
    if not isinstance(benchmark, Mapping):
        return None
    devices = benchmark.get("devices") or {}
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for result in benchmark.get("results") or []:
        if not isinstance(result, Mapping) or not _wanted(result):
            continue
        entry = {key: result.get(key) for key in _KEYS}
        entry["goal"] = (result.get("details") or {}).get("verdict")
        entry["uuid"] = (devices.get(str(result.get("device"))) or {}).get("uuid")
        key = tuple(entry[name] for name in ("device", "suite", "name", "dtype", "unit"))
        kept[key] = _worse(kept[key], entry) if key in kept else entry
    moment = parse_time(report.get("run_id"))
    return {
        "run_id": report.get("run_id"),
        "at": moment.isoformat(timespec="seconds") if moment else None,
        "level": benchmark.get("level"),
        "torch": (report.get("torch") or {}).get("version"),
        "results": list(kept.values()),
    }


def _wanted(result: Mapping[str, Any]) -> bool:
    value, suite = result.get("value"), str(result.get("suite"))
    if suite in NO_SPEED or isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    if (result.get("details") or {}).get("state", "measured") != "measured":
        return False  # what did not fit into the memory has no speed
    return str(result.get("name")).startswith(_SUMMARIES.get(suite, ""))


def _worse(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return other if better(one["value"], other["value"], str(one["unit"])) else one
