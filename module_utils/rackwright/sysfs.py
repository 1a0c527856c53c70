# SPDX-License-Identifier: Apache-2.0
"""Everything Rackwright learns from files of a running system: /proc, /sys, /dev and /run, below one root.

No other file of the package reads them. ``sysroot`` stands in front of every path, so that a prepared tree can be read
in place of the real system. Nothing here writes, and nothing needs privileges.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

NVIDIA = "10de"
_DISPLAY_CLASSES = ("0300", "0302")
_BRIDGE_CLASS = "0680"
_MODINFO_TIMEOUT_S = 5
_PERSISTENCED_PID = "run/nvidia-persistenced/nvidia-persistenced.pid"
_PERSISTENCED_COMM = "nvidia-persiste"  # the kernel keeps 15 characters of "nvidia-persistenced"


def read_operating_system(root: str = "/") -> tuple[dict[str, str | None], dict[str, str]]:
    """What runs on this node, and the reason for each value that is missing.

    The distribution is read below ``root``, never below a sysroot: a prepared tree stands in for kernel files only.

    Returns:
        ``name`` (for people), ``id`` and ``version_id`` (of os-release), ``kernel`` (release), ``machine``.
    """
    found: dict[str, str] = {}
    why = "is not in /etc/os-release"
    try:
        with open(os.path.join(root, "etc/os-release"), encoding="utf-8", errors="replace") as stream:
            for line in stream:
                key, _equals, value = line.strip().partition("=")
                found[key] = value.strip("\"'")
    except OSError as error:
        why = f"/etc/os-release cannot be read ({os.strerror(error.errno or 0).lower()})"
    keys = {"name": "PRETTY_NAME", "id": "ID", "version_id": "VERSION_ID"}
    values: dict[str, str | None] = {name: found.get(key) or None for name, key in keys.items()}
    missing = {f"os.{name}": f"{keys[name]} {why}" for name, value in values.items() if value is None}
    system = os.uname()
    return {**values, "kernel": system.release, "machine": system.machine}, missing


class Tree:
    """Reads files below one root; what is not there or not readable is None, and ``why`` says why."""

    def __init__(self, sysroot: str = "/") -> None:
        self.sysroot = sysroot.rstrip("/") or "/"

    def path(self, relative: str) -> str:
        return os.path.join(self.sysroot, relative)

    def text(self, relative: str) -> str | None:
        try:
            with open(self.path(relative), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except OSError:
            return None

    def line(self, relative: str) -> str | None:
        text = self.text(relative)
        return text.strip() if text is not None else None

    def why(self, relative: str) -> str:
        """Say why ``text`` gave None for this path, for people."""
        try:
            with open(self.path(relative), "rb"):
                return f"/{relative} says nothing"
        except OSError as error:
            return f"/{relative} cannot be read ({os.strerror(error.errno or 0).lower()})"

    def data(self, relative: str, most: int) -> bytes | None:
        """The first ``most`` bytes of a file that is no text."""
        try:
            with open(self.path(relative), "rb") as stream:
                return stream.read(most)
        except OSError:
            return None

    def names(self, relative: str) -> list[str] | None:
        try:
            return sorted(os.listdir(self.path(relative)))
        except OSError:
            return None

    def exists(self, relative: str) -> bool:
        return os.path.exists(self.path(relative))

    def own(self, relative: str) -> bool:
        """True for what lies in this tree itself: a prepared tree may link parts of the system that reads it."""
        inside = os.path.join(os.path.realpath(self.sysroot), "")
        return self.exists(relative) and os.path.realpath(self.path(relative)).startswith(inside)

    def link_name(self, relative: str) -> str | None:
        try:
            return os.path.basename(os.readlink(self.path(relative)))
        except OSError:
            return None


def read_host(sysroot: str = "/") -> dict[str, Any]:
    """Collect the evidence that exists with or without a driver, as plain data."""
    tree = Tree(sysroot)
    modules = loaded_modules(tree)
    version_text = tree.line("proc/driver/nvidia/version")
    host: dict[str, Any] = {
        "kernel_release": tree.line("proc/sys/kernel/osrelease") or os.uname().release,
        "pci": read_pci(tree),
        "modules": modules,
        "modules_reason": None if modules is not None else tree.why("proc/modules"),
        "driver_text": version_text,
        "driver_text_reason": None if version_text else tree.why("proc/driver/nvidia/version"),
        "module_version": tree.line("sys/module/nvidia/version"),
        "device_nodes": [n for n in tree.names("dev") or [] if re.fullmatch(r"nvidia(\d+|ctl)", n)],
        "container": container_marker(tree),
        "wsl": "microsoft" in (tree.text("proc/version") or "").lower(),
        "dxg": tree.exists("dev/dxg"),
        # no kernel makes this file; simulated nodes have it, so that they are known before any driver answers
        "simulated": tree.exists("proc/simulated-gpus"),
        "meminfo": read_meminfo(tree),
        "persistence_daemon": persistence_daemon(tree),
        "installed_module": None,
    }
    if version_text is None and host["module_version"] is None and host["pci"]["gpus"]:
        host["installed_module"] = installed_module(host["kernel_release"])
    return host


def loaded_modules(tree: Tree) -> list[str] | None:
    """Names of the loaded kernel modules that matter for NVIDIA GPUs; None when the list cannot be read."""
    text = tree.text("proc/modules")
    if text is None:
        return None
    names = (line.split(" ", 1)[0] for line in text.splitlines() if line)
    return sorted(n for n in names if n.startswith(("nvidia", "nouveau", "nova")) or n == "vfio_pci")


def read_pci(tree: Tree) -> dict[str, Any]:
    """Find NVIDIA's GPUs and NVSwitches on the PCI bus."""
    base = "sys/bus/pci/devices"
    addresses = tree.names(base)
    if addresses is None:
        return {"gpus": [], "switches": [], "reason": tree.why(base)}
    gpus, switches = [], []
    for address in addresses:
        where = f"{base}/{address}"
        if _hex(tree, f"{where}/vendor", 4) != NVIDIA:
            continue
        pci_class = (_hex(tree, f"{where}/class", 6) or "")[:4]
        if pci_class == _BRIDGE_CLASS:
            switches.append(address)
        elif pci_class in _DISPLAY_CLASSES and not tree.exists(f"{where}/physfn"):
            gpus.append(_pci_gpu(tree, where, address))
    return {"gpus": gpus, "switches": switches, "reason": None}


def _pci_gpu(tree: Tree, where: str, address: str) -> dict[str, Any]:
    subsystem = _hex(tree, f"{where}/subsystem_vendor", 4), _hex(tree, f"{where}/subsystem_device", 4)
    numa_node = _integer(tree.line(f"{where}/numa_node"))
    return {
        "address": address.lower(),
        "vendor_id": NVIDIA,
        "device_id": _hex(tree, f"{where}/device", 4),
        "subsystem_id": ":".join(part for part in subsystem if part) if all(subsystem) else None,
        "kernel_driver": tree.link_name(f"{where}/driver"),
        "numa_node": numa_node if numa_node is not None and numa_node >= 0 else None,
        "cpu_affinity": tree.line(f"{where}/local_cpulist") or None,
        "generation": pcie_generation(tree.line(f"{where}/current_link_speed")),
        "max_generation": pcie_generation(tree.line(f"{where}/max_link_speed")),
        "width": _width(tree.line(f"{where}/current_link_width")),
        "max_width": _width(tree.line(f"{where}/max_link_width")),
    }


def pcie_generation(speed: str | None) -> int | None:
    """Turn the kernel's ``16.0 GT/s PCIe`` into the PCIe generation, None for an unknown speed."""
    match = re.match(r"([\d.]+) GT/s", speed or "")
    if not match:
        return None
    return {"2.5": 1, "5": 2, "8": 3, "16": 4, "32": 5, "64": 6}.get(match[1].removesuffix(".0"))


def _width(text: str | None) -> int | None:
    width = _integer(text)
    return width if width is not None and 0 < width <= 32 else None  # 0 and 255 mean that there is no link


def _integer(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _hex(tree: Tree, relative: str, digits: int) -> str | None:
    text = tree.line(relative) or ""
    return text[2:].lower().zfill(digits) if re.fullmatch(r"0x[0-9a-fA-F]+", text) else None


def container_marker(tree: Tree) -> str | None:
    """Name the sign that this system is a container, None when there is none."""
    for relative in (".dockerenv", "run/.containerenv", "run/systemd/container"):
        if tree.own(relative):
            return "/" + relative
    if tree.sysroot != "/" and not tree.own("proc/self"):
        return None
    for line in (tree.text("proc/self/mountinfo") or "").splitlines():
        fields = line.split(" ")
        if len(fields) > 6 and fields[4] == "/" and " - overlay " in line:
            return "overlay root file system"
    return None


def read_meminfo(tree: Tree) -> dict[str, int]:
    """MemTotal and MemAvailable in bytes, as far as they are there."""
    found = re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", tree.text("proc/meminfo") or "", re.MULTILINE)
    return {name: int(value) * 1024 for name, value in found}


def read_uptime(tree: Tree) -> float | None:
    """Seconds since the kernel started."""
    match = re.match(r"\d+(?:\.\d+)?", tree.line("proc/uptime") or "")
    return float(match[0]) if match else None


def persistence_daemon(tree: Tree) -> dict[str, Any]:
    """Whether nvidia-persistenced runs: its pid file, checked against the name of that process."""
    if not tree.exists("run"):
        return {"running": None, "reason": "there is no /run below the given root"}
    pid = tree.line(_PERSISTENCED_PID)
    if pid is None:
        return {"running": False, "reason": None}
    comm = tree.line(f"proc/{pid}/comm") if pid.isdigit() else None
    return {"running": comm == _PERSISTENCED_COMM, "reason": None}


def process_name(pid: int, sysroot: str = "/") -> str | None:
    return Tree(sysroot).line(f"proc/{pid}/comm")


def mapped_library(fragment: str) -> str | None:
    """Path of a library this very process has loaded, with symbolic links resolved."""
    for line in (Tree("/").text("proc/self/maps") or "").splitlines():
        path = line.split(maxsplit=5)[-1]
        if fragment in os.path.basename(path):
            return os.path.realpath(path)
    return None


def installed_module(kernel_release: str) -> dict[str, Any]:
    """Version and licence of the NVIDIA module installed (not loaded) for a kernel, asked from modinfo."""
    program = next(
        (p for p in ("/usr/sbin/modinfo", "/sbin/modinfo", "/usr/bin/modinfo") if os.access(p, os.X_OK)), None
    )
    if program is None:
        return {"version": None, "license": None, "reason": "modinfo is not installed"}
    for name in ("nvidia", "nvidia-current"):
        command = [program, "-k", kernel_release, name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_MODINFO_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return {"version": None, "license": None, "reason": f"modinfo did not answer ({type(error).__name__})"}
        if done.returncode == 0:
            fields = dict(re.findall(r"^(version|license):\s+(.+?)\s*$", done.stdout, re.MULTILINE))
            return {"version": fields.get("version"), "license": fields.get("license"), "reason": None}
    return {"version": None, "license": None, "reason": f"no NVIDIA module is installed for kernel {kernel_release}"}
