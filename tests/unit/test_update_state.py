# SPDX-License-Identifier: Apache-2.0
"""The record is kept on both sides, and a node that is gone is a failure that a rescue catches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rackwright import rollout_state as state

ROOT = Path(__file__).resolve().parents[2]
RUN = "20261124T170000Z"
PLAY = """- hosts: all
  gather_facts: false
  ignore_unreachable: true
  vars:
    update: {record: %s, reports: "{{ reports }}", run: "%s"}
  tasks:
    - block:
        - update_state: {update: "{{ update }}", step: drain, path: "{{ reports }}/node.json"}
        - update_state: {update: "{{ update }}", step: install, phase: forward, path: "{{ reports }}/node.json"}
      rescue:
        - update_state:
            update: "{{ update }}"
            state: stuck
            reason: "{{ ansible_failed_result.msg }}"
            answer: false
            path: "{{ reports }}/node.json"
"""


def play(folder: Path, host: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    record = state.begin("n1", "driver", RUN, None, {"version": "590.48.01", "entries": {}})
    (folder / "play.yml").write_text(PLAY % (json.dumps(record), RUN), encoding="utf-8")
    (folder / "hosts.yml").write_text(f"all: {{hosts: {{n1: {host}}}}}\n", encoding="utf-8")
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(folder / "hosts.yml")]
    command += [str(folder / "play.yml"), "-e", f"reports={folder}/reports", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120, check=False)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return tmp_path / "reports"


LOCAL = f"{{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}"


def test_every_step_is_written_on_both_sides_and_told(tmp_path: Path, reports: Path) -> None:
    result = play(tmp_path, LOCAL)

    assert result.returncode == 0, result.stdout
    node, mirror = read(reports / "node.json"), read(reports / "updates/n1.json")
    assert node == mirror
    assert (node["serial"], node["phase"], node["step"]) == (2, "forward", "install")
    assert "n1: drain (to 590.48.01)" in result.stdout
    assert "changed=0" in result.stdout


def test_in_check_mode_nothing_is_written(tmp_path: Path, reports: Path) -> None:
    result = play(tmp_path, LOCAL, "--check")

    assert result.returncode == 0, result.stdout
    assert not reports.exists()


def test_a_node_that_is_gone_fails_into_the_rescue_and_ends_unreachable(tmp_path: Path, reports: Path) -> None:
    result = play(tmp_path, "{ansible_host: 127.0.0.1, ansible_port: 1}")

    assert result.returncode == 0, result.stdout
    assert "rescued=1" in result.stdout
    mirror = read(reports / "updates/n1.json")
    assert mirror["state"] == state.UNREACHABLE
    assert [step["step"] for step in mirror["steps"]] == ["drain"]
    assert "n1: " in str(mirror["reason"])
    assert not (reports / "node.json").exists()
