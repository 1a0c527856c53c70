# SPDX-License-Identifier: Apache-2.0
"""The health of one node: every rule over one view, its document, and what the next check is compared with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .health_dcgm import dcgm_checks
from .health_gpu import device_checks, node_checks
from .health_host import host_checks
from .health_io import io_checks
from .health_kernel import capped, kernel_checks
from .health_links import expected_links, fabric_manager, link_checks, peer_access
from .health_memory import memory_checks
from .health_pcie import access_control, pcie_checks, peer_memory
from .health_power import power_checks
from .health_record import FINDING, Check, findings, summary, worst
from .health_view import Record, View, subject
from .nvml_health import EVENT_FIELDS, LINK_COUNTERS

SCHEMA = 1
KIND = "rackwright.health"
_PER_DEVICE = (device_checks, memory_checks, link_checks, pcie_checks, power_checks)
_PER_NODE = (fabric_manager, peer_access, access_control, peer_memory)
_SHORT = 40


def examine(view: View) -> list[Check]:
    """Return the answer of every rule: per node, per GPU, of the kernel, of the host, of DCGM."""
    checks = node_checks(view)
    for device in view.devices:
        for rules in _PER_DEVICE:
            checks += rules(view, device)
    checks += [rule(view) for rule in _PER_NODE]
    return [*checks, *kernel_checks(view), *host_checks(view), *io_checks(view), *dcgm_checks(view)]


def document(view: View, window_s: float) -> dict[str, Any]:
    """Return the health document of one node (docs/schema/health.schema.json)."""
    checks = examine(view)
    events = capped(view)
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "collected_at": view.now,
        "boot_id": view.boot_id,
        "window_s": window_s,
        "simulated": bool(view.gpu.get("simulated")),
        "severity": worst(checks),
        "summary": summary(checks),
        "checks": alike(checks),
        "events": events["events"],
        "events_dropped": events["dropped"],
        "gpu": _gpu(view.gpu),
        "baseline": next_baseline(view),
    }


def alike(checks: list[Check]) -> list[Check]:
    """Return checks with one record for what is the same on several GPUs and no finding: its subject names all of them.

    On eight GPUs the document is a third as long, and a thousand of them are held at once on the control node.
    """
    kept: dict[Any, Check] = {}
    for position, check in enumerate(checks):
        key: Any = position
        if check["state"] != FINDING and check["subject"].startswith("gpu"):
            key = (check["id"], check["state"], check["reason"], repr(check["observed"]), repr(check["expected"]))
        known = kept.get(key)
        kept[key] = check if known is None else {**known, "subject": f"{known['subject']}, {check['subject']}"}
    return list(kept.values())


def _gpu(gpu: Record) -> dict[str, Any]:
    """The little of the fact that a reader needs beside the checks."""
    driver = gpu.get("driver") or {}
    return {
        "situation": gpu.get("situation"),
        "count": gpu.get("count"),
        "driver": driver.get("library_version") or driver.get("kernel_module_version"),
        "names": sorted({str(device["name"]) for device in gpu.get("devices") or [] if device.get("name")}),
    }


def digest(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the fact cache keeps: enough for groups and metrics, small on a thousand nodes."""
    found = findings(told["checks"])
    lines = [f"{check['severity']}: {check['id']} {check['subject']}: {check['reason']}" for check in found]
    return {
        "schema": SCHEMA,
        "severity": told["severity"],
        "worst": lines[0] if lines else None,
        "findings": [{key: check[key] for key in ("id", "subject", "severity", "reason")} for check in found[:_SHORT]],
        "findings_dropped": max(0, len(found) - _SHORT),
        "summary": told["summary"],
        "simulated": told["simulated"],
        "collected_at": told["collected_at"],
        "boot_id": told["boot_id"],
    }


# ---- what the next check is compared with ----


def next_baseline(view: View) -> dict[str, Any]:
    """Return the record for the next check.

    Counters are those of now. What the node must have (GPUs, links, lanes, memory, ports, drives) keeps the best that
    was ever seen, so that a card that is missing stays missing until somebody accepts it.
    """
    old = view.baseline
    known = old.get("gpus")
    gpus: dict[str, Any] = dict(known) if isinstance(known, Mapping) else {}
    for device in view.answering:
        if device.get("uuid"):
            gpus[str(device["uuid"])] = _card(view, device)
    return {
        "schema": SCHEMA,
        "collected_at": view.now,
        "boot_id": view.boot_id,
        "gpu_count": _most(old.get("gpu_count"), view.gpu.get("count")),
        "gpus": gpus,
        "memory_total_bytes": _most(old.get("memory_total_bytes"), view.host.get("memory_total_bytes")),
        "nics": _ports(view),
        "nic_downs": {port["name"]: port["link_downed"] for port in view.host.get("nics") or []},
        "nvme": sorted(
            {*(old.get("nvme") or []), *(d.get("serial") or d["name"] for d in view.host.get("nvme") or [])}
        ),
    }


def _most(before: Any, now: Any) -> Any:
    known = [value for value in (before, now) if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return max(known) if known else None


def _card(view: View, device: Record) -> dict[str, Any]:
    before, health = view.before(device), device.get("health") or {}
    pcie, nvlink = device.get("pcie") or {}, health.get("nvlink") or {}
    links = (device.get("nvlink") or {}).get("links")
    active = sum(bool(link.get("active")) for link in links) if links is not None else None
    speeds = [value for value in nvlink.get("speed_mbps") or [] if value]
    counters = health.get("event_counters_ns") or {}
    return {
        "name": subject(device),
        "model": device.get("name"),
        "pci_address": (device.get("pci") or {}).get("address"),
        "nvlink_active": _most(before.get("nvlink_active"), active),
        "nvlink_speed_mbps": _most(before.get("nvlink_speed_mbps"), max(speeds) if speeds else None),
        "pcie_max_generation": _most(before.get("pcie_max_generation"), pcie.get("max_generation")),
        "pcie_max_width": _most(before.get("pcie_max_width"), pcie.get("max_width")),
        "pcie_replays": pcie.get("replay_count"),
        "nvlink_errors": {key: nvlink.get(key) for key in (*LINK_COUNTERS, "recovery_failed")},
        "event_counters_ns": {key: counters.get(key) for key in EVENT_FIELDS},
        "nvlink_expected": expected_links(view, device),
    }


def _ports(view: View) -> dict[str, Any]:
    """Ports that were ever active, with the best rate they had."""
    before = view.baseline.get("nics")
    ports: dict[str, Any] = dict(before) if isinstance(before, Mapping) else {}
    for port in view.host.get("nics") or []:
        if port.get("state") == "ACTIVE":
            ports[port["name"]] = _most(ports.get(port["name"]), port.get("rate_gbps"))
    return ports
