# SPDX-License-Identifier: Apache-2.0
"""Look at the node for what the verdict about its driver needs: modules on disk, initramfs, blacklist, kernel log."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .dkms import build_log, first_error, module_states, parse_dkms
from .driver_state import Evidence, may_wait
from .kernel_guard import builds_here, modules_on_disk, wrong_module
from .kernel_module import find_module
from .packages_apt import Run
from .secure_boot import rejection, unsigned

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_MODPROBE_FOLDERS = ("etc/modprobe.d", "run/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d")
_INITRAMFS = ("boot/initrd.img-{kernel}", "boot/initramfs-{kernel}.img")
_BLACKLIST = re.compile(r"^\s*(?:blacklist\s+nouveau\b|install\s+nouveau\s+/bin/(?:false|true)|alias\s+nouveau\s+off)")
_CMDLINE = re.compile(r"\b(?:nouveau\.modeset=1|nouveau\.blacklist=0)\b")
_IN_INITRAMFS = re.compile(r"\S*/nvidia(?:-current(?:-open)?)?\.ko\S*")


def modprobe_files(root: Path, words: Iterable[str] = ("nouveau", "nvidia")) -> list[Path]:
    """Return the files of modprobe that name one of the modules; they are copied into every initramfs."""
    wanted = tuple(words)
    found = []
    for folder in _MODPROBE_FOLDERS:
        for path in sorted((root / folder).glob("*.conf")):
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if any(word in text for word in wanted):
                found.append(path)
    return found


def initramfs_file(root: Path, kernel: str) -> Path | None:
    """Return the initramfs of a kernel, None where it has none."""
    return next((path for name in _INITRAMFS if (path := root / name.format(kernel=kernel)).exists()), None)


def stale_initramfs(root: Path, kernels: Iterable[str]) -> list[str]:
    """Return the kernels whose initramfs is older than the driver's module or than what keeps nouveau out.

    Packages keep the time of their build as a file's mtime, so of what is inside the change time counts.
    """
    common = [path.stat().st_ctime for path in modprobe_files(root)]
    stale = []
    for kernel in kernels:
        image, folder = initramfs_file(root, kernel), root / "lib/modules" / kernel
        module = find_module(folder)
        if image is None or module is None:
            continue
        if image.stat().st_mtime < max([*common, (folder / module).stat().st_ctime]):
            stale.append(kernel)
    return stale


def why_nouveau(root: Path, kernel: str) -> str:
    """Return why nouveau was loaded at the last boot although it should not have been."""
    cmdline = (root / "proc/cmdline").read_text(encoding="utf-8", errors="replace")
    asked = _CMDLINE.search(cmdline)
    if asked:
        return f"the kernel's command line says {asked[0]}"
    lists = [
        path
        for path in modprobe_files(root, ["nouveau"])
        if any(_BLACKLIST.match(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    ]
    if not lists:
        return "no file below /etc/modprobe.d blacklists it (role os_base, os_base_blacklist_nouveau)"
    image = initramfs_file(root, kernel)
    if image is not None and image.stat().st_mtime < max(path.stat().st_ctime for path in lists):
        return f"the initramfs /{image.relative_to(root)} is older than the blacklist"
    return (
        f"it is blacklisted by /{lists[0].relative_to(root)}, so something loads it by name (initramfs, /etc/modules)"
    )


def module_in_initramfs(root: Path, kernel: str, run: Run) -> str | None:
    """Return the NVIDIA module in the initramfs of a kernel, None where there is none or nothing lists it."""
    image = initramfs_file(root, kernel)
    for program in ("lsinitramfs", "lsinitrd") if image else ():
        if shutil.which(program, path=_PATH) is None:
            continue
        code, out, _err = run([program, str(image)])
        found = _IN_INITRAMFS.search(out) if code == 0 else None
        if found:
            return found[0]
    return None


class Looker:
    """What one look at the node needs."""

    def __init__(self, run: Run, root: Path, host: dict[str, Any], plan: dict[str, Any]) -> None:
        self.run, self.root, self.host, self.plan = run, root, host, plan
        self.kernels: list[str] = plan.get("kernels") or []

    def modules(self, seen: Evidence, signer: str) -> None:
        """Fill in what DKMS, the disk and the signatures say."""
        version = self.plan["upstream"]
        if builds_here(self.plan["packages"]):
            # no module reads DKMS
            code, out, _err = self._ask(["dkms", "status"])
            seen.modules = module_states(parse_dkms(out if code == 0 else ""), self.kernels, version)
            for kernel, state in seen.modules.items():
                log = build_log(self.root, version, kernel) if state != "installed" else None
                error = first_error(log[1]) if log else None
                if error:
                    seen.build[kernel] = error.line
        found = modules_on_disk(self.root, self.kernels)
        seen.on_disk = wrong_module(version, self.kernels, found)
        if signer and not seen.on_disk:
            seen.unsigned = unsigned({kernel: self._signer(kernel, found[kernel]) for kernel in self.kernels}, signer)

    def after_boot(self, seen: Evidence, gpu: dict[str, Any]) -> None:
        """Look for the cause of a driver that a boot did not load; nothing of this is asked of a healthy node."""
        if self.host["container"] or may_wait(self.host, seen) or gpu.get("situation") == "ready":
            return
        running = self.host["kernel"]["running"]
        if gpu.get("situation") == "nouveau_in_use":
            seen.nouveau = why_nouveau(self.root, running)
        elif (gpu.get("driver") or {}).get("kernel_module_version"):
            seen.old_module = module_in_initramfs(self.root, running, self.run)
        else:
            _code, out, _err = self._ask(["journalctl", "--dmesg", "--boot", "--no-pager", "--quiet", "--output=cat"])
            seen.rejection = rejection(out)

    def _signer(self, kernel: str, module: dict[str, Any]) -> str | None:
        path = self.root / "lib/modules" / kernel / str(module["path"])
        code, out, _err = self._ask(["modinfo", "-F", "signer", str(path)])
        return out.strip() if code == 0 else None

    def changed_at(self, installed_at: float | None) -> float | None:
        """Return when packages or modules last came, in seconds since the epoch, None where that is not known."""
        times = [] if installed_at is None else [installed_at]
        for kernel in self.kernels:
            folder = self.root / "lib/modules" / kernel
            module = find_module(folder)
            times += [(folder / module).stat().st_ctime] if module else []
        return max(times, default=None)

    def _ask(self, command: list[str]) -> tuple[int, str, str]:
        # AnsibleModule ends the module where a program is missing
        if shutil.which(command[0], path=_PATH) is None:
            return 127, "", f"{command[0]} is not installed"
        return self.run(command)
