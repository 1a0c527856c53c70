# SPDX-License-Identifier: Apache-2.0
"""A role that only installs into an environment is not made stale by what happens to the environment itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright.receipt_items import Node, collect, complaints, drift, wanted_of

VENV = "/opt/venv"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node with an environment that holds numpy."""
    venv = tmp_path / "opt/venv"
    info = venv / "lib/python3.11/site-packages/numpy-2.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: numpy\n", encoding="utf-8")
    (info / "RECORD").write_text("numpy-2.1.0.dist-info/METADATA,,\n", encoding="utf-8")
    (venv / "bin").mkdir()
    (venv / "bin/activate").touch()
    (venv / "bin/python").symlink_to("/bin/sh")
    (venv / "pyvenv.cfg").write_text("version = 3.11.2\n", encoding="utf-8")
    return tmp_path


def items(root: Path, environment: bool) -> dict[str, Any]:
    wanted = {"venvs": [{"path": VENV, "packages": ["numpy"], "environment": environment}]}
    found = collect(wanted, Node(str(root)))
    assert complaints(wanted, found) == []
    assert wanted_of(found)["venvs"] == wanted["venvs"]
    return found


@pytest.mark.parametrize("environment", [True, False])
def test_the_environment_itself_counts_for_the_role_that_built_it(root: Path, environment: bool) -> None:
    recorded = items(root, environment)

    (root / "opt/venv").chmod(0o700)
    (root / "opt/venv/pyvenv.cfg").write_text("version = 3.11.2\nedited = true\n", encoding="utf-8")

    found = drift(recorded, Node(str(root)))
    assert (f"{VENV}/pyvenv.cfg edited by hand" in found) == environment
    assert any("mode" in sentence for sentence in found) == environment
    assert bool(found) == environment


@pytest.mark.parametrize("environment", [True, False])
def test_packages_count_for_both(root: Path, environment: bool) -> None:
    recorded = items(root, environment)

    shutil.rmtree(root / "opt/venv/lib/python3.11/site-packages/numpy-2.1.0.dist-info")

    assert drift(recorded, Node(str(root))) == [f"numpy 2.1.0 → removed in {VENV}"]


def test_an_environment_that_is_gone_counts_for_both(root: Path) -> None:
    recorded = items(root, False)

    shutil.rmtree(root / "opt/venv")

    assert drift(recorded, Node(str(root))) == [f"{VENV} removed"]
