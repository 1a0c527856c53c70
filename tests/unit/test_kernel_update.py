# SPDX-License-Identifier: Apache-2.0
"""The kernel a node goes to is of its own flavour and series, or exactly the one that was named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rackwright import kernel_update
from rackwright.errors import InvalidInputError, ProbeError

HEADERS = ["linux-headers-{kernel}"]


def host(running: str = "6.1.0-50-amd64", container: str | None = None, **kernel: Any) -> dict[str, Any]:
    found = {"running": running, "installed": [running], "images": [running], "headers": [running], **kernel}
    return {"kernel": found, "container": container, "platform": {"family": "debian"}}


@pytest.mark.parametrize(
    ("release", "flavour", "series"),
    [
        ("6.1.0-56-amd64", "amd64", "6.1"),
        ("6.1.0-56-cloud-amd64", "cloud-amd64", "6.1"),
        ("6.12.57+deb13-amd64", "amd64", "6.12"),
        ("6.8.0-45-generic", "generic", "6.8"),
        ("5.14.0-611.5.1.el9_7.x86_64", "x86_64", "5.14"),
    ],
)
def test_flavour_and_series_are_read_from_the_release(release: str, flavour: str, series: str) -> None:
    assert kernel_update.flavour(release) == flavour
    assert kernel_update.series(release) == series


@pytest.mark.parametrize(
    ("known", "releases", "wanted", "target", "packages", "current"),
    [
        (host(), ["6.1.0-56-amd64"], "newest", "6.1.0-56-amd64", 2, False),
        (host(), ["6.1.0-9-amd64", "6.12.1+deb12-amd64"], "newest", "6.1.0-50-amd64", 0, True),
        (host(), ["6.12.1+deb12-amd64"], "6.12.1+deb12-amd64", "6.12.1+deb12-amd64", 2, False),
        # it is there and was not booted yet: nothing to install, and still something to do
        (host(images=["6.1.0-50-amd64", "6.1.0-56-amd64"]), [], "newest", "6.1.0-56-amd64", 0, False),
        (host("6.18.44", "podman", images=[], installed=[]), [], "newest", "6.18.44", 0, True),
        (
            host("x", "podman", images=[], installed=[], headers=["6.1.0-50-amd64"]),
            ["6.1.0-56-amd64"],
            "newest",
            "6.1.0-56-amd64",
            1,
            False,
        ),
    ],
)
def test_the_kernel_is_chosen(
    known: dict[str, Any], releases: list[str], wanted: str, target: str, packages: int, current: bool
) -> None:
    chosen = kernel_update.plan(known, releases, wanted, HEADERS, "n1")

    assert chosen["target"] == target
    assert len(chosen["packages"]) == packages
    assert chosen["current"] is current


def test_a_kernel_that_no_source_has_is_refused_with_those_it_has() -> None:
    with pytest.raises(InvalidInputError, match=r"6\.1\.0-99-amd64 is offered by no source.*6\.1\.0-56-amd64"):
        kernel_update.plan(host(), ["6.1.0-56-amd64"], "6.1.0-99-amd64", HEADERS, "n1")


def test_offered_kernels_are_of_one_flavour_and_without_debug_symbols() -> None:
    names = ["linux-image-6.1.0-56-amd64", "linux-image-6.1.0-9-amd64", "linux-image-6.1.0-56-amd64-dbg"]
    names += ["linux-image-6.1.0-56-cloud-amd64", "linux-image-amd64", "linux-image-6.1.0-56-amd64-unsigned"]

    def run(command: Sequence[str]) -> tuple[int, str, str]:
        return (0, "\n".join(names), "") if command[0] == "apt-cache" else (1, "", "no dnf")

    assert kernel_update.offered(run, "debian", "amd64", "n1") == ["6.1.0-9-amd64", "6.1.0-56-amd64"]
    with pytest.raises(ProbeError, match="no dnf"):
        kernel_update.offered(run, "redhat", "x86_64", "n1")


def test_the_running_kernel_can_be_taken_away_on_both_families() -> None:
    debian = kernel_update.removal("debian", ["linux-image-6.1.0-56-amd64"])

    assert debian[0][1] == "linux-base linux-base/removing-running-kernel boolean false\n"
    assert debian[1][0][-2:] == ["remove", "linux-image-6.1.0-56-amd64"]
    assert "--setopt=protect_running_kernel=False" in kernel_update.removal("redhat", ["kernel-5"])[0][0]
