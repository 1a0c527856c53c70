# SPDX-License-Identifier: Apache-2.0
"""The sysroot of a simulated node: what /proc, /dev and /sys would say with the simulated module loaded."""

from __future__ import annotations

import os
import re
from pathlib import Path

_PROC = ("cmdline", "cpuinfo", "loadavg", "meminfo", "mounts", "self", "stat", "sys", "uptime", "version", "1")
_USERS = {"nvidia": ("nvidia_uvm", "nvidia_modeset"), "nvidia_modeset": ("nvidia_drm",)}


def version_file(version: str, flavour: str) -> str:
    """Text of /proc/driver/nvidia/version, whose first line differs between the two flavours."""
    machine = os.uname().machine
    if flavour == "open":
        first = (
            f"NVRM version: NVIDIA UNIX Open Kernel Module for {machine}  {version}  Release Build  (simnvml@simulated)"
        )
    else:
        first = f"NVRM version: NVIDIA UNIX {machine} Kernel Module  {version}"
    return f"{first}  Thu Jan  1 00:00:00 UTC 1970\nGCC version:  gcc version 12.2.0 (simulated)\n"


def modules_file(loaded: list[str], nouveau: bool) -> str:
    """Text of /proc/modules: the machine's own modules without GPU drivers, and the simulated ones."""
    own = Path("/proc/modules")
    lines = own.read_text(encoding="utf-8").splitlines(keepends=True) if own.is_file() else []
    lines = [line for line in lines if not re.match(r"(nvidia|nouveau)", line)]
    for name in reversed(loaded):  # the newest first, as the kernel lists them
        users = [user for user in _USERS.get(name, ()) if user in loaded]
        names = "".join(f"{user}," for user in users) or "-"
        lines.append(f"{name} 1048576 {len(users)} {names} Live 0x0000000000000000 (OE)\n")
    if nouveau and not loaded:
        lines.append("nouveau 2596864 0 - Live 0x0000000000000000\n")
    return "".join(lines)


def link(path: Path, target: str) -> None:
    """A symbolic link, made once."""
    if not path.is_symlink():
        path.symlink_to(target)


def links(sysroot: Path, firmware: bool) -> None:
    """Everything that is not simulated is a link to the real thing."""
    for name in ("etc", "usr", "run", "var", "lib", "boot"):
        link(sysroot / name, f"/{name}")
    for name in _PROC:
        link(sysroot / "proc" / name, f"/proc/{name}")
    if not firmware:
        link(sysroot / "sys", "/sys")
        return
    # a folder of its own, so that sys/firmware/efi can be simulated
    if (sysroot / "sys").is_symlink():
        (sysroot / "sys").unlink()
    (sysroot / "sys/firmware").mkdir(parents=True, exist_ok=True)
    for folder, left_out in (("sys", "firmware"), ("sys/firmware", "efi")):
        for path in Path("/", folder).iterdir():
            if path.name != left_out:
                link(sysroot / folder / path.name, str(path))


def devices(folder: Path, names: set[str]) -> None:
    """The device files, plain files here."""
    for path in folder.glob("nvidia*"):
        if path.name not in names:
            path.unlink()
    for name in sorted(names):
        (folder / name).touch()
