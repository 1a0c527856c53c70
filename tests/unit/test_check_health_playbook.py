# SPDX-License-Identifier: Apache-2.0
"""check-health.yml as a user types it: on this machine with simulated GPUs, and with a node that does not answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import simulation
from support.simulated_node import ROOT, SimulatedNode


@pytest.fixture
def node(tmp_path: Path) -> SimulatedNode:
    simulated = SimulatedNode(tmp_path, "rtx4090x2")
    return simulated.write("proc/uptime", "86400.00 0.00\n").write("dev/kmsg", "")


def check(
    node: SimulatedNode, folder: Path, *arguments: str, silent: bool = False, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run the playbook on a host ``me`` with simulated GPUs, and on one that nothing answers for."""
    inventory = folder / "hosts.yml"
    gone = "    gone: {ansible_host: 127.0.0.1, ansible_port: 1}\n" if silent else ""
    inventory.write_text(f"gpu_nodes:\n  hosts:\n    me: {{ansible_connection: local}}\n{gone}", encoding="utf-8")
    given = {
        "gpu_facts_sysroot": str(node.sysroot),
        "rackwright_reports": str(folder / "reports"),
        "health_become": False,
        **variables,
    }
    program = Path(sys.executable).parent / "ansible-playbook"
    return subprocess.run(
        [str(program), "-i", str(inventory), "playbooks/check-health.yml", "-e", json.dumps(given), *arguments],
        cwd=ROOT,
        env=simulation(node, folder / "cache"),
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def report(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "reports/health/me.json").read_text(encoding="utf-8"))
    return document


def test_a_broken_gpu_fails_the_run_and_is_told_with_what_to_do(node: SimulatedNode, tmp_path: Path) -> None:
    result = check(node.set("gpu.1.recovery_action", 2), tmp_path, silent=True)

    assert result.returncode != 0
    assert "changed=0" in result.stdout
    lines = result.stdout.splitlines()
    at = lines.index("  reboot: gpu.recovery_action, gpu1: the driver asks for node reboot")
    assert lines[at + 1 : at + 4] == [
        "    1. Stop what runs on the GPU.",
        "    2. Take the node out of service.",
        "    3. Restart the node.",
    ]
    assert "reboot: gpu.recovery_action on gpu1" in result.stdout
    assert "gone: silent" in result.stdout
    assert report(tmp_path)["severity"] == "reboot"
    [cached] = (tmp_path / "cache").glob("*me")
    assert "the driver asks for node reboot" in cached.read_text(encoding="utf-8")


def test_a_healthy_node_passes_and_the_next_check_compares_with_it(node: SimulatedNode, tmp_path: Path) -> None:
    first = check(node, tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    baseline = report(tmp_path)["baseline"]

    node.set("count", 1).remove_pci(node.pci_addresses[1])
    second = check(node, tmp_path)
    assert second.returncode != 0
    assert "isolate: gpu.count" in second.stdout
    assert report(tmp_path)["baseline"]["gpu_count"] == baseline["gpu_count"] == 2

    accepted = check(node, tmp_path, health_accept=True)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert report(tmp_path)["baseline"]["gpu_count"] == 1


def test_the_site_says_at_which_severity_a_run_fails(node: SimulatedNode, tmp_path: Path) -> None:
    node.set("gpu.1.temp.gpu", 86).set("gpu.0.persistence", 0)

    mild = check(node, tmp_path)
    strict = check(node, tmp_path, health_fail_at="monitor", health_limits={"temperature_margin": 1})

    assert (mild.returncode, strict.returncode != 0) == (0, True), mild.stdout + mild.stderr
    assert "monitor: temperature.margin, gpu1: 86 C" in mild.stdout
    assert "temperature.margin" not in strict.stdout
    assert "monitor: persistence, gpu0" in strict.stdout
    assert "The run fails from monitor on." in strict.stdout


def test_check_mode_tells_the_same_and_writes_nothing(node: SimulatedNode, tmp_path: Path) -> None:
    result = check(node.set("gpu.1.recovery_action", 2), tmp_path, "--check")

    assert result.returncode != 0
    assert "Reports: none are written in check mode" in result.stdout
    assert not (tmp_path / "reports").exists()


def test_a_report_that_is_no_document_is_explained(node: SimulatedNode, tmp_path: Path) -> None:
    path = tmp_path / "reports/health/me.json"
    path.parent.mkdir(parents=True)
    path.write_text("{broken", encoding="utf-8")
    result = check(node, tmp_path)

    assert result.returncode != 0
    assert "Could not read what the last check knew" in " ".join(result.stdout.split())


def test_a_fleet_is_told_even_where_its_reports_cannot_be_written(node: SimulatedNode, tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("no directory", encoding="utf-8")
    result = check(node.set("gpu.1.recovery_action", 2), tmp_path)

    assert result.returncode != 0
    assert "  reboot: gpu.recovery_action, gpu1: the driver asks for node reboot" in result.stdout.splitlines()
    told = " ".join(result.stdout.split())
    assert "Reports: not all are written. Could not write the report on" in told
    assert "Free space or choose another directory" in told
