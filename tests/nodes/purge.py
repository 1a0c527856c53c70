# SPDX-License-Identifier: Apache-2.0
"""Removing everything that this checkout ever made."""

from __future__ import annotations

from . import fleet
from .host import locked, remove_tree, say
from .paths import CACHE, NODES
from .podman import ours, podman, remove_containers


def purge() -> None:
    """Remove fleets, half-built containers, images, networks and caches."""
    for found in fleet.fleets():
        fleet.down(found)
    remove_containers([item["Id"] for item in ours()])
    with locked("networks"):
        for image in ours("images"):
            podman("rmi", "-f", image["Id"], what=f"remove image {image['Id'][:12]}")
        for net in ours("network"):
            name = str(net.get("name") or net.get("Name"))
            podman("network", "rm", "-f", name, what=f"remove network {name}")
    remove_tree(CACHE)
    remove_tree(NODES)
    say("All test nodes, images, networks and caches of this checkout are removed")
