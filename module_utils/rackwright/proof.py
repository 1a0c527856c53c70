# SPDX-License-Identifier: Apache-2.0
"""What a node was when it was last proven and benchmarked, to tell whether that still speaks for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import coherence
from .benchmark_levels import LEVELS
from .verdict_record import PASS, UNATTAINABLE, WARN, dig

#: Verdicts that speak for the node, which is not proven again while it stays what it was: a goal beyond its card is no
#: fault of it.
GOOD = (PASS, WARN, UNATTAINABLE)


def fingerprint(gpu: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the fact ``gpu`` must not change between two proofs: situation, driver, what does not fit together
    (None for nothing), every GPU's identity, and what its speed is set to.

    Readings that move by themselves (temperature, present clocks, memory in use) are left out.
    """
    driver = gpu.get("driver") or {}
    return {
        "situation": gpu.get("situation"),
        "simulated": bool(gpu.get("simulated")),
        "kernel_module": driver.get("kernel_module_version"),
        "library": driver.get("library_version"),
        "coherence": sorted({answer["id"] for answer in coherence.findings(gpu)}) or None,
        "devices": sorted(_device(device) for device in gpu.get("devices") or []),
        "settings": {str(device.get("uuid")): _settings(device) for device in gpu.get("devices") or []},
    }


def _device(device: Mapping[str, Any]) -> str:
    address = (device.get("pci") or {}).get("address")
    parts = (device.get("uuid"), address, device.get("name"), device.get("vbios_version"), device.get("state"))
    return " ".join(str(part) for part in parts if part)


def _settings(device: Mapping[str, Any]) -> str:
    """Power limit, highest clocks, ECC and MIG of a GPU: what makes the same card faster or slower."""
    paths = ("power.limit_watts", "clocks.max_sm_mhz", "clocks.max_memory_mhz", "ecc.current", "mig.mode")
    return " ".join(f"{path.rsplit('.', 1)[1]}={dig(device, path)}" for path in paths if dig(device, path) is not None)


def due(last: Mapping[str, Any] | None, gpu: Mapping[str, Any]) -> str | None:
    """Return why a node has to be proven again, or None while its last proof holds.

    Args:
        last: the node's entry in the record of proofs: ``verdict``, ``run_id``, ``fingerprint``.
        gpu: the fact ``gpu`` of this run.
    """
    if not last or not last.get("verdict"):
        return "never proven"
    if last.get("verdict") not in GOOD:
        return f"the last verdict was {last.get('verdict')} (run {last.get('run_id')})"
    changed = _changed(last.get("fingerprint") or {}, gpu)
    return f"{', '.join(changed)} changed since the last proof" if changed else None


def _changed(before: Mapping[str, Any], gpu: Mapping[str, Any]) -> list[str]:
    """What is different, in words. What an older version did not write down yet is no difference."""
    now = fingerprint(gpu)
    keys = {key for key in before or now if before.get(key) != now.get(key)}
    if "settings" in keys:
        was, settings = before.get("settings") or {}, now["settings"]
        # GPUs that came or went are a difference of the devices already
        if not any(was[uuid] != settings[uuid] for uuid in was.keys() & settings.keys()):
            keys.remove("settings")
    return sorted(key.replace("_", " ") for key in keys)


def benchmark_due(
    last: Mapping[str, Any] | None, gpu: Mapping[str, Any], torch: str | None, level: str, suites: Sequence[str] | None
) -> tuple[str | None, Mapping[str, Any]]:
    """Return why a node has to be benchmarked again, or None and the earlier benchmark that still speaks for it.

    Args:
        last: the node's entry in the record of proofs.
        gpu: the fact ``gpu`` of this run.
        torch: release of torch on the node now, None where it could not be told.
        level: level that is asked for; a longer one covers it.
        suites: suites that are asked for, None for those of the level.
    """
    kept = (last or {}).get("benchmarks") or {}
    reason = f"no benchmark of level {level} is recorded"
    for name in LEVELS[LEVELS.index(level) :]:
        earlier = kept.get(name)
        if not isinstance(earlier, Mapping):
            continue
        why = _benchmark_changed(earlier, gpu, torch, suites)
        if why is None:
            return None, earlier
        reason = why
    return reason, {}


def _benchmark_changed(
    earlier: Mapping[str, Any], gpu: Mapping[str, Any], torch: str | None, suites: Sequence[str] | None
) -> str | None:
    run = f"run {earlier.get('run_id')}"
    if earlier.get("verdict") not in GOOD:
        return f"the last verdict was {earlier.get('verdict')} ({run})"
    changed = _changed(earlier.get("fingerprint") or {}, gpu)
    if changed:
        return f"{', '.join(changed)} changed since {run}"
    if torch is None:
        return "the release of torch could not be told"
    if torch != earlier.get("torch"):
        return f"torch changed from {earlier.get('torch')} to {torch} since {run}"
    # a run without a list made all suites of its level, and more where a longer level was recorded
    missing = set(suites or ()) - set(earlier.get("suites") or ()) if suites is not None else set()
    if missing or (suites is None and not earlier.get("whole")):
        return f"{', '.join(sorted(missing)) or 'some suites of the level'} not measured in {run}"
    return None


def updated(
    last: Mapping[str, Any] | None,
    document: Mapping[str, Any],
    gpu: Mapping[str, Any] | None,
    at: str,
    whole: bool = True,
) -> dict[str, Any]:
    """Return a node's entry in the record after a verdict.

    Args:
        last: its entry before, None when it is new.
        document: verdict document of this run.
        gpu: the fact ``gpu`` of this run.
        at: time of the verdict, UTC as ISO 8601.
        whole: whether the run asked for all suites of a proof. A part of them proves nothing; that it failed counts.
    """
    before = dict(last or {})
    kept = {key: document[key] for key in ("verdict", "verdict_text", "simulated", "run_id")}
    mark = fingerprint(gpu) if gpu else None
    entry = {**before, **kept, "at": at, "fingerprint": mark} if whole or document["verdict"] not in GOOD else before
    if document["verdict"] not in GOOD:
        entry.pop("benchmarks", None)  # what failed since does not speak for the node any more
    measured = document.get("benchmark")
    if isinstance(measured, Mapping) and measured.get("level") in LEVELS and mark:
        level, benchmarks = str(measured["level"]), dict(entry.get("benchmarks") or {})
        state = {"torch": dig(document, "torch.version"), "fingerprint": mark}
        earlier = benchmarks.get(level) or {}
        # a part that was measured again, and well, says less than the whole that was measured of the same node
        if whole or not earlier.get("whole") or {key: earlier.get(key) for key in state} != state:
            suites = list(measured.get("suites") or [])
            benchmarks[level] = {**kept, "at": at, "suites": suites, "whole": whole, **state}
        entry["benchmarks"] = benchmarks
    return entry
