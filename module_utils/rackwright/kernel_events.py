# SPDX-License-Identifier: Apache-2.0
"""Kernel lines into events: Xid, SXid, PCIe errors, lockups, memory, storage, network. Pure; never raises on text.

Equal events of one boot are one event with ``count``, ``first_time`` and ``time`` (the last). Register dumps and the
process's registers differ in every line, so equal means: same kind, code, sub, address, device, link, process and boot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import kernel_lines as forms
from . import kernel_patterns as patterns

EVENTS_MAX = 2000  # distinct events; a kernel that says more than that is broken in ways a list does not explain
_UNKNOWN = ("", "<unknown>", "unknown")
NVLINK5 = range(144, 151)
RECOVERY_ACTION = 154
# NVIDIA open kernel module 595.45.04, NV2080_CTRL_GPU_RECOVERY_ACTION, and the labels drivers print for them. PF FLR
# (a reset of the PCI function) is what driver 610.57.04 calls the reset.
_RECOVERY = {0: "none", 1: "gpu_reset", 2: "node_reboot", 3: "drain_p2p", 4: "drain_and_reset", 5: "recover_imex"}
_RECOVERY_LABELS = {
    "none": "none",
    "gpu reset required": "gpu_reset",
    "pf flr": "gpu_reset",
    "node reboot required": "node_reboot",
    "drain p2p": "drain_p2p",
    "drain and reset": "drain_and_reset",
    "recover imex domain": "recover_imex",
}
_SAME = ("kind", "code", "sub", "pci_address", "device", "link", "pid", "name", "boot_id")

Event = dict[str, Any]


def parse(lines: Iterable[Mapping[str, Any]], now: float | None = None) -> list[Event]:
    """Return the events of these lines (``time``, ``boot_id``, ``text``), oldest first, equal ones folded.

    Args:
        lines: as kernel_log.read gives them.
        now: seconds since 1970 that ``age_s`` counts to; without it, and for lines without a time, ``age_s`` is None.

    Returns:
        Events: ``kind``, ``code`` (of Xid and SXid), ``sub``, ``pci_address`` (as in sysfs), ``device``, ``link``,
        ``pid``, ``name`` (of the process), ``time``, ``first_time``, ``boot_id``, ``age_s``, ``count``, ``text`` (of
        the first), ``data`` (what only this kind has). What is not in the line is None.
    """
    folded: dict[tuple[Any, ...], Event] = {}
    for line in _joined(lines):
        event = parse_text(line["text"])
        if event is None:
            continue
        event.update(time=line.get("time"), first_time=line.get("time"), boot_id=line.get("boot_id"), count=1)
        key = (*(event[name] for name in _SAME), event["data"].get("announced"))
        known = folded.get(key)
        if known is not None:
            known["count"] += 1
            known["time"] = event["time"] or known["time"]
        elif len(folded) < EVENTS_MAX:
            folded[key] = event
    events = _without_announcements(folded.values())
    for event in events:
        seconds = forms.seconds_of(event["time"])
        event["age_s"] = None if now is None or seconds is None else round(now - seconds, 3)
    return events


def parse_text(text: Any) -> Event | None:
    """Return the event one message tells of; None when it tells of none."""
    flat = " ".join(str(text).split())[: forms.TEXT_MAX]
    if patterns.HINT.search(flat) is None:
        return None
    return _xid(flat) or _sxid(flat) or _other(flat)


def pci_address(text: str | None) -> str | None:
    """Return an address as sysfs writes it: ``0000:1b:00`` and ``00000000:1B:00.0`` are ``0000:1b:00.0``."""
    match = re.fullmatch(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?", (text or "").lower())
    if match is None:
        return None
    return f"{int(match.group(1), 16):04x}:{match.group(2)}:{match.group(3)}.{match.group(4) or 0}"


def _event(kind: str, text: str, **fields: Any) -> Event:
    blank = dict.fromkeys(("code", "sub", "pci_address", "device", "link", "pid", "name", "time", "first_time"))
    return {"kind": kind, **blank, "boot_id": None, "age_s": None, "count": 1, "text": text, "data": {}, **fields}


def _xid(text: str) -> Event | None:
    match = patterns.XID.search(text)
    if match is None:
        return None
    code, rest = int(match.group("code")), match.group("rest")
    process = patterns.XID_PROCESS.match(rest)
    event = _event("xid", text, code=code, pci_address=pci_address(match.group("pci")))
    if match.group("gpu_instance"):
        event["data"]["gpu_instance"] = int(match.group("gpu_instance"))
    if process is not None:
        event.update(pid=_number(process.group("pid")), name=_known(process.group("name")))
        rest = rest[process.end() :]
    if code == RECOVERY_ACTION:
        _recovery(event, rest)
    elif code in NVLINK5:
        _nvlink5(event, rest)
    elif (cause := patterns.XID_CAUSE.search(rest)) is not None:
        event["data"]["caused_by"] = int(cause.group("code"))
    elif code == 74 and (link := patterns.XID_LINK.search(rest)) is not None:
        event["link"] = int(link.group("link"))
    return event


def _recovery(event: Event, rest: str) -> None:
    match = patterns.XID_RECOVERY.search(rest)
    if match is None:
        return
    fields = match.groupdict()
    for side in ("from", "to"):
        label = fields[f"{side}_label"]
        word = _RECOVERY_LABELS.get(label.strip().lower()) or _RECOVERY.get(int(fields[f"{side}_value"], 16), "unknown")
        event["data"][side] = word
        event["data"][f"{side}_label"] = label
    event["sub"] = event["data"]["to"]


def _nvlink5(event: Event, rest: str) -> None:
    match = patterns.XID_NVLINK5.search(rest)
    if match is None:
        return
    severity = match.group("severity").lower().replace("-", "").replace(" ", "_")
    event["sub"] = severity  # the driver's own word: fatal, link_fatal, nonfatal
    link = int(match.group("link"))
    event["link"] = link if link >= 0 else None
    event["data"] = {**event["data"], "unit": match.group("unit")}
    words = (match.group("words") or "").split()
    if len(words) >= 2:
        event["data"].update(intr_info=words[0], error_status=words[1])


def _sxid(text: str) -> Event | None:
    match = patterns.SXID.search(text)
    if match is None or patterns.SXID_DETAIL.match(match.group("rest")):
        return None
    first = match.group("rest").split(",")[0].strip().lower()
    sub = {"fatal": "fatal", "non-fatal": "nonfatal", "nonfatal": "nonfatal"}.get(first)
    link = patterns.XID_LINK.search(match.group("rest"))
    return _event(
        "sxid",
        text,
        code=int(match.group("code")),
        sub=sub,
        pci_address=pci_address(match.group("pci")),
        device=match.group("device"),
        link=int(link.group("link")) if link else None,
    )


def _other(text: str) -> Event | None:
    for kind, sub, pattern in patterns.ROWS:
        match = pattern.search(text)
        if match is None:
            continue
        found = {name: value for name, value in match.groupdict().items() if value is not None}
        event = _event(
            kind,
            text,
            sub=sub or found.pop("sub", None),
            pci_address=pci_address(found.pop("pci", None)),
            device=found.pop("device", None),
            pid=_number(found.pop("pid", None)),
            name=_known(found.pop("name", None)),
            data={name: _plain(value) for name, value in found.items()},
        )
        return _FINISH.get(kind, _as_it_is)(event)
    return None


def _as_it_is(event: Event) -> Event | None:
    return event


def _aer(event: Event) -> Event | None:
    severity = str(event["data"].pop("severity", "")).lower()
    if event["sub"] == "recovery_failed":
        return event
    event["data"]["announced"] = event["sub"] == "announced"
    event["sub"] = "corrected" if severity.startswith("correct") else "nonfatal" if "non-fatal" in severity else "fatal"
    return event


def _degraded(event: Event) -> Event | None:
    """An array that starts with all its devices is no event."""
    if event["data"]["active"] >= event["data"]["wanted"]:
        return None
    return {**event, "kind": "md_fail", "sub": "degraded"}


def _cpu(event: Event) -> Event | None:
    if event["device"] is not None:
        event["device"] = f"cpu{event['device']}"
    return event


_FINISH = {"aer": _aer, "md_degraded": _degraded, "soft_lockup": _cpu, "mce": _cpu}


def _plain(value: str) -> Any:
    return int(value) if re.fullmatch(r"\d{1,18}", value) else value


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else None


def _known(text: str | None) -> str | None:
    bare = (text or "").strip().strip("'")
    return None if bare in _UNKNOWN else bare


def _joined(lines: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Give messages that the driver prints over several lines as one: each begins with ``NVRM:``."""
    held: dict[str, Any] | None = None
    for line in lines:
        text = str(line.get("text") or "").strip()
        if held is not None:
            if _GOES_ON.match(text) and len(held["text"]) < forms.TEXT_MAX:
                held["text"] += " " + text[len("NVRM: ") :]
                continue
            yield held
            held = None
        if _BEGINS.match(text):
            held = {**line, "text": text}
        else:
            yield {**line, "text": text}
    if held is not None:
        yield held


_BEGINS = re.compile(r"NVRM: (?:The NVIDIA GPU [0-9a-fA-F:.]+|API mismatch:|This PCI I/O region)")
_GOES_ON = re.compile(
    r"NVRM: (?:\(PCI ID|installed in|fallen off|is not supported|by the|has the version|the version|this kernel module"
    r"|make sure|kernel module and|components|have the same|BAR\d)"
)


def _without_announcements(events: Iterable[Event]) -> list[Event]:
    """Drop the port's announcement of a PCIe error where the device's own line tells the same."""
    events = list(events)
    told = {
        (e["pci_address"], e["sub"], e["boot_id"])
        for e in events
        if e["kind"] == "aer" and not e["data"].get("announced")
    }
    return [
        event
        for event in events
        if event["kind"] != "aer"
        or not event["data"].get("announced")
        or (event["pci_address"], event["sub"], event["boot_id"]) not in told
    ]
