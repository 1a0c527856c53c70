# SPDX-License-Identifier: Apache-2.0
"""Compare what is installed, built and loaded with the driver plan. Pure."""

from __future__ import annotations

import re
from typing import Any

from .driver_names import members, upstream
from .packages import Installed

# `nvidia-current/535.309.01, 6.1.0-56-amd64, x86_64: installed`; dkms before 3.0 has a comma for the slash
DKMS = re.compile(
    r"^(?P<module>[^,/\s]+)[/,]\s*(?P<version>[^,:\s]+)(?:,\s*(?P<kernel>[^,\s]+),\s*[^,:\s]+)?:\s*(?P<state>\w+)"
)
UNLOADED = ("driver_not_loaded", "nouveau_in_use", "no_driver", "version_mismatch")


def parse_dkms(text: str) -> list[dict[str, str | None]]:
    """Read ``dkms status``; kernel is None for a module that is only added."""
    rows = []
    for line in text.splitlines():
        match = DKMS.match(line.strip())
        if match:
            rows.append(match.groupdict())
    return rows


def module_states(rows: list[dict[str, str | None]], kernels: list[str], version: str) -> dict[str, str]:
    """Return for each kernel the DKMS state of the NVIDIA module of this version, ``missing`` when there is none."""
    ours = [row for row in rows if (row["module"] or "").startswith("nvidia") and row["version"] == version]
    states = {}
    for kernel in kernels:
        own = [row["state"] or "missing" for row in ours if row["kernel"] == kernel]
        states[kernel] = own[0] if own else ("added" if ours else "missing")
    return states


def skewed(statuses: dict[str, Installed], sources: list[str], version: str) -> list[str]:
    """Return the installed packages of the driver that are not of the planned version, or not complete."""
    return sorted(
        f"{name} {package.version}{'' if package.complete else ' (half done)'}"
        for name, package in members(statuses, sources).items()
        if upstream(package.version) != version or not package.complete
    )


def judge(
    plan: dict[str, Any],
    gpu: dict[str, Any],
    host: dict[str, Any],
    skew: list[str],
    modules: dict[str, str],
    installed_at: float | None,
) -> dict[str, Any]:
    """Return ``status``, ``reason``, ``next_step`` and the reboot decision for one node."""
    if plan["action"] == "skip":
        return _verdict("skipped", plan["reason"], None)
    version = plan["upstream"]
    if skew:
        return _verdict(
            "failed",
            f"These packages are not {version}: {', '.join(skew)}.",
            "Look for pins and holds in their way (apt-cache policy).",
        )
    for kernel, state in modules.items():
        if state != "installed":
            log = "/var/lib/dkms/nvidia*/*/build/make.log"
            return _verdict(
                "failed",
                f"dkms says '{state}' for the module {version} on kernel {kernel}.",
                f"Read {log} on the node.",
            )
    return _loaded(version, plan, gpu, host, installed_at)


def _loaded(
    version: str, plan: dict[str, Any], gpu: dict[str, Any], host: dict[str, Any], installed_at: float | None
) -> dict[str, Any]:
    loaded = (gpu.get("driver") or {}).get("kernel_module_version")
    situation = gpu.get("situation")
    if host["container"] and not gpu.get("simulated") and not loaded:
        return _verdict("userland_only", plan["module_note"] or host["kernel"]["note"], None)
    booted = host["booted_at"]
    # only a boot that lies behind the installation can still load it: a second one would change nothing
    waiting = booted is None or installed_at is None or booted < installed_at
    if loaded and upstream(loaded) != version:
        reason = f"Kernel module {loaded} is loaded, {version} is installed."
        if waiting:
            return _verdict("reboot_required", reason, "Reboot the node.", reboot=True)
        return _verdict(
            "failed",
            f"{reason} The node was rebooted since.",
            "Look for an old module in the initramfs (lsinitramfs) or below /lib/modules.",
        )
    if situation == "ready":
        return _verdict("ready", None, None)
    if situation in UNLOADED and waiting:
        return _verdict(
            "reboot_required",
            f"The driver {version} is installed and not loaded yet.",
            "Reboot the node.",
            reboot=True,
        )
    if gpu.get("pci_count") == 0 and not gpu.get("count"):
        return _verdict("installed_without_gpu", "There is no NVIDIA GPU on the PCI bus of this node.", None)
    return _verdict("failed", gpu.get("cause") or f"The GPU situation is {situation}.", gpu.get("next_step"))


def _verdict(status: str, reason: str | None, next_step: str | None, reboot: bool = False) -> dict[str, Any]:
    return {
        "status": status,
        "reason": reason,
        "next_step": next_step,
        "reboot": {"required": reboot, "reason": reason if reboot else None},
    }


def foresee(plan: dict[str, Any], gpu: dict[str, Any]) -> dict[str, Any]:
    """Return what a run would lead to, for check mode: the packages are not there yet, so nothing can be compared."""
    version = plan["upstream"]
    moves = f"from {upstream(plan['installed'])} to {version}" if plan["installed"] else version
    reason = f"Would install the driver {moves} ({len(plan['pending'])} packages)."
    record = _verdict("would_install", reason, None)
    same = plan["installed"] and upstream(plan["installed"]) == version
    if not same and gpu.get("situation") != "container_without_devices":
        record["reboot"] = {"required": True, "reason": f"Would reboot to load the driver {version}."}
    return record
