# SPDX-License-Identifier: Apache-2.0
"""The few podman calls that the rest is made of."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

from .host import as_root, run
from .paths import CHECKOUT, LABEL, LABEL_CHECKOUT

# podman hands on less than it got itself (about half was refused here), so stay well below common limits.
_NPROC_MOST = 16384
_NOFILE_MOST = 524288


def podman(*args: str, what: str, stdin: bytes | None = None, timeout: int = 120, check: bool = True) -> str:
    """Run podman as root and return what it prints."""
    return run(as_root(["podman", *args]), what, stdin=stdin, timeout=timeout, check=check).stdout


def podman_json(*args: str, what: str) -> Any:
    """Run podman and read the JSON it prints."""
    return json.loads(podman(*args, "--format", "json", what=what) or "[]") or []


def succeeds(*args: str) -> bool:
    """Whether a podman question (`image exists`, `network exists`) is answered with yes."""
    return run(as_root(["podman", *args]), f"ask podman for {args[-1]}", check=False).returncode == 0


def _labels(item: dict[str, Any]) -> dict[str, str]:
    """Labels of anything that podman lists; the key is spelt differently for networks."""
    found: dict[str, str] = item.get("Labels") or item.get("labels") or {}
    return found


def ours(kind: str = "ps", **labels: str) -> list[dict[str, Any]]:
    """Containers (ps), images or networks of this checkout, narrowed by further labels.

    Filtered here, since podman joins several label filters with "and" in one listing and with "or" in another.
    """
    command = {"ps": ["ps", "-a"], "images": ["images", "-a"], "network": ["network", "ls"]}[kind]
    wanted = {LABEL_CHECKOUT: CHECKOUT, **{f"{LABEL}.{key}": value for key, value in labels.items()}}
    items: list[dict[str, Any]] = podman_json(*command, what=f"list podman's {kind}")
    return [item for item in items if wanted.items() <= _labels(item).items()]


def remove_containers(names: list[str]) -> None:
    """Remove containers whatever state they are in."""
    if names:
        podman("rm", "-f", "-t", "0", "-i", *names, what=f"remove {', '.join(names)}", timeout=300)


def ulimits() -> list[str]:
    """Limits within what this process may hand on; podman's own default is refused where the host's is lower."""
    options = []
    for name, kind, soft, most in (
        ("nofile", resource.RLIMIT_NOFILE, 1024, _NOFILE_MOST),
        ("nproc", resource.RLIMIT_NPROC, 0, _NPROC_MOST),
    ):
        hard = resource.getrlimit(kind)[1]
        hard = most if hard == resource.RLIM_INFINITY else min(hard, most)
        options += ["--ulimit", f"{name}={min(soft or hard, hard)}:{hard}"]
    return options


def used_subnets() -> list[str]:
    """Subnets of all podman networks and of the host's routes, as CIDR text."""
    names = [net.get("name") or net.get("Name") for net in podman_json("network", "ls", what="list the networks")]
    subnets: list[str] = []
    if names:
        detail = json.loads(podman("network", "inspect", *names, what="inspect the networks") or "[]")
        for net in detail:
            subnets += [item["subnet"] for item in net.get("subnets") or [] if item.get("subnet")]
            for plugin in net.get("plugins") or []:
                for ranges in (plugin.get("ipam") or {}).get("ranges") or []:
                    subnets += [item["subnet"] for item in ranges if item.get("subnet")]
    return subnets + routed_subnets(Path("/proc/net/route").read_text(encoding="ascii"))


def routed_subnets(table: str) -> list[str]:
    """Destinations of the kernel's IPv4 routing table, without the default route."""
    subnets = []
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 8 or words[7] == "00000000":
            continue
        address = ".".join(str(byte) for byte in bytes.fromhex(words[1])[::-1])
        subnets.append(f"{address}/{bin(int(words[7], 16)).count('1')}")
    return subnets
