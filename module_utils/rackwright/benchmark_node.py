# SPDX-License-Identifier: Apache-2.0
"""What only the results of all GPUs of a node together show: the slowest one, and answers that differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import measure

_STEP = "Take the device out of service and run its vendor's field diagnostics."


def burn_summaries(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the node's burn, one summary per kind of GPU: cards of two kinds are not each other's measure."""
    kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in results:
        if entry.get("suite") == "burn" and str(entry.get("device")) != "node":
            kinds.setdefault((str(entry.get("device_name")), str(entry["dtype"])), []).append(entry)
    return [_burn_summary(burns) for burns in kinds.values()]


def _burn_summary(burns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the slowest GPU's rate, who that is and how far apart the GPUs are.

    ``spread_over_gpus`` is (fastest - slowest) / median. A node runs at the pace of its slowest GPU, so that is the
    value. ``power_w`` is the sum of the GPUs' median powers, None where one of them gives none.
    """
    slowest = min(burns, key=lambda entry: float(entry["value"]))
    numbers = measure.summarize([float(entry["value"]) for entry in burns])
    return {
        "suite": "burn",
        "name": "burn_node",
        "unit": slowest["unit"],
        "device": "node",
        "device_name": slowest.get("device_name"),
        "dtype": slowest["dtype"],
        "shape": slowest["shape"],
        "level": slowest["level"],
        **numbers,
        "value": numbers["min"],
        "median_s": None,
        "conditions": dict(slowest["conditions"]),
        "clocks": None,
        "throttle": None,
        "missing": {key: "stands beside the number of each GPU" for key in ("clocks", "throttle")},
        "details": {
            "slowest": slowest["device"],
            "spread_over_gpus": (numbers["max"] - numbers["min"]) / numbers["median"],
            "gpus": {str(entry["device"]): _burnt(entry) for entry in burns},
            "power_w": _total([_median(entry, "power_w") for entry in burns]),
            "gpus_at_once": min(int(entry["details"]["gpus_at_once"]) for entry in burns),
        },
    }


def _burnt(entry: Mapping[str, Any]) -> dict[str, Any]:
    medians = {key: _median(entry, key) for key in ("power_w", "temperature_c", "sm_mhz")}
    return {"value": entry["value"], "drift": entry["details"].get("drift"), **medians}


def _median(entry: Mapping[str, Any], key: str) -> float | None:
    series = (entry.get("clocks") or {}).get(key)
    return float(series["median"]) if series else None


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def checksum_errors(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return an error per device whose exact product has another checksum than that of most devices of the node.

    Each device has compared its product with its own process's answer; this finds the one whose operands or answer were
    wrong already in the host's memory. Two devices that differ are both named, since neither is the majority.
    """
    errors: list[dict[str, Any]] = []
    products: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for entry in results:
        if entry.get("suite") == "correctness":
            key = (str(entry["name"]), str(entry["shape"]))
            products.setdefault(key, []).append((str(entry["device"]), str(entry["details"]["checksum"])))
    for (name, _shape), found in products.items():
        sums = [checksum for _, checksum in found]
        common = max(set(sums), key=sums.count)
        majority = sums.count(common) * 2 > len(sums)
        for device, checksum in found:
            if checksum != common or not majority:
                others = f"{sums.count(common)} of {len(sums)} devices have {common}" if majority else "no two agree"
                detail = f"{name} has the checksum {checksum}, and {others}."
                common_keys = {"device": device, "suite": "correctness", "reason": "wrong_answer"}
                errors.append({**common_keys, "detail": detail, "next_step": _STEP})
    return errors
