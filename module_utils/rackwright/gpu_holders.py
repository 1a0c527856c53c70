# SPDX-License-Identifier: Apache-2.0
"""Who holds the GPUs of this node: NVML's process lists and the open handles of ``/dev/nvidia*``.

Neither is enough alone. NVML does not show processes of other process namespaces, nor any while the driver is being
replaced; a handle does not say how much memory is used. NVML is asked in a child, for its calls may hang.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .child import run_in_child
from .errors import ProbeError, TimedOutError
from .gpu_daemons import is_named
from .nvml import Nvml, choose_binding, find_library
from .nvml_errors import LIBRARY_NOT_FOUND, NvmlFailure, reason_for

_LISTS = (
    ("compute", "nvmlDeviceGetComputeRunningProcesses"),
    ("graphics", "nvmlDeviceGetGraphicsRunningProcesses"),
    ("mps", "nvmlDeviceGetMPSComputeRunningProcesses"),
)
_GPU_FILE = re.compile(r"/dev/nvidia(\d+)$")


class DriverHangsError(TimedOutError):
    """The driver does not answer; no process list can be had, and a restart of the machine may be the only way."""

    kind = "driver_hangs"


@dataclass
class Holder:
    """One process that holds a GPU; what cannot be known is None."""

    pid: int
    name: str | None = None
    program: str | None = None
    user: str | None = None
    unit: str | None = None
    started: str | None = None
    gpus: set[int] = field(default_factory=set)
    memory_bytes: int | None = None
    types: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)

    def to_result(self) -> dict[str, Any]:
        """As the module returns it."""
        return {
            "pid": self.pid,
            "name": self.name,
            "user": self.user,
            "unit": self.unit,
            "gpus": sorted(self.gpus),
            "memory_bytes": self.memory_bytes,
            "types": sorted(self.types),
            "devices": sorted(self.devices),
        }

    def phrase(self) -> str:
        """For a message: ``python3 (pid 4242 of alice, vllm@a.service, GPU 0, 1)``."""
        parts = [f"pid {self.pid}" + (f" of {self.user}" if self.user else "")]
        parts += [self.unit] if self.unit else []
        parts += [f"GPU {', '.join(str(gpu) for gpu in sorted(self.gpus))}"] if self.gpus else []
        return f"{self.name or 'a process not visible from here'} ({', '.join(parts)})"

    def is_one_of(self, names: Iterable[str]) -> bool:
        """Whether it has one of these names."""
        wanted = list(names)
        return self.program in wanted or is_named(self.name, wanted)


@dataclass(frozen=True)
class Snapshot:
    """Everybody who holds a GPU at one moment, and how much of that could be seen."""

    holders: list[Holder]
    nvml: str
    handles: str


def look(sysroot: str = "/", nvml_timeout_s: float = 30.0, procfs: str = "/proc") -> Snapshot:
    """Ask NVML and the process table.

    Args:
        sysroot: its ``dev/nvidia*`` count as devices too, beside those of ``/dev``.

    Raises:
        DriverHangsError: NVML did not answer in time. ProbeError: it crashed, or neither source says anything.
    """
    handles, unreadable = open_handles(procfs, sysroot)
    asked = ask_nvml(nvml_timeout_s)
    nvml = nvml_word(asked)
    is_root = os.geteuid() == 0
    seen = "ok"
    if unreadable:
        cure = "this root lacks CAP_SYS_PTRACE" if is_root else "run as root (become: true)"
        seen = f"{unreadable} processes could not be read; {cure}"
    if unreadable and nvml != "ok" and not is_root:
        raise ProbeError(
            "tell who holds the GPUs",
            os.uname().nodename,
            f"NVML says nothing ({nvml}) and {unreadable} processes could not be read",
            "Run as root (become: true)",
        )
    holders = merge(asked, handles)
    for holder in holders:
        describe(holder, procfs)
    return Snapshot(holders, nvml, seen)


def ask_nvml(timeout_s: float) -> dict[str, Any]:
    """Run :func:`read_lists` in a child that may hang."""
    answer = run_in_child(read_lists, (), timeout_s)
    node = os.uname().nodename
    if answer.status == "timeout":
        step = (
            "Look at `journalctl -k` for Xid messages; reset the GPU or restart the node. Do not replace the driver now"
        )
        raise DriverHangsError("ask the NVIDIA driver who uses the GPUs", node, answer.detail, step)
    if answer.status != "ok":
        step = "Look at `journalctl -k`, then try again"
        raise ProbeError("ask the NVIDIA driver who uses the GPUs", node, answer.detail, step)
    value: dict[str, Any] = answer.value
    return value


def read_lists() -> dict[str, Any]:
    """Read the process lists of every GPU and MIG device. Only JSON data; runs in the child."""
    if not find_library()["found"]:
        return {"reason": reason_for(LIBRARY_NOT_FOUND), "devices": []}
    nvml = choose_binding()[0]
    try:
        nvml.call("nvmlInit")
        count = int(nvml.call("nvmlDeviceGetCount"))
    except NvmlFailure as failure:
        return {"reason": str(failure), "devices": []}
    return {"reason": None, "devices": [_read_device(nvml, index) for index in range(count)]}


def _read_device(nvml: Nvml, index: int) -> dict[str, Any]:
    device: dict[str, Any] = {"index": index, "minor": None, "reason": None, "processes": []}
    try:
        handle = nvml.call("nvmlDeviceGetHandleByIndex", index)
    except NvmlFailure as failure:
        return {**device, "reason": str(failure)}
    with contextlib.suppress(NvmlFailure):
        device["minor"] = int(nvml.call("nvmlDeviceGetMinorNumber", handle))
    failures = 0
    for kind, function in _LISTS:
        for part in [handle, *_mig_devices(nvml, handle)]:
            try:
                found = nvml.call(function, part)
            except NvmlFailure as failure:
                if part is handle:
                    failures += 1
                    device["reason"] = str(failure)
                continue
            device["processes"] += [[int(p.pid), kind, p.usedGpuMemory] for p in found]
    if failures < len(_LISTS):  # a card that knows no graphics processes is no card that says nothing
        device["reason"] = None
    return device


def _mig_devices(nvml: Nvml, handle: Any) -> list[Any]:
    """The lists of the whole GPU show processes of MIG devices only to some callers, so each device is asked too."""
    try:
        if nvml.call("nvmlDeviceGetMigMode", handle)[0] != 1:
            return []
        slots = int(nvml.call("nvmlDeviceGetMaxMigDeviceCount", handle))
    except NvmlFailure:
        return []
    devices = []
    for slot in range(slots):
        with contextlib.suppress(NvmlFailure):  # an empty slot
            devices.append(nvml.call("nvmlDeviceGetMigDeviceHandleByIndex", handle, slot))
    return devices


def nvml_word(asked: dict[str, Any]) -> str:
    """``ok``, or why NVML's lists are missing or incomplete."""
    if asked["reason"]:
        return str(asked["reason"])
    silent = [f"GPU {device['index']}: {device['reason']}" for device in asked["devices"] if device["reason"]]
    return "; ".join(silent) or "ok"


def merge(asked: dict[str, Any], handles: dict[int, set[str]]) -> list[Holder]:
    """Put both sources together, one entry for each process, in order of pid."""
    holders: dict[int, Holder] = {}
    minors = {device["minor"]: device["index"] for device in asked["devices"] if device["minor"] is not None}
    used: dict[tuple[int, int], int] = {}
    for device in asked["devices"]:
        for pid, kind, memory in device["processes"]:
            holder = holders.setdefault(pid, Holder(pid))
            holder.gpus.add(device["index"])
            holder.types.add(kind)
            if memory is not None:  # the same process stands in the list of the GPU and of its MIG device
                key = (pid, device["index"])
                used[key] = max(used.get(key, 0), memory)
    for pid, devices in handles.items():
        holder = holders.setdefault(pid, Holder(pid))
        holder.types.add("handle")
        holder.devices |= devices
        found = (_GPU_FILE.match(device) for device in devices)
        holder.gpus |= {minors[int(match[1])] for match in found if match and int(match[1]) in minors}
    for pid, holder in holders.items():
        amounts = [amount for (owner, _gpu), amount in used.items() if owner == pid]
        holder.memory_bytes = sum(amounts) if amounts else None
    return [holders[pid] for pid in sorted(holders)]


# ---- the process table ----


def open_handles(procfs: str = "/proc", sysroot: str = "/") -> tuple[dict[int, set[str]], int]:
    """Return pid -> NVIDIA device files it has open, and how many processes could not be read.

    This process is left out.
    """
    found: dict[int, set[str]] = {}
    unreadable = 0
    below = sysroot.rstrip("/")
    for entry in os.listdir(procfs):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            targets = _targets(os.path.join(procfs, entry, "fd"))
        except PermissionError:
            unreadable += 1
            continue
        devices = {target for target in (_device(target, below) for target in targets) if target}
        if devices:
            found[int(entry)] = devices
    return found, unreadable


def _targets(folder: str) -> list[str]:
    targets = []
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return []  # ended meanwhile
    for name in names:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            targets.append(os.readlink(os.path.join(folder, name)))
    return targets


def _device(target: str, below: str) -> str | None:
    path = target.removesuffix(" (deleted)")
    if below and path.startswith(f"{below}/"):
        path = path[len(below) :]
    return path if path.startswith("/dev/nvidia") else None


def describe(holder: Holder, procfs: str = "/proc") -> None:
    """Add name, program, user, unit and start time, as far as they can be seen."""
    folder = os.path.join(procfs, str(holder.pid))
    holder.name = _read(folder, "comm") or None
    words = _read(folder, "cmdline").split("\0")
    holder.program = os.path.basename(words[0]) or None
    holder.started = started(holder.pid, procfs)
    holder.unit = unit_of(_read(folder, "cgroup"))
    try:
        uid = os.stat(folder).st_uid
    except OSError:
        return
    try:
        holder.user = pwd.getpwuid(uid).pw_name
    except KeyError:
        holder.user = str(uid)


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as stream:
            return stream.read().strip("\n\0")
    except OSError:
        return ""


def _stat(pid: int, procfs: str) -> list[str]:
    """Fields of /proc/PID/stat after the name, which may itself contain blanks and parentheses."""
    return _read(os.path.join(procfs, str(pid)), "stat").rpartition(")")[2].split()


def started(pid: int, procfs: str = "/proc") -> str | None:
    """When a process started, in ticks since boot, None when it ended: tells it from a later one of the same number."""
    fields = _stat(pid, procfs)
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else None


def ancestors(pid: int, procfs: str = "/proc") -> set[int]:
    """The process itself and everything that waits for it."""
    family = set()
    while pid > 0 and pid not in family:
        family.add(pid)
        fields = _stat(pid, procfs)
        pid = int(fields[1]) if len(fields) > 1 else 0
    return family


def unit_of(cgroup: str) -> str | None:
    """The unit, job or container a process belongs to, from /proc/PID/cgroup; sessions of people are none."""
    for line in cgroup.splitlines():
        parts = [part for part in line.rpartition(":")[2].split("/") if part]
        for part in reversed(parts):
            if re.fullmatch(r"job_\d+", part):
                return f"Slurm {part}"
            if part.endswith((".service", ".scope")) and not part.startswith(("session-", "user@", "init.scope")):
                return part
    return None
