# SPDX-License-Identifier: Apache-2.0
"""Rules of firmware: cards of one model and board carry one version of each kind. Pure: a view in, checks out."""

from __future__ import annotations

from .health_record import MONITOR, Check, finding, not_applicable, not_measured, ok
from .health_view import Record, View, listed, subject

#: check -> where the version is, and what people call it
_KINDS = {
    "vbios.uniform": ("vbios_version", "VBIOS"),
    "inforom.uniform": ("health.inforom.image_version", "InfoROM image"),
    "gsp.uniform": ("gsp_firmware_version", "GSP firmware"),
}


def uniform_firmware(view: View) -> list[Check]:
    """Return one check for each kind of firmware; VBIOS also against the versions that are declared."""
    return [_uniform(view, name) for name in _KINDS]


def _uniform(view: View, name: str) -> Check:
    path, word = _KINDS[name]
    if not view.answering:
        make = not_measured if view.devices else not_applicable
        return make(name, "node", "no GPU answers")
    readings = [(device, view.of(device, path)) for device in view.answering]
    silent = next((reading for _device, reading in readings if not reading.known), None)
    if silent:
        return silent.without(name, "node")
    versions = {subject(device): str(reading.value) for device, reading in readings}
    declared = view.declared("vbios") if name == "vbios.uniform" else None
    allowed = [declared] if isinstance(declared, str) else declared
    other = {who: version for who, version in versions.items() if allowed and version not in allowed}
    if other:
        reason = f"{word} is not as declared: {listed(f'{who} {version}' for who, version in other.items())}"
        return finding(name, "node", MONITOR, reason, observed=other, expected=allowed)
    for who in _groups(view.answering):
        found: dict[str, list[str]] = {}
        for one in who:
            found.setdefault(versions[one], []).append(one)
        if len(found) > 1:
            told = listed(f"{version} on {', '.join(gpus)}" for version, gpus in sorted(found.items()))
            reason = f"GPUs of one model differ in their {word}: {told}"
            return finding(name, "node", MONITOR, reason, observed=found, expected="one version")
    return ok(name, "node", sorted(set(versions.values())), allowed or "one version for each model")


def _groups(devices: list[Record]) -> list[list[str]]:
    """GPUs of one model on one board."""
    groups: dict[tuple[str, str], list[str]] = {}
    for device in devices:
        model = str(device.get("catalogue_id") or device.get("name"))
        board = str((device.get("pci") or {}).get("subsystem_id"))
        groups.setdefault((model, board), []).append(subject(device))
    return list(groups.values())
