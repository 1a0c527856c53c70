# SPDX-License-Identifier: Apache-2.0
"""What is loaded at a boot and without one, and bad luck that waits for a boot."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = 'MODULE_LICENSE("{}");\nMODULE_VERSION("{}");\n'
KERNELS = ("6.1.0-50-amd64", "6.1.0-56-amd64")


class Server:
    """A managed node with the files of stub packages."""

    def __init__(self, node: Any) -> None:
        self.node, self.root = node, node.root
        (self.root / "etc/simnvml/mode").write_text("managed\n")

    def install(self, version: str, licence: str = "Dual MIT/GPL", source: bool = True) -> None:
        for old in [*self.root.glob("usr/src/nvidia-*"), *self.root.glob("usr/lib/x86_64-linux-gnu")]:
            shutil.rmtree(old)
        library = self.root / f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version}"
        library.parent.mkdir(parents=True)
        library.touch()
        if source:
            folder = self.root / f"usr/src/nvidia-{version}"
            folder.mkdir(parents=True)
            (folder / "nvidia.c").write_text(SOURCE.format(licence, version))
        self.ok("sync")

    def kernel(self, name: str, version: str | None = None, signed: bool = False) -> None:
        """A kernel with headers, and a module built for it where a version is given."""
        (self.root / "lib/modules" / name / "updates/dkms").mkdir(parents=True, exist_ok=True)
        if version:
            info = f"\0license=Dual MIT/GPL\0version={version}\0srcversion=ABC\0".encode()
            tail = b"~Module signature appended~\n" if signed else b""
            (self.root / "lib/modules" / name / "updates/dkms/nvidia.ko").write_bytes(b"\x7fELF" + info + tail)

    def ok(self, *words: str) -> str:
        done = self.node.ctl(*words)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def refused(self, *words: str) -> str:
        done = self.node.ctl(*words)
        assert done.returncode == 1, done.stdout
        return str(done.stderr)

    def boot(self) -> None:
        shutil.rmtree(self.root / "run/simnvml")
        self.ok("boot")

    @property
    def loaded(self) -> str | None:
        path: Path = self.root / "run/simnvml/kmod_version"
        return path.read_text().strip() if path.exists() else None

    @property
    def modules(self) -> list[str]:
        text: str = (self.root / "run/simnvml/root/proc/modules").read_text()
        return [line.split()[0] for line in text.splitlines() if line.startswith("nvidia")]


@pytest.fixture
def server(node: Callable[..., Any]) -> Server:
    machine = Server(node("h100x8"))
    machine.boot()
    return machine


@pytest.mark.parametrize(("licence", "flavour"), [("Dual MIT/GPL", "open"), ("NVIDIA", "proprietary")])
def test_without_headers_the_source_is_what_loads(server: Server, licence: str, flavour: str) -> None:
    server.install("580.178.04", licence)
    server.boot()
    assert server.loaded == "580.178.04"
    assert (server.root / "run/simnvml/kmod_flavour").read_text() == f"{flavour}\n"


def test_with_headers_only_a_module_built_for_the_newest_kernel_loads(server: Server) -> None:
    server.install("580.178.04")
    server.kernel(KERNELS[0], "580.178.04")
    server.boot()
    assert server.loaded == "580.178.04"
    server.kernel(KERNELS[1])  # a kernel update without a module for it
    server.boot()
    assert server.loaded is None
    assert f"not found in directory /lib/modules/{KERNELS[1]}" in server.refused("modprobe", "nvidia")
    server.kernel(KERNELS[1], "570.211.01")
    server.boot()
    assert server.loaded == "570.211.01"


def test_headers_do_not_matter_to_a_node_without_module_source(server: Server) -> None:
    server.install("580.178.04", source=False)
    server.kernel(KERNELS[0])
    server.boot()
    assert server.loaded == "580.178.04"


@pytest.mark.parametrize(
    ("profile", "version", "flavour"),
    [
        ("h100x8", "580.178.04", "open"),
        ("h100x8", "550.163.01", "proprietary"),
        ("v100x4", "580.178.04", "proprietary"),
    ],
)
def test_a_library_alone_stands_for_the_usual_module(
    node: Callable[..., Any], profile: str, version: str, flavour: str
) -> None:
    machine = Server(node(profile))
    machine.install(version, source=False)
    machine.boot()
    assert (machine.root / "run/simnvml/kmod_flavour").read_text() == f"{flavour}\n"


def test_a_new_version_is_loaded_without_a_boot(server: Server) -> None:
    server.install("580.178.04")
    server.boot()
    assert server.modules == ["nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia"]
    server.install("590.48.01")
    assert server.loaded == "580.178.04"
    assert "in use by: nvidia_modeset nvidia_uvm" in server.refused("rmmod", "nvidia")
    server.ok("rmmod", "nvidia_uvm", "nvidia-drm", "nvidia_modeset", "nvidia")
    assert server.modules == []
    server.ok("modprobe", "nvidia_uvm", "uvm_disable_hmm=1")
    assert (server.loaded, server.modules) == ("590.48.01", ["nvidia_uvm", "nvidia"])
    assert "[simnvml (simulated module)]" in server.refused("rmmod", "nvidia_drm")


def test_modprobe_takes_along_what_nothing_needs(server: Server) -> None:
    server.install("580.178.04")
    server.boot()
    server.ok("kmod", "modprobe", "-r", "nvidia_uvm", "nvidia_drm")
    assert server.modules == []
    server.ok("kmod", "modprobe", "-r", "nvidia_uvm")  # not loaded: nothing to do


def test_without_a_gpu_nothing_loads(node: Callable[..., Any]) -> None:
    machine = Server(node("none"))
    machine.install("580.178.04")
    machine.boot()
    assert "No such device" in machine.refused("modprobe", "nvidia")


def test_a_busy_process_holds_the_module_until_it_ends(server: Server) -> None:
    server.install("580.178.04")
    server.boot()
    pid = int(server.ok("busy", "2", "--name", "train"))
    try:
        assert Path(f"/proc/{pid}/comm").read_text() == "train\n"
        assert server.ok("show", "gpu.2.proc.0").split()[0] == str(pid)
        left = server.refused("rmmod", "nvidia_uvm", "nvidia_drm", "nvidia_modeset", "nvidia")
        assert "Module nvidia is in use" in left
    finally:
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while server.node.ctl("show", "gpu.2.proc.0").returncode == 0:
        assert time.monotonic() < end, "the ended process is still listed"
        time.sleep(0.05)
    server.ok("rmmod", "nvidia")


def test_a_plant_comes_up_at_one_boot(server: Server) -> None:
    server.install("580.178.04")
    server.ok("set", "--at-boot", "gpu.3.fail", "GPU_IS_LOST")
    assert server.node.ctl("show", "gpu.3.fail").returncode == 1
    server.boot()
    assert server.ok("show", "gpu.3.fail") == "GPU_IS_LOST\n"
    server.boot()
    assert server.node.ctl("show", "gpu.3.fail").returncode == 1


def test_a_plant_can_belong_to_a_driver(server: Server) -> None:
    server.ok("set", "--every-boot", "--driver", "590.48.01", "slowdown", "20")
    for version, expected in (("580.178.04", "0"), ("590.48.01", "20"), ("590.48.01", "20"), ("580.178.04", "0")):
        server.install(version)
        server.boot()
        assert server.ok("show", "slowdown") == f"{expected}\n"
    server.ok("unset", "slowdown")
    server.install("590.48.01")
    server.boot()
    assert server.ok("show", "slowdown") == "0\n"


def test_a_boot_can_be_one_that_nobody_can_log_in_to(server: Server) -> None:
    marker = server.root / "run/simnvml/no-ssh"
    server.ok("set", "--at-boot", "sshd", "never")
    assert not marker.exists()
    server.boot()
    assert marker.exists()
    server.boot()
    assert not marker.exists()


@pytest.mark.parametrize(("key", "value"), [("slowdown", "much"), ("sshd", "sometimes"), ("sshdx", "never")])
def test_a_mistaken_plant_is_refused(server: Server, key: str, value: str) -> None:
    assert server.refused("set", "--at-boot", key, value).startswith("Could not use ")


def test_secure_boot_wants_a_signed_module_and_an_enrolled_key(server: Server) -> None:
    certificate = server.root / "var/lib/dkms/mok.pub"
    certificate.parent.mkdir(parents=True)
    certificate.write_bytes(b"certificate")
    server.install("580.178.04")
    server.kernel(KERNELS[0], "580.178.04")
    server.ok("secure-boot", "on")
    variable = next((server.root / "run/simnvml/root/sys/firmware/efi/efivars").glob("SecureBoot-*"))
    assert variable.read_bytes() == b"\x06\x00\x00\x00\x01"
    server.boot()
    assert server.loaded is None
    assert "Key was rejected by service" in server.refused("modprobe", "nvidia")
    server.kernel(KERNELS[0], "580.178.04", signed=True)
    assert "Key was rejected by service" in server.refused("modprobe", "nvidia")  # signed, by a key nobody enrolled
    assert "is not enrolled" in server.ok("mokutil", "--", "--test-key", str(certificate))
    server.ok("mokutil", "--", "--import", str(certificate))
    done = server.node.ctl("mokutil", "--", "--test-key", str(certificate))
    assert (done.returncode, "already in the enrollment request" in done.stdout) == (1, True)
    server.ok("mok-console", "enrol")
    server.boot()
    assert server.loaded == "580.178.04"
    server.ok("secure-boot", "absent")
    assert (server.root / "run/simnvml/root/sys").is_symlink()
