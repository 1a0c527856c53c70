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


def test_a_converged_fleet_ends_with_the_comparison_until_something_is_due(tmp_path: Path, mended: None) -> None:
    first = play("site.yml", tmp_path)  # in this directory nothing was proven yet
    proven = verdicts(tmp_path)["run_id"]
    again = play("site.yml", tmp_path)

    assert (first.returncode, again.returncode) == (0, 0), first.stdout[-3000:] + again.stdout[-3000:]
    assert "2 node(s): 2 converged." in again.stdout
    assert again.stdout.count("skipping: no hosts matched") == 9
    assert verdicts(tmp_path)["run_id"] == proven

    simnvmlctl("set", "gpu.3.fail", "GPU_IS_LOST")
    broken = play("site.yml", tmp_path)

    assert broken.returncode != 0
    assert "proof due: devices, situation changed since the last proof (on gpu-a)" in broken.stdout
    assert {name: node["verdict"] for name, node in verdicts(tmp_path)["nodes"].items()} == {"gpu-a": "fail"}


def test_a_benchmark_measures_what_changed_and_says_of_the_rest_how_old_its_result_is(
    tmp_path: Path, mended: None
) -> None:
    first = play("benchmark-nodes.yml", tmp_path, "-e", "benchmark_level=quick")

    document = verdicts(tmp_path)
    assert first.returncode == 0, first.stdout[-3000:]
    assert {name: node["verdict"] for name, node in document["nodes"].items()} == {"gpu-a": "pass", "cpu-b": "pass"}
    assert "(CPU)" in first.stdout.split("Rackwright benchmark")[1]
    assert first.stdout.count("changed=0") == 2

    simnvmlctl("set", "gpu.3.power.limit", "500000")
    again = play("benchmark-nodes.yml", tmp_path, "-e", "benchmark_level=quick")

    assert again.returncode == 0, again.stdout[-3000:]
    assert f"cpu-b: nothing changed since run {document['run_id']} (pass" in " ".join(again.stdout.split())
    assert list(verdicts(tmp_path)["nodes"]) == ["gpu-a"]


def test_a_fault_in_the_kernel_log_fails_the_proof(tmp_path: Path) -> None:
    log = "/tmp/kernel.log"
    xid = "NVRM: Xid (PCI:0000:1b:00): 79, pid=1234, GPU has fallen off the bus."
    nodes("exec", "--fleet", "site", "gpu-a", "sh", "-c", f"date '+%FT%T%:z gpu-a kernel: {xid}' > {log}")
    result = play("prove-nodes.yml", tmp_path, "-e", f"health_kernel_log={log}", "--limit", "gpu-a")

    assert result.returncode != 0
    assert "health.kernel_xid" in " ".join(verdicts(tmp_path)["nodes"]["gpu-a"]["reasons"])


def test_ignored_receipts_run_every_role_and_change_nothing(tmp_path: Path) -> None:
    result = play("site.yml", tmp_path, "-e", "receipts=ignore", "--limit", "cpu-b")

    assert result.returncode == 0, result.stdout[-3000:]
    assert "os_base, nvidia_driver, cuda_toolkit, python_env, pytorch" in result.stdout
    assert "changed=0" in result.stdout.split("PLAY RECAP")[1]


def test_one_role_by_its_tag_and_only_where_it_is_stale(tmp_path: Path) -> None:
    nodes("exec", "--fleet", "site", "cpu-b", "chmod", "0600", "/etc/modprobe.d/rackwright-nouveau.conf")
    other = play("site.yml", tmp_path, "--tags", "pytorch")
    drift = json.loads(drift_report(tmp_path).read_text(encoding="utf-8"))
    own = play("site.yml", tmp_path, "--tags", "os_base")

    assert (other.returncode, own.returncode) == (0, 0), other.stdout[-3000:] + own.stdout[-3000:]
    assert {name: list(node["stale"]) for name, node in drift["nodes"].items()} == {"gpu-a": [], "cpu-b": ["os_base"]}
    assert drift["nodes"]["cpu-b"]["stale"]["os_base"] == ["/etc/modprobe.d/rackwright-nouveau.conf mode 0644 → 0600"]
    assert "2 node(s): 2 converged." in play("check-drift.yml", tmp_path).stdout


def drift_report(directory: Path) -> Path:
    """What check-drift.yml finds now."""
    path = directory / "drift.json"
    assert play("check-drift.yml", directory, "-e", f"drift_report={path}").returncode == 0
    return path


def test_a_node_whose_wish_changed_is_not_touched_until_it_is_planned(tmp_path: Path) -> None:
    result = play("site.yml", tmp_path, "-e", "stack_framework=none", "--limit", "cpu-b")

    assert result.returncode != 0
    assert "the intent changed since the lock was written (stack_framework pytorch → none)" in result.stdout
    assert verdicts(tmp_path)["nodes"]["cpu-b"]["verdict"] == "fail"
    assert "changed=0" in result.stdout.split("PLAY RECAP")[1]


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
