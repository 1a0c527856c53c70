# SPDX-License-Identifier: Apache-2.0
"""What is known of each node, cut down to what other programs ask for, with its age. Pure: facts and reports in.

A part that is not known is None, and ``missing`` says why. A value from a simulated GPU is marked, and a benchmark of a
node that has such GPUs is left out: nothing ran on them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from .ages import age_seconds, age_text, is_stale
from .fleet_groups import SEVERITIES, VERDICTS, groups_of
from .fleet_headlines import headlines

SCHEMA = 1
KIND = "rackwright.facts"
#: keys of the document that differ at every look although nothing happened
VOLATILE = ("generated_at", "age_s", "age")
_MISSING = {
    "gpu": "no GPU facts are cached: run playbooks/gather-facts.yml",
    "health": "no health is cached: run playbooks/check-health.yml",
    "verdict": "no verdict is cached: run playbooks/prove-nodes.yml",
    "benchmark": "no report: run playbooks/prove-nodes.yml",
}
_SIMULATED = "simulated GPUs run nothing: their speed is not measured"
_DEVICE = ("index", "uuid", "name", "catalogue_id", "architecture", "compute_capability", "vbios_version", "state")
_HEALTH = ("severity", "worst", "findings", "findings_dropped", "summary", "collected_at")


def node_facts(
    facts: Mapping[str, Any],
    report: Mapping[str, Any] | str | None,
    max_hours: float,
    now: datetime.datetime,
) -> dict[str, Any]:
    """Return what the export says of one node.

    Args:
        facts: cached facts by name: ``gpu``, ``gpu_health``, ``gpu_verdict``; any may be missing.
        report: the node's newest verdict document, or why there is none, or None for the usual reason.
        max_hours: age in hours after which a part is ``stale``.
        now: with a time zone.
    """
    cached = {name: _mapping(facts.get(name)) for name in ("gpu", "gpu_health", "gpu_verdict")}
    simulated = _simulated(cached, report)
    parts = {
        "gpu": _gpu(cached["gpu"]),
        "health": _health(cached["gpu_health"]),
        "verdict": _verdict(cached["gpu_verdict"]),
        "benchmark": None if simulated or not isinstance(report, Mapping) else headlines(report),
    }
    missing = {part: _MISSING[part] for part, value in parts.items() if value is None}
    if "benchmark" in missing:
        missing["benchmark"] = _no_benchmark(bool(simulated), report)
    for part, key in (("gpu", "collected_at"), ("health", "collected_at"), ("verdict", "at"), ("benchmark", "at")):
        value = parts[part]
        if value is not None:
            seconds = age_seconds(value[key], now)
            stale = is_stale(seconds, max_hours)
            value.update(age_s=None if seconds is None else int(seconds), age=age_text(seconds), stale=stale)
    known: dict[str, Any] = clean({"simulated": simulated, "groups": groups_of(cached, max_hours, now), **parts})
    return {**known, "missing": missing}


def document(nodes: Mapping[str, Mapping[str, Any]], now: datetime.datetime) -> dict[str, Any]:
    """Return the fleet's document: the nodes by name, and how many there are of what."""
    values = list(nodes.values())
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "generated_at": now.astimezone(datetime.timezone.utc).isoformat(timespec="seconds"),
        "simulated": any(node["simulated"] for node in values),
        "summary": {
            "nodes": len(values),
            "gpus": sum(node["gpu"]["count"] or 0 for node in values if node["gpu"]),
            "models": _models(device for node in values if node["gpu"] for device in node["gpu"]["devices"]),
            "verdict": _counts(VERDICTS, [node["verdict"]["verdict"] for node in values if node["verdict"]], values),
            "health": _counts(tuple(SEVERITIES), [n["health"]["severity"] for n in values if n["health"]], values),
            "stale": {
                part: sorted(name for name, node in nodes.items() if node[part] and node[part]["stale"])
                for part in ("gpu", "health", "verdict")
            },
        },
        "nodes": dict(nodes),
    }


def settled(value: Any) -> Any:
    """Return a document without what differs at every look."""
    if isinstance(value, Mapping):
        return {key: settled(inner) for key, inner in value.items() if key not in VOLATILE}
    return [settled(inner) for inner in value] if isinstance(value, list) else value


def clean(value: Any) -> Any:
    """Return plain data that every file can hold: half a character (a lone surrogate) becomes a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {clean(str(key)): clean(inner) for key, inner in value.items()}
    return [clean(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _mapping(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) and value else None


def _simulated(cached: Mapping[str, Mapping[str, Any] | None], report: Any) -> bool | None:
    """Whether any source says that the GPUs are simulated; None where none says anything."""
    sources = [*cached.values(), report if isinstance(report, Mapping) else None]
    said = [source["simulated"] for source in sources if source and source.get("simulated") is not None]
    return any(said) if said else None


def _no_benchmark(simulated: bool, report: Mapping[str, Any] | str | None) -> str:
    if isinstance(report, str):
        return report
    if simulated:
        return _SIMULATED
    return _MISSING["benchmark"] if report is None else "the newest report has no benchmark"


def _gpu(gpu: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if gpu is None:
        return None
    driver, system = gpu.get("driver") or {}, gpu.get("os") or {}
    devices = [_device(device) for device in gpu.get("devices") or [] if isinstance(device, Mapping)]
    return {
        "situation": gpu.get("situation"),
        "cause": gpu.get("cause"),
        "next_step": gpu.get("next_step"),
        "count": gpu.get("count"),
        "pci_count": gpu.get("pci_count"),
        "models": _models(devices),
        "driver": {
            "library": driver.get("library_version"),
            "kernel_module": driver.get("kernel_module_version"),
            "flavour": driver.get("flavour"),
            "cuda": driver.get("cuda_driver_version"),
        },
        "os": {key: system.get(key) for key in ("name", "kernel", "machine")},
        "devices": devices,
        "collected_at": gpu.get("collected_at"),
    }


def _device(device: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{key: device.get(key) for key in _DEVICE},
        "pci_address": (device.get("pci") or {}).get("address"),
        "memory_bytes": (device.get("memory") or {}).get("total_bytes"),
    }


def _models(devices: Any) -> list[dict[str, Any]]:
    """Count equal cards; one that is not in the catalogue counts by its name and memory."""
    counts: dict[tuple[Any, ...], int] = {}
    for device in devices:
        key = (device["catalogue_id"], device["name"], device["memory_bytes"])
        counts[key] = counts.get(key, 0) + 1
    names = ("catalogue_id", "name", "memory_bytes")
    return [{**dict(zip(names, key)), "count": count} for key, count in counts.items()]


def _health(health: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if health is None:
        return None
    return {key: health.get(key) for key in _HEALTH}


def _verdict(verdict: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if verdict is None else {key: verdict.get(key) for key in ("verdict", "run_id", "at")}


def _counts(words: Sequence[str], found: Sequence[Any], nodes: Sequence[Any]) -> dict[str, int]:
    counts = {word: sum(1 for value in found if value == word) for word in words}
    return {**counts, "unknown": len(nodes) - sum(counts.values())}
