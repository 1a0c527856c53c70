# SPDX-License-Identifier: Apache-2.0
"""Read RDMA ports and NVMe drives from sysfs; wear and warnings of a drive from the program nvme, where it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from .sysfs import Tree

_RDMA = "sys/class/infiniband"
_NVME = "sys/class/nvme"
_SMART_TIMEOUT_S = 10.0
_SMART = ("critical_warning", "percent_used", "avail_spare", "spare_thresh", "media_errors")

Answer = tuple[Any, "str | None"]
Run = Callable[[list[str], float], tuple[int, str, str]]


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


def nvme_drives(tree: Tree, run: Run, smart: bool = True) -> Answer:
    """One record per controller: ``name``, ``state``, ``model``, ``serial``, ``smart`` or ``smart_reason``."""
    names = tree.names(_NVME)
    if names is None:
        return ([], None) if tree.exists("sys/class") else (None, tree.why(_NVME))
    drives = []
    # the program asks devices of the machine that runs it: never for a prepared tree
    asked = smart and tree.sysroot == "/"
    for name in [name for name in names if re.fullmatch(r"nvme\d+", name)]:
        values, reason = _smart_log(run, name) if asked else (None, "the drive was not asked")
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


def _smart_log(run: Run, name: str) -> Answer:
    try:
        status, output, complaint = run(["nvme", "smart-log", f"/dev/{name}", "--output-format=json"], _SMART_TIMEOUT_S)
    except FileNotFoundError:
        return None, "the program nvme (package nvme-cli) is not installed"
    except OSError as error:
        return None, f"nvme does not run ({error})"
    if status != 0:
        return None, f"nvme ended with status {status} ({' '.join(complaint.split())[:200]})"
    try:
        told = json.loads(output)
    except ValueError:
        return None, "the answer of nvme is no JSON"
    return smart_values(told)


def smart_values(told: Any) -> Answer:
    """The values that are judged; newer versions of the program give the warning as a mapping with its number."""
    if not isinstance(told, dict):
        return None, "the answer of nvme is no mapping"
    values = {key: told.get(key) for key in _SMART}
    warning = values["critical_warning"]
    if isinstance(warning, dict):
        values["critical_warning"] = warning.get("value")
    if not isinstance(values["critical_warning"], int):
        return None, "the answer of nvme has no critical_warning"
    return {key: value if isinstance(value, int) else None for key, value in values.items()}, None
