# SPDX-License-Identifier: Apache-2.0
"""One package transaction against a recorded apt: what runs, in which order, and what does not run."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.package_wishes import wish

from ansible.module_utils.rackwright.errors import RackwrightError, TimedOutError
from ansible.module_utils.rackwright.package_set import PackageSet, Wish
from ansible.module_utils.rackwright.packages_apt import STAMP, Apt

LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)\n"


class Node:
    """A node's apt as far as it is asked: dpkg's database, offered versions, holds, and every command that acts."""

    def __init__(self) -> None:
        self.installed: dict[str, tuple[str, str, str]] = {}
        self.offered: dict[str, list[str]] = {}
        self.held: set[str] = set()
        self.upgrade = ""
        self.fail: dict[str, list[str]] = {}
        self.acted: list[str] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        words = [word for word in command if not word.startswith("-") and "::" not in word]
        failures = self.fail.get(" ".join(words[:2]), [])
        if failures:
            return 100, "", failures.pop(0)
        if words[0] == "dpkg-query":
            rows = (f"{n}\t{v}\t{s}\t{src}\n" for n, (v, s, src) in self.installed.items())
            return 0, "".join(rows), ""
        if words[0] == "apt-cache":
            rows = (f"{n} | {v} | m suite Packages\n" for n in words[2:] for v in self.offered.get(n, []))
            return 0, "".join(rows), ""
        if words[:2] == ["apt-mark", "showhold"]:
            return 0, "\n".join(sorted(self.held)), ""
        return self._act(words, "-s" in command, list(command))

    def _act(self, words: list[str], simulated: bool, command: list[str]) -> tuple[int, str, str]:
        if words[0] == "apt-get" and words[1] in ("upgrade", "dist-upgrade") and simulated:
            return 0, self.upgrade, ""
        if words[0] == "apt-get" and words[1] == "install" and simulated:
            return 0, "".join(f"Inst {w.partition('=')[0]} ({self._version(w)} D:1/s [amd64])\n" for w in words[2:]), ""
        self.acted.append(" ".join(words))
        if words[0] == "apt-get" and words[1] == "install":
            for word in words[2:]:
                name = word.partition("=")[0]
                self.installed[name] = (self._version(word), "ii ", name)
            if "--fix-broken" in command:
                self._complete()
        if words[0] == "dpkg":
            self._complete(states=("F", "U", "t"))
        if words[0] == "apt-mark":
            self.held = self.held | set(words[2:]) if words[1] == "hold" else self.held - set(words[2:])
        return 0, "", ""

    def _version(self, word: str) -> str:
        name, _sep, version = word.partition("=")
        return version or self.offered.get(name, ["1"])[0]

    def _complete(self, states: tuple[str, ...] = ("F", "U", "t", "H")) -> None:
        for name, (version, status, source) in self.installed.items():
            if status[1] in states:
                self.installed[name] = (version, "ii ", source)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    lists = tmp_path / "var/lib/apt/lists"
    lists.mkdir(parents=True)
    (lists / "mirror_dists_bookworm_InRelease").touch()
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/updates").mkdir(parents=True)
    stamp = tmp_path / STAMP
    stamp.parent.mkdir(parents=True)
    stamp.touch()
    return tmp_path


def run(node: Node, root: Path, wanted: Wish, check: bool = False, timeout: int = 10) -> dict[str, Any]:
    clock = iter(range(0, 10_000, 3))
    apt = Apt(node, "gpu-a", timeout, root=root, clock=lambda: float(next(clock)), sleep=lambda _seconds: None)
    return PackageSet(apt, wanted, check).run().to_result()


def test_nothing_to_do_runs_nothing(root: Path) -> None:
    node = Node()
    node.installed["cmake"] = ("3", "ii ", "cmake")
    assert run(node, root, wish(packages=["cmake"]))["changed"] is False
    assert node.acted == []


def test_install_then_hold_then_nothing(root: Path) -> None:
    node = Node()
    node.offered["cmake"] = ["3"]
    wanted = wish(packages=["cmake"], hold=["cm*"])
    first = run(node, root, wanted)
    assert first["actions"] == ["install cmake 3", "hold cmake"]
    again = run(node, root, wanted)
    assert again["changed"] is False
    assert first["on_hold"] == again["on_hold"] == ["cmake"]
    assert run(node, root, wish(packages=["cmake"], release=["cm*"]))["released"] == ["cmake"]


def test_check_mode_says_the_same_and_does_nothing(root: Path) -> None:
    node = Node()
    node.offered["cmake"] = ["3"]
    result = run(node, root, wish(packages=["cmake", "unknown=9"]), check=True)
    assert result["actions"] == [
        "install cmake 3",
        "install unknown 9 (its dependencies are known once the package lists are updated)",
    ]
    assert node.acted == []


def test_half_configured_packages_are_configured_first(root: Path) -> None:
    node = Node()
    node.installed["cmake"] = ("3", "iF ", "cmake")
    assert run(node, root, wish())["repaired"] == ["cmake"]
    assert node.acted[0] == "dpkg"
    assert run(node, root, wish())["repaired"] == []


def test_half_unpacked_packages_are_unpacked_again(root: Path) -> None:
    node = Node()
    node.installed["cmake-data"] = ("3", "iHR", "cmake")
    node.offered["cmake-data"] = ["3"]
    assert run(node, root, wish())["repaired"] == ["cmake-data"]
    assert node.acted == ["dpkg", "apt-get install cmake-data"]


def test_a_journal_of_dpkg_counts_as_interrupted(root: Path) -> None:
    (root / "var/lib/dpkg/updates/0001").touch()
    assert run(Node(), root, wish(), check=True)["repaired"] == ["(journal)"]


def test_lists_are_refreshed_when_sources_changed(root: Path) -> None:
    node = Node()
    node.offered["cmake"] = ["3"]
    source = root / "etc/apt/sources.list"
    source.touch()
    os.utime(source, (time.time() + 5, time.time() + 5))
    assert run(node, root, wish(packages=["cmake"]))["cache_updated"] is True
    assert node.acted == ["apt-get update", "apt-get install cmake"]


def test_lists_are_refreshed_for_an_unknown_version_only(root: Path) -> None:
    node = Node()
    node.offered["smi"] = ["2", "1"]
    assert run(node, root, wish(packages=["smi=1"]))["cache_updated"] is False
    assert run(node, root, wish(packages=["smi=3"]))["cache_updated"] is True


def test_an_optional_package_nobody_offers_is_no_error(root: Path) -> None:
    node = Node()
    result = run(node, root, wish(optional=["linux-headers-1.0"]))
    assert result["unavailable"] == ["linux-headers-1.0"]
    assert result["changed"] is False


def test_security_upgrade_leaves_held_and_other_packages(root: Path) -> None:
    node = Node()
    node.held = {"kernel"}
    node.upgrade = (
        "Inst a [1] (2 Debian-Security:12/oldstable-security [amd64])\n"
        "Inst kernel [1] (2 Debian-Security:12/oldstable-security [amd64])\n"
        "Inst b [1] (2 Debian:12.15/oldstable [amd64])\n"
    )
    assert run(node, root, wish(upgrade="security"))["actions"] == ["change a 1 -> 2"]
    assert node.acted == ["apt-get install a"]


def test_waits_for_a_lock_and_goes_on(root: Path) -> None:
    node = Node()
    node.offered["cmake"] = ["3"]
    node.fail["apt-get install"] = []
    (root / STAMP).unlink()
    node.fail["apt-get update"] = [LOCKED, LOCKED]
    result = run(node, root, wish(packages=["cmake"]), timeout=60)
    assert result["changed"] is True
    assert result["lock_waited_s"] > 0


def test_gives_up_on_a_lock_after_the_timeout(root: Path) -> None:
    node = Node()
    node.offered["cmake"] = ["3"]
    (root / STAMP).unlink()
    node.fail["apt-get update"] = [LOCKED] * 50
    with pytest.raises(TimedOutError, match=r"process 7 \(apt-get\) has held it for more than"):
        run(node, root, wish(packages=["cmake"]))
    assert node.acted == []


def test_what_cannot_be_repaired_is_an_error(root: Path) -> None:
    node = Node()
    node.installed["cmake"] = ("3", "iW ", "cmake")
    with pytest.raises(RackwrightError, match="Could not repair cmake on gpu-a"):
        Apt(_stubborn(node), "gpu-a", 0, root=root).repair()


DOES_NOT_BUILD = "Error! Bad return status for module build on kernel: k (x86_64)\ndpkg: error processing package mod\n"


@pytest.mark.parametrize(
    ("wanted", "actions"),
    [
        (wish(packages=["mod=580"], allow_downgrade=True), ["install mod 580"]),
        (wish(packages=["other"], remove=["mod"]), ["install other 1", "install mod- 1"]),
    ],
)
def test_a_module_that_cannot_be_configured_is_replaced(root: Path, wanted: Wish, actions: list[str]) -> None:
    node = Node()
    node.installed["mod"] = ("570", "iF ", "mod")
    node.offered |= {"mod": ["570", "580"], "other": ["1"]}
    node.fail = {"dpkg": [DOES_NOT_BUILD], "apt-get install": [DOES_NOT_BUILD]}
    assert run(node, root, wanted)["actions"] == actions


@pytest.mark.parametrize("wanted", [wish(packages=["mod=570"]), wish(packages=["mod"]), wish(packages=["other"])])
def test_a_module_that_cannot_be_configured_and_stays_is_an_error(root: Path, wanted: Wish) -> None:
    node = Node()
    node.installed["mod"] = ("570", "iF ", "mod")
    node.offered |= {"mod": ["570", "580"], "other": ["1"]}
    node.fail = {"dpkg": [DOES_NOT_BUILD], "apt-get install": [DOES_NOT_BUILD]}
    with pytest.raises(RackwrightError, match="does not build for kernel k"):
        run(node, root, wanted)


def _stubborn(node: Node) -> Any:
    """Answer like a node on which no command changes a package."""

    def answer(command: Sequence[str]) -> tuple[int, str, str]:
        return node(command) if command[0] == "dpkg-query" else (0, "", "")

    return answer
