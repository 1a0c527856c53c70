# SPDX-License-Identifier: Apache-2.0
"""The repositories a Red Hat family node knows, and how those that are switched off are enabled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible.module_utils.rackwright.errors import MissingError
from ansible.module_utils.rackwright.kernel_guard import header_packages
from ansible.module_utils.rackwright.packages_dnf import Dnf
from ansible.module_utils.rackwright.packages_repos import (
    enable,
    missing_repositories,
    parse_repositories,
    with_enabled,
)

ROCKY = """\
# Rocky
[crb]
name=Rocky Linux $releasever - CRB
mirrorlist=https://mirrors.test/mirrorlist?repo=CRB
gpgcheck=1
enabled=0

[crb-debug]
name=debug
enabled=0
"""
REDHAT = """\
[codeready-builder-for-rhel-9-x86_64-rpms]
baseurl = https://cdn.test/content/dist/rhel9/$releasever/x86_64/codeready-builder/os
enabled = 0
[codeready-builder-for-rhel-9-x86_64-debug-rpms]
enabled = 0
[rhel-9-for-x86_64-baseos-rpms]
enabled = 1
"""
SILENT = "[powertools]\nname=no word about enabled\nbaseurl=https://mirror.test/pt/\n[other]\nenabled=0\n"


class Node:
    """Answers dnf's question for epel-release; remembers what else was run."""

    def __init__(self, root: Path, offered: str = "") -> None:
        self.root, self.offered, self.run = root, offered, list[str]()
        (root / "etc/yum.repos.d").mkdir(parents=True)

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        if command[0] == "subscription-manager":
            self.run.append(" ".join(command))
        return 0, self.offered if "epel-release" in command else "", ""

    def repo(self, name: str, text: str) -> Path:
        path = self.root / "etc/yum.repos.d" / name
        path.write_text(text, encoding="utf-8")
        return path

    @property
    def dnf(self) -> Dnf:
        return Dnf(self, "gpu-a", 1, root=self.root)


def test_sections_are_enabled_where_nothing_is_said() -> None:
    rows = parse_repositories(f"{ROCKY}{SILENT}", "x.repo")
    assert [(row.id, row.enabled) for row in rows] == [
        ("crb", False),
        ("crb-debug", False),
        ("powertools", True),
        ("other", False),
    ]
    assert rows[2].baseurl == "https://mirror.test/pt/"


def test_one_section_is_switched_and_all_else_stays() -> None:
    assert with_enabled(ROCKY, {"crb"}, True) == ROCKY.replace("enabled=0", "enabled=1", 1)
    assert with_enabled(with_enabled(ROCKY, {"crb"}, True), {"crb"}, False) == ROCKY
    assert with_enabled(SILENT, {"powertools"}, False) == SILENT.replace("[powertools]", "[powertools]\nenabled=0")


def test_crb_is_enabled_in_its_file(tmp_path: Path) -> None:
    node = Node(tmp_path)
    path = node.repo("rocky.repo", ROCKY)
    found = missing_repositories(node.dnf, ["CRB"])
    assert [row.id for row in found.known] == ["crb"]
    enable(node.dnf, found.known)
    assert path.read_text(encoding="utf-8") == with_enabled(ROCKY, {"crb"}, True)
    assert missing_repositories(node.dnf, ["crb"]).known == []


def test_on_rhel_the_subscription_manager_enables_it(tmp_path: Path) -> None:
    node = Node(tmp_path)
    path = node.repo("redhat.repo", REDHAT)
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/subscription-manager").touch()
    found = missing_repositories(node.dnf, ["crb"])
    enable(node.dnf, found.known)
    assert node.run == ["subscription-manager repos --enable=codeready-builder-for-rhel-9-x86_64-rpms"]
    assert path.read_text(encoding="utf-8") == REDHAT


def test_epel_comes_from_its_package_where_that_is_offered(tmp_path: Path) -> None:
    node = Node(tmp_path, "epel-release\t0:9-7.el9\tnoarch\textras\n")
    assert missing_repositories(node.dnf, ["epel"]).packages == ["epel-release"]
    node.repo("epel.repo", "[epel]\nbaseurl=https://mirror.test/epel/9/\n[epel-testing]\nenabled=0\n")
    assert missing_repositories(node.dnf, ["epel"]).packages == []


def test_a_repository_nobody_knows_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        missing_repositories(Node(tmp_path).dnf, ["epel"])
    assert str(caught.value) == (
        "Could not enable the repository EPEL on gpu-a: the node knows no repository of that name and no repository "
        "offers epel-release. Lay a .repo file for EPEL or your mirror of it into /etc/yum.repos.d, or leave it out of "
        "the list."
    )


@pytest.mark.parametrize(
    ("patterns", "kernel", "names"),
    [
        (
            ["kernel-devel-matched", "kernel-headers"],
            "5.14.0-503.el9.x86_64",
            ["kernel-devel-5.14.0-503.el9.x86_64", "kernel-headers"],
        ),
        (
            ["kernel-64k-devel-matched", "kernel-headers"],
            "5.14.0-503.el9.aarch64+64k",
            ["kernel-64k-devel-5.14.0-503.el9.aarch64", "kernel-headers"],
        ),
        # the lock follows the kernel that runs; the other one has headers of its own kind
        (["kernel-64k-devel-matched"], "5.14.0-503.el9.aarch64", ["kernel-devel-5.14.0-503.el9.aarch64"]),
        (["kernel-devel-{kernel}"], "4.18.0-553.el8.x86_64", ["kernel-devel-4.18.0-553.el8.x86_64"]),
    ],
)
def test_each_kernel_gets_headers_of_its_own_release(patterns: list[str], kernel: str, names: list[str]) -> None:
    assert header_packages(patterns, kernel) == names
