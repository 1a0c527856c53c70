# SPDX-License-Identifier: Apache-2.0
"""A node with managed items of every kind, laid out in a directory, and changes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.rackwright.receipt_items import Node

KERNEL = "6.1.0-56-amd64"
STANZA = (
    "Package: {name}\nStatus: {status}\nPriority: optional\nArchitecture: {arch}\nVersion: {version}\nDescription: x\n"
)


def stanza(name: str, version: str, status: str = "install ok installed", arch: str = "amd64") -> str:
    return STANZA.format(name=name, version=version, status=status, arch=arch)


def put(root: Path, name: str, content: str = "") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def dpkg(root: Path, *stanzas: str) -> None:
    put(root, "var/lib/dpkg/status", "\n".join([stanza("dpkg", "1.21.22"), *stanzas]))


def units(states: dict[str, tuple[str, str]]) -> Callable[[list[str]], tuple[int, str, str]]:
    """A systemctl that knows these units, in its own output form: one block per argument, in the order asked."""

    def run(command: list[str]) -> tuple[int, str, str]:
        assert command[:2] == ["systemctl", "show"]
        blocks = []
        for name in command[command.index("--") + 1 :]:
            enabled, active = states.get(name, ("", "inactive"))
            load = "loaded" if name in states else "not-found"
            blocks.append(f"LoadState={load}\nActiveState={active}\nUnitFileState={enabled}\n")
        return 0, "\n".join(blocks), ""

    return run


def venv(root: Path, name: str = "opt/venv", packages: dict[str, str] | None = None) -> Path:
    python = put(root, "usr/bin/python3.11")
    python.chmod(0o755)
    folder = root / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(python)
    put(folder, "bin/activate")
    put(folder, "pyvenv.cfg", "home = /usr/bin\nversion = 3.11.2\n")
    for package, version in (packages or {"numpy": "2.1", "torch": "2.13.0"}).items():
        install(folder, package, version)
    return folder


def install(folder: Path, package: str, version: str) -> None:
    site = folder / "lib/python3.11/site-packages"
    info = f"{package}-{version}.dist-info"
    put(site, f"{package}/__init__.py", "x = 1\n")
    put(site, f"{info}/METADATA", f"Name: {package}\nVersion: {version}\n")
    put(site, f"{info}/RECORD", f"{package}/__init__.py,sha256=x,6\n{info}/METADATA,,\n{info}/RECORD,,\n")


def example_node(root: Path) -> Path:
    """A node with one item of each kind."""
    put(root, "etc/modprobe.d/rackwright-nouveau.conf", "blacklist nouveau\n").chmod(0o644)
    dpkg(
        root,
        stanza("cmake", "3.25.1-1"),
        stanza("nvidia-smi", "535.309.01-1", "hold ok installed"),
        stanza("gone", "1", "deinstall ok config-files"),
    )
    put(root, "proc/sys/vm/swappiness", "10\n")
    put(root, f"boot/vmlinuz-{KERNEL}")
    put(root, f"usr/src/linux-headers-{KERNEL}/.config")
    put(root, f"lib/modules/{KERNEL}/updates/dkms/nvidia.ko.xz", "module")
    put(root, f"lib/modules/{KERNEL}/modules.dep", "updates/dkms/nvidia.ko.xz:\nkernel/fs/ext4.ko: kernel/crc.ko\n")
    venv(root)
    return root


WANTED: dict[str, Any] = {
    "files": ["/etc/modprobe.d/rackwright-nouveau.conf"],
    "absent": ["/etc/apt/apt.conf.d/49old"],
    "packages": ["cmake", "nvidia-smi"],
    "present": ["dpkg"],
    "services": [{"name": "nvidia-persistenced", "enabled": True, "active": True}],
    "sysctls": ["vm.swappiness"],
    "kernels": True,
    "modules": ["nvidia"],
    "venvs": [{"path": "/opt/venv", "packages": None}],
}
STATES = {"nvidia-persistenced": ("enabled", "active")}


def link(path: Path, target: Path) -> None:
    path.rename(target)
    path.symlink_to(target)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def new_kernel(root: Path, release: str) -> None:
    put(root, f"boot/vmlinuz-{release}")
    (root / f"lib/modules/{release}").mkdir()


def reinstall(root: Path, package: str, old: str, new: str) -> None:
    shutil.rmtree(root / f"opt/venv/lib/python3.11/site-packages/{package}-{old}.dist-info")
    install(root / "opt/venv", package, new)


def node(root: Path, states: dict[str, tuple[str, str]] | None = None) -> Node:
    return Node(str(root), units(STATES if states is None else states), KERNEL)


def rewrite(root: Path, old: str, new: str) -> None:
    path = root / "var/lib/dpkg/status"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
