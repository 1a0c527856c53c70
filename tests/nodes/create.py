# SPDX-License-Identifier: Apache-2.0
"""Making one node: its folder and files on the host, its container, its first boot."""

from __future__ import annotations

from dataclasses import dataclass

from . import access, archives, gpus, payload
from .host import remove_tree
from .image import Plan
from .paths import (
    CHECKOUT,
    LABEL,
    LABEL_ADDRESS,
    LABEL_CHECKOUT,
    LABEL_FLEET,
    LABEL_NODE,
    LABEL_SPEC,
    LABEL_VENDOR,
    container_name,
    fleet_dir,
    network_name,
)
from .podman import podman, ulimits
from .spec import NodeSpec
from .vendor import repositories


@dataclass(frozen=True)
class Order:
    """Everything that decides about one node."""

    fleet: str
    spec: NodeSpec
    plan: Plan
    digest: str
    addresses: dict[str, str]
    user_key: str
    vendor: str


def create(order: Order) -> None:
    """Create a node, lay its own files into it, then let it boot."""
    fleet, spec, addresses = order.fleet, order.spec, order.addresses
    folder = fleet_dir(fleet) / spec.name
    name = container_name(fleet, spec.name)
    what = f"start node {spec.name} of fleet {fleet}"
    # A run that was killed may have left half a node, perhaps with other GPUs.
    remove_tree(folder)
    host_key = folder / "ssh_host_ed25519_key"
    public = access.make_key(host_key, spec.name)
    gpus.write_pci_tree(spec.profile, folder / "pci")
    archive = archives.seed(fleet, spec.name, spec.release)
    sources = None if order.plan.redhat else _sources(order.plan, spec)
    files = payload.node_files(
        order.user_key,
        host_key.read_text(encoding="ascii"),
        public,
        sources,
        {
            "etc/simnvml/node.conf": gpus.scenario(spec.profile),
            "etc/simnvml/mode": "always\n" if spec.driver == "installed" else "managed\n",
        },
    )
    labels = {
        LABEL: "node",
        LABEL_CHECKOUT: CHECKOUT,
        LABEL_FLEET: fleet,
        LABEL_NODE: spec.name,
        LABEL_SPEC: order.digest,
        LABEL_ADDRESS: addresses[spec.name],
        LABEL_VENDOR: order.vendor,
    }
    options = [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
    for other, address in addresses.items():
        options += ["--add-host", f"{other}:{address}"] if other != spec.name else []
    for item in spec.tmpfs:
        path, _, size = item.rpartition(":")
        options += ["--tmpfs", f"{path}:rw,exec,size={size}"]
    options += ["-v", f"{order.vendor}:{repositories.MOUNT}:ro"] if order.vendor else []
    podman(
        "--runtime",
        "runc",
        "create",
        "--name",
        name,
        "--hostname",
        spec.name,
        *options,
        "--network",
        network_name(fleet),
        "--ip",
        addresses[spec.name],
        *ulimits(),
        "--pids-limit",
        "8192",
        "--pull=never",
        "--systemd=always",
        "--restart=always",
        "--shm-size",
        "256m",
        "-v",
        f"{folder / 'pci'}:/sys/bus/pci/devices:ro",
        "-v",
        f"{archive}:/var/cache/apt/archives",
        order.plan.node,
        "/sbin/init",
        what=what,
    )
    # Without archive=false podman makes root the owner of everything.
    podman("cp", "--archive=false", "-", f"{name}:/", what=what, stdin=files)
    podman("start", name, what=what)


def _sources(plan: Plan, spec: NodeSpec) -> str:
    """The node's apt sources; the port of a mirror that cannot be reached refuses at once."""
    text = plan.mirror.deb822(spec.release, tuple(spec.components.split("+")))
    if spec.mirror == "none":
        text = text.replace(f"URIs: {plan.mirror.security}\n", "URIs: http://127.0.0.1:9/debian-security\n")
        text = text.replace(f"URIs: {plan.mirror.archive}\n", "URIs: http://127.0.0.1:9/debian\n")
    return text
