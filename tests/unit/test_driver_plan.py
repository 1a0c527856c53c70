# SPDX-License-Identifier: Apache-2.0
"""Which driver a node gets, or why it gets none."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.driver_plan import (
    Request,
    choose_version,
    kernels_to_build,
    package_list,
    pending_changes,
    preferences,
    skip_reason,
    upstream,
)
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.packages import Candidate, Installed

NEW, OLD = "535.309.01-0+deb12u1", "535.261.03-1"
VERSIONS = [NEW, OLD]


def request(**values: Any) -> Request:
    base: dict[str, Any] = {
        "anchor": "nvidia-smi",
        "userland": ["nvidia-smi", "libcuda1", "nvidia-persistenced"],
        "module_packages": ["nvidia-kernel-dkms"],
        "sources": ["nvidia-graphics-drivers"],
        "helpers": ["nvidia-persistenced"],
        "version": "535.309.01",
        "kernel_module": "auto",
    }
    return Request(**{**base, **values})


@pytest.mark.parametrize(
    ("version", "expected"),
    [(NEW, "535.309.01"), ("3:610.57.04-1.el9", "610.57.04"), ("550.163.01-2", "550.163.01"), ("odd", "odd")],
)
def test_upstream_version(version: str, expected: str) -> None:
    assert upstream(version) == expected


@pytest.mark.parametrize(
    ("installed", "wanted", "chosen"),
    [
        (None, "535.309.01", NEW),
        (OLD, "535.309.01", NEW),
        (NEW, "535.261.03", OLD),  # going back is allowed
        (NEW, OLD, OLD),  # the package's own version
        ("535.309.01-0+deb12u0", "535.309.01", "535.309.01-0+deb12u0"),  # another build of the same driver stays
        ("535.100-1", "535.100", "535.100-1"),  # gone from the archive, still installed
    ],
)
def test_chosen_version(installed: str | None, wanted: str, chosen: str) -> None:
    assert choose_version(VERSIONS, installed, wanted, "gpu-a") == chosen


@pytest.mark.parametrize(
    ("versions", "installed", "message"),
    [
        (
            VERSIONS,
            OLD,
            r"the lock says 999\.1 and the node's archive has 535\.309\.01, 535\.261\.03\. Set stack_",
        ),
        ([], None, r"the lock says 999\.1 and the node's archive has none\."),
    ],
)
def test_a_version_nobody_has_is_refused_with_what_there_is(
    versions: list[str], installed: str | None, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        choose_version(versions, installed, "999.1", "gpu-a")


CANDIDATES = [
    Candidate(name, version, "m") for name in ("nvidia-smi", "libcuda1", "libnvidia-cfg1") for version in VERSIONS
]
CANDIDATES += [Candidate("nvidia-persistenced", "535.171.04-1~deb12u1", "m"), Candidate("nvidia-kernel-dkms", OLD, "m")]


def test_packages_of_the_driver_are_exact_and_others_are_not() -> None:
    assert package_list(NEW, request(), CANDIDATES, {}, False, "gpu-a") == [
        f"nvidia-smi={NEW}",
        f"libcuda1={NEW}",
        "nvidia-persistenced",
    ]


def test_an_installed_package_that_stayed_behind_is_moved_too() -> None:
    behind = {"libnvidia-cfg1": Installed("libnvidia-cfg1", OLD, "hi ", "nvidia-graphics-drivers")}
    assert f"libnvidia-cfg1={NEW}" in package_list(NEW, request(), CANDIDATES, behind, False, "gpu-a")


def test_a_module_that_is_not_there_in_this_version_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"not available in version 535\.309\.01, only in 535\.26"):
        package_list(NEW, request(), CANDIDATES, {}, True, "gpu-a")
    assert f"nvidia-kernel-dkms={OLD}" in package_list(OLD, request(), CANDIDATES, {}, True, "gpu-a")


def test_a_package_nobody_has_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="the archive has no libnone"):
        package_list(NEW, request(userland=["libnone"]), CANDIDATES, {}, False, "gpu-a")


def test_pending_changes_name_each_package() -> None:
    statuses = {
        "a": Installed("a", "1", "ii ", "a"),
        "b": Installed("b", "1", "iF ", "b"),
        "d": Installed("d", "2", "ii ", "d"),
    }
    assert pending_changes(["a=2", "b=1", "c=3", "d=2"], statuses) == ["change a 1 -> 2", "repair b 1", "install c 3"]


def host(
    container: str | None = None, installed: tuple[str, ...] = (), headers: tuple[str, ...] = ()
) -> dict[str, Any]:
    kernel = {"running": "k1", "installed": list(installed), "headers": list(headers), "note": "the host's kernel"}
    return {"container": container, "wsl": False, "kernel": kernel}


@pytest.mark.parametrize(
    ("node", "mode", "kernels", "note"),
    [
        (host(installed=("k1", "k2"), headers=("k2",)), "auto", ["k2"], None),
        (host(installed=("k1",)), "auto", [], "headers"),
        (host("podman", headers=("k2",)), "auto", [], "the host's kernel"),
        (host("podman", headers=("k2",)), "build", ["k2"], None),
        (host(), "build", [], "No kernel headers"),
        (host(installed=("k1",), headers=("k1",)), "none", [], "none"),
    ],
)
def test_kernels_that_get_a_module(node: dict[str, Any], mode: str, kernels: list[str], note: str | None) -> None:
    found, reason = kernels_to_build(node, mode)
    assert found == kernels
    assert (reason is None) == (note is None)
    assert note is None or note in str(reason)


def test_the_pin_names_every_source_and_one_version() -> None:
    text = preferences(NEW, ["nvidia-graphics-drivers", "firmware-nvidia-graphics"], ["nvidia-persistenced"])
    assert text.endswith("\nPackage: src:nvidia-persistenced\nPin: version *\nPin-Priority: 500\n")
    assert "Package: src:nvidia-graphics-drivers src:firmware-nvidia-graphics\n" in text
    assert "Pin: version 535.309.01*\nPin-Priority: 1001\n" in text


@pytest.mark.parametrize(
    ("gpu", "node", "locked", "require", "part"),
    [
        ({"situation": "wsl2", "pci_count": 0}, host(), True, False, "WSL2"),
        ({"situation": "no_driver", "pci_count": 1}, {**host(), "wsl": True}, False, False, "WSL2"),
        ({"situation": "no_gpu", "pci_count": 0}, host(), True, True, "no NVIDIA GPU"),
        ({"situation": "no_gpu", "pci_count": 0}, host(), True, False, None),  # an image for machines to come
        ({"situation": "no_gpu", "pci_count": 0}, host(), False, False, "no NVIDIA GPU"),
        ({"situation": "no_driver", "pci_count": 8}, host(), True, True, None),
    ],
)
def test_nodes_that_get_no_driver(
    gpu: dict[str, Any], node: dict[str, Any], locked: bool, require: bool, part: str | None
) -> None:
    reason = skip_reason(gpu, node, locked, require, "gpu-a")
    assert (reason is None) == (part is None)
    assert part is None or part in str(reason)


def test_gpus_the_lock_does_not_know_of_are_not_passed_over() -> None:
    with pytest.raises(InvalidInputError, match=r"the lock has no driver for it and it has 8 NVIDIA GPU\(s\)\. Run"):
        skip_reason({"situation": "no_driver", "pci_count": 8}, host(), False, True, "gpu-a")
