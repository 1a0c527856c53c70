# SPDX-License-Identifier: Apache-2.0
"""A vendor's repository read beside the node's own sources: what is asked of apt, and what its failures mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from unit.openpgp_samples import ONE

from ansible.module_utils.rackwright.apt_private import PrivateLists
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.openpgp import dearmor
from ansible.module_utils.rackwright.repository import Wish

URL = "https://user:secret@mirror.test/cuda/"
KEY = dearmor(ONE, "")


class Node:
    """Answers apt's commands; keeps the sources, lists and preferences each of them saw."""

    def __init__(self, failure: str = "") -> None:
        self.failure, self.seen = failure, []  # type: tuple[str, list[tuple[str, dict[str, str], list[str]]]]

    def __call__(self, command: Sequence[str]) -> tuple[int, str, str]:
        values = dict(word.partition("=")[::2] for word in command if "::" in word)
        parts = Path(values["Dir::Etc::sourceparts"])
        sources = {path.name: path.read_text(encoding="utf-8") for path in parts.glob("*")} if parts.is_dir() else {}
        lists = sorted(path.name for path in Path(values["Dir::State::Lists"]).glob("*_*"))
        self.seen.append((command[-1], sources, lists))
        return (100, "", self.failure) if self.failure and command[-1] == "update" else (0, "", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("etc/apt/sources.list.d", "etc/apt/preferences.d", "var/lib/apt/lists"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/apt/sources.list.d/debian.sources").write_text(
        "Types: deb\nURIs: http://deb.test/debian\nSuites: bookworm\nComponents: main\n", encoding="utf-8"
    )
    (tmp_path / "etc/apt/sources.list.d/cuda.list").write_text(
        "deb [signed-by=/k.gpg] https://mirror.test/cuda/ /\n", encoding="utf-8"
    )
    return tmp_path


def read(node: Node, root: Path) -> None:
    wish = Wish("nvidia-cuda", URL)
    with PrivateLists(node, "gpu-a", 5, root) as lists:
        lists.add_repository(wish, KEY)
        lists.update(wish)
        lists.simulate("try", "install", "nvidia-utils")


def test_only_the_vendors_lists_are_fetched_where_the_node_has_the_others(root: Path) -> None:
    (root / "var/lib/apt/lists/deb.test_debian_dists_bookworm_InRelease").touch()
    node = Node()
    read(node, root)

    (update, alone, _lists), (last, everything, lists) = node.seen
    assert (update, last) == ("update", "nvidia-utils")
    assert list(alone) == ["rackwright-vendor.sources"]
    assert sorted(everything) == ["cuda.list", "debian.sources", "rackwright-vendor.sources"]
    # an entry of the same repository under another key would make apt refuse all of them
    assert everything["cuda.list"].startswith("# switched off")
    assert lists == ["deb.test_debian_dists_bookworm_InRelease"]


def test_a_node_without_lists_gets_all_of_them_read(root: Path) -> None:
    node = Node()
    read(node, root)
    assert [command for command, _sources, _lists in node.seen] == ["update", "update", "nvidia-utils"]
    assert len(node.seen[1][1]) == 3


def test_the_node_stays_as_it_is(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    read(Node(), root)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            "E: The repository 'https://mirror.test/cuda  Release' does not have a Release file.\nErr:1 x\n",
            r"Could not read the repository on gpu-a: https://mirror\.test/cuda/ is no package repository\. Correct",
        ),
        (
            "Err:1 https://mirror.test/cuda  InRelease\n  Could not connect to mirror.test:443\n"
            "E: Failed to fetch https://mirror.test/cuda/InRelease  Could not connect to mirror.test:443\n",
            r"Could not read the repository on gpu-a: https://mirror\.test/cuda/ cannot be used: .*Could not connect",
        ),
        (
            "Err:1 https://mirror.test/cuda  InRelease\n  The following signatures were invalid: BADSIG\n"
            "W: GPG error: https://mirror.test/cuda  InRelease: The following signatures were invalid: BADSIG\n"
            "E: The repository 'https://mirror.test/cuda  InRelease' is not signed.\n",
            r"Could not trust the repository on gpu-a: https://mirror\.test/cuda/ is not signed by the expected key",
        ),
        (
            "Err:2 https://mirror.test/cuda  Packages\n  Hash Sum mismatch\n"
            "E: Failed to fetch https://mirror.test/cuda/Packages  Hash Sum mismatch\n",
            r"Could not trust the repository on gpu-a: the lists of https://mirror\.test/cuda/ are not what its",
        ),
        (
            "E: You don't have enough free space in /var/cache/apt/archives/.\n",
            r"Could not read the repository on gpu-a: no space left in /var/cache/apt/archives/.*Free space",
        ),
    ],
)
def test_what_is_wrong_with_a_repository_is_one_sentence(output: str, sentence: str, root: Path) -> None:
    with pytest.raises(RackwrightError, match=f"^{sentence}") as caught:
        read(Node(output), root)
    assert "secret" not in str(caught.value)


def test_our_preferences_stand_in_for_the_nodes_own_of_that_name(root: Path) -> None:
    preferences = root / "etc/apt/preferences.d"
    (preferences / "00-own.pref").write_text("old", encoding="utf-8")
    (preferences / "cuda-repository-pin-600").write_text("theirs", encoding="utf-8")
    seen: dict[str, str] = {}

    def run(command: Sequence[str]) -> tuple[int, str, str]:
        values = dict(word.partition("=")[::2] for word in command if "::" in word)
        folder = Path(values["Dir::Etc::preferencesparts"])
        seen.update({path.name: path.read_text(encoding="utf-8") for path in folder.glob("*")})
        return 0, "", ""

    with PrivateLists(run, "gpu-a", 5, root) as lists:
        lists.add_repository(Wish("nvidia-cuda", URL), KEY)
        lists.use_preferences("new", "00-own.pref")
        lists.simulate("try", "install", "x")
    assert seen == {"00-own.pref": "new", "cuda-repository-pin-600": "theirs"}
