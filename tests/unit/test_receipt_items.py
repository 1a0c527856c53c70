# SPDX-License-Identifier: Apache-2.0
"""Managed items as they are on a node, read from a directory tree, and what is said when one is not as it was left."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.receipt_node import (
    KERNEL,
    WANTED,
    example_node,
    folder_instead,
    install,
    link,
    new_kernel,
    node,
    put,
    reinstall,
    rewrite,
    stanza,
    units,
)

from ansible.module_utils.rackwright.receipt_items import Node, collect, complaints, drift, not_installed, wanted_of
from ansible.module_utils.rackwright.receipt_items_venvs import read_venv


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node with one item of each kind."""
    return example_node(tmp_path)


def test_what_is_recorded(root: Path) -> None:
    items = collect(WANTED, node(root))

    me = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
    assert items["files"] == {
        "/etc/apt/apt.conf.d/49old": None,
        "/etc/modprobe.d/rackwright-nouveau.conf": {
            "type": "file",
            "sha256": hashlib.sha256(b"blacklist nouveau\n").hexdigest(),
            "mode": "0644",
            **me,
        },
    }
    assert items["packages"] == {
        "cmake": {"version": "3.25.1-1", "hold": False},
        "nvidia-smi": {"version": "535.309.01-1", "hold": True},
    }
    assert items["present"] == {"dpkg": True}
    assert items["services"] == {"nvidia-persistenced": {"enabled": "enabled", "active": "active"}}
    assert items["sysctls"] == {"vm.swappiness": "10"}
    assert items["kernels"] == {KERNEL: {"headers": True, "modules": {"nvidia": "updates/dkms/nvidia.ko.xz 6"}}}
    assert items["venvs"]["/opt/venv"]["packages"] == {"numpy": "2.1", "torch": "2.13.0"}
    assert items["venvs"]["/opt/venv"]["python"] == "3.11.2"
    assert items["venvs"]["/opt/venv"]["executable"] == str(root / "usr/bin/python3.11")
    assert complaints(WANTED, items) == []


def test_nothing_changed_is_no_drift(root: Path) -> None:
    assert drift(collect(WANTED, node(root)), node(root)) == []


def test_looking_again_looks_at_the_same(root: Path) -> None:
    items = collect(WANTED, node(root))

    assert collect(wanted_of(items), node(root)) == items


FILE = "etc/modprobe.d/rackwright-nouveau.conf"
SITE = "opt/venv/lib/python3.11/site-packages"
MUTATIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "content": (lambda r: (r / FILE).write_text("", encoding="utf-8"), f"/{FILE} edited by hand"),
    "mode": (lambda r: (r / FILE).chmod(0o600), f"/{FILE} mode 0644 → 0600"),
    "file gone": (lambda r: (r / FILE).unlink(), f"/{FILE} removed"),
    "folder gone": (lambda r: shutil.rmtree(r / "etc/modprobe.d"), f"/{FILE} removed"),
    "link": (
        lambda r: link(r / FILE, r / "etc/x"),
        f"/{FILE} replaced by a symbolic link",
    ),
    "directory": (lambda r: folder_instead(r / FILE), f"/{FILE} replaced by a directory"),
    "back": (lambda r: put(r, "etc/apt/apt.conf.d/49old"), "/etc/apt/apt.conf.d/49old is back"),
    "version": (lambda r: rewrite(r, "3.25.1-1", "3.25.1-2"), "package cmake 3.25.1-1 → 3.25.1-2"),
    "removed": (
        lambda r: rewrite(r, stanza("cmake", "3.25.1-1"), stanza("cmake", "3.25.1-1", "deinstall ok config-files")),
        "package cmake 3.25.1-1 → removed",
    ),
    "purged": (lambda r: rewrite(r, stanza("cmake", "3.25.1-1"), ""), "package cmake 3.25.1-1 → removed"),
    "half": (
        lambda r: rewrite(r, stanza("cmake", "3.25.1-1"), stanza("cmake", "3.25.1-1", "install ok half-configured")),
        "package cmake 3.25.1-1 → 3.25.1-1 (half-configured)",
    ),
    "hold": (lambda r: rewrite(r, "hold ok installed", "install ok installed"), "hold of nvidia-smi released"),
    "journal": (
        lambda r: put(r, "var/lib/dpkg/updates/0003", stanza("cmake", "9")),
        "package cmake 3.25.1-1 → 9",
    ),
    "sysctl": (lambda r: put(r, "proc/sys/vm/swappiness", "60\n"), "vm.swappiness 10 → 60"),
    "kernel": (
        lambda r: new_kernel(r, "6.1.0-57-amd64"),
        "kernel 6.1.0-57-amd64 installed since",
    ),
    "headers": (lambda r: shutil.rmtree(r / "usr/src"), f"headers of kernel {KERNEL} removed"),
    "module": (
        lambda r: (r / f"lib/modules/{KERNEL}/updates/dkms/nvidia.ko.xz").unlink(),
        f"module nvidia of kernel {KERNEL} removed",
    ),
    "module rebuilt": (
        lambda r: put(r, f"lib/modules/{KERNEL}/updates/dkms/nvidia.ko.xz", "another"),
        f"module nvidia of kernel {KERNEL} is another file",
    ),
    "venv version": (
        lambda r: reinstall(r, "numpy", "2.1", "2.0"),
        "numpy 2.1 → 2.0 in /opt/venv",
    ),
    "venv package": (lambda r: shutil.rmtree(r / f"{SITE}/numpy-2.1.dist-info"), "numpy 2.1 → removed in /opt/venv"),
    "venv more": (lambda r: install(r / "opt/venv", "scipy", "1"), "scipy not there → 1 in /opt/venv"),
    "venv torn": (
        lambda r: (r / f"{SITE}/numpy/__init__.py").unlink(),
        "/opt/venv: numpy 2.1: 1 recorded files are missing or changed, first numpy/__init__.py",
    ),
    "venv python": (lambda r: (r / "usr/bin/python3.11").unlink(), "/opt/venv has no interpreter that runs"),
    "venv link": (lambda r: (r / "opt/venv/bin/python").unlink(), "/opt/venv has no interpreter that runs"),
    "venv settings": (
        lambda r: put(r, "opt/venv/pyvenv.cfg", "version = 3.11.2\ninclude-system-site-packages = true\n"),
        "/opt/venv/pyvenv.cfg edited by hand",
    ),
    "venv mode": (lambda r: (r / "opt/venv").chmod(0o700), "/opt/venv mode 0755 → 0700"),
    "venv gone": (lambda r: shutil.rmtree(r / "opt/venv"), "/opt/venv removed"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_change_of_the_node_is_named(root: Path, name: str) -> None:
    mutate, sentence = MUTATIONS[name]
    (root / "opt/venv").chmod(0o755)
    items = collect(WANTED, node(root))

    mutate(root)

    assert sentence in drift(items, node(root))


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        ({"nvidia-persistenced": ("disabled", "active")}, "service nvidia-persistenced disabled"),
        ({"nvidia-persistenced": ("enabled", "failed")}, "service nvidia-persistenced active → failed"),
        ({}, "service nvidia-persistenced removed"),
    ],
)
def test_every_change_of_a_service_is_named(root: Path, states: dict[str, tuple[str, str]], sentence: str) -> None:
    items = collect(WANTED, node(root))

    assert drift(items, node(root, states)) == [sentence]


def test_a_service_that_reads_its_configuration_again_runs(root: Path) -> None:
    items = collect(WANTED, node(root))

    assert drift(items, node(root, {"nvidia-persistenced": ("enabled", "reloading")})) == []


def test_only_the_managed_side_of_a_service_is_recorded(root: Path) -> None:
    wanted = {"services": [{"name": "nvidia-persistenced", "enabled": True, "active": False}]}
    items = collect(wanted, node(root))
    assert items == {"services": {"nvidia-persistenced": {"enabled": "enabled"}}}

    assert drift(items, node(root, {"nvidia-persistenced": ("enabled", "failed")})) == []
    assert drift(items, node(root, {"nvidia-persistenced": ("static", "active")})) == [
        "service nvidia-persistenced static"
    ]


def test_all_services_are_asked_in_one_call(root: Path) -> None:
    calls = []

    def run(command: list[str]) -> tuple[int, str, str]:
        calls.append(command)
        return units({"a": ("enabled", "active"), "b": ("enabled", "active")})(command)

    collect({"services": [{"name": name, "enabled": True, "active": True} for name in "ab"]}, Node(str(root), run))

    assert [command[-2:] for command in calls] == [["a", "b"]]


@pytest.mark.parametrize(
    "answer",
    [(1, "", "System has not been booted with systemd"), (0, "LoadState=loaded\n", ""), (0, "", "")],
)
def test_a_systemd_that_does_not_answer_is_drift_of_every_service(root: Path, answer: tuple[int, str, str]) -> None:
    states = {"a": ("enabled", "active"), "b": ("enabled", "active")}
    wanted = {"services": [{"name": name, "enabled": True, "active": True} for name in states]}
    items = collect(wanted, node(root, states))

    sentences = drift(items, Node(str(root), lambda _command: answer))

    assert [sentence.split(":")[0] for sentence in sentences] == [
        "could not read service a",
        "could not read service b",
    ]


def test_a_program_that_is_missing_is_drift_too(root: Path) -> None:
    def run(_command: list[str]) -> tuple[int, str, str]:
        raise FileNotFoundError(2, "No such file or directory")

    items = collect(WANTED, node(root))

    assert drift(items, Node(str(root), run, KERNEL)) == [
        "could not read service nvidia-persistenced: No such file or directory"
    ]


def test_what_is_forbidden_to_read_is_drift(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = collect(WANTED, node(root))

    def forbidden(*_arguments: Any, **_options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(Path, "read_text", forbidden)
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    monkeypatch.setattr("builtins.open", forbidden)

    sentences = drift(items, node(root))

    for name in ("/etc/modprobe.d/rackwright-nouveau.conf", "package cmake", "vm.swappiness", "/opt/venv"):
        assert f"could not read {name} as an unprivileged user" in sentences
    assert "could not read the installed kernels as an unprivileged user" in sentences


def test_a_node_without_any_package_database_is_no_proof(tmp_path: Path) -> None:
    items = {"packages": {"cmake": {"version": "1", "hold": False}}}

    assert drift(items, node(tmp_path)) == [
        "could not read package cmake: the node has neither dpkg's database nor rpm"
    ]


def test_a_container_has_no_kernel_of_its_own(root: Path) -> None:
    put(root, "run/systemd/container", "podman\n")

    items = collect({"kernels": True, "modules": ["nvidia"]}, node(root))

    assert items == {"kernels": {}}
    assert drift(items, node(root)) == []


def test_kernels_that_nobody_asked_for_are_not_watched(root: Path) -> None:
    items = collect({"files": ["/etc/modprobe.d/rackwright-nouveau.conf"]}, node(root))
    put(root, "boot/vmlinuz-7.0")
    (root / "lib/modules/7.0").mkdir()

    assert drift(items, node(root)) == []


def test_named_packages_of_an_environment_leave_others_alone(root: Path) -> None:
    items = collect({"venvs": [{"path": "/opt/venv", "packages": ["torch"]}]}, node(root))

    install(root / "opt/venv", "scipy", "1")
    shutil.rmtree(root / f"{SITE}/numpy-2.1.dist-info")

    assert drift(items, node(root)) == []


def test_a_role_that_only_installs_does_not_watch_the_environment_itself(root: Path) -> None:
    wanted = {"venvs": [{"path": "/opt/venv", "packages": ["torch"], "environment": False}]}
    items = collect(wanted, node(root))
    (root / "opt/venv").chmod(0o711)
    put(root, "opt/venv/pyvenv.cfg", "")
    assert drift(items, node(root)) == []

    shutil.rmtree(root / f"{SITE}/torch")
    assert drift(items, node(root)) == [
        "/opt/venv: torch 2.13.0: 1 recorded files are missing or changed, first torch/__init__.py"
    ]


def test_packages_of_lib64_count_once_where_it_is_a_link(root: Path) -> None:
    (root / "opt/venv/lib64").symlink_to("lib")
    put(root, "opt/other/lib64/python3.11/site-packages/a-1.dist-info/METADATA")

    linked, other = read_venv(root / "opt/venv", None), read_venv(root / "opt/other", None)

    assert linked is not None
    assert linked["packages"] == {"numpy": "2.1", "torch": "2.13.0"}
    assert other is not None
    assert other["packages"] == {"a": "1"}


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"files": ["/etc/no"]}, "/etc/no is not there"),
        ({"files": ["/etc/modprobe.d"]}, "/etc/modprobe.d is a directory, no regular file"),
        ({"absent": ["/etc/modprobe.d"]}, "/etc/modprobe.d should be absent and is there"),
        ({"services": [{"name": "no", "enabled": False, "active": True}]}, "systemd knows no service no"),
        ({"sysctls": ["vm.no"]}, "vm.no is not there"),
        ({"venvs": [{"path": "/opt/no", "packages": None}]}, "/opt/no is not there"),
        ({"venvs": [{"path": "/opt/venv", "packages": ["scipy"]}]}, "/opt/venv has no package scipy"),
        ({"venvs": [{"path": "/etc", "packages": []}]}, "/etc has no pyvenv.cfg"),
    ],
)
def test_a_listed_item_that_is_not_there_makes_no_receipt(root: Path, wanted: dict[str, Any], complaint: str) -> None:
    assert complaint in complaints(wanted, collect(wanted, node(root)))


def test_a_package_that_is_not_installed_is_told_and_its_coming_noticed(root: Path) -> None:
    wanted = {"packages": ["@group", "gone"], "present": ["virtual"]}
    items = collect(wanted, node(root))
    assert complaints(wanted, items) == []
    assert not_installed(items) == ["@group", "gone", "virtual"]

    rewrite(root, "deinstall ok config-files", "install ok installed")
    assert drift(items, node(root)) == ["package gone not installed → 1"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.rp_filter", "net/ipv4/conf/eth0.1/rp_filter"),
    ],
)
def test_names_of_kernel_settings(tmp_path: Path, name: str, path: str) -> None:
    put(tmp_path, f"proc/sys/{path}", "1\t2\n")

    assert node(tmp_path).sysctl(name) == "1 2"


@pytest.mark.parametrize("name", ["nvidia-drm", "nvidia_drm"])
@pytest.mark.parametrize(
    "path", ["kernel/drivers/nvidia-drm.ko", "extra/nvidia-drm.ko.xz", "updates/dkms/nvidia_drm.ko"]
)
def test_a_module_is_found_by_either_spelling(root: Path, name: str, path: str) -> None:
    put(root, f"lib/modules/{KERNEL}/{path}", "ab")
    put(root, f"lib/modules/{KERNEL}/modules.dep", f"{path}: x.ko\n")

    assert node(root).kernels([name]) == {KERNEL: {"headers": True, "modules": {name: f"{path} 2"}}}


def test_a_module_without_depmod_is_found_where_dkms_puts_it(root: Path) -> None:
    (root / f"lib/modules/{KERNEL}/modules.dep").unlink()

    assert node(root).kernels(["nvidia", "no"])[KERNEL]["modules"] == {
        "nvidia": "updates/dkms/nvidia.ko.xz 6",
        "no": None,
    }
