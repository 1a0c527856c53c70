# SPDX-License-Identifier: Apache-2.0
"""The ways in that users have: ansible-playbook, groups from the cache, and a bare interpreter of any supported age."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.commands import run, simulation
from support.simulated_node import ROOT, SimulatedNode

CONSTRUCTED = sorted(ROOT.glob("inventory/*/*gpu.constructed.yml"))


def interpreters() -> list[str]:
    """This interpreter and every other supported one of this machine that starts."""
    found = [sys.executable]
    for minor in range(9, 20):
        path = shutil.which(f"python3.{minor}")
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            found.append(path)
    return found


@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda path: Path(path).name)
def test_probe_runs_on_a_bare_interpreter(tmp_path: Path, interpreter: str) -> None:
    """Isolated and without site-packages: what a node has on which nothing was installed."""
    node = SimulatedNode(tmp_path, "rtx4090x2")
    program = (
        f"import sys, json; sys.path.insert(0, {str(ROOT / 'module_utils')!r})\n"
        "from rackwright.gpu_probe import probe\n"
        "print(json.dumps(probe(sys.argv[1])))"
    )
    done = subprocess.run(
        [interpreter, "-I", "-S", "-c", program, str(node.sysroot)],
        env=simulation(node, tmp_path / "cache"),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    gpu = json.loads(done.stdout)
    assert (gpu["source"], gpu["situation"], gpu["count"]) == ("nvml-ctypes", "ready", 2)


def test_playbook_tells_a_person_the_situation(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, "h100x8").set("gpu.3.fail", "GPU_IS_LOST")
    arguments = [
        "-i",
        "localhost,",
        "-c",
        "local",
        "playbooks/gather-facts.yml",
        "-e",
        f"gpu_facts_sysroot={node.sysroot}",
    ]
    text = run("ansible-playbook", *arguments, environment=simulation(node, tmp_path / "cache"))
    flat = " ".join(text.split())
    assert f"gpu_lost: GPU 3 at {node.pci_addresses[3]} is lost; 7 of 8 answer." in flat
    assert "Next: Drain the node" in flat
    assert "simulated GPU 0 at" in flat
    assert "NVIDIA H100 80GB HBM3, hopper, 79.6 GiB, 29 C" in flat
    assert "changed=0" in flat


@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["run", "check"])
def test_playbook_works_on_this_machine_as_it_is(tmp_path: Path, arguments: list[str]) -> None:
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(tmp_path),
    }
    command = ["-i", "localhost,", "-c", "local", "playbooks/gather-facts.yml", *arguments]
    text = run("ansible-playbook", *command, environment=environment)
    assert "failed=0" in text
    assert "kernel module none (unknown)" not in text, "where there is no driver, its parts are not listed"


def test_cached_facts_become_groups(tmp_path: Path) -> None:
    source, other = CONSTRUCTED
    assert source.read_bytes() == other.read_bytes()
    site, cache = tmp_path / "site", tmp_path / "cache"
    site.mkdir()
    shutil.copy(source, site)
    hosts = {"gpu_nodes": {"hosts": {"node": {"ansible_connection": "local"}, "silent": {}}}}
    (site / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    node = SimulatedNode(tmp_path, "h100x8")
    environment = simulation(node, cache)
    gather = ["playbooks/gather-facts.yml", "-e", f"gpu_facts_sysroot={node.sysroot}", "--limit", "node"]
    run("ansible-playbook", "-i", str(site), *gather, environment=environment)
    groups = json.loads(run("ansible-inventory", "-i", str(site), "--list", environment=environment))
    for group in ("gpu_situation_ready", "gpu_count_8", "gpu_arch_hopper", "gpu_model_h100_sxm5_80gb", "gpu_simulated"):
        assert groups[group]["hosts"] == ["node"]


def test_constructed_inventory_is_read_after_the_hosts() -> None:
    for source in CONSTRUCTED:
        assert max(path.name for path in source.parent.iterdir() if path.is_file()) == source.name


def test_a_node_that_does_not_answer_says_how_old_its_facts_are(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, "h100x8")
    environment = simulation(node, tmp_path / "cache")
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("gpu_nodes: {hosts: {n1: {ansible_connection: local}}}\n", encoding="utf-8")
    gather = ["-i", str(hosts), "playbooks/gather-facts.yml", "-e", f"gpu_facts_sysroot={node.sysroot}"]
    run("ansible-playbook", *gather, environment=environment)
    away = (
        "all: {hosts: {n1: {ansible_host: 127.0.0.1, ansible_port: 1}, n2: {ansible_host: 127.0.0.1, ansible_port: 1}}}"
    )
    hosts.write_text(away, encoding="utf-8")

    with pytest.raises(AssertionError) as failed:
        run("ansible-playbook", *gather, environment=environment)
    flat = " ".join(str(failed.value).split())

    assert "Its cached facts are less than a minute old: 8 GPU(s), ready: 8 simulated GPUs answer" in flat
    assert flat.count("Nothing is cached of it.") >= 1
    assert "failed=1" in flat


def test_plans_and_fits_say_how_old_the_facts_are_that_they_use(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, "h100x8")
    environment = simulation(node, tmp_path / "cache")
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("gpu_nodes: {hosts: {n1: {ansible_connection: local}}}\n", encoding="utf-8")
    on = ["-i", str(hosts), "-e", "facts_max_age=0"]
    run("ansible-playbook", *on, "playbooks/gather-facts.yml", "-e", f"gpu_facts_sysroot={node.sysroot}",
        environment=environment)  # fmt: skip
    plan = run("ansible-playbook", *on, "playbooks/plan-stack.yml", "-e", "plan_facts=cache", "--check",
               environment=environment)  # fmt: skip
    fit = run("ansible-playbook", *on, "playbooks/fit-models.yml", "-e", "node=n1", environment=environment)

    for text in (plan, fit):
        assert "Cached facts of n1: less than a minute old." in text
        assert "Stale, older than 0 hours: n1 (less than a minute old)." in text
