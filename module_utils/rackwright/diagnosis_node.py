# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with driver, kernel and GPUs of a node that nobody may have set up with care. Pure.

A rule adds findings, notes what it could not measure, or is silent: then what it looks for is not there.
"""

from __future__ import annotations

from typing import Any

from .diagnosis_record import ERROR, INFO, WARNING, Report

_FACTS = "gpu_facts"
#: situations that another rule explains better
_EXPLAINED = ("ready", "version_mismatch", "nouveau_in_use")
_GIB = 1024**3


def driver_library_mismatch(report: Report) -> None:
    """Libraries of one driver version, kernel module of another."""
    e = report.evidence
    if e.situation is None:
        report.unknown("driver-library-mismatch", e.name, e.why("gpu"))
        return
    if e.situation != "version_mismatch":
        return
    driver = e.gpu["driver"]
    module, library = driver.get("kernel_module_version"), driver.get("library_version")
    report.add(
        "driver-library-mismatch",
        e.name,
        ERROR,
        observed=f"kernel module {module}, library {library}",
        expected="the same version",
        cause=f"{e.gpu['cause']} {_sentence(report.pitfall('driver-library-mismatch').get('cause'))}".strip(),
        steps=report.fixes("driver-library-mismatch"),
        source=report.evidence_of("driver-library-mismatch"),
    )


def several_driver_libraries(report: Report) -> None:
    """A second libcuda.so of another version than the loaded module: whichever is found first decides (error 803)."""
    e = report.evidence
    if not e.frameworks:
        report.unknown("several-driver-libraries", e.name, e.why("frameworks"))
        return
    libraries = [entry for entry in e.system.get("driver_libraries") or [] if entry["kind"] == "driver"]
    if e.wsl or e.simulated or e.situation == "version_mismatch" or not libraries:
        return
    module = (e.gpu.get("driver") or {}).get("kernel_module_version")
    if module is None:
        report.unknown("several-driver-libraries", e.name, "the version of the loaded kernel module is not known")
        return
    others = [entry for entry in libraries if entry["version"] != module]
    if others:
        report.add(
            "several-driver-libraries",
            e.name,
            WARNING,
            observed=", ".join(f"{entry['path']} ({entry['version']})" for entry in others),
            expected=f"libcuda.so of {module} only",
            cause=(
                f"The kernel module is {module} and a CUDA driver library of another version is installed too:"
                " a program that finds it first fails with error 803."
            ),
            steps=[
                "Find out which package brought it (dpkg -S or rpm -qf) and remove that package",
                "Check LD_LIBRARY_PATH and /etc/ld.so.conf.d for its directory",
            ],
            source=_FACTS,
        )


def forward_compatibility(report: Report) -> None:
    """cuda-compat on cards that do not support it (error 804)."""
    e = report.evidence
    if not e.frameworks:
        report.unknown("forward-compatibility", e.name, e.why("frameworks"))
        return
    compat = [entry for entry in e.system.get("driver_libraries") or [] if entry["kind"] == "compat"]
    cards = sorted({str(device["name"]) for device in e.devices if "GeForce" in str(device.get("name"))})
    if not compat or not cards:
        return
    table = report.tables.cuda.get("forward_compatibility") or {}
    report.add(
        "forward-compatibility",
        e.name,
        WARNING,
        observed=", ".join(entry["path"] for entry in compat),
        expected=f"forward compatibility only on {table.get('only_on')}",
        cause=f"A program led to this library fails on {', '.join(cards)}: {table.get('failure_on_geforce')}.",
        steps=[
            "Take the compat directory out of LD_LIBRARY_PATH and ld.so.conf.d, or remove the package",
            "Update the driver to one that knows the CUDA version instead",
        ],
        source=str(table.get("source")),
    )


def fabric_manager(report: Report) -> None:
    """NVSwitches that nobody has set up (error 802)."""
    e = report.evidence
    if not e.gpu:
        report.unknown("fabric-manager", e.name, e.why("gpu"))
        return
    states = {str((device.get("fabric") or {}).get("state")) for device in e.devices}
    waiting = sorted(states & {"not_started", "in_progress"})
    if waiting:
        _fabric_finding(report, f"fabric state {', '.join(waiting)}", "in_progress" in waiting)
        return
    switches = (e.gpu.get("topology") or {}).get("nvswitch_count")
    if "completed" in states or switches == 0 or e.simulated or not e.has_gpu:
        return
    if switches is None:
        report.unknown("fabric-manager", e.name, "whether the node has NVSwitches is not known")
    elif not e.frameworks:
        report.unknown("fabric-manager", e.name, e.why("frameworks"))
    elif not e.system["fabric_manager"]["running"]:
        there = "is installed" if e.system["fabric_manager"]["installed"] else "is not installed"
        _fabric_finding(report, f"{switches} NVSwitches, fabric manager {there} and does not run", False)


def _fabric_finding(report: Report, observed: str, in_progress: bool) -> None:
    e = report.evidence
    version = e.driver or "the driver's version"
    steps = report.fixes(
        "fabricmanager-version", f"Install nvidia-fabricmanager in exactly version {version} and start it"
    )
    if in_progress:
        steps += report.fixes("nvlsm-missing")
    report.add(
        "fabric-manager",
        e.name,
        ERROR,
        observed=observed,
        expected=f"fabric manager {version} running, fabric state completed",
        cause=(
            "NVSwitches that are not set up make every CUDA program fail with error 802 (system not yet initialized):"
            f" {report.pitfall('fabricmanager-version').get('cause')}."
        ),
        steps=[*steps, "Read journalctl -u nvidia-fabricmanager"],
        source=report.evidence_of("fabricmanager-version"),
    )


def nouveau(report: Report) -> None:
    """The kernel's own driver holds the GPUs, or is loaded beside NVIDIA's."""
    e = report.evidence
    if not e.gpu:
        report.unknown("nouveau", e.name, e.why("gpu"))
        return
    loaded = (e.gpu.get("driver") or {}).get("nouveau_loaded")
    if e.situation != "nouveau_in_use" and not loaded:
        if loaded is None and e.has_gpu:
            report.unknown("nouveau", e.name, "the list of loaded kernel modules cannot be read")
        return
    holds = e.situation == "nouveau_in_use"
    report.add(
        "nouveau",
        e.name,
        ERROR if holds else WARNING,
        observed="nouveau holds the GPUs" if holds else "nouveau is loaded",
        expected="nouveau blacklisted",
        cause=str(e.gpu["cause"])
        if holds
        else "nouveau is loaded and takes a GPU whenever NVIDIA's driver is not first.",
        steps=[*report.fixes("nouveau"), "Install the NVIDIA driver where there is none, and reboot"],
        source=report.evidence_of("nouveau"),
    )


def reboot_pending(report: Report) -> None:
    """Installed is not what runs."""
    e = report.evidence
    if not e.host:
        report.unknown("reboot-pending", e.name, e.why("host"))
        return
    reboot = e.host["reboot"]
    if reboot["required"]:
        report.add(
            "reboot-pending",
            e.name,
            WARNING,
            observed=reboot["reason"],
            expected="the newest installed kernel and driver running",
            cause="What was installed since the last boot does not take effect before the next one.",
            steps=["Reboot when no job runs"],
            source="host_state",
        )


def secure_boot(report: Report) -> None:
    """A module that is installed, is not loaded, and may not be."""
    e = report.evidence
    installed = (e.gpu.get("driver") or {}).get("installed_module_version")
    if not e.gpu:
        report.unknown("secure-boot", e.name, e.why("gpu"))
    if e.situation != "driver_not_loaded" or not installed:
        return
    enabled = e.node.get("secure_boot")
    if enabled is None:
        report.unknown("secure-boot", e.name, str(e.node.get("secure_boot_reason") or e.why("node")))
    elif enabled:
        report.add(
            "secure-boot",
            e.name,
            ERROR,
            observed=f"Secure Boot on, kernel module {installed} installed and not loaded",
            expected="a module signed with a key this machine trusts",
            cause=(
                'Most likely the kernel refused the module ("Key was rejected by service"): Secure Boot is on and no'
                " trusted key signed it."
            ),
            steps=report.fixes("secure-boot", "Confirm it: sudo modprobe nvidia, and sudo dmesg | tail"),
            source=report.evidence_of("secure-boot"),
        )


def wsl_linux_driver(report: Report) -> None:
    """Inside WSL2 the driver is the one of Windows, and a second one breaks it."""
    e = report.evidence
    if not e.wsl:
        return
    if not e.frameworks:
        report.unknown("wsl-linux-driver", e.name, e.why("frameworks"))
        return
    found = [entry["path"] for entry in e.system.get("driver_libraries") or [] if entry["kind"] == "driver"]
    if found:
        report.add(
            "wsl-linux-driver",
            e.name,
            ERROR,
            observed=", ".join(found),
            expected="no CUDA driver library but the one of Windows in /usr/lib/wsl/lib",
            cause="A Linux driver is installed inside WSL2 and hides the one of Windows.",
            steps=report.fixes(
                "wsl-driver",
                "Remove the packages nvidia-*, libnvidia-* and cuda-drivers* inside WSL2, and keep cuda-toolkit-*",
                "Run wsl --shutdown in Windows and start again",
            ),
            source=report.evidence_of("wsl-driver"),
        )


def gpu_situation(report: Report) -> None:
    """Any other reason why GPUs cannot be used, as gpu_facts judged it."""
    e = report.evidence
    if e.situation is None:
        report.unknown("gpu-situation", e.name, e.why("gpu"))
        return
    works = e.situation == "wsl2" and e.gpu.get("count")
    if e.situation in _EXPLAINED or works:
        return
    report.add(
        "gpu-situation",
        e.name,
        INFO if e.situation == "no_gpu" else ERROR,
        observed=e.situation,
        expected="ready",
        cause=str(e.gpu["cause"]),
        steps=[str(e.gpu["next_step"])],
        source=_FACTS,
    )


def gpu_memory_used(report: Report) -> None:
    """GPUs whose memory is mostly taken by programs that run now."""
    e = report.evidence
    if not e.gpu:
        report.unknown("gpu-memory-used", e.name, e.why("gpu"))
    for device in e.devices:
        memory = device.get("memory") or {}
        total, used = memory.get("total_bytes"), memory.get("used_bytes")
        subject = f"{e.name}, GPU {device.get('index')}"
        if total is None or used is None:
            if e.situation == "ready":
                report.unknown("gpu-memory-used", subject, "the GPU does not say how much memory is used")
        elif used > total / 2 and memory.get("type") != "unified":
            report.add(
                "gpu-memory-used",
                subject,
                INFO,
                observed=f"{used / _GIB:.1f} of {total / _GIB:.1f} GiB used",
                expected="free memory for the next program",
                cause=_holders(device.get("processes")),
                steps=["End what is not needed, or count with what is left"],
                source=_FACTS,
            )


def _holders(processes: Any) -> str:
    if not processes:
        return "Programs that run now hold it; which ones cannot be seen from here."
    names = sorted({str(process.get("name") or f"process {process.get('pid')}") for process in processes})
    return f"{len(processes)} running program(s) hold it: {', '.join(names[:5])}."


def _sentence(text: str | None) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


RULES = (
    driver_library_mismatch,
    nouveau,
    secure_boot,
    wsl_linux_driver,
    gpu_situation,
    fabric_manager,
    several_driver_libraries,
    forward_compatibility,
    reboot_pending,
    gpu_memory_used,
)
