# SPDX-License-Identifier: Apache-2.0
"""Read from the running system: its clock, failed units, processes left behind, variables set for everybody."""

from __future__ import annotations

import ctypes
import os
import re
import struct

from .programs import Run
from .record import Answer
from .sysfs import Tree, read_uptime

_STA_UNSYNC = 0x40
_TIMEX_BYTES = 256  # struct timex has 208 bytes on 64-bit Linux
_UNITS_TIMEOUT_S = 10.0
#: variables that change or slow down every CUDA program: DCGM's list, and two that hide or serialise work
BLOCKERS = (
    *("NSIGHT_CUDA_DEBUGGER", "CUDA_INJECTION32_PATH", "CUDA_INJECTION64_PATH", "CUDA_AUTO_BOOST"),
    *("CUDA_ENABLE_COREDUMP_ON_EXCEPTION", "CUDA_COREDUMP_FILE", "CUDA_DEVICE_WAITS_ON_EXCEPTION"),
    *("CUDA_PROFILE", "COMPUTE_PROFILE", "OPENCL_PROFILE", "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING"),
)
_ENVIRONMENT_FILES = ("etc/environment", "etc/security/pam_env.conf", "etc/profile")
_ENVIRONMENT_FOLDERS = ("etc/profile.d", "etc/environment.d")
_ASSIGNMENT = re.compile(rf"^\s*(?:export\s+)?({'|'.join(BLOCKERS)})(?:\s*=|\s+DEFAULT=|\s+OVERRIDE=)", re.MULTILINE)
_LEFT_BEHIND = re.compile(r"sg_inq|AnsiballZ_|ansible[-_]tmp-")


def clock_synchronised() -> Answer:
    """The kernel's own word, which chrony, ntpd and timesyncd all keep: ``synchronised`` and its largest error."""
    if struct.calcsize("l") != 8:
        return None, "the layout of the kernel's answer is known for 64-bit systems only"
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes = 0: nothing is set
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError) as error:
        return None, f"the C library does not offer adjtimex ({error})"
    if state < 0:
        return None, f"the kernel refuses the question ({os.strerror(ctypes.get_errno()).lower()})"
    max_error_us = struct.unpack_from("l", buffer, 24)[0]
    status = struct.unpack_from("i", buffer, 40)[0]
    return {"synchronised": not status & _STA_UNSYNC, "max_error_ms": round(max_error_us / 1000, 1)}, None


def failed_units(run: Run) -> Answer:
    command = ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager", "--full"]
    try:
        status, output, complaint = run(command, _UNITS_TIMEOUT_S)
    except OSError as error:
        return None, f"systemctl does not run ({error})"
    if status != 0:
        return None, f"systemctl ended with status {status} ({' '.join(complaint.split())[:200]})"
    return [line.split()[0] for line in output.splitlines() if line.strip()], None


def leftovers(tree: Tree) -> Answer:
    """Processes of Ansible and sg_inq with their age in seconds; not those of this very run."""
    names = tree.names("proc")
    uptime = read_uptime(tree)
    if names is None or uptime is None:
        return None, tree.why("proc/uptime") if names is not None else tree.why("proc")
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for name in names:
        command = (tree.text(f"proc/{name}/cmdline") or "").replace("\0", " ").strip() if name.isdigit() else ""
        if not command or not _LEFT_BEHIND.search(command):
            continue
        fields = (tree.text(f"proc/{name}/stat") or "").rpartition(")")[2].split()
        if len(fields) < 20 or not fields[19].isdigit():
            continue  # it ended meanwhile
        found.append({"pid": int(name), "command": command[:120], "age_s": round(uptime - int(fields[19]) / ticks)})
    return found, None


def environment_blockers(files: Tree) -> Answer:
    """Variables of :data:`BLOCKERS` with the file that sets them for everybody."""
    paths = list(_ENVIRONMENT_FILES)
    for folder in _ENVIRONMENT_FOLDERS:
        paths += [f"{folder}/{name}" for name in files.names(folder) or []]
    found = []
    for path in paths:
        for match in _ASSIGNMENT.finditer(files.text(path) or ""):
            found.append({"name": match[1], "file": f"/{path}"})
    return found, None
