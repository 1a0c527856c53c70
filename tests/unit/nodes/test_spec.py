# SPDX-License-Identifier: Apache-2.0
"""What a person may ask for, and how a wrong wish is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nodes.errors import NodesError
from nodes.spec import NodeSpec, check_fleet_name, parse_fleet, parse_node


def test_a_node_is_a_name_a_profile_and_a_release() -> None:
    assert parse_node("gpu-a=h100x8:bookworm") == NodeSpec("gpu-a", "h100x8", "bookworm")


def test_options_follow_after_commas() -> None:
    node = parse_node("n=none:trixie,driver=installed,mirror=none,components=main+contrib,tmpfs=/opt:64m,tmpfs=/srv:1g")
    assert node == NodeSpec("n", "none", "trixie", "installed", "none", "main+contrib", ("/opt:64m", "/srv:1g"))


def test_a_node_overrides_what_holds_for_the_fleet() -> None:
    fleet = NodeSpec("", "", "", driver="installed")
    assert parse_node("n=none:trixie", fleet).driver == "installed"
    assert parse_node("n=none:trixie,driver=none", fleet).driver == "none"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("gpu-a", "not the right form"),
        ("gpu-a=h100x8", "not the right form"),
        ("gpu-a=h100x8:bookworm:x", "not the right form"),
        ("GPU=h100x8:bookworm", "a name is made of"),
        ("-a=h100x8:bookworm", "a name is made of"),
        ("..=h100x8:bookworm", "a name is made of"),
        ("a;b=h100x8:bookworm", "a name is made of"),
        ("gpu-a=h100x8:jammy", "'jammy' is not one of bookworm, trixie"),
        ("gpu-a=h100x8:bookworm,driver=yes", "driver=yes"),
        ("gpu-a=h100x8:bookworm,components=main+universe", "components=main"),
        ("gpu-a=h100x8:bookworm,tmpfs=/opt", "tmpfs=/opt"),
        ("gpu-a=h100x8:bookworm,colour=red", "colour=red"),
    ],
)
def test_a_wrong_node_is_refused_with_its_cause_and_the_form(text: str, cause: str) -> None:
    with pytest.raises(NodesError) as caught:
        parse_node(text)
    assert cause in caught.value.cause
    assert "NAME=PROFILE:RELEASE" in str(caught.value)


def test_a_name_may_occur_once() -> None:
    with pytest.raises(NodesError, match=r"occur twice: a\. Give"):
        parse_fleet(["a=none:trixie", "b=none:trixie", "a=none:bookworm"])


@pytest.mark.parametrize("name", ["Demo", "1demo", "a/b", "../x", "..", "", "a b", "demo\n"])
def test_fleet_names_cannot_leave_their_folder(name: str) -> None:
    with pytest.raises(NodesError):
        check_fleet_name(name)


def test_scenario_names_are_fleet_names() -> None:
    assert check_fleet_name("nvidia_driver") == "nvidia_driver"


def test_the_digest_changes_with_everything_that_makes_a_node() -> None:
    node = NodeSpec("n", "none", "trixie")
    variants = [
        replace(node, name="m"),
        replace(node, profile="t4x1"),
        replace(node, release="bookworm"),
        replace(node, driver="installed"),
        replace(node, mirror="none"),
        replace(node, components="main"),
        replace(node, tmpfs=("/opt:1m",)),
    ]
    digests = {item.digest("image", "scenario") for item in [node, *variants]}
    digests |= {node.digest("other image", "scenario"), node.digest("image", "other scenario")}
    assert len(digests) == len(variants) + 3
    assert node.digest("image", "scenario") == NodeSpec("n", "none", "trixie").digest("image", "scenario")


def test_the_text_form_reads_back() -> None:
    node = parse_node("n=none:trixie,driver=installed,mirror=none,components=main,tmpfs=/opt:64m")
    assert parse_node(node.text) == node
