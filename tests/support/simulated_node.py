# SPDX-License-Identifier: Apache-2.0
"""A simulated GPU node inside one test: scenario, PCI tree and kernel files, probed by the real module.

The module runs in a forked process that has the simulated library loaded under its system name, so nothing of the
simulation reaches the test process itself.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(ROOT / "module_utils"))

from ansible.module_utils.rackwright.child import run_in_child

SIMNVML = ROOT / "tests/simnvml"
LIBRARY = ROOT / "build/simnvml/lib/libnvidia-ml.so.1"
OPEN_MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (builder@host)"
CLOSED_MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Tue Jun  3 00:00:00 UTC 2025"


@functools.lru_cache(maxsize=1)
def library() -> Path:
    """Build the simulated library where it is not up to date."""
    make = shutil.which("make") or "make"
    subprocess.run([make, "-s", "-C", str(SIMNVML)], check=True)
    return LIBRARY


def _simnvml(*arguments: str) -> str:
    command = [sys.executable, "-m", "simnvml", *arguments]
    return subprocess.run(command, cwd=SIMNVML, check=True, capture_output=True, text=True).stdout


@functools.lru_cache(maxsize=1)
def profiles() -> tuple[str, ...]:
    return tuple(_simnvml("profiles").split())


@functools.cache
def _scenario(profile: str) -> str:
    return _simnvml("flatten", profile)


@functools.cache
def _pci_tree(profile: str) -> Path:
    parent = tempfile.mkdtemp(prefix="simulated-pci-")
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    folder = Path(parent) / "devices"
    folder.mkdir()  # a node without GPUs has an empty bus, not none
    _simnvml("pci", profile, str(folder))
    return folder


class SimulatedNode:
    """One node of a profile; files below ``folder`` can be changed before the facts are asked for."""

    def __init__(self, folder: Path, profile: str, *, module: str | None = OPEN_MODULE, driver: bool = True) -> None:
        self.sysroot = folder / "root"
        self.conf = folder / "node.conf"
        self.trace = folder / "trace"
        self.library: Path | None = library() if driver else None
        self.conf.write_text(_scenario(profile), encoding="utf-8")
        (folder / "run").mkdir()
        bus = self.sysroot / "sys/bus/pci/devices"
        bus.parent.mkdir(parents=True)
        shutil.copytree(_pci_tree(profile), bus, symlinks=True)
        self.version = self.value("driver_version")
        self.write("proc/modules", "ext4 1 0 - Live 0x0\n")
        self.write("proc/meminfo", "MemTotal: 125829120 kB\nMemAvailable: 104857600 kB\n")
        self.write("proc/version", "Linux version 6.1.0-50-amd64 (debian)\n")
        self.write("proc/sys/kernel/osrelease", "6.1.0-50-amd64\n")
        self.write("dev/null", "")
        self.write("run/utmp", "")
        if module and driver and self.version:
            self.load_module(self.version, module)

    def value(self, key: str) -> str | None:
        """Last value of a key of the scenario."""
        found = None
        for line in self.conf.read_text(encoding="utf-8").splitlines():
            name, separator, value = line.partition("=")
            if separator and name.strip() == key:
                found = value.strip()
        return found

    def set(self, key: str, value: Any) -> SimulatedNode:
        with self.conf.open("a", encoding="utf-8") as stream:
            stream.write(f"{key} = {value}\n")
        return self

    def write(self, relative: str, text: str) -> SimulatedNode:
        path = self.sysroot / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return self

    def load_module(self, version: str, text: str = OPEN_MODULE) -> SimulatedNode:
        """Let the kernel files say that the NVIDIA module is loaded."""
        self.write("proc/driver/nvidia/version", text.format(version=version) + "\nGCC version: 12\n")
        self.write("proc/modules", "nvidia_uvm 1 0 - Live 0x0\nnvidia 1 1 nvidia_uvm, Live 0x0\next4 1 0 - Live 0x0\n")
        for name in ("nvidiactl", *(f"nvidia{n}" for n in range(self.pci_count))):
            self.write(f"dev/{name}", "")
        return self

    def unload_module(self) -> SimulatedNode:
        shutil.rmtree(self.sysroot / "proc/driver", ignore_errors=True)
        for node in (self.sysroot / "dev").glob("nvidia*"):
            node.unlink()
        return self.write("proc/modules", "ext4 1 0 - Live 0x0\n")

    @property
    def pci_addresses(self) -> list[str]:
        """Addresses of the GPUs (not of switches) on the simulated PCI bus."""
        bus = self.sysroot / "sys/bus/pci/devices"
        return sorted(d.name for d in bus.iterdir() if (d / "class").read_text()[2:6] in ("0300", "0302"))

    @property
    def pci_count(self) -> int:
        return len(self.pci_addresses)

    def remove_pci(self, address: str) -> SimulatedNode:
        shutil.rmtree(self.sysroot / "sys/bus/pci/devices" / address)
        return self

    def run(
        self,
        binding: str = "auto",
        environment: dict[str, str] | None = None,
        module: str = "gpu_facts",
        **options: Any,
    ) -> dict[str, Any]:
        """Run the module and return its whole result."""
        options = {"sysroot": str(self.sysroot), **options}
        result = run_in_child(self._module, (binding, environment or {}, module, options), timeout=60)
        assert result.status == "ok", (result.detail, result.traceback, result.stderr)
        value: dict[str, Any] = result.value
        return value

    def facts(self, binding: str = "auto", **options: Any) -> dict[str, Any]:
        """Run the module and return the fact."""
        result = self.run(binding, **options)
        assert "ansible_facts" in result, result
        gpu: dict[str, Any] = result["ansible_facts"]["gpu"]
        return gpu

    def health(self, binding: str = "auto", **options: Any) -> dict[str, Any]:
        """Run gpu_health and return its document."""
        result = self.run(binding, module="gpu_health", **options)
        assert "gpu_health" in result, result
        document: dict[str, Any] = result["gpu_health"]
        return document

    def called(self) -> list[str]:
        """Functions of NVML that were called so far."""
        lines = self.trace.read_text(encoding="utf-8").splitlines()
        return [word for line in lines for word in line.split() if word.startswith("nvml")]

    def _module(
        self, binding: str, environment: dict[str, str], module: str, options: dict[str, Any]
    ) -> dict[str, Any]:
        os.environ.update(
            SIMNVML_CONF=str(self.conf),
            SIMNVML_RUN_DIR=str(self.conf.parent / "run"),
            SIMNVML_VAR_DIR=str(self.conf.parent / "run"),
            SIMNVML_TRACE=str(self.trace),
            **environment,
        )
        if binding == "ctypes":
            sys.modules["pynvml"] = None  # type: ignore[assignment]  # how Python itself marks "cannot be imported"
        elif binding != "auto":
            sys.path.insert(0, binding)
            sys.modules.pop("pynvml", None)
        if self.library is not None:
            ctypes.CDLL(str(self.library))
        output = io.StringIO()
        with patch_module_args(options), contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            importlib.import_module(module).main()
        result: dict[str, Any] = json.loads(output.getvalue())
        return result
