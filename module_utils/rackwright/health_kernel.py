# SPDX-License-Identifier: Apache-2.0
"""Rules of the kernel's log: what xid_rules makes of its events, as checks. Pure.

An Xid of before the last restart does not condemn the node for ever: what a restart cured is ok. What comes back after
restarts, and worn hardware, stays. Without a log no kind of event is called absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .health_record import MONITOR, Check, finding, not_applicable, not_measured, ok, rank
from .health_view import View, subject

#: check by kind of event; kinds that are not here are kernel.other
KINDS = {
    "xid": "kernel.xid",
    "sxid": "kernel.sxid",
    **dict.fromkeys(
        (
            "fallen_off_bus",
            "rm_init_failed",
            "bar_invalid",
            "gpu_unsupported",
            "api_mismatch",
            "gsp",
            "nvlink",
            "peermem",
        ),
        "kernel.driver",
    ),
    "module_rejected": "kernel.driver",
    "nouveau": "kernel.nouveau",
    "aer": "kernel.pcie",
    "pcie_limited": "kernel.pcie",
    **dict.fromkeys(("soft_lockup", "hung_task", "kernel_oops"), "kernel.lockup"),
    **dict.fromkeys(("oom", "mce", "edac"), "kernel.memory"),
    **dict.fromkeys(("io_error", "readonly_remount", "md_fail"), "kernel.storage"),
    "mlx5": "kernel.network",
}
OTHER, LOG = "kernel.other", "kernel.log"
IDS = (*dict.fromkeys(KINDS.values()), OTHER)


def kernel_checks(view: View) -> list[Check]:
    """Return one check per event that asks for something, and one for each kind that has none."""
    log = view.kernel
    why = log.get("missing") if log else "the kernel's log was not read"
    # a log that somebody named was expected to be there, in a container as well
    if why and view.of_its_host and not log.get("named"):
        return [not_applicable(name, "node", f"{view.of_its_host} ({why})") for name in (LOG, *IDS)]
    if why:
        return [not_measured(name, "node", str(why)) for name in (LOG, *IDS)]
    findings = _findings(view)
    told = {check["id"] for check in findings}
    quiet = [ok(name, "node", 0, 0) for name in IDS if name not in told]
    return [_log(log), *findings, *quiet]


def _findings(view: View) -> list[Check]:
    """One finding per check and subject: the worst event speaks, the others are counted with it."""
    names = {(device.get("pci") or {}).get("address"): subject(device) for device in view.devices}
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for judged in view.judgements:
        if rank(judged["severity"]):
            key = (KINDS.get(judged["event"]["kind"], OTHER), _subject(judged["event"], names))
            grouped.setdefault(key, []).append(judged)
    return [_finding(name, who, found) for (name, who), found in grouped.items()]


def _subject(event: Mapping[str, Any], names: Mapping[Any, str]) -> str:
    address, device = event.get("pci_address"), event.get("device")
    if address in names:
        return names[address]
    if event.get("kind") == "sxid":
        return f"nvswitch {device or address or 'unknown'}"
    return str(device or address or "node")


def _finding(name: str, who: str, found: list[dict[str, Any]]) -> Check:
    worst = max(found, key=lambda judged: rank(judged["severity"]))
    count = sum(judged["event"].get("count") or 1 for judged in found)
    event = worst["event"]
    when = f" at {event['time']}" if event.get("time") else ""
    reason = f"{worst['label']}{when}: {worst['why'].rstrip('.')}"
    labels = list(dict.fromkeys(judged["label"] for judged in found))
    if len(labels) > 1:
        reason += f". Also: {', '.join(label for label in labels if label != worst['label'])}"
    check = finding(name, who, worst["severity"], reason, observed={"events": count, "text": event["text"]}, expected=0)
    check.update(actions=worst["actions"], source=worst["source"])
    return check


def _log(log: Mapping[str, Any]) -> Check:
    observed = {"source": log.get("source"), "lines": log.get("line_count"), "oldest": log.get("oldest")}
    lost = log.get("lost") or 0
    if log.get("truncated") or lost:
        what = f"{lost} messages are lost" if lost else "it was cut to the newest lines"
        reason = f"the kernel's log of the window is not whole: {what}, so what is not in it may have happened"
        return finding(LOG, "node", MONITOR, reason, observed=observed, expected="a whole log")
    return ok(LOG, "node", observed)


def capped(view: View, most: int = 100) -> dict[str, Any]:
    """Events for the report, the worst and newest first, and how many were left out."""
    ordered = sorted(
        view.judgements,
        key=lambda judged: (rank(judged["severity"]), str(judged["event"].get("time") or "")),
        reverse=True,
    )
    shown = [
        {**judged["event"], "severity": judged["severity"], "label": judged["label"], "cured": judged["cured"]}
        for judged in ordered[:most]
    ]
    return {"events": shown, "dropped": max(0, len(ordered) - most)}
