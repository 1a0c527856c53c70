# SPDX-License-Identifier: Apache-2.0
"""update-driver.yml as a user types it: what is refused before any contact, and a fleet that does not answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOSTS = """gpu_nodes:
  hosts:
    n1: {ansible_host: 127.0.0.1, ansible_port: 1}
    n2: {ansible_host: 127.0.0.2, ansible_port: 1}
  vars:
    node_description: {os: debian12, gpus: [{model: h100-sxm5-80gb, count: 8}], nvswitch: false}
"""


def play(folder: Path, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    program = Path(sys.executable).parent / "ansible-playbook"
    command = [str(program), "-i", str(folder / "hosts.yml"), f"playbooks/{playbook}"]
    reports = ("-e", f"rackwright_reports={folder}/reports", "-e", "plan_date=2026-11-24")
    return subprocess.run(
        [*command, *reports, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Two hosts that nothing answers for."""
    (tmp_path / "hosts.yml").write_text(HOSTS, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ("update_batch=many", "Could not use update_batch on the update: 'many' is no size"),
        ("update_max_unavailable=0", "Could not use update_max_unavailable"),
        ("update_retry=n9", "Could not use update_retry on the update: n9 is no node of this run"),
        ("update_btach=1", "Did you mean update_batch?"),
        ("update_busy_policy=kill", "must be one of: wait, fail, terminate"),
    ],
)
def test_a_wrong_setting_stops_the_update_before_any_contact(fleet: Path, wish: str, sentence: str) -> None:
    result = play(fleet, "update-driver.yml", "-e", wish)

    assert result.returncode != 0
    assert " ".join(sentence.split()) in " ".join(result.stdout.split())
    assert "UNREACHABLE" not in result.stdout
    assert not (fleet / "reports").exists()


def test_a_rollback_of_the_kernel_is_refused(fleet: Path) -> None:
    result = play(fleet, "update-kernel.yml", "-e", "update_rollback=true")

    assert "Set update_kernel_version to the older kernel" in " ".join(result.stdout.split())
    assert "UNREACHABLE" not in result.stdout


def test_without_a_lock_there_is_nothing_to_go_to(fleet: Path) -> None:
    result = play(fleet, "update-driver.yml")

    assert result.returncode != 0
    assert "Run playbooks/plan-stack.yml" in " ".join(result.stdout.split())


def test_a_fleet_that_does_not_answer_is_reported_and_fails(fleet: Path) -> None:
    planned = play(fleet, "plan-stack.yml")
    result = play(fleet, "update-driver.yml")
    back = play(fleet, "update-driver.yml", "-e", "update_rollback=true")

    assert planned.returncode == 0, planned.stdout
    assert result.returncode != 0
    assert "2 node(s): 2 unreachable." in result.stdout
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in (fleet / "reports").glob("update-*.json")]
    assert [node["end"] for node in documents[0]["nodes"].values()] == ["unreachable", "unreachable"]
    assert not (fleet / "reports/updates").exists()
    assert "There is nothing to go back to" in " ".join(back.stdout.split())
