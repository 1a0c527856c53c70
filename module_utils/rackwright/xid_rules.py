# SPDX-License-Identifier: Apache-2.0
"""What a kernel event means for its node: severity and ordered actions, from NVIDIA's own buckets. Pure.

``judge`` reads one event by itself; ``judge_log`` reads a log: what a restart or reset cured is past, what comes back
after restarts is no longer a matter of restarting, an error that follows another is told as such.

Severity is None (nothing to do), or one of ``monitor < reset < reboot < isolate``. Xids of applications and
informational ones never go above ``monitor`` by themselves, whatever other tools make of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .kernel_events import RECOVERY_ACTION
from .kernel_rules import judge_other, judge_sxid, result, steps
from .xid_data import XIDS

NVIDIA = "NVIDIA Xid catalogue (docs.nvidia.com/deploy/xid-errors), immediate action {immediate}"
ESCALATION = "gpud, components/accelerator/nvidia/xid: hardware inspection when the same Xid comes back after 2 reboots"
REBOOTS_BEFORE_ISOLATION = 2  # gpud's default threshold
RECOVERY = "driver's own recovery action, Xid 154 (NVIDIA open kernel module, NV2080_CTRL_GPU_RECOVERY_ACTION)"
# NVIDIA's catalogue covers these and newer
_OLD = ("maxwell", "pascal", "volta", "turing")

_BUCKETS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "RESET_GPU": ("reset", ("stop_workload", "drain", "reset_gpu")),
    "WORKFLOW_XID_48": ("reset", ("stop_workload", "drain", "reset_gpu", "check_row_remap")),
    "WORKFLOW_NVLINK_ERR": ("reset", ("stop_workload", "drain", "reset_gpu", "check_link")),
    "RESTART_BM": ("reboot", ("stop_workload", "drain", "restart_node")),
    "RESTART_VM": ("reboot", ("stop_workload", "drain", "restart_node")),
    "CHECK_MECHANICALS": ("isolate", ("stop_workload", "drain", "check_power_cables", "reseat")),
    "WORKFLOW_NVLINK5_ERR": ("monitor", ("check_link",)),
    "RESTART_APP": ("monitor", ("restart_application",)),
    "WORKFLOW_XID_45": ("monitor", ("look_for_first_xid",)),
    "UPDATE_SWFW": ("monitor", ("update_driver",)),
    "CHECK_UVM": ("monitor", ("check_application",)),
    "CONTACT_SUPPORT": ("monitor", ("contact_support",)),
    "XID_154": (None, ()),
    "IGNORE": (None, ()),
}
_INVESTIGATE: dict[str, tuple[str, ...]] = {
    "CONTACT_SUPPORT": ("run_field_diagnostics", "contact_support"),
    "INVESTIGATE_SW": ("collect_bug_report", "update_driver"),
    "UPDATE_SWFW": ("update_driver",),
    "INVESTIGATE_LINK_SI": ("check_link", "run_field_diagnostics"),
    "INVESTIGATE_SW_USER": ("check_application",),
    "CHECK_APP/CUDA": ("check_application",),
    "WORKFLOW_XID_13": ("check_application",),
    "WORKFLOW_XID_31": ("check_application",),
    "WORKFLOW_XID_48": ("run_field_diagnostics",),
    "XID_137_FLOW": ("check_link",),
}
_RECOVERY: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "none": (None, ()),
    "gpu_reset": ("reset", ("stop_workload", "drain", "reset_gpu")),
    "node_reboot": ("reboot", ("stop_workload", "drain", "restart_node")),
    "drain_p2p": ("monitor", ("drain_p2p",)),
    "drain_and_reset": ("reset", ("stop_workload", "drain", "reset_gpu")),
    "recover_imex": ("monitor", ("recover_imex",)),
    "unknown": ("monitor", ("contact_support",)),
}
# rows and pages whose retirement the next reset completes
_REMAPS = (63, 94)
_NVLINK5_FATAL = ("fatal", "link_fatal")
# said again at every boot as long as it is so
_TOLD_AT_BOOT = ("bar_invalid", "gpu_unsupported", "nouveau", "module_rejected", "pcie_limited")
# the driver's start ends these: what is still so it says again
_TILL_LOADED = ("api_mismatch", "rm_init_failed", "gsp", "gpu_unsupported", "module_rejected", "nouveau")
# hardware that wears out: after a restart it is watched, not forgotten
_LASTING = ("aer", "mce", "edac", "io_error")

Judgement = dict[str, Any]


def judge(event: Mapping[str, Any], architecture: str | None = None) -> Judgement:
    """Return what this event by itself asks for.

    Args:
        event: of kernel_events.parse.
        architecture: of its GPU (``ampere`` ...), where known: the catalogue does not cover older ones.

    Returns:
        ``severity``, ``actions`` (ordered, each ``{"action": word, "text": sentence}``), ``label``, ``source`` (of the
        rule), ``why``.
    """
    if event.get("kind") == "sxid":
        return judge_sxid(event)
    if event.get("kind") != "xid":
        return judge_other(event)
    code = event.get("code")
    row = XIDS.get(code) if isinstance(code, int) else None
    if row is None:
        return result("monitor", steps("contact_support"), f"Xid {code}", "xids.yml", "the code is not in the table")
    label = f"Xid {code} {row['description'] or row['mnemonic']}"
    if code == RECOVERY_ACTION and event.get("sub") is not None:
        return _recovery(event, label)
    if row["immediate_action"] == "WORKFLOW_NVLINK5_ERR":
        return _nvlink5(event, row, label)
    return _by_bucket(event, row, label, architecture)


def _recovery(event: Mapping[str, Any], label: str) -> Judgement:
    severity, words = _RECOVERY.get(str(event["sub"]), _RECOVERY["unknown"])
    told = event.get("data", {}).get("to_label") or event["sub"]
    return result(severity, steps(*words), label, RECOVERY, f"the driver's recovery action is now: {told}")


def _nvlink5(event: Mapping[str, Any], row: Mapping[str, Any], label: str) -> Judgement:
    sub = event.get("sub")
    source = NVIDIA.format(immediate=row["immediate_action"])
    if sub in _NVLINK5_FATAL:
        words = ("stop_workload", "drain", "reset_gpu", "check_link", "run_field_diagnostics")
        return result("reset", steps(*words), label, source, f"the driver calls it {sub.replace('_', ' ')}")
    if sub == "nonfatal":
        return result("monitor", steps("check_link"), label, source, "the driver calls it nonfatal")
    why = "the message does not say whether it is fatal, and the table has no sub-codes to decode it by"
    return result("monitor", steps("check_link"), label, source, why)


def _by_bucket(event: Mapping[str, Any], row: Mapping[str, Any], label: str, architecture: str | None) -> Judgement:
    immediate = row["immediate_action"]
    severity: str | None
    words: tuple[str, ...]
    if immediate is None:
        severity, words, why = "monitor", ("contact_support",), "NVIDIA publishes no action for this code"
        source = "xids.yml: no published action"
    else:
        severity, words = _BUCKETS.get(immediate, ("monitor", ("contact_support",)))
        why = f"NVIDIA's immediate action is {immediate}"
        source = NVIDIA.format(immediate=immediate)
    if severity is None and row["aws_severity"] == "MONITOR":
        severity, words = "monitor", ("watch",)
        source += "; watched as AWS's reading of NVIDIA's r590 buckets does"
    if severity is not None:
        words = (*words, *_INVESTIGATE.get(row["investigatory_action"] or "", ()))
        words = (*words, *(("check_row_remap",) if event.get("code") in _REMAPS else ()))
    process = _process(event)
    if process and not row["fatal"]:
        why += f"; the process is {process}"
    if row["note"]:
        why += f". {row['note']}"
    if architecture and architecture.lower() in _OLD:
        why += ". The catalogue covers Ampere and newer: on this GPU the code may mean something else"
    return result(severity, steps(*dict.fromkeys(words)), label, source, why)


def _process(event: Mapping[str, Any]) -> str | None:
    name, pid = event.get("name"), event.get("pid")
    if name is None and pid is None:
        return None
    return f"{name or 'of unknown name'} (process {pid})" if pid is not None else str(name)


def judge_log(
    events: Sequence[Mapping[str, Any]],
    boot_id: str | None = None,
    boots: Iterable[str] = (),
    architectures: Mapping[str, str] | None = None,
) -> list[Judgement]:
    """Return one judgement for each event, in their order, with what the rest of the log says about it.

    Args:
        events: of kernel_events.parse.
        boot_id: the boot that runs now; None judges every event as of this boot.
        boots: boots of the log, oldest first (kernel_log gives them); boots of the events are added where they lack.
        architectures: architecture by PCI address.

    Returns:
        Judgements as of ``judge``, and: ``event``, ``past`` (of an earlier boot), ``cured`` (by what, or None),
        ``was`` (the severity before that), ``boots`` (how many boots saw the same).
    """
    log = _Log(events, boots)
    judgements = []
    for event in events:
        found = judge(event, (architectures or {}).get(str(event.get("pci_address"))))
        seen = log.seen[_identity(event)]
        past = boot_id is not None and event.get("boot_id") not in (None, boot_id)
        now = boot_id is None or boot_id in seen
        found.update(event=event, past=past, cured=None, was=found["severity"], boots=max(1, len(seen)))
        _repeated(found, sorted(log.order.index(boot) for boot in seen))
        _cured(found, now, log)
        _in_company(found, log)
        judgements.append(found)
    return judgements


def _identity(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what makes an event the same one in another boot; processes and links differ."""
    return tuple(event.get(key) for key in ("kind", "code", "sub", "pci_address", "device"))


def _place(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return event.get("pci_address"), event.get("boot_id")


class _Log:
    """What a log is asked for: in which boots the same was seen, and which Xids one GPU had in one boot.

    ``codes``, ``names`` (of processes, by code) and ``recoveries`` (Xid 154) are those of one GPU in one boot, gathered
    once: a flood is thousands of events of one GPU, and each of them asks.
    """

    def __init__(self, events: Sequence[Mapping[str, Any]], boots: Iterable[str]) -> None:
        self.order = list(dict.fromkeys([*boots, *(e["boot_id"] for e in events if e.get("boot_id"))]))
        self.seen: dict[tuple[Any, ...], set[str]] = {}
        self.loaded: dict[str | None, str] = {}
        self.codes: dict[tuple[Any, ...], set[Any]] = {}
        self.names: dict[tuple[Any, ...], set[str]] = {}
        self.recoveries: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for event in events:
            seen = self.seen.setdefault(_identity(event), set())
            if event.get("boot_id"):
                seen.add(event["boot_id"])
            if event.get("kind") == "driver_loaded" and event.get("time"):
                self.loaded[event.get("boot_id")] = event["time"]
            if event.get("kind") == "xid":
                self._add(event, _place(event), event.get("code"))

    def _add(self, event: Mapping[str, Any], place: tuple[Any, ...], code: Any) -> None:
        self.codes.setdefault(place, set()).add(code)
        if event.get("name"):
            self.names.setdefault((*place, code), set()).add(str(event["name"]))
        if code == RECOVERY_ACTION:
            self.recoveries.setdefault(place, []).append(event)

    def loaded_after(self, event: Mapping[str, Any]) -> bool:
        return bool(event.get("time")) and self.loaded.get(event.get("boot_id"), "") > event["time"]


def _repeated(found: Judgement, seen: list[int]) -> None:
    """Raise what came back after restarts: restarting it once more is no cure."""
    if found["severity"] not in ("reset", "reboot") or len(seen) < 2:
        return
    restarts = seen[-1] - seen[0]
    found["actions"] = [*found["actions"], *steps("run_field_diagnostics")]
    found["why"] += f". It came back after {restarts} restart{'s' if restarts > 1 else ''}"
    if restarts >= REBOOTS_BEFORE_ISOLATION:
        found.update(severity="isolate", was="isolate", source=ESCALATION)
        found["actions"] = steps("stop_workload", "drain", "inspect_hardware", "run_field_diagnostics", "replace")


def _cured(found: Judgement, now: bool, log: _Log) -> None:
    """Take back what a restart or reset has cured since."""
    if found["severity"] is None:
        return
    kind, cure = found["event"].get("kind"), None
    if found["past"] and not now and kind in _TOLD_AT_BOOT:
        cure = "the node was restarted since, and does not say it again"
    elif found["severity"] == "isolate":
        return
    elif found["past"] and found["boots"] < 2 and _restart_helps(found):
        cure = "the node was restarted since"
    elif kind in _TILL_LOADED and log.loaded_after(found["event"]):
        cure = "the driver was loaded since"
    elif not found["past"]:
        cure = _recovered(found, log)
    if cure is None:
        return
    lasting = kind in _LASTING
    found.update(severity="monitor" if lasting else None, actions=steps("watch") if lasting else [], cured=cure)
    found["why"] += f". {cure[0].upper()}{cure[1:]}"


def _restart_helps(found: Judgement) -> bool:
    """A restart cures what asks for a reset or restart, and ends applications; what wears out goes on wearing out."""
    event = found["event"]
    if found["severity"] in ("reset", "reboot"):
        return True
    if event.get("kind") == "xid":
        return bool(XIDS.get(event.get("code") or -1, {}).get("class") == "application")
    return event.get("kind") not in (*_LASTING, "sxid")


def _recovered(found: Judgement, log: _Log) -> str | None:
    """Say what the driver's recovery action became after this event, where that takes the event back."""
    event = found["event"]
    if event.get("kind") != "xid" or not event.get("time"):
        return None
    later = [
        other
        for other in log.recoveries.get(_place(event), [])
        if other.get("sub") not in (None, event.get("sub")) and (other.get("time") or "") > event["time"]
    ]
    if not later:
        return None
    last = max(later, key=lambda other: str(other["time"]))
    if event.get("code") == RECOVERY_ACTION or (last["sub"] == "none" and found["severity"] == "reset"):
        return f"the driver's recovery action has become {last['data'].get('to_label') or last['sub']} since"
    return None


def _in_company(found: Judgement, log: _Log) -> None:
    """Say what else happened on this GPU in this boot where that changes how an application's Xid is read."""
    event = found["event"]
    if event.get("kind") != "xid" or found["severity"] is None:
        return
    if event.get("code") == 45:
        told = event.get("data", {}).get("caused_by")
        first = [told] if told else sorted({int(code) for code in log.codes[_place(event)]} - {45, RECOVERY_ACTION})
        if first:
            found["why"] += f". It follows Xid {', '.join(map(str, first))}"
    elif event.get("code") in (13, 31):
        names = sorted(log.names.get((*_place(event), event["code"]), ()))
        if len(names) > 1:
            found["actions"] = [*found["actions"], *steps("run_field_diagnostics")]
            found["why"] += f". Several applications met it on this GPU: {', '.join(names)}"
