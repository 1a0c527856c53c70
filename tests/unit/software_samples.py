# SPDX-License-Identifier: Apache-2.0
"""Trees and files for the tests of what software lies on a node: kernel modules, DKMS, package databases, CDI."""

from __future__ import annotations

import functools
import lzma
import subprocess
import tempfile
import zlib
from pathlib import Path

OPEN, CLOSED = "Dual MIT/GPL", "NVIDIA"
KERNEL = "6.1.0-56-amd64"


@functools.cache
def module_bytes(version: str | None, licence: str = OPEN, padding: int = 0) -> bytes:
    """Return a real ELF object whose section ``.modinfo`` is written as the kernel's macros write it."""
    entries = [f"license={licence}", "description=not the driver", "alias=char-major-195-*"]
    entries += [f"version={version}"] if version else []
    lines = [f'const char e{n}[] __attribute__((section(".modinfo"), used)) = "{e}";' for n, e in enumerate(entries)]
    lines.append("int code(int x) { return x + 1; }")
    if padding:
        lines.append(f'const char text[{padding}] = "version=%s";')
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "m.c", Path(folder) / "m.o"
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        subprocess.run(["gcc", "-c", "-o", str(result), str(source)], check=True)
        return result.read_bytes()


def packed(content: bytes, suffix: str) -> bytes:
    """Return a module as it lies on the disk with this suffix."""
    if suffix == ".xz":
        return lzma.compress(content, check=lzma.CHECK_CRC32)
    if suffix == ".gz":
        packer = zlib.compressobj(wbits=31)
        return packer.compress(content) + packer.flush()
    if suffix == ".zst":
        return subprocess.run(["zstd", "-q", "-c"], input=content, capture_output=True, check=True).stdout
    return content


def write(root: Path, relative: str, content: str | bytes = "") -> Path:
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def add_kernel(root: Path, kernel: str = KERNEL, headers: bool = True) -> Path:
    """Install a kernel without any NVIDIA module."""
    write(root, f"boot/vmlinuz-{kernel}")
    folder = write(root, f"lib/modules/{kernel}/modules.dep", "kernel/drivers/net/veth.ko:\n").parent
    if headers:
        write(root, f"usr/src/linux-headers-{kernel}/.config")
    return folder


def add_module(folder: Path, name: str, content: bytes) -> Path:
    """Put a module where it is, and into depmod's list."""
    listed = folder / "modules.dep"
    listed.write_text(f"{listed.read_text()}{name}: \n{name.replace('nvidia', 'nvidia-uvm', 1)}: {name}\n")
    return write(folder, name, content)


def add_dkms(root: Path, version: str, kernel: str | None, state: str, content: bytes = b"", suffix: str = "") -> None:
    """Let DKMS have the driver: ``added``, ``built`` or ``installed`` for a kernel."""
    base = root / "var/lib/dkms/nvidia"
    write(root, f"usr/src/nvidia-{version}/dkms.conf")
    (base / version).mkdir(parents=True, exist_ok=True)
    source = base / version / "source"
    if not source.is_symlink():
        source.symlink_to(f"/usr/src/nvidia-{version}")
    if state == "added" or kernel is None:
        return
    write(base, f"{version}/{kernel}/x86_64/module/nvidia.ko{suffix}", content)
    if state == "installed":
        link = base / f"kernel-{kernel}-x86_64"
        link.unlink(missing_ok=True)
        link.symlink_to(f"{version}/{kernel}/x86_64")
