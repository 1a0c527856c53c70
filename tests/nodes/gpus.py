# SPDX-License-Identifier: Apache-2.0
"""The simulated GPUs of a node, made by the host half of tests/simnvml."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

from .errors import NodesError
from .host import run
from .paths import ROOT, SIMNVML


def _simnvml(*args: str, what: str) -> str:
    """Call the package with the project's Python, which has the YAML reader it needs."""
    venv = ROOT / ".venv" / "bin" / "python"
    python = str(venv) if venv.exists() else sys.executable
    command = ["env", f"PYTHONPATH={SIMNVML}", f"PATH={os.environ.get('PATH', '')}", python, "-m", "simnvml", *args]
    return run(command, what).stdout


def check_profiles(wanted: list[str]) -> None:
    """Refuse an unknown profile before anything is built."""
    known = _simnvml("profiles", what="list the GPU profiles").split()
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise NodesError(
            f"use the GPU profile {', '.join(unknown)}", "there is no such profile", f"Choose from: {', '.join(known)}"
        )


@lru_cache
def scenario(profile: str) -> str:
    """Text of /etc/simnvml/node.conf."""
    return _simnvml("flatten", profile, what=f"read the GPU profile {profile}")


def write_pci_tree(profile: str, folder: Path) -> None:
    """Fill the folder that is mounted over /sys/bus/pci/devices."""
    folder.mkdir(parents=True, exist_ok=True)
    _simnvml("pci", profile, str(folder), what=f"write the PCI tree of {profile}")
