# SPDX-License-Identifier: Apache-2.0
"""Read RDMA ports and NVMe drives from sysfs; wear and warnings of a drive by asking it, as root, with no program."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
from collections.abc import Callable

from .record import Answer
from .sysfs import Tree

_RDMA = "sys/class/infiniband"
_NVME = "sys/class/nvme"
# struct nvme_passthru_cmd and NVME_IOCTL_ADMIN_CMD of linux/nvme_ioctl.h
_COMMAND = struct.Struct("=BBHIIIQQIIIIIIIIII")
_ADMIN_COMMAND = 3 << 30 | _COMMAND.size << 16 | ord("N") << 8 | 0x41
_GET_LOG_PAGE, _SMART_LOG, _ALL_NAMESPACES, _PAGE_BYTES, _TIMEOUT_MS = 0x02, 0x02, 0xFFFFFFFF, 512, 5000


def rdma_ports(tree: Tree) -> Answer:
    """One record a port: ``name`` (mlx5_0/1), ``state``, ``physical``, ``link_layer``, ``rate_gbps``, ``link_downed``.

    Where the kernel has no RDMA devices there is none, which is known.
    """
    devices = tree.names(_RDMA)
    if devices is None:
        return ([], None) if tree.exists("sys/class") else (None, tree.why(_RDMA))
    ports = []
    for device in devices:
        for port in tree.names(f"{_RDMA}/{device}/ports") or []:
            where = f"{_RDMA}/{device}/ports/{port}"
            rate = re.match(r"([\d.]+) Gb/sec", tree.line(f"{where}/rate") or "")
            ports.append(
                {
                    "name": f"{device}/{port}",
                    "state": _word(tree.line(f"{where}/state")),
                    "physical": _word(tree.line(f"{where}/phys_state")),
                    "link_layer": tree.line(f"{where}/link_layer"),
                    "rate_gbps": float(rate[1]) if rate else None,
                    "link_downed": _count(tree.line(f"{where}/counters/link_downed")),
                }
            )
    return ports, None


def _word(text: str | None) -> str | None:
    """``ACTIVE`` of the kernel's ``4: ACTIVE``."""
    return text.partition(":")[2].strip() or None if text else None


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,19}", text) else None


def nvme_drives(tree: Tree, smart: bool = True, ask: Callable[[str], bytes] | None = None) -> Answer:
    """One record per controller: ``name``, ``state``, ``model``, ``serial``, ``smart`` or ``smart_reason``."""
    names = tree.names(_NVME)
    if names is None:
        return ([], None) if tree.exists("sys/class") else (None, tree.why(_NVME))
    drives = []
    # the drives of the machine that reads a prepared tree are not those of the tree
    asked = smart and (tree.sysroot == "/" or ask is not None)
    for name in [name for name in names if re.fullmatch(r"nvme\d+", name)]:
        values, reason = _smart(name, ask or smart_log) if asked else (None, "the drive was not asked")
        drives.append(
            {
                "name": name,
                "state": tree.line(f"{_NVME}/{name}/state"),
                "model": tree.line(f"{_NVME}/{name}/model"),
                "serial": tree.line(f"{_NVME}/{name}/serial"),
                "smart": values,
                "smart_reason": reason,
            }
        )
    return drives, None


def _smart(name: str, ask: Callable[[str], bytes]) -> Answer:
    try:
        return smart_values(ask(f"/dev/{name}")), None
    except PermissionError:
        return None, f"/dev/{name} answers root only (become: true)"
    except OSError as error:
        return None, f"/dev/{name} does not answer ({os.strerror(error.errno or 0).lower()})"


def smart_log(device: str) -> bytes:
    """Ask a drive for its SMART / Health Information log (Get Log Page, log 02h, NVM Express base specification).

    Raises:
        OSError: it cannot be opened, or the drive refuses the command.
    """
    page = ctypes.create_string_buffer(_PAGE_BYTES)
    words = ((_PAGE_BYTES // 4 - 1) << 16 | _SMART_LOG, 0, 0, 0, 0, 0)
    command = bytearray(
        _COMMAND.pack(
            *(_GET_LOG_PAGE, 0, 0, _ALL_NAMESPACES, 0, 0, 0, ctypes.addressof(page), 0, _PAGE_BYTES),
            *(*words, _TIMEOUT_MS, 0),
        )
    )
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = fcntl.ioctl(descriptor, _ADMIN_COMMAND, command, True)
    finally:
        os.close(descriptor)
    if status:  # a status of the drive itself, not of the kernel
        raise OSError(errno.EIO, f"the drive answers with status {status:#x}")
    return page.raw


def smart_values(page: bytes) -> dict[str, int]:
    """The values that are judged, out of the 512 bytes of the log."""
    return {
        "critical_warning": page[0],
        "temperature_kelvin": int.from_bytes(page[1:3], "little"),
        "avail_spare": page[3],
        "spare_thresh": page[4],
        "percent_used": page[5],
        "media_errors": int.from_bytes(page[160:176], "little"),
    }
