# SPDX-License-Identifier: Apache-2.0
"""Fleets: started side by side, kept while they are what was asked for, removed without a trace."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from . import access, archives, gpus
from .create import Order, create
from .errors import NodesError
from .host import locked, remove_tree, run, say
from .image import Plan, drop_old, ensure_images
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
from .podman import ours, podman, remove_containers, succeeds, used_subnets
from .spec import NodeSpec
from .vendor import repositories

_FIRST_ADDRESS = 10
_READY_SECONDS = 90
_WORKERS = 4
Item = TypeVar("Item")
T = TypeVar("T")
Plans = dict[tuple[str, str], Plan]


@dataclass(frozen=True)
class Found:
    """A container of the fleet as it is now."""

    container: str
    node: str
    spec: str
    address: str
    state: str


def find(fleet: str) -> dict[str, Found]:
    """The fleet's containers by node name."""
    found = {}
    for item in ours(fleet=fleet):
        labels = item.get("Labels") or {}
        node = labels[LABEL_NODE]
        found[node] = Found(
            item["Names"][0], node, labels.get(LABEL_SPEC, ""), labels.get(LABEL_ADDRESS, ""), item.get("State", "")
        )
    return found


def up(fleet: str, specs: list[NodeSpec], recreate: bool = False) -> bool:
    """Bring the fleet to what is asked for; answers whether anything had to be done."""
    gpus.check_profiles([spec.profile for spec in specs])
    plans = ensure_images([(spec.release, spec.os) for spec in specs])
    vendors = {kind: repositories.ensure(kind) for kind in sorted({spec.repositories for spec in specs} - {""})}
    with locked(f"fleet-{fleet}"):
        return _up(fleet, specs, plans, vendors, recreate)


def _up(fleet: str, specs: list[NodeSpec], plans: Plans, vendors: dict[str, Path], recreate: bool) -> bool:
    folder = fleet_dir(fleet)
    found = find(fleet)
    fresh = recreate or not (folder / "id_ed25519").is_file() or not succeeds("network", "exists", network_name(fleet))
    mounts = {s.name: str(vendors[s.repositories]) if s.repositories else "" for s in specs}
    plan = {s.name: plans[s.release, s.os] for s in specs}
    digests = {s.name: s.digest(plan[s.name].node, gpus.scenario(s.profile), mounts[s.name]) for s in specs}
    keep = (
        set()
        if fresh
        else {
            name
            for name, item in found.items()
            if item.spec == digests.get(name)
            and item.state == "running"
            and (folder / name / "ssh_host_ed25519_key").is_file()
        }
    )
    keep = {name for name in keep if _answers(folder, name)}
    if len(keep) == len(specs) == len(found):
        say(f"Fleet {fleet} is up and as asked for: {', '.join(sorted(keep))}")
        return False
    started = time.monotonic()
    if keep:
        say(f"Keeping {', '.join(sorted(keep))}")
    if fresh:
        _remove_all(fleet)
    _remove_nodes(fleet, [name for name in found if name not in keep])
    subnet = _ensure_network(fleet, len(specs))
    addresses = _addresses(subnet, specs, {name: found[name].address for name in keep})
    folder.mkdir(parents=True, exist_ok=True)
    access.socket_dir(folder)
    user_key = access.make_key(folder / "id_ed25519", f"rackwright-{fleet}")
    archives.harvest()
    new = [spec for spec in specs if spec.name not in keep]
    say(f"Starting {', '.join(spec.text for spec in new)} (GPUs are simulated)")
    orders = [
        Order(fleet, spec, plan[spec.name], digests[spec.name], addresses, user_key, mounts[spec.name]) for spec in new
    ]
    _each(orders, create)
    _write_state(fleet, specs, addresses)
    for kind, vendor in vendors.items():
        repositories.publish(kind, vendor, folder)
    _each(new, lambda spec: wait_ready(fleet, spec.name))
    drop_old(plans.values())
    repositories.drop_old(mounted_vendors())
    say(f"Fleet {fleet} is up after {time.monotonic() - started:.0f} s: ssh -F {folder / 'ssh_config'} {specs[0].name}")
    return True


def _each(items: list[Item], work: Callable[[Item], T]) -> list[T]:
    """Do the same for several nodes side by side; the first error is raised after all have ended."""
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        return [future.result() for future in [pool.submit(work, item) for item in items]]


def _addresses(subnet: str, specs: list[NodeSpec], taken: dict[str, str]) -> dict[str, str]:
    """A fixed address for every node: it must survive a reboot, since known connections name it."""
    network = ipaddress.ip_network(subnet)
    free = (str(network[i]) for i in range(_FIRST_ADDRESS, network.num_addresses - 1))
    pool = (address for address in free if address not in taken.values())
    return {spec.name: taken.get(spec.name) or next(pool) for spec in specs}


def free_subnet(fleet: str, nodes: int, used: list[str]) -> list[str]:
    """Private subnets that clash with nothing in use, the fleet's usual one first."""
    prefix = 24 if nodes + _FIRST_ADDRESS < 250 else 20
    busy = [ipaddress.IPv4Network(item, strict=False) for item in [*used, "10.88.0.0/16"] if ":" not in item]
    pool = list(ipaddress.IPv4Network("10.90.0.0/15").subnets(new_prefix=prefix))
    shift = zlib.crc32(f"{CHECKOUT}{fleet}".encode()) % len(pool)
    return [str(net) for net in pool[shift:] + pool[:shift] if not any(net.overlaps(item) for item in busy)]


def _ensure_network(fleet: str, nodes: int) -> str:
    name = network_name(fleet)
    what = f"create the network of fleet {fleet}"
    with locked("networks"):
        if not succeeds("network", "exists", name):
            candidates = free_subnet(fleet, nodes, used_subnets())
            if not candidates:
                raise NodesError(
                    what, "every private subnet of its range is in use", "Remove fleets that are not needed"
                )
            # Names are resolved by /etc/hosts: a name server of podman's would listen on the host.
            podman(
                "network",
                "create",
                "--disable-dns",
                "--subnet",
                candidates[0],
                "--label",
                f"{LABEL}=network",
                "--label",
                f"{LABEL_CHECKOUT}={CHECKOUT}",
                "--label",
                f"{LABEL_FLEET}={fleet}",
                name,
                what=what,
            )
            return candidates[0]
    detail = json.loads(podman("network", "inspect", name, what=f"inspect the network of fleet {fleet}"))[0]
    if detail.get("subnets"):
        return str(detail["subnets"][0]["subnet"])
    return str(detail["plugins"][0]["ipam"]["ranges"][0][0]["subnet"])


def ssh_command(folder: Path, node: str, *command: str) -> list[str]:
    """Ssh to a node as any user of the fleet would."""
    return ["ssh", "-F", str(folder / "ssh_config"), "-o", "BatchMode=yes", "-o", "ConnectTimeout=3", node, *command]


def _answers(folder: Path, node: str) -> bool:
    if not (folder / "ssh_config").is_file():
        return False
    return run(ssh_command(folder, node, "true"), f"ask {node}", check=False, timeout=15).returncode == 0


def wait_ready(fleet: str, node: str) -> None:
    """Wait until systemd has finished booting, asked over ssh, so that both are known to work."""
    folder = fleet_dir(fleet)
    end = time.monotonic() + _READY_SECONDS
    last = ""
    while time.monotonic() < end:
        done = run(
            ssh_command(folder, node, "systemctl is-system-running --wait"), f"ask {node}", check=False, timeout=60
        )
        state = done.stdout.strip()
        if state in ("running", "degraded"):
            failed = _failed_units(folder, node) if state == "degraded" else ""
            say(f"  {node} is {state}{failed}")
            return
        last = state or done.stderr.strip()
        time.sleep(0.3)
    log = podman("logs", "--tail", "15", container_name(fleet, node), what=f"read the log of {node}", check=False)
    say(log)
    raise NodesError(
        f"reach node {node} of fleet {fleet}",
        f"it was not ready after {_READY_SECONDS} s ({last})",
        "The node's last console lines are above; `nodes.py up --recreate` starts anew",
    )


def _failed_units(folder: Path, node: str) -> str:
    command = ssh_command(folder, node, "systemctl --failed --plain --no-legend")
    lines = run(command, f"ask {node} for failed units", check=False).stdout.splitlines()
    return ": " + ", ".join(line.split()[0] for line in lines if line.strip())


def _write_state(fleet: str, specs: list[NodeSpec], addresses: dict[str, str]) -> None:
    folder = fleet_dir(fleet)
    keys = {s.name: (folder / s.name / "ssh_host_ed25519_key.pub").read_text(encoding="ascii") for s in specs}
    access.write_file(folder / "known_hosts", access.known_hosts(keys))
    access.write_file(folder / "ssh_config", access.ssh_config(folder, addresses))
    access.write_json(
        folder / "nodes.json",
        {
            "fleet": fleet,
            "simulated": True,
            "nodes": {
                s.name: {
                    "profile": s.profile,
                    "release": s.release,
                    "driver": s.driver,
                    "mirror": s.mirror,
                    "vendor": s.vendor,
                    "os": s.os,
                    "address": addresses[s.name],
                    "container": container_name(fleet, s.name),
                }
                for s in specs
            },
        },
    )


def _remove_nodes(fleet: str, names: list[str]) -> None:
    """Remove nodes, keeping what they downloaded."""
    if not names:
        return
    access.close_connections(fleet_dir(fleet))
    remove_containers([container_name(fleet, name) for name in names])
    archives.harvest()
    for name in names:
        remove_tree(fleet_dir(fleet) / name)


def _remove_all(fleet: str) -> None:
    access.close_connections(fleet_dir(fleet))
    remove_containers([item.container for item in find(fleet).values()])
    name = network_name(fleet)
    if succeeds("network", "exists", name):
        podman("network", "rm", "-f", name, what=f"remove the network of fleet {fleet}")
    archives.harvest()
    remove_tree(fleet_dir(fleet))


def mounted_vendors() -> set[str]:
    """Builds of the vendor's repositories that a container of this checkout has mounted."""
    return {(item.get("Labels") or {}).get(LABEL_VENDOR, "") for item in ours()} - {""}


def down(fleet: str) -> bool:
    """Remove a fleet; a fleet that does not exist is no error. Answers whether there was one."""
    with locked(f"fleet-{fleet}"):
        existed = bool(find(fleet)) or fleet_dir(fleet).exists() or succeeds("network", "exists", network_name(fleet))
        _remove_all(fleet)
    say(f"Fleet {fleet} is removed" if existed else f"There is no fleet {fleet}")
    return existed


def fleets() -> list[str]:
    """Names of all fleets that have left anything."""
    names = {(item.get("Labels") or {}).get(LABEL_FLEET, "") for item in ours()}
    for net in ours("network"):
        names.add((net.get("labels") or net.get("Labels") or {}).get(LABEL_FLEET, ""))
    names.update(path.parent.name for path in fleet_dir("x").parent.glob("*/nodes.json"))
    return sorted(name for name in names if name)


def state(fleet: str) -> dict[str, Any]:
    """The fleet's nodes.json."""
    path = fleet_dir(fleet) / "nodes.json"
    if not path.is_file():
        raise NodesError(f"find fleet {fleet}", "it is not up", f"Start it with `nodes.py up --fleet {fleet} ...`")
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def open_shell(fleet: str, node: str, command: list[str]) -> int:
    """Ssh to a node with this terminal."""
    if node not in state(fleet)["nodes"]:
        raise NodesError(f"reach node {node}", f"fleet {fleet} has no such node", "See `nodes.py list`")
    return subprocess.run(["ssh", "-F", str(fleet_dir(fleet) / "ssh_config"), node, *command], check=False).returncode
