# SPDX-License-Identifier: Apache-2.0
"""What a node needs to come back to the driver it has: its packages and their sources, room, no reboot that is due."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .driver_names import members
from .packages import Candidate, Installed

#: Debian and Ubuntu; dnf's needs-restarting leaves none
_MARKS = ("run/reboot-required", "var/run/reboot-required")


class Manager(Protocol):
    """The part of a package manager that is asked."""

    def statuses(self) -> dict[str, Installed]: ...

    def candidates(self, names: Sequence[str]) -> list[Candidate]: ...

    def holds(self) -> set[str]: ...


def look(
    manager: Manager,
    sources: Iterable[str],
    extra: Sequence[str],
    needed_mib: Mapping[str, int],
    root: Path = Path("/"),
) -> dict[str, Any]:
    """Return what the module return_point returns.

    Args:
        manager: the node's package manager.
        sources: patterns of the driver's source packages, none where names tell (driver_names.members).
        extra: further packages that are to come back, such as the fabric manager.
        needed_mib: path to MiB that must be free there.
        root: of the file system.
    """
    statuses = manager.statuses()
    driver = members(statuses, list(sources))
    found = {name: package.version for name, package in sorted(driver.items())}
    found.update({name: statuses[name].version for name in sorted(extra) if name in statuses})
    offered = {(candidate.name, candidate.version) for candidate in manager.candidates(list(found))} if found else set()
    return {
        "packages": found,
        "broken": sorted(name for name, package in driver.items() if package.broken),
        "holds": sorted(set(manager.holds()) & set(found)),
        "unobtainable": [f"{name}={version}" for name, version in found.items() if (name, version) not in offered],
        "needed_mib": dict(needed_mib),
        "free_mib": {path: free_mib(root, path) for path in needed_mib},
        "reboot_pending": reboot_pending(root),
    }


def free_mib(root: Path, path: str) -> int | None:
    """Return the MiB that are free where a path is, or would be; None where that cannot be told."""
    place = root / path.lstrip("/")
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free // 2**20
    except OSError:
        return None


def reboot_pending(root: Path) -> str | None:
    """Return what says that the node waits for a reboot, None when nothing does."""
    for name in _MARKS:
        if (root / name).exists():
            packages = _first_lines(root / f"{name}.pkgs")
            return f"/{name}" + (f", for {', '.join(packages)}" if packages else "")
    return None


def _first_lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return []
    return list(dict.fromkeys(os.path.basename(line) for line in lines))[:3]
