# SPDX-License-Identifier: Apache-2.0
"""Read what health looks at on the host: memory, processors, file systems, clock, units, network, drives.

Kernel files lie below ``sysroot``, settings of the system below ``root``. Everything is guarded by itself: what cannot
be read is None with its reason, as in the fact gpu.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from . import health_drives, health_pci
from .health_system import clock_synchronised, environment_blockers, failed_units, leftovers
from .host import container_of
from .programs import Run, run_program
from .record import Answer, Record
from .sysfs import Tree, read_meminfo, read_uptime

_LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "vfat", "overlay")
_ON_DEVICE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs")
#: values of the record
HOST_PATHS = (
    *(
        "uptime_s",
        "container",
        "virtual",
        "memory_total_bytes",
        "swap",
        "governors",
        "thp",
        "numa_balancing",
        "iommu",
        "mounts",
    ),
    *("arrays", "clock", "failed_units", "leftovers", "environment", "nics", "nvme", "acs_bridges"),
)
_CPUS = "sys/devices/system/cpu"


def read_host_health(sysroot: str = "/", root: str = "/", run: Run = run_program, smart: bool = True) -> dict[str, Any]:
    """Return the record of the host; ``missing`` has the reason for each value that is None."""
    tree, files, record = Tree(sysroot), Tree(root), Record()
    record.put("uptime_s", *_uptime(tree))
    record.data["container"] = container_of(Path(root))  # None is an answer: this system has a kernel of its own
    record.put("virtual", *_virtual(tree))
    record.put("memory_total_bytes", *_memory_total(tree))
    record.put("swap", *_swap(tree))
    record.put("governors", *_governors(tree))
    record.put("thp", *_chosen(tree, "sys/kernel/mm/transparent_hugepage/enabled"))
    record.put("numa_balancing", *_number(tree, "proc/sys/kernel/numa_balancing"))
    record.put("iommu", *_iommu(tree))
    record.put("mounts", *_mounts(tree, files))
    record.put("arrays", *_arrays(tree))
    record.put("clock", *clock_synchronised())
    record.put("failed_units", *failed_units(run))
    record.put("leftovers", *leftovers(tree))
    record.put("environment", *environment_blockers(files))
    record.put("nics", *health_drives.rdma_ports(tree))
    record.put("nvme", *health_drives.nvme_drives(tree, smart))
    record.put("acs_bridges", *health_pci.acs_bridges(tree))
    return record.result()


def _uptime(tree: Tree) -> Answer:
    uptime = read_uptime(tree)
    return uptime, None if uptime is not None else tree.why("proc/uptime")


def _virtual(tree: Tree) -> Answer:
    """Whether this is a virtual machine: processors of x86 say it, device trees of others too."""
    text = tree.text("proc/cpuinfo")
    if text is None:
        return None, tree.why("proc/cpuinfo")
    guest = re.search(r"^flags\s*:.*\bhypervisor\b", text, re.MULTILINE) is not None
    return guest or tree.exists("sys/hypervisor/type") or tree.exists("proc/device-tree/hypervisor"), None


def _memory_total(tree: Tree) -> Answer:
    total = read_meminfo(tree).get("MemTotal")
    return total, None if total is not None else tree.why("proc/meminfo")


def _swap(tree: Tree) -> Answer:
    """Devices and files that are used as swap; zram holds compressed memory and counts too."""
    text = tree.text("proc/swaps")
    if text is None:
        return None, tree.why("proc/swaps")
    rows = [line.split() for line in text.splitlines()[1:] if line.strip()]
    return [
        {"name": row[0], "size_bytes": int(row[2]) * 1024} for row in rows if len(row) >= 4 and row[2].isdigit()
    ], None


def _governors(tree: Tree) -> Answer:
    names = tree.names(_CPUS)
    if names is None:
        return None, tree.why(_CPUS)
    counts: dict[str, int] = {}
    for name in names:
        if re.fullmatch(r"cpu\d+", name):
            governor = tree.line(f"{_CPUS}/{name}/cpufreq/scaling_governor")
            if governor:
                counts[governor] = counts.get(governor, 0) + 1
    return counts, None


def _chosen(tree: Tree, path: str) -> Answer:
    """The word in brackets of a file like ``always [madvise] never``."""
    match = re.search(r"\[(\w+)\]", tree.text(path) or "")
    return (match[1], None) if match else (None, tree.why(path))


def _number(tree: Tree, path: str) -> Answer:
    text = tree.line(path)
    return (int(text), None) if text is not None and re.fullmatch(r"\d{1,9}", text) else (None, tree.why(path))


def _iommu(tree: Tree) -> Answer:
    """``disabled`` without groups; else ``enabled``, or ``passthrough`` where the kernel was started with that."""
    groups = tree.names("sys/kernel/iommu_groups")
    if groups is None and not tree.exists("sys/kernel"):
        return None, tree.why("sys/kernel/iommu_groups")
    if not groups:
        return "disabled", None
    return "passthrough" if re.search(r"\biommu=pt\b", tree.text("proc/cmdline") or "") else "enabled", None


def _mounts(tree: Tree, files: Tree) -> Answer:
    text = tree.text("proc/self/mounts")
    if text is None:
        return None, tree.why("proc/self/mounts")
    wanted_read_only = _read_only_by_fstab(files)
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        fields = [_unescaped(field) for field in line.split(" ")]
        if len(fields) < 4 or fields[2] not in _LOCAL:
            continue
        device, path, kind, options = fields[0], fields[1], fields[2], fields[3].split(",")
        on_device = kind in _ON_DEVICE and device.startswith("/dev/")
        if not on_device and path != "/" and kind != "zfs":
            continue
        read_only = on_device and "ro" in options and path not in wanted_read_only
        found[path] = {"path": path, "type": kind, "device": device, "read_only": read_only, **_usage(path)}
    distinct: dict[Any, dict[str, Any]] = {}
    for mount in found.values():  # bind mounts show one file system many times
        distinct.setdefault(
            (mount["device"], mount["read_only"]) if mount["type"] != "overlay" else mount["path"], mount
        )
    return sorted(distinct.values(), key=lambda mount: str(mount["path"])), None


def _usage(path: str) -> dict[str, Any]:
    """Used parts in percent, as df counts them: of what users other than root may use."""
    try:
        told = os.statvfs(path)
    except OSError as error:
        return {
            "used_percent": None,
            "inodes_percent": None,
            "reason": f"{path}: {os.strerror(error.errno or 0).lower()}",
        }
    used = told.f_blocks - told.f_bfree
    reachable = used + told.f_bavail
    inodes = told.f_files - told.f_ffree
    return {
        "used_percent": round(used / reachable * 100, 1) if reachable else None,
        "inodes_percent": round(inodes / told.f_files * 100, 1) if told.f_files else None,
        "reason": None,
    }


def _read_only_by_fstab(files: Tree) -> set[str]:
    rows = [line.split() for line in (files.text("etc/fstab") or "").splitlines() if not line.lstrip().startswith("#")]
    return {row[1] for row in rows if len(row) >= 4 and "ro" in row[3].split(",")}


def _unescaped(field: str) -> str:
    """The kernel writes blanks in names as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _arrays(tree: Tree) -> Answer:
    """Software arrays with their state of members, ``UU`` or ``U_``; no arrays where the kernel has no md."""
    text = tree.text("proc/mdstat")
    if text is None:
        return ([], None) if tree.exists("proc") and not tree.exists("proc/mdstat") else (None, tree.why("proc/mdstat"))
    found = []
    for match in re.finditer(r"^(md\S+) : (\S+)(.*)\n(.*)$", text, re.MULTILINE):
        members = re.search(r"\[([U_]+)\]", match[4])
        failed = re.findall(r"(\S+?)\[\d+\]\(F\)", match[3])
        found.append(
            {"name": match[1], "state": match[2], "members": members[1] if members else None, "failed": failed}
        )
    return found, None
