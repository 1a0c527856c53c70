# SPDX-License-Identifier: Apache-2.0
"""diagnose-nodes.yml as a user types it: unprivileged on this machine, and with a node that does not answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.commands import simulation
from support.fake_frameworks import fake_environment, fake_torch
from support.simulated_node import ROOT, SimulatedNode

ERROR = "RuntimeError: CUDA error: no kernel image is available for execution on the device"
CU124 = "sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90"


def diagnose(
    inventory: Path, *, environment: dict[str, str] | None = None, arguments: tuple[str, ...] = (), **variables: Any
) -> subprocess.CompletedProcess[str]:
    given = {"diagnose_search": False, **variables}
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        str(inventory),
        "playbooks/diagnose-nodes.yml",
    ]
    usual = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(inventory.parent / "cache"),
        "ANSIBLE_NOCOLOR": "1",
    }
    return subprocess.run(
        [*command, "-e", json.dumps(given), *arguments],
        cwd=ROOT,
        env=environment or usual,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def nodes_of(report: Path) -> dict[str, Any]:
    document = json.loads(report.read_text(encoding="utf-8"))
    assert document["schema"] == 1
    return {node["node"]: node for node in document["nodes"]}


def test_an_old_torch_on_a_new_card_is_explained_with_what_would_run(tmp_path: Path) -> None:
    card = SimulatedNode(tmp_path, "b200x8")
    fake_torch(fake_environment(tmp_path / "app/venv"), "2.6.0+cu124", "12.4", CU124)
    report = tmp_path / "out/report.json"

    result = diagnose(
        local(tmp_path),
        environment=simulation(card, tmp_path / "cache"),
        gpu_facts_sysroot=str(card.sysroot),
        diagnose_environments=[str(tmp_path / "app/venv")],
        diagnose_error=ERROR,
        diagnose_report=str(report),
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert "changed=0" in result.stdout
    flat = " ".join(result.stdout.split())
    assert "me (simulated): 1 error" in flat
    assert f"ERROR no-kernel-image, {tmp_path}/app/venv: torch 2.6.0+cu124 on NVIDIA B200" in flat
    assert '"torch==2.7.0+cu128" --index-url https://download.pytorch.org/whl/cu128' in flat
    [node] = nodes_of(report).values()
    assert [entry["id"] for entry in node["findings"]] == ["pasted-error", "no-kernel-image"]
    assert node["findings"][0]["steps"] == node["findings"][1]["steps"]


def test_check_mode_explains_the_same_and_writes_no_report(tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    result = diagnose(local(tmp_path), arguments=("--check",), diagnose_error=ERROR, diagnose_report=str(report))

    assert result.returncode == 0, result.stdout + result.stderr
    assert "pasted-error" in result.stdout
    assert not report.exists()


def local(tmp_path: Path, *more: str) -> Path:
    """An inventory of this machine, and of hosts that nothing answers for."""
    hosts = [
        "me: {ansible_connection: local}",
        *(f"{name}: {{ansible_host: 127.0.0.1, ansible_port: 1}}" for name in more),
    ]
    path = tmp_path / "hosts.yml"
    path.write_text("all:\n  hosts:\n" + "".join(f"    {host}\n" for host in hosts), encoding="utf-8")
    return path


def test_a_node_that_does_not_answer_stops_nothing_and_passes_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    result = diagnose(local(tmp_path, "gone"), diagnose_report=str(report))

    assert result.returncode == 0, result.stdout + result.stderr
    nodes = nodes_of(report)
    assert sorted(nodes) == ["gone", "me"]
    assert nodes["gone"]["findings"] == []
    assert nodes["gone"]["not_measured"]
    assert all(entry["reason"].startswith("unreachable: ") for entry in nodes["gone"]["not_measured"])


def test_errors_fail_the_run_only_where_that_is_wanted(tmp_path: Path) -> None:
    site = fake_environment(tmp_path / "venv")
    fake_torch(site, "2.6.0+cu124", "12.4", "sm_90", at_import="raise ImportError('libx')")
    given: dict[str, Any] = {"diagnose_environments": [str(tmp_path / "venv")]}

    quiet = diagnose(local(tmp_path), **given)
    strict = diagnose(local(tmp_path), diagnose_fail="true", **given)

    assert quiet.returncode == 0, quiet.stdout + quiet.stderr
    assert "ERROR torch-import" in quiet.stdout
    assert strict.returncode != 0
    assert "me has errors, which are explained above." in strict.stdout


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = diagnose(local(tmp_path), diagnose_report=str(tmp_path / "file/report.json"))

    assert result.returncode != 0
    assert "Could not write the report" in result.stdout
