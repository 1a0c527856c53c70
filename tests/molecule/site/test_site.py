# SPDX-License-Identifier: Apache-2.0
"""The site as a whole: what a good run leaves behind, and how bad luck ends. Run by molecule after converge."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
FLEET = ROOT / "build" / "nodes" / "site"
INVENTORIES = [ROOT / "tests/molecule/inventory/base.yml", Path(__file__).parent / "inventory/hosts.yml"]


def run(*arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """Run a program of the checkout's environment from the checkout."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        [str(Path(sys.executable).parent / arguments[0]), *arguments[1:]],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def play(playbook: str, reports: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the project's playbooks on the scenario's fleet."""
    inventories = [argument for path in INVENTORIES for argument in ("-i", str(path))]
    return run(
        "ansible-playbook", *inventories, f"playbooks/{playbook}", "-e", f"rackwright_reports={reports}", *arguments
    )


def nodes(*arguments: str) -> None:
    """Call the fleet tool; a failure of it is the test's failure."""
    result = run("python", "tests/nodes/nodes.py", *arguments)
    assert result.returncode == 0, result.stderr


def verdicts(reports: Path) -> dict[str, Any]:
    """The fleet document of the last run."""
    document: dict[str, Any] = json.loads((reports / "fleet.json").read_text(encoding="utf-8"))
    return document


def simnvmlctl(*arguments: str) -> None:
    """Break or mend the simulated GPUs of gpu-a."""
    ssh = ["ssh", "-F", str(FLEET / "ssh_config"), "gpu-a", "sudo", "/opt/simnvml/bin/simnvmlctl", *arguments]
    subprocess.run(ssh, check=True, timeout=30, capture_output=True)


@pytest.fixture
def mended() -> Iterator[None]:
    """Whatever a test breaks is whole again afterwards."""
    yield
    simnvmlctl("reset")


@pytest.fixture
def node_down() -> Iterator[None]:
    """cpu-b is switched off for the length of a test."""
    nodes("stop", "--fleet", "site", "cpu-b")
    yield
    nodes("start", "--fleet", "site", "cpu-b")


def test_a_good_fleet_is_proven_without_changing_it(tmp_path: Path) -> None:
    result = play("prove-nodes.yml", tmp_path)

    document = verdicts(tmp_path)
    assert result.returncode == 0, result.stdout[-3000:]
    assert {name: node["verdict"] for name, node in document["nodes"].items()} == {"gpu-a": "pass", "cpu-b": "pass"}
    assert document["nodes"]["gpu-a"]["simulated"] is True
    assert "8 x H100" in result.stdout
    assert "(simulated)" in result.stdout
    assert result.stdout.count("changed=0") == 2


def test_a_lost_gpu_fails_its_node_and_no_other(tmp_path: Path, mended: None) -> None:
    simnvmlctl("set", "gpu.3.fail", "GPU_IS_LOST")

    result = play("prove-nodes.yml", tmp_path)

    document = verdicts(tmp_path)
    assert result.returncode != 0
    assert {name: node["verdict"] for name, node in document["nodes"].items()} == {"gpu-a": "fail", "cpu-b": "pass"}
    assert "lost" in json.dumps(document["nodes"]["gpu-a"]).lower()


def test_a_driver_that_hangs_is_reported_not_waited_for(tmp_path: Path, mended: None) -> None:
    simnvmlctl("set", "crash.nvmlDeviceGetHandleByIndex_v2", "hang")

    result = play("prove-nodes.yml", tmp_path, "-e", "gpu_facts_timeout=5")

    assert result.returncode != 0
    assert verdicts(tmp_path)["nodes"]["gpu-a"]["verdict"] == "fail"
    assert "Traceback" not in result.stdout + result.stderr


def test_a_node_that_is_down_fails_and_the_others_are_proven(tmp_path: Path, node_down: None) -> None:
    result = play("site.yml", tmp_path)

    document = verdicts(tmp_path)
    assert result.returncode != 0
    assert {name: node["verdict"] for name, node in document["nodes"].items()} == {"gpu-a": "pass", "cpu-b": "fail"}
    assert "unreachable" in json.dumps(document["nodes"]["cpu-b"])


def test_a_wrong_gpu_count_in_the_inventory_fails_with_both_numbers(tmp_path: Path) -> None:
    result = play("prove-nodes.yml", tmp_path, "-e", "gpu_expected_count=4", "--limit", "gpu-a")

    assert result.returncode != 0
    assert verdicts(tmp_path)["nodes"]["gpu-a"]["verdict"] == "fail"
    assert "4" in result.stdout
    assert "8" in result.stdout


def test_reports_that_cannot_be_written_fail_in_one_sentence(tmp_path: Path) -> None:
    in_the_way = tmp_path / "reports"
    in_the_way.write_text("a file where the directory should be", encoding="utf-8")

    result = play("prove-nodes.yml", in_the_way, "--limit", "cpu-b")

    assert result.returncode != 0
    assert "Could not write" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert in_the_way.read_text(encoding="utf-8") == "a file where the directory should be"
