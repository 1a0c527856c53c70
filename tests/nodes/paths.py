# SPDX-License-Identifier: Apache-2.0
"""Where things lie, and the names by which this checkout's containers are told from another's."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIMNVML = ROOT / "tests" / "simnvml"
NODES = ROOT / "build" / "nodes"
CACHE = ROOT / "build" / "cache"

# Two checkouts on one machine must not tear down each other's fleets.
CHECKOUT = hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]

LABEL = "rackwright"
LABEL_CHECKOUT = "rackwright.checkout"
LABEL_FLEET = "rackwright.fleet"
LABEL_NODE = "rackwright.node"
LABEL_SPEC = "rackwright.spec"
LABEL_ADDRESS = "rackwright.address"
LABEL_RELEASE = "rackwright.release"
LABEL_VENDOR = "rackwright.vendor"


def fleet_dir(fleet: str) -> Path:
    """Folder with everything that the host side of a fleet needs."""
    return NODES / fleet


def network_name(fleet: str) -> str:
    """Name of the fleet's own network."""
    return f"rackwright-{CHECKOUT}-{fleet}"


def container_name(fleet: str, node: str) -> str:
    """Name of a node's container."""
    return f"rackwright-{CHECKOUT}-{fleet}-{node}"
