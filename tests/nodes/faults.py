# SPDX-License-Identifier: Apache-2.0
"""Bad luck on demand: what tests do to a node from outside."""

from __future__ import annotations

import subprocess

from . import access, fleet
from .errors import NodesError
from .host import as_root
from .paths import fleet_dir, network_name
from .podman import podman

FAULTS = {
    "stop": "power a node off",
    "start": "power a stopped node on",
    "kill": "cut a node's power; it comes back like after a power failure only with `start`",
    "pause": "freeze a node: it keeps its connections and answers nothing",
    "resume": "let a frozen node go on",
    "disconnect": "pull a node's network cable",
    "connect": "plug it in again",
}


def _found(name: str, node: str) -> fleet.Found:
    found = fleet.find(name).get(node)
    if not found:
        raise NodesError(f"find node {node}", f"fleet {name} has no such node", "See `nodes.py list`")
    return found


def apply(fault: str, name: str, node: str) -> None:
    """Do one of FAULTS to a node."""
    found = _found(name, node)
    what = f"{fault} node {node}"
    if fault == "stop":
        podman("stop", "-t", "20", found.container, what=what)
    elif fault == "kill":
        podman("stop", "-t", "0", found.container, what=what)
    elif fault == "start":
        podman("start", found.container, what=what)
        fleet.wait_ready(name, node)
    elif fault in ("pause", "resume"):
        podman("pause" if fault == "pause" else "unpause", found.container, what=what)
    elif fault == "disconnect":
        podman("network", "disconnect", network_name(name), found.container, what=what)
    elif fault == "connect":
        podman("network", "connect", "--ip", found.address, network_name(name), found.container, what=what)
        access.close_connections(fleet_dir(name))


def execute(name: str, node: str, command: list[str]) -> int:
    """Run a command in a node without its network."""
    argv = as_root(["podman", "--runtime", "runc", "exec", "-i", _found(name, node).container, *(command or ["sh"])])
    return subprocess.run(argv, check=False).returncode
