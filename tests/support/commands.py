# SPDX-License-Identifier: Apache-2.0
"""Ansible's commands as a user runs them, on this machine or on one with a simulated driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.simulated_node import ROOT, SimulatedNode, library


def simulation(node: SimulatedNode, cache: Path) -> dict[str, str]:
    """Environment of a command on a machine that has the simulated driver."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(cache),
        "ANSIBLE_NOCOLOR": "1",
        "LD_LIBRARY_PATH": str(library().parent),
        "SIMNVML_CONF": str(node.conf),
        "SIMNVML_RUN_DIR": str(node.conf.parent / "run"),
        "SIMNVML_VAR_DIR": str(node.conf.parent / "run"),
    }


def run(program: str, *arguments: str, environment: dict[str, str]) -> str:
    command = [str(Path(sys.executable).parent / program), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
