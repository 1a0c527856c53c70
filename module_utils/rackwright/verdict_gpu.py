# SPDX-License-Identifier: Apache-2.0
"""Checks on what gpu_facts saw: situation, count, health of each device. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .verdict_record import FAIL, NOT_APPLICABLE, NOT_MEASURED, PASS, WARN, Check, Evidence, check, dig, part

_NO_GPU = "the node has no GPU"
#: Recovery actions a driver recommends that leave the GPU usable for other work.
_MILD_RECOVERY = ("drain_p2p", "drain p2p")
_NO_RECOVERY = (None, "", "none")
#: How gpu_facts says that card, driver or platform has no such value at all.
_ABSENT = ("not supported", "does not offer", "no longer offers", "shares the memory", "WSL2")


def situation_checks(evidence: Evidence) -> list[Check]:
    """Judge what GPU situation the node is in; no GPU is fine unless the inventory expects some."""
    situation = evidence.situation
    expected = evidence.expected.get("gpu_count")
    common = {"observed": situation, "expected": "ready"}
    if situation == "ready":
        return [check("gpu.situation", PASS, "node", **common)]
    cause = str(dig(evidence.gpu, "cause") or f"situation {situation}")
    step = dig(evidence.gpu, "next_step")
    if situation == "no_gpu":
        if expected:
            reason = f"the inventory expects {expected} GPU(s), the node has none"
            step = "Check seating, power and firmware settings of the GPUs, or correct gpu_expected_count."
            return [check("gpu.situation", FAIL, "node", **common, reason=reason, next_step=step)]
        return [check("gpu.situation", NOT_APPLICABLE, "node", observed=situation, reason=_NO_GPU)]
    if situation == "wsl2" and dig(evidence.gpu, "count"):
        return [check("gpu.situation", PASS, "node", observed=situation, expected="ready or wsl2", reason=cause)]
    return [check("gpu.situation", FAIL, "node", **common, reason=cause, next_step=step)]


def count_checks(evidence: Evidence) -> list[Check]:
    """Compare the GPUs the driver answers for with those on the bus and those the inventory expects."""
    count, on_bus = dig(evidence.gpu, "count"), dig(evidence.gpu, "pci_count")
    expected = evidence.expected.get("gpu_count")
    checks = []
    if expected is None:
        reason = "gpu_expected_count is not set for this node"
        checks.append(check("gpu.count_expected", NOT_APPLICABLE, "node", observed=count, reason=reason))
    else:
        wrong = count != expected
        checks.append(
            check(
                "gpu.count_expected",
                FAIL if wrong else PASS,
                "node",
                observed=count,
                expected=expected,
                reason=f"the driver answers for {count} GPU(s), the inventory expects {expected}" if wrong else None,
                next_step="Find the missing GPU in the kernel log, or correct gpu_expected_count." if wrong else None,
            )
        )
    checks.append(_bus_check(evidence.situation, count, on_bus))
    return checks


def _bus_check(situation: str, count: Any, on_bus: Any) -> Check:
    common = {"observed": count, "expected": on_bus}
    if situation == "no_gpu" or (not on_bus and not count):
        return check("gpu.count_bus", NOT_APPLICABLE, "node", **common, reason=_NO_GPU)
    if situation == "wsl2":
        return check("gpu.count_bus", NOT_APPLICABLE, "node", **common, reason="under WSL2 the GPU is not on the bus")
    if on_bus and not count:
        return check("gpu.count_bus", NOT_APPLICABLE, "node", **common, reason="no GPU answers, see gpu.situation")
    if on_bus is None:
        return check("gpu.count_bus", NOT_MEASURED, "node", **common, reason="the PCI bus could not be read")
    if count == on_bus:
        return check("gpu.count_bus", PASS, "node", **common)
    if situation == "ready":
        # gpu_facts knows which of them should answer: a container sees a bus it was not given, or gets GPUs without one
        reason = "none is missing: other drivers or containers have the rest, or the bus is not shown here"
        return check("gpu.count_bus", NOT_APPLICABLE, "node", **common, reason=reason)
    reason = f"{on_bus} NVIDIA GPU(s) are on the PCI bus, the driver answers for {count}"
    step = "Read the kernel log for Xid 79 or a failed initialisation; reset the GPU or restart the node."
    return check("gpu.count_bus", FAIL, "node", **common, reason=reason, next_step=step)


def device_checks(evidence: Evidence) -> list[Check]:
    """Judge ECC mode and errors, row remapping, recovery action, link and catalogue of each device.

    Where none answers, the situation says why and there is nothing to add.
    """
    checks: list[Check] = []
    for device in evidence.devices if evidence.answering else []:
        subject = device_name(device)
        if not device.get("uuid"):
            checks.append(_silent(device, subject))
            continue
        checks += _ecc(device, subject)
        checks += _ecc_errors(device, subject)
        checks += _row_remap(device, subject)
        checks += _recovery(device, subject)
        checks += _link(device, subject)
        checks += _catalogued(device, subject)
    return checks


def device_name(device: Mapping[str, Any]) -> str:
    """Return how a device is called in checks: NVML's index, or its place on the bus when NVML does not show it."""
    index = device.get("index")
    return f"gpu{index}" if index is not None else str(dig(device, "pci.address") or "unknown device")


def _silent(device: Mapping[str, Any], subject: str) -> Check:
    reason = part(device, "missing").get("uuid") or "the driver does not answer for this device"
    step = "Drain the node, read the kernel log for Xid messages and restart it."
    return check("gpu.answers", FAIL, subject, reason=str(reason), next_step=step)


def _unread(check_id: str, device: Mapping[str, Any], subject: str, path: str) -> Check:
    """Return the check of a value that is null: what a card does not have is no fault, what was not read is no pass."""
    reason = part(device, "missing").get(path)
    if reason is None:
        return check(check_id, NOT_MEASURED, subject, reason=f"the facts give neither {path} nor why it is missing")
    absent = any(mark in str(reason) for mark in _ABSENT)
    return check(check_id, NOT_APPLICABLE if absent else NOT_MEASURED, subject, reason=f"{path}: {reason}")


def _ecc(device: Mapping[str, Any], subject: str) -> list[Check]:
    current, pending = dig(device, "ecc.current"), dig(device, "ecc.pending")
    if current is None or pending is None:
        return [_unread("gpu.ecc_mode", device, subject, "ecc.current" if current is None else "ecc.pending")]
    if current == pending:
        return [check("gpu.ecc_mode", PASS, subject, observed=current, expected=pending)]
    reason = f"ECC mode is {_onoff(current)}, {_onoff(pending)} after the next reset"
    step = "Reset the GPU or restart the node when it is drained."
    return [check("gpu.ecc_mode", WARN, subject, observed=current, expected=pending, reason=reason, next_step=step)]


def _ecc_errors(device: Mapping[str, Any], subject: str) -> list[Check]:
    count = dig(device, "ecc.counters.uncorrected.volatile")
    if count is None:
        return [_unread("gpu.ecc_errors", device, subject, "ecc.counters.uncorrected.volatile")]
    if count:
        reason = f"{count} uncorrected memory error(s) since the driver was loaded"
        step = "Drain the node and reset the GPU; if they come back, run the vendor's field diagnostics."
        return [check("gpu.ecc_errors", FAIL, subject, observed=count, expected=0, reason=reason, next_step=step)]
    return [check("gpu.ecc_errors", PASS, subject, observed=0, expected=0)]


def _onoff(value: Any) -> str:
    return {True: "enabled", False: "disabled"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _row_remap(device: Mapping[str, Any], subject: str) -> list[Check]:
    record = part(device, "row_remap")
    if record.get("failure") is None and record.get("pending") is None:
        return [_unread("gpu.row_remap", device, subject, "row_remap.failure")]
    observed = {key: record.get(key) for key in ("correctable", "uncorrectable", "pending", "failure")}
    if observed["failure"]:
        reason = "a row of its memory could not be remapped"
        step = "Take the GPU out of service, run the vendor's field diagnostics and ask for a replacement."
        return [check("gpu.row_remap", FAIL, subject, observed=observed, reason=reason, next_step=step)]
    if observed["pending"]:
        reason = "a row of its memory waits to be remapped"
        step = "Reset the GPU when it is drained."
        return [check("gpu.row_remap", WARN, subject, observed=observed, reason=reason, next_step=step)]
    return [check("gpu.row_remap", PASS, subject, observed=observed)]


def _recovery(device: Mapping[str, Any], subject: str) -> list[Check]:
    action = device.get("recovery_action")
    if action is None:
        return []
    if str(action).lower() in _NO_RECOVERY:
        return [check("gpu.recovery", PASS, subject, observed=action)]
    mild = str(action).lower() in _MILD_RECOVERY
    reason = f"the driver asks for the recovery action '{action}'"
    step = f"Drain the node and carry out: {action}."
    return [check("gpu.recovery", WARN if mild else FAIL, subject, observed=action, reason=reason, next_step=step)]


def _link(device: Mapping[str, Any], subject: str) -> list[Check]:
    pcie = part(device, "pcie")
    now: dict[str, Any] = {"generation": pcie.get("generation"), "width": pcie.get("width")}
    most: dict[str, Any] = {"generation": pcie.get("max_generation"), "width": pcie.get("max_width")}
    unread = next((f"pcie.{key}" for key in (*now, "max_generation", "max_width") if pcie.get(key) is None), None)
    if unread is not None:
        return [_unread("gpu.pcie_link", device, subject, unread)]
    below = now["generation"] < most["generation"] or now["width"] < most["width"]
    reason = "below its maximum; an idle link trains down, so only a loaded one could fail" if below else None
    return [check("gpu.pcie_link", PASS, subject, observed=now, expected=most, reason=reason)]


def _catalogued(device: Mapping[str, Any], subject: str) -> list[Check]:
    known = device.get("catalogue_id")
    if known:
        return [check("gpu.catalogue", PASS, subject, observed=known)]
    name = device.get("name") or "without a name"
    reason = f"'{name}' is not in the catalogue: its numbers are reported, not judged"
    step = "Add the card to the table of GPUs, or through extra_gpus."
    return [check("gpu.catalogue", WARN, subject, observed=name, reason=reason, next_step=step)]


def digest(evidence: Evidence) -> dict[str, Any] | None:
    """Return the part of the facts that belongs into a report."""
    gpu = evidence.gpu
    if gpu is None:
        return None
    keys = ("situation", "cause", "next_step", "source", "simulated", "count", "pci_count", "collected_at", "driver")
    return {
        **{key: gpu.get(key) for key in keys},
        "devices": [
            {
                **{key: device.get(key) for key in ("index", "name", "uuid", "catalogue_id", "architecture")},
                "pci_address": dig(device, "pci.address"),
                "memory_bytes": dig(device, "memory.total_bytes"),
                "missing": device.get("missing"),
            }
            for device in evidence.devices
        ],
    }
