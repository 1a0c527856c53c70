# SPDX-License-Identifier: Apache-2.0
"""dnf's side of the driver plan against a recorded dnf: versions, streams, what goes, and what is refused."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.openpgp_samples import ONE

from ansible.module_utils.rackwright.driver_plan import Found, Request
from ansible.module_utils.rackwright.driver_probe_dnf import DnfSide
from ansible.module_utils.rackwright.errors import RackwrightError

HOST: dict[str, Any] = {"platform": {"name": "Rocky Linux 9.5", "family": "redhat"}}
URL = "file:///srv/vendor/rhel9/x86_64/"
REPOSITORY = {"format": "rpm", "url": URL, "key": base64.b64encode(ONE).decode()}
NAMES = ["nvidia-driver-cuda", "kmod-nvidia-open-dkms"]
LIBS = "nvidia-driver-cuda-libs"
MODULES = """\
Name          Stream   Profiles Summary
nvidia-driver 580-open default  s
nvidia-driver 590-open default  s
"""


class Node:
    """A node's dnf: what is installed and offered; the transaction is what the test says it is."""

    def __init__(self, root: Path, offered: Sequence[str] = ("590.48.01", "580.178.04")) -> None:
        self.root, self.offered, self.modules = root, [f"3:{version}-1.el9" for version in offered], MODULES
        self.installed: dict[str, str] = {}
        self.stray: list[str] = []
        self.error = ""
        self.seen: list[list[str]] = []
        self.repos: dict[str, str] = {}

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.seen.append(list(command))
        if command[0] == "rpm":
            return 0, "".join(f"{n}\t{v}\tx86_64\t{n}-1-1.src.rpm\t1\n" for n, v in self.installed.items()), ""
        self._read_repos(command)
        words = [word for word in command if not word.startswith("-")]
        if self.error:
            return 1, "", self.error
        if words[1] == "repoquery":
            names = [*NAMES, LIBS, "kmod-nvidia-latest-dkms"]
            return 0, "".join(f"{n}\t{v}\tx86_64\tcuda\n" for n in names if n in words for v in self.offered), ""
        if words[1] == "module":
            return 0, self.modules, ""
        return 1, self._table(words), "Operation aborted.\n"

    def _read_repos(self, command: Sequence[str]) -> None:
        folder = next((word.partition("reposdir=")[2] for word in command if "reposdir" in word), "")
        if folder:
            self.repos = {path.name: path.read_text(encoding="utf-8") for path in Path(folder).glob("*.repo")}

    def _table(self, words: list[str]) -> str:
        removed: list[str] = []
        specs = words[2:]
        if words[1] == "shell":
            script = dict(line.split(" ", 1) for line in Path(words[2]).read_text(encoding="utf-8").splitlines()[:2])
            removed, specs = script["remove"].split(), script["install"].split()
        split = [spec.rsplit("-", 2) for spec in specs]
        wanted = {name: f"{version}-{release}" for name, version, release in split}
        rows = {name: version for name, version in wanted.items() if self.installed.get(name) != version}
        rows.setdefault(LIBS, next(iter(wanted.values())))
        lines = ["Installing:", *(f" {n} x86_64 {v} cuda 1 k" for n, v in rows.items() if n not in self.installed)]
        lines += ["Upgrading:", *(f" {n} x86_64 {v} cuda 1 k" for n, v in rows.items() if n in self.installed)]
        lines += ["Installing dependencies:", *(f" {row} cuda 1 k" for row in self.stray), "Removing:"]
        return "\n".join([*lines, *(f" {n} x86_64 {self.installed[n]} @cuda 1 k" for n in removed), ""])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "etc/yum.repos.d").mkdir(parents=True)
    (tmp_path / "etc/dnf/modules.d").mkdir(parents=True)
    (tmp_path / "etc/yum.repos.d/cuda.repo").write_text(f"[cuda]\nbaseurl={URL}\nenabled=1\ngpgcheck=0\n", "utf-8")
    return Node(tmp_path)


def resolve(node: Node, version: str = "580.178.04", with_module: bool = True, **changes: Any) -> Found:
    values: dict[str, Any] = {
        "source": "nvidia",
        "version": version,
        "versioned": NAMES,
        "loose": [],
        "precedes": [],
        "streams": ["nvidia-driver:580-open"],
        "repository": REPOSITORY,
        "kernel_module": "auto",
        **changes,
    }
    return DnfSide(node, "gpu-a", 1, root=node.root).resolve(Request(**values), HOST, with_module)


def test_exact_versions_stream_and_dependencies_are_known_on_a_clean_node(node: Node) -> None:
    found = resolve(node)
    assert found.version == "3:580.178.04-1.el9"
    assert found.packages == [f"{name}=3:580.178.04-1.el9" for name in NAMES]
    assert found.streams == ["nvidia-driver:580-open"]
    assert found.available == ["3:590.48.01-1.el9", "3:580.178.04-1.el9"]
    assert found.pending == [
        "install nvidia-driver-cuda 3:580.178.04-1.el9",
        "install kmod-nvidia-open-dkms 3:580.178.04-1.el9",
        "install nvidia-driver-cuda-libs 3:580.178.04-1.el9",
        "enable the module stream nvidia-driver:580-open",
    ]
    assert found.holds == sorted([*NAMES, LIBS])
    assert found.repository["name"] == "nvidia-cuda"


def test_the_repository_is_asked_with_its_signature_checked_and_the_node_stays_as_it_is(node: Node) -> None:
    before = {path: path.read_bytes() for path in node.root.rglob("*") if path.is_file()}
    resolve(node)
    ours = node.repos["rackwright-nvidia-cuda.repo"]
    assert f"baseurl={URL}\n" in ours
    assert "gpgcheck=1\nrepo_gpgcheck=1\n" in ours
    assert "module_hotfixes=1\n" in ours
    # another entry of the same repository, which checks nothing, plays no part
    assert "enabled=0" in node.repos["cuda.repo"]
    assert {path: path.read_bytes() for path in node.root.rglob("*") if path.is_file()} == before


def test_the_module_package_is_named_in_a_container_too(node: Node) -> None:
    """The user-space packages depend on some module package; dnf would choose between the flavours."""
    assert "kmod-nvidia-open-dkms=3:580.178.04-1.el9" in resolve(node, with_module=False).packages


def test_installed_packages_of_the_driver_move_along(node: Node) -> None:
    node.installed = dict.fromkeys([*NAMES, LIBS], "3:580.178.04-1.el9")
    found = resolve(node, "590.48.01", streams=["nvidia-driver:590-open"])
    assert found.installed == "3:580.178.04-1.el9"
    assert found.packages == [f"{name}=3:590.48.01-1.el9" for name in [*NAMES, LIBS]]
    assert "change nvidia-driver-cuda-libs 3:580.178.04-1.el9 -> 3:590.48.01-1.el9" in found.pending


def test_nothing_is_pending_where_all_is_there(node: Node) -> None:
    node.installed = dict.fromkeys([*NAMES, LIBS], "3:580.178.04-1.el9")
    text = "[nvidia-driver]\nstream=580-open\nstate=enabled\n"
    (node.root / "etc/dnf/modules.d/nvidia-driver.module").write_text(text, encoding="utf-8")
    assert resolve(node).pending == []
    assert not any("--assumeno" in command for command in node.seen)


def test_the_module_of_the_other_flavour_goes(node: Node) -> None:
    node.installed = {"kmod-nvidia-latest-dkms": "3:580.178.04-1.el9", LIBS: "3:580.178.04-1.el9"}
    found = resolve(node)
    assert found.remove == ["kmod-nvidia-latest-dkms"]
    assert not any(row.startswith("kmod-nvidia-latest-dkms=") for row in found.packages)
    assert "remove kmod-nvidia-latest-dkms 3:580.178.04-1.el9" in found.pending


def test_rhel_10_has_no_streams(node: Node) -> None:
    found = resolve(node, streams=[])
    assert found.streams == []
    assert not any("module" in command for command in node.seen)


def test_a_mirror_without_modules_is_said_and_used(node: Node) -> None:
    node.modules = "Error: No matching Modules to list\n"
    found = resolve(node)
    assert found.streams == []
    assert found.notes == [f"{URL} has no module nvidia-driver; exact versions and locks keep the branch."]


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        (
            {"version": "581.1"},
            "",
            f"the lock says 581.1 and {URL} has 590.48.01, 580.178.04. Set stack_driver_branch or stack_driver_version",
        ),
        (
            {"streams": ["nvidia-driver:581-open"]},
            "",
            f"{URL} has no stream nvidia-driver:581-open, only 580-open, 590-open. Set stack_driver_branch",
        ),
        ({"source": "distribution"}, "", "Rocky Linux 9.5 has no NVIDIA driver in its own repositories"),
        (
            {},
            "Error: Failed to download metadata for repo 'rackwright-nvidia-cuda': repomd.xml GPG signature "
            "verification error: Bad GPG signature\n",
            f"Could not trust the repository on gpu-a: {URL} is not signed by the expected key",
        ),
        (
            {},
            "  - Status code: 404 for http://mirror.test/repodata/repomd.xml (IP: 10.0.0.1)\n"
            "Error: Failed to download metadata for repo 'rackwright-nvidia-cuda': Cannot download repomd.xml\n",
            "answers 404 Not Found. Correct stack_repository_url",
        ),
        (
            {"repository": {**REPOSITORY, "fingerprint": "A" * 40}},
            "",
            f"expected is {'A' * 40}. Find out who changed it",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(node: Node, changes: dict[str, Any], error: str, sentence: str) -> None:
    node.error = error
    with pytest.raises(RackwrightError) as caught:
        resolve(node, **changes)
    assert sentence in str(caught.value)


def test_a_transaction_that_would_move_the_branch_is_refused(node: Node) -> None:
    node.stray = ["libnvidia-ml x86_64 3:590.48.01-1.el9"]
    with pytest.raises(RackwrightError, match=r"would also bring libnvidia-ml 3:590\.48\.01-1\.el9, another"):
        resolve(node)
