# SPDX-License-Identifier: Apache-2.0
"""Which driver a node gets, or why it gets none."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.driver_names import upstream
from ansible.module_utils.rackwright.driver_plan import (
    Request,
    busy_processes,
    choose_version,
    kernels_to_build,
    pending_changes,
    refuse_busy,
    replaced_driver,
    request_from_lock,
    skip_reason,
)
from ansible.module_utils.rackwright.driver_plan_apt import by_name, preferences, split
from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError
from ansible.module_utils.rackwright.packages import Candidate, Installed

NEW, OLD = "535.309.01-0+deb12u1", "535.261.03-1"
VERSIONS = [NEW, OLD]


def request(**values: Any) -> Request:
    base: dict[str, Any] = {
        "source": "distribution",
        "version": "535.309.01",
        "versioned": ["nvidia-smi", "libcuda1", "nvidia-kernel-dkms"],
        "loose": ["nvidia-persistenced"],
        "precedes": [],
        "streams": [],
        "repository": {},
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


def packages(
    chosen: str, wanted: Request, statuses: dict[str, Installed], with_module: bool, offers: Any = None
) -> list[str]:
    return split(
        chosen, wanted, by_name(CANDIDATES) if offers is None else offers, statuses, with_module, "gpu-a"
    ).packages


def test_packages_of_the_driver_are_exact_and_others_are_not() -> None:
    assert packages(NEW, request(), {}, False) == [f"nvidia-smi={NEW}", f"libcuda1={NEW}", "nvidia-persistenced"]


def test_an_installed_package_that_stayed_behind_is_moved_too() -> None:
    behind = {"libnvidia-cfg1": Installed("libnvidia-cfg1", OLD, "hi ", "nvidia-graphics-drivers")}
    assert f"libnvidia-cfg1={NEW}" in packages(NEW, request(), behind, False)


def test_a_module_that_is_not_there_in_this_version_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"not available in version 535\.309\.01, only in 535\.26"):
        packages(NEW, request(), {}, True)
    assert f"nvidia-kernel-dkms={OLD}" in packages(OLD, request(), {}, True)


def test_a_package_nobody_has_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="the archive has no libnone"):
        packages(NEW, request(versioned=["nvidia-smi", "libnone"]), {}, False)
    with pytest.raises(InvalidInputError, match="NVIDIA's repository has no libnone"):
        packages(NEW, request(source="nvidia", versioned=["libnone"]), {}, False)


def test_pending_changes_name_each_package() -> None:
    statuses = {
        "a": Installed("a", "1", "ii ", "a"),
        "b": Installed("b", "1", "iF ", "b"),
        "d": Installed("d", "2", "ii ", "d"),
    }
    assert pending_changes(["a=2", "b=1", "c=3", "d=2"], statuses) == ["change a 1 -> 2", "repair b 1", "install c 3"]


def host(
    container: str | None = None,
    installed: tuple[str, ...] = (),
    headers: tuple[str, ...] = (),
    images: tuple[str, ...] = (),
) -> dict[str, Any]:
    kernel = {
        "running": "k1",
        "installed": list(installed),
        "headers": list(headers),
        "images": list(images or installed),
        "note": "the host's kernel",
    }
    return {"container": container, "wsl": False, "kernel": kernel}


@pytest.mark.parametrize(
    ("node", "mode", "kernels", "note"),
    [
        # the role brings the headers that lack, or refuses
        (host(installed=("k1", "k2"), headers=("k2",)), "auto", ["k1", "k2"], None),
        (host(installed=("k1",)), "auto", ["k1"], None),
        (host(), "auto", [], "No kernel is installed"),
        (host("podman", headers=("k2",)), "auto", [], "the host's kernel"),
        (host("podman", headers=("k2",)), "build", ["k2"], None),
        # the image of a machine: its kernels lie there, and belong to no running system
        (host("podman", headers=("k10",), images=("k9", "k10")), "build", ["k9", "k10"], None),
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
    text = preferences(NEW, request())
    assert "\nPackage: src:nvidia-persistenced src:nvidia-modprobe" in text
    assert text.endswith("\nPin: version *\nPin-Priority: 500\n")
    assert "Package: src:nvidia-graphics-drivers* src:nvidia-open-gpu-kernel-modules" in text
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


LOCKED: dict[str, Any] = {
    "source": "nvidia",
    "version": "595.91.07",
    "packages": [
        {"name": "nvidia-dkms-open", "version": "595.91.07*"},
        {"name": "libnvidia-compute", "version": "595.91.07*"},
        {"name": "nvidia-imex", "version": None},
    ],
    "precedes": ["nvidia-driver-pinning-595"],
    "modules": [],
    "repository": {"url": "https://vendor.test/"},
}


def test_the_request_is_the_locks_entry() -> None:
    wanted = request_from_lock(LOCKED, {}, ["nvidia-utils"], "auto")
    assert (wanted.anchor, wanted.loose, wanted.precedes) == (
        "libnvidia-compute",
        ["nvidia-imex"],
        ["nvidia-driver-pinning-595"],
    )
    assert wanted.names(False) == ["libnvidia-compute", "nvidia-utils", "nvidia-imex"]
    assert wanted.module_packages() == ["nvidia-dkms-open"]
    assert wanted.repository == {"url": "https://vendor.test/"}
    assert request_from_lock(LOCKED, {"url": "file:///m/"}, [], "auto").repository == {"url": "file:///m/"}
    assert request_from_lock(None, {}, ["x"], "auto").version == ""


def gpu_with(*processes: dict[str, Any], loaded: str | None = "580.178.04") -> dict[str, Any]:
    return {"driver": {"kernel_module_version": loaded}, "devices": [{"index": 3, "processes": list(processes)}]}


VLLM = {"pid": 77, "name": "vllm", "types": ["compute"], "used_memory_bytes": 1}
DAEMON = {"pid": 5, "name": "nv-hostengine", "types": ["compute"], "used_memory_bytes": 1}
#: as the kernel cuts its name off
MANAGER = {"pid": 7, "name": "nv-fabricmanage", "types": ["compute"], "used_memory_bytes": 1}
DESKTOP = {"pid": 6, "name": "Xorg", "types": ["graphics"], "used_memory_bytes": 1}


def test_only_programs_that_compute_make_a_gpu_busy() -> None:
    assert busy_processes(gpu_with(VLLM, DAEMON, MANAGER, DESKTOP)) == [{"pid": 77, "name": "vllm", "gpu": 3}]
    assert busy_processes({"devices": [{"index": 0, "processes": None}]}) == []


@pytest.mark.parametrize(
    ("installed", "chosen", "replaced"),
    [(None, NEW, None), (NEW, NEW, None), ("535.309.01-9", NEW, None), (OLD, NEW, "535.261.03")],
)
def test_what_is_replaced(installed: str | None, chosen: str, replaced: str | None) -> None:
    assert replaced_driver(installed, chosen) == replaced


def test_a_driver_in_use_is_not_replaced() -> None:
    sentence = (
        r"^Could not replace the NVIDIA driver on gpu-a: driver 580\.178\.04 is in use by vllm \(77\) on GPU 3, "
        r"and 595\.91\.07 would replace it\. Run playbooks/update-driver\.yml, which drains the node first, "
    )
    with pytest.raises(RackwrightError, match=sentence):
        refuse_busy(gpu_with(VLLM), "580.178.04", "595.91.07-1", False, "gpu-a")


@pytest.mark.parametrize(
    ("gpu", "replaces", "allowed"),
    [
        (gpu_with(VLLM), None, False),  # nothing is replaced
        (gpu_with(DAEMON), "580.178.04", False),  # nobody works
        (gpu_with(VLLM, loaded=None), "580.178.04", False),  # nothing is loaded
        (gpu_with(VLLM), "580.178.04", True),
    ],
)
def test_a_driver_nobody_uses_is_replaced(gpu: dict[str, Any], replaces: str | None, allowed: bool) -> None:
    refuse_busy(gpu, replaces, "595.91.07-1", allowed, "gpu-a")
