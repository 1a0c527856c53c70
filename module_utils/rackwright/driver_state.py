# SPDX-License-Identifier: Apache-2.0
"""Compare what is installed, built and loaded with the driver plan. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .boot_kernel import natural_key
from .dkms import module_states, parse_dkms
from .driver_names import members, upstream
from .packages import Installed

__all__ = ["Evidence", "foresee", "judge", "module_states", "parse_dkms", "skewed"]

UNLOADED = ("driver_not_loaded", "nouveau_in_use", "no_driver", "version_mismatch")
_UPDATE_WINDOWS = "Update the NVIDIA driver in Windows, then run wsl --shutdown; install no driver inside WSL2"


@dataclass
class Evidence:
    """What was seen on the node beside the GPUs.

    Attributes:
        skew: packages of another version, or half done.
        modules: state in DKMS for each kernel whose module is built here.
        build: why the module of a kernel with another state than ``installed`` is not built, where that is known.
        on_disk: which kernel would load the module of another version, or none.
        unsigned: which kernel's module is not signed by the enrolled key.
        installed_at: when the packages came, in seconds since the epoch.
        old_module: a module in the running kernel's initramfs, looked for only where an old one is loaded.
        nouveau: why nouveau drives the GPUs in spite of its blacklist.
        rejection: cause and next step in the kernel's log, where it refused the module.
        minimum: least driver version that the stack needs, also from Windows.
    """

    skew: list[str] = field(default_factory=list)
    modules: dict[str, str] = field(default_factory=dict)
    build: dict[str, str] = field(default_factory=dict)
    on_disk: str | None = None
    unsigned: str | None = None
    installed_at: float | None = None
    old_module: str | None = None
    nouveau: str | None = None
    rejection: tuple[str, str] | None = None
    minimum: str | None = None


def skewed(statuses: dict[str, Installed], sources: list[str], version: str) -> list[str]:
    """Return the installed packages of the driver that are not of the planned version, or not complete."""
    return sorted(
        f"{name} {package.version}{'' if package.complete else ' (half done)'}"
        for name, package in members(statuses, sources).items()
        if upstream(package.version) != version or not package.complete
    )


def judge(plan: dict[str, Any], gpu: dict[str, Any], host: dict[str, Any], seen: Evidence) -> dict[str, Any]:
    """Return ``status``, ``reason``, ``next_step`` and the reboot decision for one node."""
    if plan["action"] == "skip":
        return _windows(plan, gpu, seen) if host["wsl"] else _verdict("skipped", plan["reason"], None)
    version = plan["upstream"]
    for rule in (_packages, _modules):
        failed = rule(version, seen)
        if failed is not None:
            return failed
    return _loaded(version, plan, gpu, host, seen)


def _windows(plan: dict[str, Any], gpu: dict[str, Any], seen: Evidence) -> dict[str, Any]:
    """The driver is that of Windows: its version counts, and nothing else can be done about it here."""
    driver = gpu.get("driver") or {}
    version = driver.get("kernel_module_version") or driver.get("library_version")
    if seen.minimum is None:
        return _verdict("skipped", plan["reason"], None)
    if version is None:
        return _verdict(
            "failed",
            f"The driver of Windows does not tell its version: {gpu.get('cause') or 'NVML does not answer'}",
            gpu.get("next_step") or _UPDATE_WINDOWS,
        )
    if natural_key(version) < natural_key(seen.minimum):
        return _verdict(
            "failed",
            f"The NVIDIA driver of Windows is {version}, and this stack needs {seen.minimum} or newer.",
            _UPDATE_WINDOWS,
        )
    return _verdict("skipped", plan["reason"], None)


def _packages(version: str, seen: Evidence) -> dict[str, Any] | None:
    if not seen.skew:
        return None
    return _verdict(
        "failed",
        f"These packages are not {version}: {', '.join(seen.skew)}.",
        "Look for pins and holds in their way (apt-cache policy, dnf versionlock list).",
    )


def _modules(version: str, seen: Evidence) -> dict[str, Any] | None:
    """A kernel without its module is a failure before any reboot: the node may boot it."""
    for kernel, state in seen.modules.items():
        if state != "installed":
            why = seen.build.get(kernel)
            return _verdict(
                "failed",
                f"dkms says '{state}' for the module {version} on kernel {kernel}{f': {why}' if why else ''}.",
                f"Read /var/lib/dkms/nvidia*/{version}/build/make.log on the node; it was not rebooted.",
            )
    if seen.on_disk:
        return _verdict("failed", seen.on_disk, "Remove that module and run depmod -a; the node was not rebooted.")
    if seen.unsigned:
        return _verdict(
            "failed",
            seen.unsigned,
            f"Have DKMS build it again (dkms remove --all, then install, of version {version}); it was not rebooted.",
        )
    return None


def _loaded(
    version: str, plan: dict[str, Any], gpu: dict[str, Any], host: dict[str, Any], seen: Evidence
) -> dict[str, Any]:
    loaded = (gpu.get("driver") or {}).get("kernel_module_version")
    situation = gpu.get("situation")
    if host["container"] and not gpu.get("simulated") and not loaded:
        return _verdict("userland_only", plan["module_note"] or host["kernel"]["note"], None)
    waiting = may_wait(host, seen)
    if loaded and upstream(loaded) != version:
        reason = f"Kernel module {loaded} is loaded, {version} is installed."
        if waiting:
            return _verdict("reboot_required", reason, "Reboot the node.", reboot=True)
        where = f" The initramfs carries {seen.old_module}." if seen.old_module else ""
        cure = "Look for an old module in the initramfs (lsinitramfs, lsinitrd) or below /lib/modules."
        rebuild = "Rebuild the initramfs (update-initramfs -u -k all, dracut --force --regenerate-all) and reboot."
        return _verdict("failed", f"{reason} The node was rebooted since.{where}", rebuild if where else cure)
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
    return _not_loaded(gpu, situation, seen)


def may_wait(host: dict[str, Any], seen: Evidence) -> bool:
    """Whether a reboot can still load the driver: only one after the installation does."""
    booted = host["booted_at"]
    return booted is None or seen.installed_at is None or booted < seen.installed_at


def _not_loaded(gpu: dict[str, Any], situation: str | None, seen: Evidence) -> dict[str, Any]:
    """The node was booted since, and the driver is not there: why, as far as the node knows."""
    if situation == "nouveau_in_use" and seen.nouveau:
        reason = f"nouveau drives the GPUs after a boot that came after the driver: {seen.nouveau}."
        return _verdict("failed", reason, "Rebuild the initramfs, look at the kernel's command line, and reboot.")
    if situation in UNLOADED and seen.rejection:
        return _verdict("failed", f"{seen.rejection[0][0].upper()}{seen.rejection[0][1:]}.", seen.rejection[1])
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
