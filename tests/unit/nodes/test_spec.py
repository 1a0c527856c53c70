# SPDX-License-Identifier: Apache-2.0
"""What a person may ask for, and how a wrong wish is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nodes.errors import NodesError
from nodes.identities import IDENTITIES
from nodes.image_setup import setup_script
from nodes.spec import NodeSpec, check_fleet_name, parse_fleet, parse_node
from nodes.vendor import el_base


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
        ("gpu-a=h100x8:bookworm,vendor=maybe", "vendor=maybe"),
        ("gpu-a=h100x8:bookworm,os=suse15", "os=suse15"),
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


@pytest.mark.parametrize(
    ("options", "repositories", "redhat"),
    [
        ("", "", None),
        (",vendor=yes", "deb", None),
        (",os=ubuntu2404,vendor=yes", "deb", False),
        (",os=rocky9", "rpm", True),
    ],
)
def test_the_identity_decides_what_is_mounted(options: str, repositories: str, redhat: bool | None) -> None:
    node = parse_node(f"n=none:bookworm{options}")
    assert node.repositories == repositories
    assert (node.identity.redhat if node.identity else None) is redhat
    assert parse_node(node.text) == node


def test_an_identity_has_the_files_by_which_systems_are_told() -> None:
    rocky = IDENTITIES["rocky9"].files()
    assert rocky["etc/redhat-release"] == "Rocky Linux release 9.6 (Blue Onyx)\n"
    assert 'ID="rocky"' in rocky["usr/lib/os-release"]
    assert rocky["etc/dnf/vars/releasever"] == "9\n"
    assert "[baseos]" in rocky["etc/yum.repos.d/rocky.repo"]
    noble = IDENTITIES["ubuntu2404"].files()
    assert "VERSION_CODENAME=noble" in noble["usr/lib/os-release"]
    assert "DISTRIB_ID=Ubuntu" in noble["etc/lsb-release"]


def test_the_setup_of_an_identity_removes_what_would_tell_another_tale() -> None:
    assert "apt-get -qq update" in setup_script()
    script = setup_script(9)
    assert "apt-get" not in script
    assert "/usr/bin/apt-*" in script
    assert f"kernel-core-{el_base.KERNELS[9][0]}" in script
