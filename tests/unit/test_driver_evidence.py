# SPDX-License-Identifier: Apache-2.0
"""What is read on a node for the verdict about its driver: initramfs, blacklist, command line, DKMS, kernel log."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright import driver_evidence
from ansible.module_utils.rackwright.driver_evidence import Looker, stale_initramfs, why_nouveau
from ansible.module_utils.rackwright.driver_state import Evidence

K = "6.1.0-56-amd64"
BLACKLIST = "etc/modprobe.d/rackwright-nouveau.conf"
HOUR = 3600.0


def write(root: Path, name: str, text: str = "", age: float = 0.0) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.mark.parametrize(
    ("image", "age", "module", "stale"),
    [
        (f"boot/initrd.img-{K}", HOUR, True, [K]),
        (f"boot/initramfs-{K}.img", HOUR, True, [K]),
        (f"boot/initrd.img-{K}", -HOUR, True, []),
        (f"boot/initrd.img-{K}", HOUR, False, []),  # no driver for this kernel: nothing that could be stale
        ("boot/other", HOUR, True, []),
    ],
)
def test_an_initramfs_older_than_the_driver(
    tmp_path: Path, image: str, age: float, module: bool, stale: list[str]
) -> None:
    write(tmp_path, image, age=age)
    (tmp_path / f"lib/modules/{K}").mkdir(parents=True)
    if module:
        write(tmp_path, f"lib/modules/{K}/updates/dkms/nvidia.ko")

    assert stale_initramfs(tmp_path, [K]) == stale


def test_why_nouveau_is_there(tmp_path: Path) -> None:
    write(tmp_path, "proc/cmdline", "root=/dev/sda1 quiet")
    assert "no file below /etc/modprobe.d blacklists it" in why_nouveau(tmp_path, K)
    write(tmp_path, BLACKLIST, "# blacklist nouveau is wanted\noptions nouveau modeset=0\n")
    assert "no file below /etc/modprobe.d blacklists it" in why_nouveau(tmp_path, K)
    write(tmp_path, BLACKLIST, "blacklist nouveau\n")
    assert f"it is blacklisted by /{BLACKLIST}" in why_nouveau(tmp_path, K)
    write(tmp_path, f"boot/initrd.img-{K}", age=HOUR)
    assert why_nouveau(tmp_path, K) == f"the initramfs /boot/initrd.img-{K} is older than the blacklist"
    write(tmp_path, "proc/cmdline", "root=/dev/sda1 nouveau.modeset=1 quiet")
    assert why_nouveau(tmp_path, K) == "the kernel's command line says nouveau.modeset=1"


class Programs:
    """Programs of a node that print what they are told to."""

    def __init__(self, **answers: str) -> None:
        self.answers, self.asked = answers, []  # type: dict[str, str], list[list[str]]

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(list(command))
        return 0, self.answers[command[0]], ""


def looker(root: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch, container: str | None = None) -> Looker:
    monkeypatch.setattr(driver_evidence.shutil, "which", lambda name, path: name if name in programs.answers else None)
    host = {"container": container, "booted_at": 1100.0, "kernel": {"running": K}}
    plan = {"upstream": "580.65.06", "kernels": [K], "packages": ["nvidia-kernel-open-dkms=580.65.06-1"]}
    return Looker(programs, root, host, plan)


def gpu(situation: str, loaded: str | None = None) -> dict[str, Any]:
    return {"situation": situation, "driver": {"kernel_module_version": loaded}}


def test_states_of_dkms_with_the_first_error_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = f"DKMS make.log for nvidia-580.65.06 for kernel {K} (x86_64)\n"
    write(tmp_path, "var/lib/dkms/nvidia/580.65.06/build/make.log", f"{head}nv.c:7:1: error: too few arguments\n")
    seen = Evidence()

    looker(tmp_path, Programs(dkms="nvidia/580.65.06: added\n"), monkeypatch).modules(seen, "")

    assert (seen.modules, seen.build) == ({K: "added"}, {K: "nv.c:7:1: error: too few arguments"})
    assert "has no NVIDIA module" in str(seen.on_disk)


def test_without_dkms_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Evidence()
    looker(tmp_path, Programs(), monkeypatch).modules(seen, "")
    assert seen.modules == {K: "missing"}


@pytest.mark.parametrize(("signer", "found"), [("the key", False), ("another", True), ("", True)])
def test_the_signer_of_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signer: str, found: bool) -> None:
    write(tmp_path, f"lib/modules/{K}/updates/dkms/nvidia.ko")
    programs = Programs(dkms=f"nvidia/580.65.06, {K}, x86_64: installed\n", modinfo=f"{signer}\n")
    seen = Evidence()

    looker(tmp_path, programs, monkeypatch).modules(seen, "the key")

    assert (seen.unsigned is not None) == found
    assert programs.asked[-1][:3] == ["modinfo", "-F", "signer"]


def test_after_a_boot_the_kernel_is_asked_for_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs(journalctl="Loading of module with unavailable key is rejected\n")
    seen = Evidence(installed_at=1000.0)
    looker(tmp_path, programs, monkeypatch).after_boot(seen, gpu("driver_not_loaded"))
    assert seen.rejection is not None
    assert "Key was rejected by service" in seen.rejection[0]


@pytest.mark.parametrize(
    ("situation", "installed_at", "container"),
    [("ready", 1000.0, None), ("driver_not_loaded", 1200.0, None), ("driver_not_loaded", 1000.0, "podman")],
)
def test_nothing_is_asked_of_a_healthy_node_or_before_the_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, situation: str, installed_at: float, container: str | None
) -> None:
    programs = Programs(journalctl="")
    seen = Evidence(installed_at=installed_at)
    looker(tmp_path, programs, monkeypatch, container).after_boot(seen, gpu(situation))
    assert (programs.asked, seen) == ([], Evidence(installed_at=installed_at))


def test_an_old_module_in_the_initramfs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, f"boot/initrd.img-{K}")
    listing = f"usr/lib/modules/{K}/kernel/fs/ext4.ko\nusr/lib/modules/{K}/updates/dkms/nvidia.ko\n"
    seen = Evidence(installed_at=1000.0)

    looker(tmp_path, Programs(lsinitramfs=listing), monkeypatch).after_boot(seen, gpu("ready?", "570.211.01"))

    assert seen.old_module == f"usr/lib/modules/{K}/updates/dkms/nvidia.ko"


def test_a_module_that_was_built_later_than_its_package_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = looker(tmp_path, Programs(), monkeypatch)
    assert (looking.changed_at(None), looking.changed_at(5.0)) == (None, 5.0)
    module = write(tmp_path, f"lib/modules/{K}/updates/dkms/nvidia.ko")
    assert looking.changed_at(5.0) == module.stat().st_ctime
