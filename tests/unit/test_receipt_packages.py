# SPDX-License-Identifier: Apache-2.0
"""Versions and holds of packages, as dpkg's database and rpm tell them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.receipt_node import dpkg, put, stanza

from ansible.module_utils.rackwright.receipt_items import Node, collect
from ansible.module_utils.rackwright.receipt_items_packages import is_held, is_locked, read_dpkg, read_rpm


@pytest.mark.parametrize(
    ("name", "version"),
    [("libc6", "2.36"), ("libc6:amd64", "2.36"), ("libc6:i386", "2.35"), ("only", "7"), ("libc6:arm64", None)],
)
def test_the_native_architecture_counts_where_none_is_named(tmp_path: Path, name: str, version: str | None) -> None:
    dpkg(
        tmp_path,
        stanza("libc6", "2.35", arch="i386"),
        stanza("libc6", "2.36", arch="amd64"),
        stanza("only", "7", arch="i386"),
    )

    package = read_dpkg(tmp_path, [name])[name]

    assert (package and package["version"]) == version


def test_the_name_in_another_field_is_no_package(tmp_path: Path) -> None:
    dpkg(tmp_path, stanza("other", "1") + "Depends: cmake\nDescription: y\n Package: cmake\n")

    assert read_dpkg(tmp_path, ["cmake"]) == {"cmake": None}


RPM = (
    "cmake\t3.26.5-2.el9\tx86_64\n"
    "kernel-devel\t5.14.0-1.el9\tx86_64\n"
    "kernel-devel\t5.14.0-2.el9\tx86_64\n"
    "package no is not installed\n"
    "nvidia-driver\t3:580.95.05-1.el9\tx86_64\n"
)
RPM_NAMES = ["cmake", "kernel-devel", "no", "nvidia-driver"]


def test_rpm_answers_for_all_packages_in_one_call(tmp_path: Path) -> None:
    calls = []

    def run(command: list[str]) -> tuple[int, str, str]:
        calls.append(command)
        return 1, RPM, ""

    put(
        tmp_path,
        "etc/dnf/plugins/versionlock.list",
        "# comment\n!cmake-0:3.26.5-2.el9.*\nnvidia-driver-3:580.95.05-1.el9.*\n",
    )
    put(tmp_path, "etc/dnf/dnf.conf", "[main]\nexcludepkgs=kernel kernel-core\n  kernel-devel*\nbest=True\n")

    found = read_rpm(tmp_path, [*RPM_NAMES, "@group"], run)

    assert len(calls) == 1
    assert calls[0][-4:] == RPM_NAMES
    assert found == {
        "cmake": {"version": "3.26.5-2.el9", "hold": False},
        "kernel-devel": {"version": "5.14.0-1.el9, 5.14.0-2.el9", "hold": True},
        "no": None,
        "nvidia-driver": {"version": "3:580.95.05-1.el9", "hold": True},
        "@group": None,
    }


def test_a_package_asked_for_by_its_full_name_is_found(tmp_path: Path) -> None:
    name = "kernel-devel-5.14.0-1.el9.x86_64"

    found = read_rpm(tmp_path, [name], lambda _command: (0, "kernel-devel\t5.14.0-1.el9\tx86_64\n", ""))

    assert found == {name: {"version": "5.14.0-1.el9", "hold": False}}


def test_dnf5_keeps_its_locks_elsewhere(tmp_path: Path) -> None:
    put(tmp_path, "etc/dnf/versionlock.toml", 'version = "1.0"\n[[packages]]\nname = "cmake"\n')

    found = read_rpm(tmp_path, ["cmake"], lambda _command: (0, "cmake\t1-1\tx86_64\n", ""))

    assert found == {"cmake": {"version": "1-1", "hold": True}}


def test_an_rpm_that_says_too_little_is_no_answer(tmp_path: Path) -> None:
    put(tmp_path, "usr/bin/rpm")

    items = collect({"packages": ["cmake"]}, Node(str(tmp_path), lambda _command: (1, "", "rpmdb open failed")))

    assert items == {
        "packages": {
            "cmake": {"error": "could not read package cmake: rpm gave an incomplete answer: rpmdb open failed"}
        }
    }


@pytest.mark.parametrize(
    ("pattern", "matched", "locked"),
    [("cmake", True, False), ("cmake-*", True, True), ("cmake.x86_64", True, False), ("cmake-0:1-1.x86_64", True, True),
     ("cmake-0:1-1.*", True, True), ("cmake-1-2", False, False), ("cma", False, False), ("*", True, True),
     ("*make*1*", True, True)],
)  # fmt: skip
def test_patterns_of_dnf(pattern: str, matched: bool, locked: bool) -> None:
    """A versionlock entry that is a name alone lets every version through, as dnf 4 shows."""
    assert is_held("cmake", "1-1", "x86_64", [pattern]) is matched
    assert is_locked("cmake", "1-1", "x86_64", [pattern]) is locked


def test_the_list_of_locks_is_where_the_plugin_looks_for_it(tmp_path: Path) -> None:
    put(tmp_path, "etc/dnf/plugins/versionlock.conf", "[main]\nenabled = 1\nlocklist = /etc/locks\n")
    put(tmp_path, "etc/dnf/plugins/versionlock.list", "")
    put(tmp_path, "etc/locks", "cmake-0:1-1.*\n")

    found = read_rpm(tmp_path, ["cmake"], lambda _command: (0, "cmake\t1-1\tx86_64\n", ""))

    assert found == {"cmake": {"version": "1-1", "hold": True}}
