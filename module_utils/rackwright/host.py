# SPDX-License-Identifier: Apache-2.0
"""What kind of machine this is, read from files only: distribution, container or not, kernels, boot time.

Every function takes the root of the file system, so tests feed it a directory. Nothing here runs a program.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from .boot_kernel import kernel_that_boots, natural_key

FAMILIES = {
    "debian": "debian",
    "ubuntu": "debian",
    "rhel": "redhat",
    "rocky": "redhat",
    "almalinux": "redhat",
    "centos": "redhat",
}
TIME_DAEMONS = {
    "chrony": ("usr/lib/systemd/system/chrony.service", "usr/lib/systemd/system/chronyd.service"),
    "ntpsec": ("usr/lib/systemd/system/ntpsec.service",),
    "systemd-timesyncd": ("usr/lib/systemd/system/systemd-timesyncd.service",),
}
INITRAMFS_TOOLS = (
    ("usr/sbin/update-initramfs", ["update-initramfs", "-u", "-k", "all"]),
    ("usr/bin/dracut", ["dracut", "--force", "--regenerate-all"]),
)
CAP_SYS_RESOURCE = 24


def read_text(path: Path) -> str:
    """Return the text of a file, empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def parse_os_release(text: str) -> dict[str, str]:
    """Return the assignments of an os-release file."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith("#"):
            values[name] = value.strip().strip("\"'")
    return values


def platform_of(root: Path) -> dict[str, Any]:
    """Name the distribution: ``key`` is what the role tables are written in (``debian 12``, ``ubuntu 24.04``)."""
    values = parse_os_release(read_text(root / "etc/os-release"))
    distribution = values.get("ID", "linux").lower()
    version = values.get("VERSION_ID", "")
    major = version.split(".")[0]
    return {
        "id": distribution,
        "version": version,
        "major": major,
        "codename": values.get("VERSION_CODENAME", ""),
        "name": values.get("PRETTY_NAME", distribution),
        "key": f"{distribution} {version if distribution == 'ubuntu' else major}".strip(),
        "family": FAMILIES.get(distribution, "other"),
        "machine": os.uname().machine,
    }


def container_of(root: Path) -> str | None:
    """Return the kind of container this is, or None on a machine with a kernel of its own."""
    named = read_text(root / "run/systemd/container").strip()
    if named:
        return named
    if (root / "run/.containerenv").exists():
        return "podman"
    if (root / ".dockerenv").exists():
        return "docker"
    for entry in read_text(root / "proc/1/environ").split("\0"):
        if entry.startswith("container="):
            return entry.partition("=")[2]
    return None


def kernels_of(root: Path, container: str | None, running: str) -> dict[str, Any]:
    """List installed kernels, the ones whose headers are there, and the one that boots next.

    ``images`` are the kernels whose image lies in the file system, also in a container, where none of them is
    ``installed``: an image of a machine is built there.
    """
    modules = root / "lib/modules"
    names = sorted((path.name for path in modules.iterdir()), key=natural_key) if modules.is_dir() else []
    images = [
        name for name in names if (root / "boot" / f"vmlinuz-{name}").exists() or (modules / name / "vmlinuz").exists()
    ]
    # only the headers of one kernel are configured: the part that several kernels share (`-common`) builds nothing
    headers = {
        path.name[len("linux-headers-") :]
        for path in (root / "usr/src").glob("linux-headers-*")
        if (path / ".config").exists()
    }
    headers |= {path.name for path in (root / "usr/src/kernels").glob("*") if (path / ".config").exists()}
    boots, source = kernel_that_boots(root, images)
    kernels: dict[str, Any] = {
        "running": running,
        "installed": images,
        "images": images,
        "headers": sorted(headers, key=natural_key),
        "boots": boots,
        "boots_reason": source,
        "note": None,
    }
    if container:
        note = f"The kernel {running} belongs to the host of this {container} container; no kernel is touched here."
        kernels.update(installed=[], boots=None, boots_reason=note, note=note)
    return kernels


def limits_of(root: Path) -> dict[str, Any]:
    """Return the hard limits of this process and whether it may raise them."""
    import resource

    status = read_text(root / "proc/self/status")
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    nofile, memlock = resource.getrlimit(resource.RLIMIT_NOFILE)[1], resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    return {
        "may_raise": bool(int(effective, 16) >> CAP_SYS_RESOURCE & 1),
        "nofile": nofile if nofile != resource.RLIM_INFINITY else None,
        "memlock_kib": memlock // 1024 if memlock != resource.RLIM_INFINITY else None,
    }


def booted_at(root: Path, ticks_per_second: int) -> float | None:
    """Return when process 1 started, in seconds since the epoch: right on machines and in containers alike."""
    boot = re.search(r"^btime (\d+)", read_text(root / "proc/stat"), re.MULTILINE)
    after_name = read_text(root / "proc/1/stat").rpartition(")")[2].split()
    if not boot or len(after_name) < 20:
        return None
    return int(boot.group(1)) + int(after_name[19]) / ticks_per_second


def initramfs_of(root: Path, container: str | None, installed: list[str]) -> dict[str, Any]:
    """Return the command that rebuilds every initramfs, or why there is nothing to rebuild."""
    if container:
        return {"command": None, "note": "No initramfs in a container: it belongs to the host."}
    for program, command in INITRAMFS_TOOLS:
        if (root / program).exists():
            return (
                {"command": command, "note": None}
                if installed
                else {"command": None, "note": "No kernel is installed."}
            )
    return {"command": None, "note": "Neither update-initramfs nor dracut is installed."}


def reboot_of(root: Path, container: str | None, kernels: dict[str, Any], booted: float | None) -> dict[str, Any]:
    """Say whether the machine waits for a reboot, and why.

    A newer kernel that was there at the last boot and was not taken is the boot loader's choice: rebooting at every run
    would not change it, so it is a note on the kernels instead.
    """
    if container:
        return {"required": False, "reason": None}
    if (root / "run/reboot-required").exists():
        packages = sorted(set(read_text(root / "run/reboot-required.pkgs").split()))
        return {
            "required": True,
            "reason": f"The distribution asks for a reboot after an update of {', '.join(packages) or 'a package'}.",
        }
    newest = kernels["installed"][-1] if kernels["installed"] else kernels["running"]
    if natural_key(newest) <= natural_key(kernels["running"]):
        return {"required": False, "reason": None}
    reason = f"Kernel {newest} is installed, {kernels['running']} is running."
    if booted is not None and _installed_at(root, newest) < booted:
        kernels["note"] = f"{reason} The node was booted since: its boot loader prefers the older one."
        return {"required": False, "reason": None}
    return {"required": True, "reason": reason}


def _installed_at(root: Path, kernel: str) -> float:
    """When the kernel came to this machine: the change time, since packages keep the time of their build as mtime."""
    image = root / "boot" / f"vmlinuz-{kernel}"
    return (image if image.exists() else root / "lib/modules" / kernel / "vmlinuz").stat().st_ctime


def inspect_host(root: Path = Path("/"), running: str | None = None) -> dict[str, Any]:
    """Return everything the host roles decide by, in one record."""
    container = container_of(root)
    release = running if running is not None else os.uname().release
    kernels = kernels_of(root, container, release)
    booted = booted_at(root, os.sysconf("SC_CLK_TCK"))
    return {
        "schema": 1,
        "hostname": os.uname().nodename,
        "platform": platform_of(root),
        "container": container,
        "wsl": "microsoft" in release.lower(),
        "kernel": kernels,
        "initramfs": initramfs_of(root, container, kernels["installed"]),
        "time_daemons": [name for name, units in TIME_DAEMONS.items() if any((root / unit).exists() for unit in units)],
        "limits": limits_of(root),
        "booted_at": booted,
        "reboot": reboot_of(root, container, kernels, booted),
    }
