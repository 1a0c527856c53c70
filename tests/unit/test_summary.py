# SPDX-License-Identifier: Apache-2.0
"""The proof as a user sees it: the playbook on stand-in facts, its recap, its exit status, the table below it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from unit.proof_site import AWAY, BENCHMARK, GOOD, build
from unit.proof_site import play as prove
from unit.verdict_samples import gpu, no_gpu


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of the checkout with stand-ins for what needs hardware."""
    return build(tmp_path)


def test_a_good_fleet_ends_with_its_table(site: Path) -> None:
    done = prove(site, {"gpu-a": GOOD, "cpu-1": {"facts": no_gpu(), "benchmark": BENCHMARK}})
    assert done.returncode == 0, done.stdout + done.stderr
    recap, table = done.stdout.split("Rackwright verdicts")
    assert recap.count("changed=0") == 2
    assert "8 x H100 80GB HBM3 (simulated)" in table
    assert "pass (simulated)" in table
    assert "2 node(s): 2 pass, 0 warn, 0 fail." in table
    assert f"Reports: {site}/reports/fleet.json" in table
    assert max(len(line) for line in table.splitlines()) <= 120


def test_bad_nodes_fail_the_run_after_reports_and_table(site: Path) -> None:
    nodes = {
        "gpu-a": GOOD,
        "few": {"facts": gpu(2, simulated=True), "benchmark": BENCHMARK, "vars": {"gpu_expected_count": 3}},
        "broken": {"facts": "the probe broke", "benchmark": BENCHMARK},
        "untorched": {"facts": no_gpu(), "benchmark": "Could not import torch"},
        "away": AWAY,
        "aside": {"vars": {"__site_failure": {"role": "pytorch", "task": "Install", "message": "mirror down"}}},
    }
    done = prove(site, nodes)
    assert done.returncode == 2, done.stdout + done.stderr
    fleet = json.loads((site / "reports/fleet.json").read_text())
    assert {name: entry["verdict"] for name, entry in fleet["nodes"].items()} == {
        "gpu-a": "pass",
        **dict.fromkeys(("few", "broken", "untorched", "away", "aside"), "fail"),
    }
    reasons = {name: " ".join(entry["reasons"]) for name, entry in fleet["nodes"].items()}
    assert "the inventory expects 3" in reasons["few"]
    assert "gpu_facts failed: the probe broke" in reasons["broken"]
    assert "torch_benchmark failed: Could not import torch" in reasons["untorched"]
    assert "unreachable" in reasons["away"]
    assert "role pytorch failed at 'Install': mirror down" in reasons["aside"]
    recap = done.stdout.split("PLAY RECAP")[1]
    failed = {line.split()[0] for line in recap.splitlines() if "failed=1" in line}
    assert failed == {"few", "broken", "untorched", "away", "aside"}
    assert "Traceback" not in done.stdout + done.stderr


def test_what_was_measured_is_told_even_where_it_cannot_be_written(site: Path) -> None:
    (site / "reports").write_text("no directory", encoding="utf-8")
    done = prove(site, {"gpu-a": GOOD, "bad": {"facts": gpu(situation="no_driver"), "benchmark": BENCHMARK}})
    assert done.returncode == 2
    _recap, table = done.stdout.split("Rackwright verdicts")
    assert "2 node(s): 1 pass, 0 warn, 1 fail." in table
    assert "Note: Could not write the report on" in " ".join(table.split())


def test_a_fleet_of_which_nobody_answers_still_gets_its_verdicts(site: Path) -> None:
    elsewhere = {"vars": {**AWAY["vars"], "ansible_port": 10}}
    done = prove(site, {"a": AWAY, "b": elsewhere})
    assert done.returncode == 2
    assert "2 node(s): 0 pass, 0 warn, 2 fail." in done.stdout


def test_limit_judges_only_the_nodes_it_names(site: Path) -> None:
    done = prove(site, {"gpu-a": GOOD, "gpu-b": GOOD}, "--limit", "gpu-b")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(json.loads((site / "reports/fleet.json").read_text())["nodes"]) == ["gpu-b"]


def test_check_mode_shows_the_table_and_writes_nothing(site: Path) -> None:
    done = prove(site, {"bad": {"facts": gpu(situation="no_driver"), "benchmark": BENCHMARK}}, "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Rackwright verdicts (check mode" in done.stdout
    assert not (site / "reports").exists()


def test_a_run_without_proof_prints_no_table(site: Path) -> None:
    playbook = site / "other.yml"
    playbook.write_text("- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.debug:\n")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local", str(playbook)],
        env={**os.environ, "ANSIBLE_CONFIG": str(site / "ansible.cfg")},
        cwd=site,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert "Rackwright" not in done.stdout
