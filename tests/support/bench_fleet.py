# SPDX-License-Identifier: Apache-2.0
"""Eight container nodes for tests/bench, and inventories that know each of them by many names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.bench import Cost, command, step, write_json
from support.simulated_node import ROOT

from ansible.module_utils.rackwright import probe_pack

FLEET = "bench"
NODES = [f"b{number}" for number in range(1, 9)]
FOLDER = ROOT / "build" / "bench"
_STATE = ROOT / "build" / "nodes" / FLEET
_BOOT = "stat -c %Y /proc/1"
#: as in inventory/demo: what can really be installed on these nodes, and what differs because they are containers
VARIABLES = {
    "ansible_python_interpreter": "/usr/bin/python3",
    "gpu_facts_sysroot": "/run/simnvml/root",
    "stack_driver_source": "distribution",
    "stack_driver_branch": "535",
    "stack_framework_version": "2.13.0",
    "os_base_reboot_allowed": True,
    "os_base_reboot_boot_time_command": _BOOT,
    "nvidia_driver_reboot_allowed": True,
    "nvidia_driver_reboot_boot_time_command": _BOOT,
}


class Site:
    """One inventory with reports, lock and cached facts of its own."""

    def __init__(self, name: str, hosts: Mapping[str, Mapping[str, Any]], **variables: Any) -> None:
        self.folder = FOLDER / name
        self.hosts = list(hosts)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.reports, self.facts = self.folder / "reports", self.folder / "facts"
        group = {**VARIABLES, "rackwright_reports": str(self.reports), **variables}
        write_json(self.folder / "inventory" / "hosts.yml", {"gpu_nodes": {"hosts": hosts, "vars": group}})

    def run(self, program: str, *arguments: str) -> Cost:
        """Run Ansible on this inventory."""
        environment = {"ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.facts)}
        return command(program, "-i", str(self.folder / "inventory"), *arguments, environment=environment)

    def play(self, playbook: str, *arguments: str) -> Cost:
        """Run one of the playbooks."""
        return self.run("ansible-playbook", f"playbooks/{playbook}", *arguments)

    def ping(self) -> Cost:
        """Run the floor that everything is compared with."""
        return self.run("ansible", "gpu_nodes", "-m", "ping")

    def prove_like(self, other: Site) -> None:
        """Take over the proofs of another site's hosts for the aliases ``NAME-NUMBER`` of this one."""
        record = json.loads((other.reports / "proofs.json").read_text(encoding="utf-8"))
        record["nodes"] = {name: record["nodes"][name.split("-")[0]] for name in self.hosts}
        write_json(self.reports / "proofs.json", record)


@contextmanager
def fleet() -> Iterator[Site]:
    """Start the nodes, bring them to what their lock says, and remove them in the end.

    ``RACKWRIGHT_BENCH_KEEP=1`` in the environment leaves them for the next run.
    """
    step(f"starting {len(NODES)} container nodes with simulated GPUs (their image is built when there is none)")
    nodes = [f"{name}={'h100x8' if name < 'b5' else 'rtx4090x2'}:bookworm" for name in NODES]
    _nodes("up", "--fleet", FLEET, *nodes)
    try:
        connection = {
            "ansible_ssh_common_args": f"-F {_STATE / 'ssh_config'}",
            "ansible_control_path_dir": str(_STATE / "cp"),
        }
        site = Site("eight", {name: {} for name in NODES}, **connection)
        step("planning them and bringing them there with site.yml: four to eight minutes, most of it pip and apt")
        site.play("plan-stack.yml")
        first = site.play("site.yml")
        print(f"first run of site.yml: {first.wall:.0f} s, control node {first.cpu:.0f} CPU s")
        assert f"{len(NODES)} converged" in site.play("site.yml").output
        yield site
    finally:
        if not os.environ.get("RACKWRIGHT_BENCH_KEEP"):
            step("removing the nodes")
            _nodes("down", "--fleet", FLEET)


def _nodes(*arguments: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "tests/nodes/nodes.py"), *arguments], check=True, capture_output=True)


def aliases(count: int) -> Site:
    """Return a site that knows every node by many names, each with an SSH connection of its own."""
    hosts: dict[str, dict[str, Any]] = {f"{NODES[number % len(NODES)]}-{number:03d}": {} for number in range(count)}
    text = (_STATE / "ssh_config").read_text(encoding="utf-8")
    text = re.sub(r"^Host (.*)$", lambda line: f"Host {_with_aliases(line[1])}", text, flags=re.MULTILINE)
    place = FOLDER / f"aliases{count}"
    site = Site(
        place.name,
        hosts,
        ansible_ssh_common_args=f"-F {place / 'ssh_config'}",
        ansible_control_path_dir=str(place / "cp"),
    )
    (place / "ssh_config").write_text(text, encoding="utf-8")
    return site


def _with_aliases(names: str) -> str:
    return " ".join(f"{name} {name}-*" for name in names.split())


def answer(node: str) -> dict[str, Any]:
    """Return what node_probe says of a node, asked by hand."""
    options = {"sysroot": VARIABLES["gpu_facts_sysroot"], "timeout": 30.0, "extra_gpus": []}
    options["receipts_dir"] = "/var/lib/rackwright/receipts"
    script = probe_pack.packed(ROOT / "module_utils/rackwright", FOLDER)
    done = subprocess.run(
        ["ssh", "-F", str(_STATE / "ssh_config"), node, f"sudo python3 -c '{probe_pack.START}'"],
        input=probe_pack.message(options, script),
        capture_output=True,
        check=True,
    )
    found = probe_pack.parse(done.stdout.decode())
    assert found, done.stderr
    return found


def node_seconds() -> float:
    """Return the CPU seconds that all nodes have used since they were started."""
    nodes = json.loads((_STATE / "nodes.json").read_text(encoding="utf-8"))["nodes"]
    return sum(_used(node["container"]) for node in nodes.values())


def _used(container: str) -> float:
    line = ["podman", "inspect", container, "--format", "{{.State.CgroupPath}}"]
    group = subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip().lstrip("/")
    old = Path("/sys/fs/cgroup/cpuacct", group, "cpuacct.usage")
    if old.exists():
        return int(old.read_text(encoding="ascii")) / 1e9
    new = Path("/sys/fs/cgroup", group, "cpu.stat").read_text(encoding="ascii").split()
    return int(new[new.index("usage_usec") + 1]) / 1e6


def with_nodes(action: Callable[[], Cost]) -> Callable[[], Cost]:
    """Return the action, measuring what it costs the nodes as well."""

    def measured() -> Cost:
        before = node_seconds()
        cost = action()
        return replace(cost, node_cpu=node_seconds() - before)

    return measured
