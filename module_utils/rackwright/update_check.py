# SPDX-License-Identifier: Apache-2.0
"""Is a node after its update what it was before, but for the version? Pure.

Only what an update must not change is compared: which GPUs there are, their links, ECC, MIG and modes, and what they
achieve. Readings that move by themselves are left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import InvalidInputError
from .verdict_record import dig

_LINKS = {"nvlinks": "NVLinks up", "pcie_width": "PCIe lanes", "pcie_max_generation": "PCIe generation"}
_MODES = {"ecc": "ECC mode", "mig": "MIG mode", "persistence": "persistence mode", "compute": "compute mode"}


def picture(gpu: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the fact ``gpu`` must be the same after an update.

    Per GPU (key: its UUID, or its PCI address where it has none): ``address``, ``name``, ``state``, ``nvlinks`` (that
    are up), ``pcie_width``, ``pcie_max_generation``, ``ecc``, ``uncorrected`` (lifetime count), ``mig``, ``instances``,
    ``persistence``, ``compute``, ``power_limit`` (W). A value that is not known is null.
    """
    devices = {_identity(device): _device(device) for device in gpu.get("devices") or []}
    return {
        "situation": gpu.get("situation"),
        "simulated": bool(gpu.get("simulated")),
        "version": dig(gpu, "driver.kernel_module_version"),
        "devices": dict(sorted(devices.items())),
    }


def _identity(device: Mapping[str, Any]) -> str:
    return str(device.get("uuid") or dig(device, "pci.address") or f"GPU {device.get('index')}")


def _device(device: Mapping[str, Any]) -> dict[str, Any]:
    links = dig(device, "nvlink.links")
    return {
        "address": dig(device, "pci.address"),
        "name": device.get("name"),
        "state": device.get("state"),
        "nvlinks": sum(1 for link in links if _up(link)) if isinstance(links, list) else None,
        "pcie_width": dig(device, "pcie.width"),
        "pcie_max_generation": dig(device, "pcie.max_generation"),
        "ecc": dig(device, "ecc.current"),
        "uncorrected": dig(device, "ecc.counters.uncorrected.aggregate"),
        "mig": dig(device, "mig.mode"),
        "instances": sorted(str(_instance(entry)) for entry in dig(device, "mig.instances") or []),
        "persistence": device.get("persistence_mode"),
        "compute": device.get("compute_mode"),
        "power_limit": dig(device, "power.limit_watts"),
    }


def _up(link: Any) -> bool:
    return bool(link.get("active", link.get("state"))) if isinstance(link, Mapping) else bool(link)


def _instance(entry: Any) -> Any:
    return entry.get("profile") or entry.get("name") or entry.get("uuid") if isinstance(entry, Mapping) else entry


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each way in which a node is worse than before; both are pictures."""
    worse = after["situation"] != "ready" and before["situation"] == "ready"
    situation = [f"its GPUs were ready and are {after['situation']}"] if worse else []
    return situation + _between(before["devices"], after["devices"])


def _between(had: Mapping[str, Any], has: Mapping[str, Any]) -> list[str]:
    """What is worse of the devices themselves."""
    yes = [f"GPU {_named(had, key)} is gone" for key in sorted(set(had) - set(has))]
    yes += [f"GPU {_named(has, key)} was not there before" for key in sorted(set(has) - set(had))]
    for key in sorted(set(had) & set(has)):
        yes += [f"GPU {_named(had, key)}: {text}" for text in _worse(had[key], has[key])]
    return yes


def _named(devices: Mapping[str, Any], key: str) -> str:
    address = devices[key].get("address")
    return f"{key} at {address}" if address and address != key else key


def _worse(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = []
    if old["state"] == "ok" and new["state"] != "ok":
        found.append(f"its state was ok and is {new['state']}")
    for key, words in _LINKS.items():
        if _number(old.get(key)) is not None and (_number(new.get(key)) is None or new[key] < old[key]):
            found.append(f"{words} {old[key]} → {_shown(new.get(key))}")
    if _number(old.get("uncorrected")) is not None and (_number(new.get("uncorrected")) or 0) > old["uncorrected"]:
        found.append(f"uncorrected ECC errors {old['uncorrected']} → {new['uncorrected']}")
    for key, words in _MODES.items():
        if old.get(key) is not None and new.get(key) != old[key]:
            found.append(f"{words} {old[key]} → {_shown(new.get(key))}")
    if old.get("instances") != new.get("instances"):
        found.append(f"MIG instances {_shown(old.get('instances'))} → {_shown(new.get('instances'))}")
    if _number(old.get("power_limit")) is not None and new.get("power_limit") != old["power_limit"]:
        found.append(f"power limit {old['power_limit']:g} W → {_shown(new.get('power_limit'))}")
    return found


def _number(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(entry) for entry in value) or "none"
    return "unknown" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def slower(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, tolerance: float) -> list[str]:
    """Return one sentence for each number that dropped by more than the tolerance.

    Args:
        before: name to number measured before the update, higher is better; None when nothing was measured.
        after: the same after it.
        tolerance: percent.
    """
    found = []
    for name, was in sorted((before or {}).items()):
        now = _number((after or {}).get(name))
        if now is None:
            found.append(f"{name} was {was:g} before and was not measured after")
        elif now < was * (1 - tolerance / 100):
            found.append(
                f"{name} dropped from {was:g} to {now:g}, by {100 * (was - now) / was:.0f} % (allowed: {tolerance:g} %)"
            )
    return found


def numbers(text: str, command: str) -> dict[str, float]:
    """Return the numbers in what ``update_benchmark_command`` printed: one JSON object, name to a number above zero.

    Raises:
        InvalidInputError: it printed something else.
    """
    try:
        found = json.loads(text.strip().splitlines()[-1]) if text.strip() else None
    except ValueError:
        found = None
    values = {str(name): _number(value) for name, value in found.items()} if isinstance(found, dict) else {}
    good = {name: value for name, value in values.items() if value is not None and value > 0}
    if not good or len(good) != len(values):
        raise InvalidInputError(
            "use update_benchmark_command",
            command,
            f"its last line is no JSON object of numbers above zero: {' '.join(text.split())[-120:] or 'nothing'}",
            'Have it print one like {"tokens_per_s": 1234.5}, higher is better',
        )
    return good


def measured(given: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the numbers of what was measured; None where nothing was.

    Args:
        given: ``command`` and what it printed (``stdout``), and ``torch`` as torch_benchmark returned it; each may be
            missing or empty.

    Raises:
        InvalidInputError: the command printed no numbers.
    """
    found = torch_numbers(given.get("torch") or None)
    if given.get("command"):
        found.update(numbers(str(given.get("stdout") or ""), str(given["command"])))
    return found or None


def torch_numbers(benchmark: Mapping[str, Any] | None) -> dict[str, float]:
    """Return torch_benchmark's values by name, type, shape and GPU; times (s) become rates: higher is always better."""
    found: dict[str, float] = {}
    for result in (benchmark or {}).get("results") or []:
        value = _number(result.get("value"))
        if value and value > 0 and str(result.get("device", "")).startswith("cuda"):
            name = " ".join(str(result[key]) for key in ("name", "dtype", "shape", "device") if result.get(key))
            seconds = result.get("unit") == "s"
            found[f"{name} (1/s)" if seconds else name] = 1 / value if seconds else value
    return found


def problems(
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any],
    version: str | None,
    findings: Sequence[Mapping[str, Any]],
    speed: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
    tolerance: float,
) -> list[str]:
    """Return every reason why a node is not proven; an empty list is the proof.

    Args:
        before: picture recorded before the update; None where there was none to compare with.
        after: picture of now.
        version: driver that must be loaded.
        findings: what coherence.findings returned for now.
        speed: numbers before and after.
        tolerance: percent that a number may drop.
    """
    found = []
    if after["situation"] != "ready":
        found.append(f"the GPUs are {after['situation']}")
    if version is not None and after["version"] != version:
        found.append(f"the kernel module {after['version'] or 'none'} is loaded, not {version}")
    found += [_finding(finding) for finding in findings]
    if before is not None:
        found += _between(before["devices"], after["devices"])
    return list(dict.fromkeys(found + slower(*speed, tolerance)))


def _finding(finding: Mapping[str, Any]) -> str:
    expected, found = finding.get("expected"), finding.get("found")
    cause = str(finding.get("cause") or f"{finding.get('subject')}: {expected} expected, {found} found")
    return f"{finding.get('id')}: {cause.rstrip('.')}"
