# SPDX-License-Identifier: Apache-2.0
"""apt's side of the plan with a vendor's repository: what is asked of it when, on a node whose apt is played."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.openpgp_samples import FINGERPRINT_TWO, ONE

from ansible.module_utils.rackwright.driver_plan import Found, Request
from ansible.module_utils.rackwright.driver_probe_apt import PIN, AptSide
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.openpgp import dearmor
from ansible.module_utils.rackwright.packages_apt import STAMP
from ansible.module_utils.rackwright.repository import wish_from_options
from ansible.module_utils.rackwright.repository_apt import apply
from ansible.module_utils.rackwright.repository_options import NVIDIA_REPOSITORIES

URL = "https://mirror.test/cuda/"
VERSION = "595.91.07-1"
NAMES = ["nvidia-driver-cuda", "nvidia-kernel-open-dkms"]
REPOSITORY = {
    "name": "nvidia-cuda",
    "format": "deb",
    "url": URL,
    "key": base64.b64encode(ONE).decode(),
    "replaces": [NVIDIA_REPOSITORIES],
}
ARCHIVE = "http://deb.test/debian bookworm/non-free amd64 Packages"


def request(**repository: Any) -> Request:
    return Request("nvidia", "595.91.07", NAMES, [], [], [], {**REPOSITORY, **repository}, "auto")


class Node:
    """A node whose repository offers two versions; ``known``: its own lists have them already."""

    def __init__(self, installed: dict[str, str], known: bool) -> None:
        self.installed, self.known, self.updated = installed, known, 0

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        if command[0] == "dpkg-query":
            rows = [f"{name}\t{version}\tii \t{name}" for name, version in self.installed.items()]
            return 0, "\n".join(rows), ""
        if command[0] == "apt-cache":
            rows = [f"libcuda1 | 535.309.01-0+deb12u1 | {ARCHIVE}"]
            if self.known:
                offered = [*NAMES, "libcuda1"]
                rows += [
                    f"{name} | {version} | {URL}  Packages" for name in offered for version in (VERSION, "580.65.06-1")
                ]
            return 0, "\n".join(rows), ""
        if "update" in command:
            self.updated, self.known = self.updated + 1, True
            return 0, "", ""
        assert "-s" in command
        rows = [f"Inst {name} ({VERSION} NVIDIA CUDA [amd64])" for name in ("libcuda1", "nvidia-driver-cuda")]
        return 0, "\n".join(rows), ""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc/apt/sources.list.d", "etc/apt/preferences.d", "var/lib/apt/lists"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "var/lib/apt/lists/deb.test_dists_bookworm_InRelease").touch()
    return tmp_path


def resolve(node: Node, root: Path, wanted: Request) -> Found:
    host = {"platform": {"codename": "bookworm"}}
    return AptSide(node, "gpu-a", 5, root=root).resolve(wanted, host, False)


def configure(root: Path) -> None:
    """Leave what the role leaves: the repository, and lists younger than it."""
    apply(wish_from_options(REPOSITORY, "gpu-a"), dearmor(ONE, ""), False, root)
    stamp = root / STAMP
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.touch()


def test_a_repository_that_is_not_there_yet_is_asked_and_tried(root: Path) -> None:
    node = Node({}, known=False)
    before = sorted(root.rglob("*"))

    found = resolve(node, root, request())

    assert node.updated == 1
    assert sorted(root.rglob("*")) == before
    assert (found.version, found.installed, found.available) == (VERSION, None, [VERSION, "580.65.06-1"])
    assert found.packages == [f"nvidia-driver-cuda={VERSION}"]
    # what the simulation brought is named and held, not only what was asked for
    assert found.pending == [f"install libcuda1 {VERSION}", f"install nvidia-driver-cuda {VERSION}"]
    assert found.holds == ["libcuda1", "nvidia-driver-cuda"]
    assert found.files[0]["path"] == PIN
    assert found.repository == REPOSITORY


def test_a_converged_node_is_not_asked_anything(root: Path) -> None:
    configure(root)
    node = Node({"nvidia-driver-cuda": VERSION, "libcuda1": VERSION}, known=True)

    found = resolve(node, root, request())

    assert (node.updated, found.pending, found.installed) == (0, [], VERSION)
    assert found.holds == ["libcuda1", "nvidia-driver-cuda"]


def test_lists_that_do_not_know_the_version_are_read_anew(root: Path) -> None:
    configure(root)
    node = Node({}, known=False)
    assert resolve(node, root, request()).version == VERSION
    assert node.updated == 1


def test_another_address_is_asked_anew(root: Path) -> None:
    configure(root)
    (root / "etc/apt/sources.list.d/rackwright-nvidia-cuda.sources").write_text(
        "URIs: https://old.test/\n", encoding="utf-8"
    )
    node = Node({}, known=True)
    resolve(node, root, request())
    assert node.updated == 1


def test_a_wrong_key_is_refused_before_anything_is_asked(root: Path) -> None:
    node = Node({}, known=False)
    with pytest.raises(InvalidInputError, match="the given key has the fingerprint"):
        resolve(node, root, request(fingerprint=FINGERPRINT_TWO))
    assert node.updated == 0


def test_only_the_repository_counts_not_what_the_archive_has(root: Path) -> None:
    node = Node({}, known=False)
    wanted = Request("nvidia", "535.309.01", ["libcuda1"], [], [], [], REPOSITORY, "auto")
    with pytest.raises(InvalidInputError, match=r"the lock says 535\.309\.01 and https://mirror\.test/cuda/ has 595"):
        resolve(node, root, wanted)
