# SPDX-License-Identifier: Apache-2.0
"""The playbooks as a user types them: they parse, and slips of the inventory stop a run before any contact."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted(ROOT.glob("playbooks/*.yml"))


def play(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook from the checkout under the project's own configuration."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    program = Path(sys.executable).parent / "ansible-playbook"
    return subprocess.run(
        [str(program), *arguments], cwd=cwd, env=environment, text=True, capture_output=True, timeout=120, check=False
    )


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """Two hosts that nothing answers for: contacting one would fail the test by its message."""
    path = tmp_path / "hosts.yml"
    path.write_text(
        "gpu_nodes:\n  hosts:\n    n1: {ansible_host: 127.0.0.1, ansible_port: 1}\n"
        "    n2: {ansible_host: 127.0.0.2, ansible_port: 1}\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.name)
def test_playbook_parses_with_the_example_inventory(playbook: Path) -> None:
    result = play("-i", "inventory/example", str(playbook), "--syntax-check")

    assert result.returncode == 0, result.stderr


def test_a_sound_inventory_is_accepted_without_contact(inventory: Path) -> None:
    result = play("-i", str(inventory), "playbooks/validate-inventory.yml")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "UNREACHABLE" not in result.stdout


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ("gpu_expected_cout=8", "Did you mean gpu_expected_count?"),
        ("gpu_expected_count=eight", "Could not use gpu_expected_count of the playbooks"),
        ("prove_level=thorough", "must be one of: quick, standard"),
        ("pytorch_vresion=2.13.0", "Did you mean pytorch_version?"),
    ],
)
def test_a_mistyped_variable_stops_the_site_before_any_contact(inventory: Path, mistake: str, sentence: str) -> None:
    result = play("-i", str(inventory), "playbooks/site.yml", "-e", mistake)

    assert result.returncode != 0
    assert sentence in result.stdout
    assert "no node was contacted" in result.stdout
    assert "UNREACHABLE" not in result.stdout


def test_a_host_pattern_that_matches_nothing_is_an_error(inventory: Path) -> None:
    result = play("-i", str(inventory), "playbooks/site.yml", "-e", "rackwright_hosts=gpu_nods")

    assert result.returncode != 0
    assert "Could not match supplied host pattern" in result.stdout + result.stderr


def test_an_inventory_file_that_does_not_parse_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "hosts.yml"
    broken.write_text("gpu_nodes:\n  hosts:\n   - n1: [\n", encoding="utf-8")

    result = play("-i", str(broken), "playbooks/site.yml")

    assert result.returncode != 0
    assert "Traceback" not in result.stdout + result.stderr
