# SPDX-License-Identifier: Apache-2.0
"""What the packages of a node have installed: the NVML library, and the kernel module that a boot would load.

A kernel for which headers or modules lie under /lib/modules is the kernel that "boots": then only a module built for it
counts, so a DKMS build that failed leaves the node without a driver after the next boot. A node without any such kernel
loads what lies in /usr/src, which needs no compiler.
"""

from __future__ import annotations

import gzip
import lzma
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

VERSION = r"\d+\.\d+(?:\.\d+)*"
OPEN_BY_DEFAULT_FROM = 560
_LIBRARY_FOLDERS = ("usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/nvidia", "usr/lib/*-linux-gnu/nvidia/*", "usr/lib64")
_MODULE_FILE = re.compile(r"nvidia(-current|-open|-current-open)?\.ko(\.(xz|gz|zst))?")
_INFO = re.compile(rb"(?<![a-z])(version|license)=([^\0]+)\0")


@dataclass(frozen=True)
class Module:
    """A kernel module; `path` is None where only its source is installed."""

    version: str
    flavour: str
    path: Path | None = None


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]


def library(root: Path) -> str | None:
    """Version in the file name of the real NVML library, wherever a distribution puts it."""
    found = []
    for folder in _LIBRARY_FOLDERS:
        for path in root.glob(f"{folder}/libnvidia-ml.so.*"):
            match = re.fullmatch(rf"libnvidia-ml\.so\.({VERSION})", path.name)
            # the plain soname, libnvidia-ml.so.1, has no second number
            if match:
                found.append(match[1])
    return max(found, key=_numbers) if found else None


def boot_kernel(root: Path) -> str | None:
    """Release of the newest kernel that has anything under /lib/modules."""
    base = root / "lib/modules"
    names = [path.name for path in base.iterdir() if path.is_dir()] if base.is_dir() else []
    return max(names, key=_numbers) if names else None


def built(root: Path, kernel: str) -> Module | None:
    """The module that is built for a kernel."""
    folder = root / "lib/modules" / kernel
    paths = sorted(path for path in folder.rglob("nvidia*.ko*") if _MODULE_FILE.fullmatch(path.name))
    for path in paths:
        info = {key: value.decode() for key, value in _INFO.findall(_content(path))}
        if b"version" in info:
            return Module(info[b"version"], _flavour(info.get(b"license", "")), path)
    return None


def _flavour(licence: str) -> str:
    return "open" if "GPL" in licence else "proprietary"


def _content(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout
    return path.read_bytes()


def source(root: Path) -> Module | None:
    """Version and flavour of the newest module source."""
    found = []
    for path in root.glob("usr/src/nvidia*"):
        match = re.fullmatch(rf"nvidia(?P<name>[a-z-]*)-(?P<version>{VERSION})", path.name)
        if match and path.is_dir():
            stub = path / "nvidia.c"
            licence = re.search(r'MODULE_LICENSE\("([^"]+)"\)', stub.read_text()) if stub.is_file() else None
            is_open = "open" in match["name"] or (licence is not None and _flavour(licence[1]) == "open")
            found.append(Module(match["version"], "open" if is_open else "proprietary"))
    return max(found, key=lambda module: _numbers(module.version)) if found else None


def module(root: Path, usual: str = "proprietary") -> Module | None:
    """What loading the driver would bring up now, as far as the packages decide.

    A library without any module stands for one from elsewhere, as in a container: of the flavour that is `usual` for
    the node's GPUs, and proprietary before the branch from which NVIDIA itself prefers the open one.
    """
    kernel, installed = boot_kernel(root), source(root)
    if kernel:
        ready = built(root, kernel)
        if ready or installed:
            return ready
    if installed:
        return installed
    version = library(root)
    if not version:
        return None
    return Module(version, usual if _numbers(version)[0] >= OPEN_BY_DEFAULT_FROM else "proprietary")
