# SPDX-License-Identifier: Apache-2.0
"""A cache of downloaded packages that many nodes use at once without a lock.

Each node has an archive folder of its own, filled with hard links to the cache. Whatever apt does in a node (download,
clean, replace) changes names in that folder only, since apt writes to partial/ and renames. New packages are linked
back into the cache when any fleet starts or ends.
"""

from __future__ import annotations

from pathlib import Path

from .host import as_root, give_back, run
from .paths import CACHE, NODES


def cache_dir(release: str) -> Path:
    """Packages of one release that were ever downloaded by a node."""
    path = CACHE / "apt" / release
    path.mkdir(parents=True, exist_ok=True)
    return path


def node_dir(fleet: str, node: str, release: str) -> Path:
    """Archive folder of one node."""
    return NODES / fleet / node / f"archives-{release}"


def link_all(source: Path, target: Path) -> int:
    """Link the packages that target lacks; answers how many."""
    have = {path.name for path in target.glob("*.deb")}
    new = sorted(path for path in source.glob("*.deb") if path.name not in have)
    for start in range(0, len(new), 500):
        # As root: a package that a node downloaded belongs to the node's root.
        names = [str(path) for path in new[start : start + 500]]
        run(as_root(["cp", "--link", "--no-clobber", "--target-directory", str(target), *names]), f"link into {target}")
    return len(new)


def seed(fleet: str, node: str, release: str) -> Path:
    """Prepare a node's archive folder with everything that is in the cache."""
    path = node_dir(fleet, node, release)
    path.mkdir(parents=True, exist_ok=True)
    link_all(cache_dir(release), path)
    return path


def harvest() -> int:
    """Take the packages of all nodes of all fleets into the cache."""
    total = 0
    for path in NODES.glob("*/*/archives-*"):
        release = path.name.partition("-")[2]
        taken = link_all(path, cache_dir(release))
        total += taken
        if taken:
            give_back(cache_dir(release))
    return total
