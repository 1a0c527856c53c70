# SPDX-License-Identifier: Apache-2.0
"""What kind of machine a directory tree describes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible.module_utils.rackwright.host import booted_at, inspect_host, natural_key, platform_of


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("text", "key", "family"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "debian 12", "debian"),
        ('ID=ubuntu\nVERSION_ID="24.04"\n', "ubuntu 24.04", "debian"),
        ('ID="rocky"\nVERSION_ID="9.4"\n', "rocky 9", "redhat"),
        ('ID="centos"\nVERSION_ID="8"\n', "centos 8", "redhat"),
        ("ID=alpine\nVERSION_ID=3.20\n", "alpine 3", "other"),
        ("", "linux", "other"),
    ],
)
def test_platform_key(tmp_path: Path, text: str, key: str, family: str) -> None:
    found = platform_of(tree(tmp_path, {"etc/os-release": text}))
    assert (found["key"], found["family"]) == (key, family)


def test_kernels_sort_like_people_count() -> None:
    assert sorted(["6.1.0-10-amd64", "6.1.0-9-amd64"], key=natural_key) == ["6.1.0-9-amd64", "6.1.0-10-amd64"]


def test_a_newer_installed_kernel_asks_for_a_reboot(tmp_path: Path) -> None:
    files = {f"boot/vmlinuz-{name}": "" for name in ("6.1.0-9-amd64", "6.1.0-10-amd64")}
    files |= {f"lib/modules/{name}/modules.dep": "" for name in ("6.1.0-9-amd64", "6.1.0-10-amd64")}
    files["usr/src/linux-headers-6.1.0-10-amd64/.config"] = ""
    files["usr/src/linux-headers-6.1.0-10-common/Makefile"] = ""  # shared by several kernels, none of its own
    files["usr/sbin/update-initramfs"] = ""
    host = inspect_host(tree(tmp_path, files), running="6.1.0-9-amd64")
    assert host["kernel"]["installed"] == ["6.1.0-9-amd64", "6.1.0-10-amd64"]
    assert host["kernel"]["headers"] == ["6.1.0-10-amd64"]
    assert host["reboot"] == {
        "required": True,
        "reason": "Kernel 6.1.0-10-amd64 is installed, 6.1.0-9-amd64 is running.",
    }
    assert host["initramfs"]["command"] == ["update-initramfs", "-u", "-k", "all"]


def test_a_boot_loader_that_prefers_the_older_kernel_is_no_reason_to_reboot_again(tmp_path: Path) -> None:
    files = {f"boot/vmlinuz-{name}": "" for name in ("6.1.0-9-amd64", "6.1.0-10-amd64")}
    files |= {f"lib/modules/{name}/modules.dep": "" for name in ("6.1.0-9-amd64", "6.1.0-10-amd64")}
    files |= {"proc/stat": "btime 4102444800\n", "proc/1/stat": "1 (systemd) S" + " 0" * 18 + " 0"}  # booted in 2100

    host = inspect_host(tree(tmp_path, files), running="6.1.0-9-amd64")

    assert host["reboot"]["required"] is False
    assert "its boot loader prefers the older one" in host["kernel"]["note"]


def test_the_distribution_may_ask_for_a_reboot(tmp_path: Path) -> None:
    host = inspect_host(
        tree(tmp_path, {"run/reboot-required": "", "run/reboot-required.pkgs": "libc6\nlibc6\n"}), "6.1"
    )
    assert "update of libc6" in host["reboot"]["reason"]


def test_in_a_container_the_kernel_is_the_hosts(tmp_path: Path) -> None:
    files = {"run/systemd/container": "podman\n", "lib/modules/6.1.0-9-amd64/x": "", "boot/vmlinuz-6.1.0-9-amd64": ""}
    host = inspect_host(tree(tmp_path, files), running="6.18.0")
    assert host["container"] == "podman"
    assert host["kernel"]["installed"] == []
    assert "belongs to the host" in host["kernel"]["note"]
    assert host["initramfs"]["command"] is None
    assert host["reboot"]["required"] is False


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"run/.containerenv": ""}, "podman"),
        ({".dockerenv": ""}, "docker"),
        ({"proc/1/environ": "PATH=/bin\0container=lxc\0"}, "lxc"),
        ({}, None),
    ],
)
def test_container_kind(tmp_path: Path, files: dict[str, str], kind: str | None) -> None:
    assert inspect_host(tree(tmp_path, files), running="6.1")["container"] == kind


def test_wsl_is_known_by_its_kernel(tmp_path: Path) -> None:
    assert inspect_host(tmp_path, running="5.15.153.1-microsoft-standard-WSL2")["wsl"] is True
    assert inspect_host(tmp_path, running="6.1.0-9-amd64")["wsl"] is False


def test_boot_time_is_that_of_the_first_process(tmp_path: Path) -> None:
    fields = ["S", *["0"] * 18, "5000", "0"]
    tree(tmp_path, {"proc/stat": "cpu 1\nbtime 1700000000\n", "proc/1/stat": f"1 (a) b) {' '.join(fields)}\n"})
    assert booted_at(tmp_path, 100) == 1700000050
    assert booted_at(tmp_path / "nowhere", 100) is None


def test_installed_time_daemons_are_listed_in_order_of_preference(tmp_path: Path) -> None:
    units = "usr/lib/systemd/system"
    tree(tmp_path, {f"{units}/systemd-timesyncd.service": "", f"{units}/chrony.service": ""})
    assert inspect_host(tmp_path, "6.1")["time_daemons"] == ["chrony", "systemd-timesyncd"]
