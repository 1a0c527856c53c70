# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA software lies on a node: the part ``software`` of the fact ``gpu``. Reads files, changes nothing.

Together with what is loaded it answers whether everything is of one version, now and after the next boot; the answer
is found in coherence.py. Kernels and services of a container belong to its host and are not looked at from inside.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import cdi, kernel_module
from .host import kernels_of
from .programs import run_program
from .software_packages import Packages, read_packages

# the kernel cuts the names of processes at 15 characters
_FABRIC_MANAGER = "nv-fabricmanager"[:15]
_OF_THE_HOST = "it belongs to the host of this container"
_RPM_TIMEOUT_S = 8


def read_software(
    host: Mapping[str, Any], switches: tuple[bool | None, str], root: str = "/"
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the record and why each null value in it is missing (dotted paths below ``software``).

    Args:
        host: the evidence of :func:`sysfs.read_host`: kernel release, PCI devices, loaded modules, container or not.
        switches: whether the node has NVSwitches, and what says so (:func:`fabric.nvswitch`).
        root: root of the file system.
    """
    base = Path(root)
    missing: dict[str, str] = {}
    packages = read_packages(base, _ask, _has_signs(host, base))
    if packages.reason:
        missing.update(packages=packages.reason, held=packages.reason)
    record = {
        "packages": None if packages.reason else packages.driver,
        "held": None if packages.reason else packages.held,
        **_kernels(host, base, missing),
        "fabric_manager": _fabric_manager(host, switches, base, packages, missing),
        "container_toolkit": _container_toolkit(packages, missing),
    }
    specs, reasons = cdi.read_specs(base)
    missing.update({f"cdi.{path}": reason for path, reason in reasons.items()})
    return {**record, "cdi": specs}, {f"software.{path}": reason for path, reason in missing.items()}


def _ask(command: list[str]) -> tuple[int, str, str]:
    """Run rpm; one that is missing or hangs raises OSError."""
    return run_program(command, _RPM_TIMEOUT_S)


def _has_signs(host: Mapping[str, Any], root: Path) -> bool:
    loaded = host["module_version"] or host["driver_text"] or host["pci"]["gpus"] or host["dxg"]
    return bool(loaded) or any((root / path).exists() for path in ("usr/bin/nvidia-smi", "usr/bin/nvidia-ctk"))


def _contained(host: Mapping[str, Any]) -> bool:
    return bool(host["container"]) and not host.get("simulated")


def _kernels(host: Mapping[str, Any], root: Path, missing: dict[str, str]) -> dict[str, Any]:
    """Return ``running``, ``boots`` and ``modules``: the module of each installed kernel and of the running one."""
    running = str(host["kernel_release"]) if host["kernel_release"] else None
    if running is None:
        missing["running"] = "the kernel does not tell its release"
    if _contained(host):
        reason = f"the kernel is not this system's: {_OF_THE_HOST}"
        missing.update(boots=reason, modules=reason)
        return {"running": running, "boots": None, "modules": None}
    kernels = kernels_of(root, None, running or "")
    boots = kernels.get("boots")
    if boots is None:
        missing["boots"] = str(kernels.get("boots_reason") or "the files of the boot loader do not tell it")
    names = list(kernels["installed"])
    if running and running not in names and (root / "lib/modules" / running).is_dir():
        names.append(running)
    rows = kernel_module.read_dkms(root)
    modules = {name: _module(root, name, rows, kernels["headers"], missing) for name in names}
    return {"running": running, "boots": boots, "modules": modules}


def _module(
    root: Path, kernel: str, rows: list[dict[str, Any]] | None, headers: list[str], missing: dict[str, str]
) -> dict[str, Any]:
    folder = root / "lib/modules" / kernel
    record, reasons = kernel_module.read_kernel(folder, kernel_module.dkms_of(rows or [], kernel))
    if rows is None:
        record["dkms"] = None
        reasons.update(dict.fromkeys(("dkms", "dkms_version"), "/var/lib/dkms cannot be read"))
    record["headers"] = kernel in headers or (folder / "build/Makefile").exists()
    missing.update({f"modules.{kernel}.{key}": reason for key, reason in reasons.items()})
    return record


def _fabric_manager(
    host: Mapping[str, Any],
    switches: tuple[bool | None, str],
    root: Path,
    packages: Packages,
    missing: dict[str, str],
) -> dict[str, Any]:
    needed, why = switches
    installed = packages.fabric_manager
    if installed is None:
        missing["fabric_manager.installed"] = packages.reason or "no package of the fabric manager is installed"
    if needed is None:
        missing["fabric_manager.needed"] = why
    running, reason = _runs(host, root) if needed or installed else (False, None)
    if running is None:
        missing["fabric_manager.running"] = str(reason)
    return {"installed": installed, "needed": needed, "running": running}


def _runs(host: Mapping[str, Any], root: Path) -> tuple[bool | None, str | None]:
    if _contained(host):
        return None, f"the fabric manager is not to be seen: {_OF_THE_HOST}"
    paths = glob.glob(os.path.join(glob.escape(str(root)), "proc/[0-9]*/comm"))
    if not paths:
        return None, "/proc shows no process"
    return any(_line(path) == _FABRIC_MANAGER for path in paths), None


def _line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""  # a process that has ended


def _container_toolkit(packages: Packages, missing: dict[str, str]) -> dict[str, Any]:
    found = packages.toolkit
    version = found.get("nvidia-container-toolkit") or next(iter(found.values()), None)
    if version is None:
        missing["container_toolkit.version"] = packages.reason or "no package of the container toolkit is installed"
    return {"version": version, "packages": found}
