# SPDX-License-Identifier: Apache-2.0
"""Simulated nodes for the tests of the simulated NVML: a scenario in a folder, real clients in child processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simnvml.simnvml import profiles, scenario

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "tests" / "simnvml"
CHILD_TIMEOUT_S = 60
NVIDIA_SMI = ROOT / "build" / "nvidia-smi" / "nvidia-smi"

# Without the real program there is nothing to compare with: tests/simnvml/fetch-nvidia-smi gets it.
collect_ignore = [] if NVIDIA_SMI.exists() else ["test_nvidia_smi.py"]

# Loading our library first makes the C library's loader give it to the bindings, whatever else is installed.
PRELUDE = """
import ctypes, json, os, sys
ctypes.CDLL(os.environ["SIMNVML_LIBRARY"])
import pynvml as nv

def emit(value):
    print(json.dumps(value))

def code(function, *args):
    try:
        function(*args)
    except nv.NVMLError as error:
        return error.value
    return 0
"""
INITIALISED = (
    f"{PRELUDE}\nnv.nvmlInit()\ngpus = [nv.nvmlDeviceGetHandleByIndex(i) for i in range(nv.nvmlDeviceGetCount())]\n"
)


class Node:
    """One simulated node below a folder."""

    start = INITIALISED

    def __init__(self, root: Path, library: Path, text: str) -> None:
        self.root = root
        self.library = library
        self.conf = root / "etc/simnvml/node.conf"
        self.trace = root / "trace"
        for folder in (self.conf.parent, root / "run/simnvml", root / "var/lib/simnvml"):
            folder.mkdir(parents=True)
        self.write(text)

    def write(self, text: str) -> None:
        """Replace the scenario as simnvmlctl does: at once."""
        fresh = self.conf.with_name("node.conf.new")
        fresh.write_text(text)
        os.replace(fresh, self.conf)

    def add(self, **keys: str) -> None:
        """Append values to the scenario; '__' in a name stands for a dot."""
        lines = [f"{key.replace('__', '.')} = {value}" for key, value in keys.items()]
        self.write(self.conf.read_text() + "\n".join(lines) + "\n")

    def put(self, key: str, value: str) -> None:
        """Append one value to the scenario."""
        self.write(f"{self.conf.read_text()}{key} = {value}\n")

    @property
    def environment(self) -> dict[str, str]:
        """What a client of this node runs with."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SIMNVML_LIBRARY": str(self.library),
            "SIMNVML_CONF": str(self.conf),
            "SIMNVML_RUN_DIR": str(self.root / "run/simnvml"),
            "SIMNVML_VAR_DIR": str(self.root / "var/lib/simnvml"),
            "SIMNVML_ROOT": str(self.root),
            "SIMNVML_TRACE": str(self.trace),
            "SIMNVML_EUID": "0",
        }

    def run(
        self, command: list[str], timeout: float = CHILD_TIMEOUT_S, environment: dict[str, str] | None = None
    ) -> Any:
        """Run a client and give back the completed process."""
        return subprocess.run(
            command,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def python(self, code: str, start: str = INITIALISED, **environment: str) -> Any:
        """Run code against the real bindings in a child; what it emits comes back."""
        done = self.run([sys.executable, "-c", f"{start}\n{code}"], environment=environment)
        assert done.returncode == 0, f"the child ended with {done.returncode}: {done.stderr}"
        lines = done.stdout.splitlines()
        return json.loads(lines[-1]) if lines else None

    def ctl(self, *arguments: str) -> Any:
        """Run simnvmlctl of this node."""
        return self.run([sys.executable, str(SOURCES / "node" / "simnvmlctl.py"), *arguments])

    def calls(self) -> list[tuple[str, str]]:
        """Function and GPU of every traced call."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [(line.split()[1], line.split()[2]) for line in lines]


@pytest.fixture(scope="session")
def library() -> Path:
    """The library, built from the sources as they are."""
    for tool in ("make", "cc"):
        if shutil.which(tool) is None:
            pytest.fail(f"Could not build the simulated NVML: {tool} is missing. Install gcc and make.")
    done = subprocess.run(["make", "-s", "-C", str(SOURCES)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"Could not build the simulated NVML: {done.stderr}")
    return ROOT / "build" / "simnvml" / "lib" / "libnvidia-ml.so.1"


@pytest.fixture
def node(tmp_path: Path, library: Path) -> Callable[..., Node]:
    """Make the node of a profile."""

    def make(profile: str = "h100x8") -> Node:
        return Node(tmp_path / profile, library, scenario.flatten(profiles.load(profile), profile))

    return make


@pytest.fixture
def uninitialised() -> str:
    """Start of a child that loads the bindings and initialises nothing."""
    return PRELUDE
