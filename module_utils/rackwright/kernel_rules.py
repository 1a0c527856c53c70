# SPDX-License-Identifier: Apache-2.0
"""What kernel events other than Xids mean, and the words of all actions. Pure; rules are rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

#: AWS's ladder: what a finding asks for, least first
LADDER = ("monitor", "reset", "reboot", "isolate")
ACTIONS = {
    "watch": "Watch whether it comes back or gets more.",
    "stop_workload": "Stop what runs on the GPU.",
    "drain": "Take the node out of service.",
    "drain_p2p": "Stop jobs that use peer-to-peer traffic over this GPU's links; others may go on.",
    "recover_imex": "Recover the IMEX domain the GPU belongs to; see NVIDIA's IMEX guide.",
    "reset_gpu": "Reset the GPU (nvidia-smi --gpu-reset); with NVSwitches all GPUs of the board together.",
    "restart_node": "Restart the node.",
    "restart_application": "Start the application again; other work on the GPU goes on.",
    "check_application": "Look for the fault in the application (compute-sanitizer), then on another GPU.",
    "look_for_first_xid": "Look at the first Xid on this GPU: this one follows another.",
    "check_row_remap": "Read the GPU's row remapping: pending takes effect with the reset, failed means replace.",
    "check_link": "Read the state and the error counters of the GPU's links.",
    "check_power_cables": "Check the auxiliary power cables and the power supply.",
    "reseat": "Power off, reseat the card and its cables.",
    "check_cooling": "Check fans, airflow and inlet temperature.",
    "check_driver": "Check that the installed, built and loaded driver are of one version.",
    "sign_module": "Sign the kernel module with a key this machine trusts, or switch Secure Boot off.",
    "blacklist_nouveau": "Keep nouveau from loading and restart the node.",
    "check_bios": "Enable Above 4G Decoding and resizable BAR in the firmware setup.",
    "check_memory": "Find the named module in the machine's event log and replace it.",
    "check_storage": "Read the health of the named device (smartctl, nvme smart-log) and replace it if it is worn.",
    "check_network": "Check cable, module and switch port.",
    "check_memory_limit": "Give the job more memory, or fewer or smaller jobs to the node.",
    "run_field_diagnostics": "Run dcgmi diag -r 3, or NVIDIA's field diagnostic.",
    "inspect_hardware": "Have the hardware inspected: restarting did not cure it.",
    "collect_bug_report": "Collect nvidia-bug-report.sh before anything is restarted.",
    "update_driver": "Update driver and firmware to a version that has the fix.",
    "contact_support": "Give the report to the vendor's support.",
    "replace": "Replace the part.",
}
_FABRIC_GUIDE = "NVIDIA Fabric Manager User Guide, appendix D: NVSwitch SXid errors"
# "Always fatal" codes of the guide's appendix D.6, in the form gpud's sxid table has them
_ALWAYS_FATAL = frozenset({10003, 12020, 22003, 22011, *range(23001, 23018)})
# "This SXid can be safely ignored", appendix D.4: healthy HGX H100 boards print dozens at every start of the driver
_IGNORED = frozenset({22013})
FLAPS = 5
FLAPS_SOURCE = "Azure/azurehpc-health-checks: 5 flaps of a link in 24 hours"

Judgement = dict[str, Any]
Rule = tuple[Optional[str], tuple[str, ...], str, str, str]


def steps(*words: str) -> list[dict[str, str]]:
    """Return these actions, each with its sentence."""
    return [{"action": word, "text": ACTIONS[word]} for word in words]


def result(severity: str | None, actions: list[dict[str, str]], label: str, source: str, why: str) -> Judgement:
    return {"severity": severity, "actions": actions, "label": label, "source": source, "why": why}


def judge_sxid(event: Mapping[str, Any]) -> Judgement:
    """Judge an NVSwitch error by the driver's own word: fatal or non-fatal."""
    label = f"SXid {event.get('code')}"
    if event.get("sub") == "fatal" and event.get("code") in _ALWAYS_FATAL:
        cure = ("stop_workload", "drain", "restart_node", "contact_support")
        why = "this NVSwitch error is always fatal to the whole fabric: the host has to be restarted"
        return result("reboot", steps(*cure), label, f"{_FABRIC_GUIDE}, D.6 (codes as in gpud)", why)
    if event.get("sub") == "fatal":
        words = ("stop_workload", "drain", "reset_gpu", "restart_node", "check_link", "contact_support")
        why = "a fatal NVSwitch error stops the fabric until all GPUs and switches of the board are reset"
        return result("reset", steps(*words), label, _FABRIC_GUIDE, why)
    if event.get("sub") == "nonfatal" and event.get("code") in _IGNORED:
        return result(None, [], label, f"{_FABRIC_GUIDE}, D.4", "NVIDIA says that it can be ignored")
    told = event.get("sub") == "nonfatal"
    why = "the driver calls it non-fatal" if told else "the message does not say whether it is fatal"
    return result("monitor", steps("watch", "check_link"), label, _FABRIC_GUIDE, why)


def judge_other(event: Mapping[str, Any]) -> Judgement:
    """Judge an event that is no Xid and no SXid by its kind and sub."""
    kind, sub = str(event.get("kind")), event.get("sub")
    rule = RULES.get((kind, sub)) or RULES.get((kind, None))
    if rule is None:
        return result("monitor", steps("watch"), kind, "kernel_rules", "there is no rule for this kind of event")
    severity, words, label, source, why = rule
    if (kind, sub) == ("mlx5", "link_down") and (event.get("count") or 1) < FLAPS:
        return result(None, [], label, FLAPS_SOURCE, f"fewer than {FLAPS} times: links go down when ports are set up")
    return result(severity, steps(*words), label, source, why)


_GPUD = "leptonai/gpud, components/{}"
_IMBUE = "imbue-ai/cluster-health, health_checks.py"
_DRIVER = "NVIDIA driver, kernel module"
_KERNEL = "Linux kernel: {}"

# (kind, sub) -> severity, actions, label, source, why; sub None is the rule for every other sub of that kind.
# Severities of this table are this project's reading: what no GPU can work with asks for a restart, what wears out is
# watched, what a restart cannot mend is isolated.
RULES: dict[tuple[str, str | None], Rule] = {
    ("fallen_off_bus", None): (
        "reboot",
        ("stop_workload", "drain", "restart_node", "reseat", "run_field_diagnostics"),
        "GPU has fallen off the bus",
        f"{_DRIVER}; as Xid 79, which is not always printed beside it (NVIDIA/NVSentinel issue 155)",
        "the driver does not reach the GPU over PCIe any more",
    ),
    ("rm_init_failed", None): (
        "reboot",
        ("drain", "collect_bug_report", "restart_node", "check_driver", "contact_support"),
        "GPU initialisation failed",
        f"{_DRIVER}: RmInitAdapter, rm_init_adapter, probe routine",
        "the driver could not bring the GPU up: nothing runs on it",
    ),
    ("bar_invalid", None): (
        "isolate",
        ("check_bios", "restart_node", "reseat"),
        "GPU has no usable PCIe memory region",
        f"{_DRIVER}: PCI I/O region is invalid",
        "the firmware gave the GPU's memory no address; a restart alone does not change that",
    ),
    ("gpu_unsupported", None): (
        "monitor",
        ("update_driver",),
        "GPU is not supported by this driver",
        _DRIVER,
        "the installed driver branch or module flavour does not know this GPU",
    ),
    ("api_mismatch", None): (
        "monitor",
        ("check_driver", "check_application"),
        "a program and the driver are of different versions",
        f"{_DRIVER}: API mismatch",
        "a program used another driver version than the loaded module has: the node's library, or one in a container",
    ),
    ("gsp", None): (
        "monitor",
        ("watch", "collect_bug_report", "update_driver"),
        "GSP firmware",
        f"{_DRIVER}; Xid 119 and 120 are the ones that ask for a reset",
        "the GPU's system processor did not answer or failed",
    ),
    ("gsp", "firmware"): (
        "reboot",
        ("drain", "collect_bug_report", "restart_node", "update_driver"),
        "GSP firmware did not start",
        _DRIVER,
        "without its firmware the GPU does not come up",
    ),
    ("driver_loaded", None): (None, (), "the driver was loaded", _DRIVER, "what is said of it later counts from here"),
    ("nvlink", None): ("monitor", ("check_link",), "NVLink", _DRIVER, "the driver reports a fault of a link"),
    ("peermem", None): (
        "monitor",
        ("watch", "restart_application"),
        "nvidia-peermem has an invalid context",
        _GPUD.format("accelerator/nvidia/peermem"),
        "GPUDirect RDMA met a context that is gone; often means GPU or network trouble",
    ),
    ("nouveau", None): (
        "reboot",
        ("blacklist_nouveau", "restart_node"),
        "nouveau has a GPU",
        "DCGM diagnostic, denylist",
        "NVIDIA's driver cannot use a GPU that nouveau holds",
    ),
    ("module_rejected", None): (
        "monitor",
        ("sign_module", "check_driver"),
        "the kernel rejected a module",
        _KERNEL.format("module signature and version checks"),
        "a kernel module was not loaded",
    ),
    ("aer", "corrected"): (
        "monitor",
        ("watch", "reseat"),
        "PCIe errors, corrected",
        _KERNEL.format("PCIe advanced error reporting"),
        "the link repeats what it loses: a few are harmless, many point to slot, riser or card",
    ),
    ("aer", "nonfatal"): (
        "monitor",
        ("watch", "run_field_diagnostics", "reseat"),
        "PCIe errors, uncorrected",
        _KERNEL.format("PCIe advanced error reporting"),
        "a transaction was lost; the link itself still works",
    ),
    ("aer", "fatal"): (
        "reboot",
        ("stop_workload", "drain", "restart_node", "reseat", "run_field_diagnostics"),
        "PCIe errors, fatal",
        _KERNEL.format("PCIe advanced error reporting"),
        "the link is not reliable any more",
    ),
    ("aer", "recovery_failed"): (
        "reboot",
        ("stop_workload", "drain", "restart_node", "reseat"),
        "PCIe device did not recover",
        _KERNEL.format("PCIe advanced error reporting"),
        "the kernel could not bring the device back after an error",
    ),
    ("pcie_limited", None): (
        "monitor",
        ("check_link", "reseat", "check_bios"),
        "PCIe link is narrower or slower than the device",
        _IMBUE,
        "at boot the slowest link on the way gives less than the device can use",
    ),
    ("soft_lockup", None): (
        "monitor",
        ("watch", "restart_node"),
        "a processor was stuck",
        _GPUD.format("cpu"),
        "the kernel did not get a processor back for many seconds",
    ),
    ("soft_lockup", "hard"): (
        "reboot",
        ("drain", "restart_node"),
        "a processor was stuck with interrupts off",
        _KERNEL.format("hard lockup detector"),
        "the kernel lost a processor",
    ),
    ("hung_task", None): (
        "monitor",
        ("watch", "check_storage", "restart_node"),
        "a task was blocked for minutes",
        _GPUD.format("cpu"),
        "a task waited uninterruptibly: usually for storage, network file systems or a driver",
    ),
    ("oom", None): (
        "monitor",
        ("check_memory_limit",),
        "the kernel killed a process for want of memory",
        _GPUD.format("memory"),
        "the node ran out of memory",
    ),
    ("oom", "cgroup"): (
        None,
        (),
        "a process was killed at the memory limit of its job",
        _KERNEL.format("memory cgroups"),
        "the limit was set on a group of processes; the node itself has memory",
    ),
    ("mce", None): (
        "monitor",
        ("watch", "check_memory"),
        "hardware error reported by the processor",
        _KERNEL.format("machine check"),
        "the machine's own event log says more",
    ),
    ("mce", "thermal"): (
        "monitor",
        ("check_cooling",),
        "a processor was too hot",
        _KERNEL.format("machine check, thermal"),
        "the processor runs slower until it has cooled down",
    ),
    ("mce", "uncorrected"): (
        "reboot",
        ("drain", "restart_node", "check_memory"),
        "memory error that could not be corrected",
        _KERNEL.format("machine check"),
        "data was lost",
    ),
    ("mce", "fatal"): (
        "reboot",
        ("drain", "restart_node", "check_memory"),
        "fatal hardware error",
        _KERNEL.format("APEI hardware error source"),
        "the firmware reported an error that stopped the machine",
    ),
    ("edac", "corrected"): (
        "monitor",
        ("watch", "check_memory"),
        "host memory errors, corrected",
        _KERNEL.format("EDAC"),
        "one module that gets more of them wears out",
    ),
    ("edac", "uncorrected"): (
        "reboot",
        ("drain", "restart_node", "check_memory"),
        "host memory error that could not be corrected",
        _KERNEL.format("EDAC"),
        "data was lost in host memory",
    ),
    ("kernel_oops", None): (
        "reboot",
        ("collect_bug_report", "drain", "restart_node"),
        "the kernel met an error of its own",
        _KERNEL.format("oops"),
        "after an oops the kernel's state cannot be trusted",
    ),
    ("io_error", None): (
        "monitor",
        ("check_storage",),
        "storage errors",
        _GPUD.format("disk"),
        "a device did not read or write what it was asked to",
    ),
    ("readonly_remount", None): (
        "isolate",
        ("drain", "check_storage", "restart_node"),
        "a file system went read-only",
        _GPUD.format("disk"),
        "the kernel stopped writing after an error; jobs and the system lose what they write",
    ),
    ("md_fail", None): (
        "isolate",
        ("drain", "check_storage", "replace"),
        "a disk of a RAID array failed",
        _GPUD.format("disk"),
        "the array is degraded or gone",
    ),
    ("mlx5", "power"): (
        "monitor",
        ("check_power_cables", "reseat"),
        "network adapter gets too little power",
        _GPUD.format("accelerator/nvidia/infiniband"),
        "the slot does not give the adapter the power it asks for",
    ),
    ("mlx5", "temperature"): (
        "monitor",
        ("check_cooling", "check_network"),
        "network adapter or its module is too hot",
        _GPUD.format("accelerator/nvidia/infiniband"),
        "it slows down or switches itself off",
    ),
    ("mlx5", "health"): (
        "reboot",
        ("drain", "restart_node", "contact_support"),
        "network adapter's firmware failed",
        _KERNEL.format("mlx5 health"),
        "the adapter does not work until it is reset",
    ),
    ("mlx5", "link_up"): (None, (), "network link came up", _KERNEL.format("mlx5"), "a link that comes up is no fault"),
    ("mlx5", None): (
        "monitor",
        ("watch", "check_network"),
        "network link or module",
        _KERNEL.format("mlx5"),
        "a link went down, or its cable or module reports an error",
    ),
    ("suppressed", None): (
        None,
        (),
        "the kernel left out messages",
        _KERNEL.format("printk rate limit"),
        "more of the same was not printed: counts are lower bounds",
    ),
}
