# SPDX-License-Identifier: Apache-2.0
"""What kernels need before a driver comes, why one must not be booted, and where a newer DKMS is taken from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible.module_utils.rackwright.errors import InvalidInputError, MissingError
from ansible.module_utils.rackwright.kernel_guard import (
    backports_files,
    blocked_reboot,
    builds_here,
    enough,
    explain_build,
    explain_failed_install,
    needs,
    prebuilt_packages,
    refuse_old_dkms,
    refuse_unavailable,
    wrong_module,
)

OLD, NEW = "6.1.0-50-amd64", "6.1.0-56-amd64"
PATTERN = ["linux-headers-{kernel}"]
DKMS = ["nvidia-driver-cuda=580.65.06-1", "nvidia-kernel-open-dkms=580.65.06-1"]
UBUNTU = ["nvidia-headless-580-server-open", "linux-modules-nvidia-580-server-open-generic"]


def test_headers_for_every_kernel_that_has_none() -> None:
    found = needs([OLD, NEW], [NEW], DKMS, PATTERN)

    assert (found.headers, found.modules) == ({OLD: [f"linux-headers-{OLD}"]}, {})
    # a metapackage brings DKMS without its name (RHEL 10)
    assert needs([OLD], [], ["nvidia-open=3:580.65.06-1.el10"], PATTERN).headers == {OLD: [f"linux-headers-{OLD}"]}
    assert needs([OLD], [OLD], DKMS, PATTERN).headers == needs([OLD], [], [], PATTERN).headers == {}


@pytest.mark.parametrize(
    ("packages", "kernel", "names"),
    [
        (UBUNTU, "6.8.0-45-generic", ["linux-modules-nvidia-580-server-open-6.8.0-45-generic"]),
        (UBUNTU, "6.8.0-45-lowlatency", []),
        (
            ["linux-modules-nvidia-580-open-generic-64k"],
            "6.8.0-45-generic-64k",
            ["linux-modules-nvidia-580-open-6.8.0-45-generic-64k"],
        ),
        (DKMS, "6.8.0-45-generic", []),
    ],
)
def test_prebuilt_modules_of_each_kernel(packages: list[str], kernel: str, names: list[str]) -> None:
    assert prebuilt_packages(packages, kernel) == names


def test_prebuilt_modules_need_no_headers() -> None:
    found = needs(["6.8.0-45-generic"], [], UBUNTU, PATTERN)

    assert found.headers == {}
    assert found.modules == {"6.8.0-45-generic": ["linux-modules-nvidia-580-server-open-6.8.0-45-generic"]}
    assert (builds_here(UBUNTU), builds_here(DKMS)) == (False, True)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (
            "headers",
            f"kernel {OLD} on n1: its headers are not installed and no source of the node offers linux-headers-{OLD}",
        ),
        ("module", f"no source of the node offers linux-headers-{OLD}, so that kernel would have no NVIDIA module"),
    ],
)
def test_a_kernel_that_would_be_left_without_is_refused(what: str, words: str) -> None:
    wanted = needs([OLD, NEW], [], DKMS, PATTERN).headers

    refuse_unavailable(wanted, ["something else"], what, "n1")  # raises where one lacks
    with pytest.raises(MissingError) as error:
        refuse_unavailable(wanted, [f"linux-headers-{OLD}"], what, "n1")
    assert words in str(error.value)
    assert "nothing of the driver was installed" in str(error.value)


@pytest.mark.parametrize(
    ("version", "new_enough"),
    [
        ("3.0.10", False),
        ("3.0.10-8+deb12u1", False),
        ("3.1.8", True),
        ("1:3.2.2-0standin1", True),
        ("3.10.0", True),
        (None, False),
    ],
)
def test_dkms_versions(version: str | None, new_enough: bool) -> None:
    assert enough(version, "3.1.8") is new_enough


def test_backports_come_from_the_mirrors_of_the_release_and_bring_dkms_alone() -> None:
    entries = [
        "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://security.example/debian-security bookworm-security main",
    ]

    files, lines = backports_files(entries, "bookworm")

    assert lines == [
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        " http://mirror.example/debian bookworm-backports main"
    ]
    assert "URIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n" in files[0]["content"]
    assert "Package: dkms\nPin: release n=bookworm-backports\nPin-Priority: 990\n" in files[1]["content"]
    assert files[1]["content"].count("Package:") == 1
    assert backports_files(entries[1:], "bookworm") == ([], [])


def test_an_old_dkms_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidInputError, match=r"needs DKMS 3\.1\.8 or newer, the node has 3\.0\.10, and it is never"):
        refuse_old_dkms("3.0.10", "3.1.8", "it is never", "n1")


def write(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


def log(root: Path, kernel: str, line: str = "nv.c:7:1: error: too few arguments") -> None:
    head = f"DKMS make.log for nvidia-580.65.06 for kernel {kernel} (x86_64)\n"
    write(root, "var/lib/dkms/nvidia/580.65.06/build/make.log", f"{head}{line}\n")


def test_why_a_build_failed(tmp_path: Path) -> None:
    log(tmp_path, NEW)

    error = explain_build(tmp_path, "580.65.06", NEW, "n1")
    assert str(error) == (
        "Could not build the NVIDIA module 580.65.06 for kernel 6.1.0-56-amd64 on n1: the first error of"
        " /var/lib/dkms/nvidia/580.65.06/build/make.log is: nv.c:7:1: error: too few arguments. This driver version"
        " does not fit this kernel: plan a newer driver version, or boot an older kernel; the node was not rebooted."
    )
    assert "left no build log for this kernel" in str(explain_build(tmp_path, "580.65.06", OLD, "n1"))
    log(tmp_path, NEW, "  LD [M] nvidia.ko")
    assert "its log names no error" in str(explain_build(tmp_path, "580.65.06", NEW, "n1"))


def test_a_failed_installation_is_explained_by_a_build_of_this_run_only(tmp_path: Path) -> None:
    assert explain_failed_install(tmp_path, "n1", 0.0) is None
    log(tmp_path, NEW)

    assert "error: too few arguments" in str(explain_failed_install(tmp_path, "n1", 0.0))
    assert explain_failed_install(tmp_path, "n1", 2.0**40) is None


def kernel(boots: str | None, headers: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "boots": boots,
        "boots_reason": "default entry 0 of /boot/grub/grub.cfg",
        "running": OLD,
        "headers": headers,
    }


def test_a_kernel_without_the_module_that_runs_now_must_not_be_booted(tmp_path: Path) -> None:
    assert blocked_reboot(tmp_path, kernel(NEW), None) is None  # no driver here, nothing to lose
    write(tmp_path, f"lib/modules/{OLD}/updates/dkms/nvidia.ko")
    write(tmp_path, f"lib/modules/{NEW}/modules.dep")

    assert "would boot (default entry 0 of /boot/grub/grub.cfg) and has no NVIDIA module: its headers are not" in str(
        blocked_reboot(tmp_path, kernel(NEW), None)
    )
    assert "no package brings it" in str(blocked_reboot(tmp_path, kernel(NEW, (NEW,)), None))
    (tmp_path / "var/lib/dkms/nvidia/580.65.06").mkdir(parents=True)
    assert "DKMS has not built it" in str(blocked_reboot(tmp_path, kernel(NEW, (NEW,)), None))
    log(tmp_path, NEW)
    assert "it did not build: nv.c:7:1: error" in str(blocked_reboot(tmp_path, kernel(NEW, (NEW,)), None))
    # the same kernel again, a container, nothing that boots: no obstacle
    for state, container in ((kernel(OLD), None), (kernel(NEW), "podman"), (kernel(None), None)):
        assert blocked_reboot(tmp_path, state, container) is None
    write(tmp_path, f"lib/modules/{NEW}/updates/dkms/nvidia.ko")
    assert blocked_reboot(tmp_path, kernel(NEW), None) is None


@pytest.mark.parametrize(
    ("path", "version", "words"),
    [
        (None, None, "Kernel k1 has no NVIDIA module"),
        (
            "updates/nvidia.ko",
            "570.211.01",
            "would load the NVIDIA module 570.211.01 from /lib/modules/k1/updates/nvidia.ko",
        ),
        ("updates/dkms/nvidia.ko", "580.65.06", None),
        ("updates/dkms/nvidia.ko.zst", None, None),  # a version that cannot be read is no wrong one
    ],
)
def test_the_module_that_modprobe_would_load(path: str | None, version: str | None, words: str | None) -> None:
    found = wrong_module("580.65.06", ["k1"], {"k1": {"path": path, "version": version}})

    assert (found is None) == (words is None)
    assert words is None or words in str(found)
