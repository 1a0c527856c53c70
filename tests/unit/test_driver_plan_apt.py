# SPDX-License-Identifier: Apache-2.0
"""apt's part of the driver plan: moves between naming schemes and sources, pins, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.driver_names import is_driver, is_module, members
from ansible.module_utils.rackwright.driver_plan import Found, Request
from ansible.module_utils.rackwright.driver_plan_apt import (
    Split,
    by_name,
    exact,
    installed_version,
    offered_by,
    precedes,
    preferences,
    refuse_strange,
    split,
    unattended,
)
from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.packages import Candidate, Change, Installed

U580, U590 = "580.178.04-0ubuntu1", "590.48.01-1ubuntu1"
SUFFIXED = ["libnvidia-compute-580", "nvidia-dkms-580-open", "nvidia-persistenced", "nvidia-utils-580"]
PLAIN = ["libnvidia-compute", "nvidia-dkms-open", "nvidia-persistenced", "nvidia-utils"]
OFFERS = {
    **{
        name: [U580]
        for name in ("libnvidia-compute-580", "nvidia-utils-580", "libnvidia-cfg1-580", "nvidia-dkms-580-open")
    },
    **{name: [U590] for name in ("libnvidia-compute", "nvidia-utils", "libnvidia-cfg1", "nvidia-dkms-open")},
    **{name: [U590, U580] for name in ("nvidia-persistenced", "nvidia-modprobe", "nvidia-fabricmanager")},
}


def request(**values: Any) -> Request:
    base: dict[str, Any] = {
        "source": "nvidia",
        "version": "590.48.01",
        "versioned": PLAIN,
        "loose": [],
        "precedes": [],
        "streams": [],
        "repository": {},
        "kernel_module": "auto",
    }
    return Request(**{**base, **values})


def have(**versions: str) -> dict[str, Installed]:
    """Installed packages; a name's dashes are written as underscores, its source as version@source."""
    found = {}
    for key, value in versions.items():
        name = key.replace("_", "-")
        version, _at, source = value.partition("@")
        found[name] = Installed(name, version, "hi ", source or name)
    return found


def fate(wanted: Request, statuses: dict[str, Installed], chosen: str, with_module: bool = True) -> Split:
    return split(chosen, wanted, OFFERS, statuses, with_module, "gpu-a")


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("libnvidia-compute-580", U580, True),
        ("nvidia-modprobe", "580.142-1", True),
        ("nvidia-driver-cuda", "3:610.57.04-1.el9", True),
        ("nvidia-container-toolkit", "1.19.1-1", False),
        ("libnvidia-container1", "1.19.1-1", False),
        ("nvidia-driver-pinning-595.91.07", "595.91.07-1", False),
        ("nvidia-kernel-common", "20220217+3~deb12u1", False),
        ("nvidia-fs-dkms", "2.26.6-1", False),
        ("libnvidia-ml-dev", "535.1.2~12.2.140", False),
        ("cuda-toolkit-13-0", "13.0.2-1", False),
        ("libnccl2", "2.31.2-1+cuda13.3", False),
    ],
)
def test_a_driver_package_is_told_by_name_and_version(name: str, version: str, expected: bool) -> None:
    assert is_driver(name, version) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nvidia-dkms-580-open", True),
        ("nvidia-dkms-open", True),
        ("nvidia-kernel-open-dkms", True),
        ("kmod-nvidia-open-dkms", True),
        ("linux-modules-nvidia-580-server-open-generic", True),
        ("nvidia-headless-no-dkms-580-server-open", False),
        ("libnvidia-compute", False),
        ("nvidia-kernel-common-580", False),
    ],
)
def test_what_brings_the_module(name: str, expected: bool) -> None:
    assert is_module(name) is expected


def test_members_by_source_leave_helpers_out_and_by_name_take_them() -> None:
    statuses = have(libcuda1="535.309.01-1@nvidia-graphics-drivers", nvidia_persistenced="535.171.04-1", bash="5-1")
    assert list(members(statuses, ["nvidia-graphics-drivers*"])) == ["libcuda1"]
    assert list(members(statuses, [])) == ["libcuda1", "nvidia-persistenced"]


OLD_NAMES = have(
    libnvidia_compute_580=U580,
    libnvidia_cfg1_580=U580,
    nvidia_utils_580=U580,
    nvidia_persistenced=U580,
    nvidia_modprobe=U580,
)
NEW_NAMES = have(libnvidia_compute=U590, libnvidia_cfg1=U590, nvidia_utils=U590, nvidia_persistenced=U590)


def test_names_with_the_branch_go_when_names_without_come() -> None:
    found = fate(request(), OLD_NAMES, U590)
    assert found.remove == ["libnvidia-cfg1-580", "libnvidia-compute-580", "nvidia-utils-580"]
    assert found.packages == [*(f"{name}={U590}" for name in PLAIN), f"nvidia-modprobe={U590}"]


def test_and_back() -> None:
    found = fate(request(version="580.178.04", versioned=SUFFIXED), NEW_NAMES, U580)
    assert found.remove == ["libnvidia-cfg1", "libnvidia-compute", "nvidia-utils"]
    assert found.packages == [f"{name}={U580}" for name in SUFFIXED]


def test_a_converged_node_keeps_what_it_has() -> None:
    assert fate(request(), NEW_NAMES, U590, False) == Split(
        [*(f"{name}={U590}" for name in PLAIN if "dkms" not in name), f"libnvidia-cfg1={U590}"], []
    )


def test_the_fabric_manager_moves_with_the_driver() -> None:
    assert f"nvidia-fabricmanager={U590}" in fate(request(), have(nvidia_fabricmanager=U580), U590).packages
    assert fate(request(), have(nvidia_fabricmanager_570="570.211.01-1"), U590).remove == ["nvidia-fabricmanager-570"]


def test_an_open_version_is_the_drivers_where_the_repository_has_it() -> None:
    wanted = request(loose=["nvidia-modprobe", "nvlsm"])
    offers = {**OFFERS, "nvlsm": ["2025.10.12-1"]}
    packages = split(U590, wanted, offers, {}, False, "gpu-a").packages
    assert packages[-2:] == [f"nvidia-modprobe={U590}", "nvlsm"]


ARCHIVE = request(
    source="distribution",
    version="535.309.01",
    versioned=["nvidia-smi", "libcuda1"],
    loose=["nvidia-persistenced"],
)
A535 = "535.309.01-0+deb12u1"
ARCHIVE_OFFERS = {"nvidia-smi": [A535], "libcuda1": [A535], "nvidia-persistenced": ["535.171.04-1~deb12u1"]}


def test_from_the_vendor_to_the_archive() -> None:
    vendor = have(
        libcuda1="595.91.07-1@nvidia-graphics-drivers",
        nvidia_driver_cuda="595.91.07-1@nvidia-graphics-drivers",
        nvidia_persistenced="595.91.07-1",
    )
    assert split(A535, ARCHIVE, ARCHIVE_OFFERS, vendor, False, "gpu-a") == Split(
        [f"nvidia-smi={A535}", f"libcuda1={A535}", "nvidia-persistenced=535.171.04-1~deb12u1"], ["nvidia-driver-cuda"]
    )


def test_an_older_helper_of_the_archive_stays_when_the_archive_moves_on() -> None:
    statuses = have(nvidia_persistenced="535.54.03-1", nvidia_settings="535.54.03-1")
    offers = {**ARCHIVE_OFFERS, "nvidia-settings": ["535.171.04-1"]}
    assert split(A535, ARCHIVE, offers, statuses, False, "gpu-a") == Split(
        [f"nvidia-smi={A535}", f"libcuda1={A535}", "nvidia-persistenced"], []
    )


def test_a_helper_is_named_exactly_where_another_repository_has_a_newer_one() -> None:
    everywhere = {"nvidia-persistenced": ["610.57.04-1", "535.171.04-1~deb12u1"]}
    assert exact("nvidia-persistenced", ARCHIVE_OFFERS, everywhere) == "nvidia-persistenced=535.171.04-1~deb12u1"
    assert exact("nvidia-persistenced", ARCHIVE_OFFERS, ARCHIVE_OFFERS) == "nvidia-persistenced"
    assert exact(f"libcuda1={A535}", ARCHIVE_OFFERS, everywhere) == f"libcuda1={A535}"


def test_ubuntus_series_do_not_mix_with_the_vendors_names() -> None:
    server = request(
        source="distribution",
        version="580.95.05",
        versioned=["nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server"],
        loose=["linux-modules-nvidia-580-server-open-generic"],
    )
    s580 = "580.95.05-0ubuntu0.24.04.2"
    offers = {name: [s580] for name in server.versioned}
    offers["linux-modules-nvidia-580-server-open-generic"] = ["6.8.0-88.89+1"]
    source = "nvidia-graphics-drivers-580"
    statuses = have(
        libnvidia_compute_580=f"580.95.05-0ubuntu1@{source}",
        linux_modules_nvidia_570_server_open_generic="6.8.0-80.80",
        linux_modules_nvidia_580_server_open_6_8_0_88_generic="6.8.0-88.89+1",
    )
    assert split(s580, server, offers, statuses, True, "gpu-a") == Split(
        [
            f"nvidia-headless-no-dkms-580-server-open={s580}",
            f"nvidia-utils-580-server={s580}",
            "linux-modules-nvidia-580-server-open-generic",
        ],
        ["libnvidia-compute-580", "linux-modules-nvidia-570-server-open-generic"],
    )


@pytest.mark.parametrize(
    ("offers", "message"),
    [
        (
            {**OFFERS, "nvidia-utils": ["595.91.07-1"]},
            r"nvidia-utils is not available in version 590\.48\.01, only in 595",
        ),
        (
            {name: row for name, row in OFFERS.items() if name != "nvidia-utils"},
            "NVIDIA's repository has no nvidia-utils",
        ),
    ],
)
def test_a_version_that_is_not_whole_is_refused(offers: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        split(U590, request(), offers, {}, True, "gpu-a")


def test_the_pinning_package_comes_first_and_others_go() -> None:
    wanted = request(precedes=["nvidia-driver-pinning-590"])
    other = have(nvidia_driver_pinning_580="580-1ubuntu1")
    offers = {"nvidia-driver-pinning-590": ["590-1ubuntu1"]}
    assert precedes(wanted, offers, other) == (
        ["nvidia-driver-pinning-590=590-1ubuntu1"],
        ["nvidia-driver-pinning-580"],
        [],
    )
    there = have(nvidia_driver_pinning_590="590-1ubuntu1")
    assert precedes(wanted, {}, there) == (["nvidia-driver-pinning-590=590-1ubuntu1"], [], [])
    assert precedes(wanted, {}, {})[2] == [
        "The repository has no nvidia-driver-pinning-590; this role's own pin keeps the version."
    ]


def test_the_pin_puts_one_version_first_and_every_other_out_of_reach() -> None:
    records = preferences(U590, request(precedes=["nvidia-driver-pinning-590"])).split("\n\n")
    assert records[0].endswith("Package: nvidia-driver-pinning-590\nPin: version *\nPin-Priority: 1001")
    assert records[1].endswith("\nPin: version 590.48.01*\nPin-Priority: 1001")
    assert records[2].endswith("\nPin: version /^([0-9]+:)?[3-9][0-9][0-9]\\.[0-9][0-9]/\nPin-Priority: -1\n")
    assert records[1].splitlines()[0] == records[2].splitlines()[0]


def test_unattended_upgrades_know_every_kind_of_name() -> None:
    text = unattended()
    assert text.startswith("// Managed by Rackwright")
    assert '"^libnvidia-";\n' in text
    assert text.endswith("};\n")


@pytest.mark.parametrize(
    ("statuses", "version"),
    [
        ({}, None),
        (have(nvidia_settings="510.47.03-1"), None),
        (OLD_NAMES, U580),  # the anchor has another name there
        (NEW_NAMES, U590),
        (have(libnvidia_ml1="535.309.01-1@nvidia-graphics-drivers"), "535.309.01-1"),
    ],
)
def test_the_installed_driver_is_found_under_any_name(statuses: dict[str, Installed], version: str | None) -> None:
    assert installed_version(statuses, "libnvidia-compute") == version


def test_candidates_are_told_apart_by_their_repository() -> None:
    mirror = Candidate("a", "2", "file:/srv/vendor/debian12/x86_64  Packages")
    archive = Candidate("a", "1", "http://mirror.test/debian bookworm/non-free amd64 Packages")
    both = [mirror, archive]
    assert offered_by(both, ["file:///srv/vendor/debian12/x86_64/"], inside=True) == [mirror]
    assert offered_by(both, ["file:///srv/vendor/debian12/x86_64"], inside=False) == [archive]
    assert offered_by(both, ["file:///srv/vendor/debian1"], inside=True) == []
    private = Candidate("a", "3", "https://mirror.lan/cuda  Packages")
    assert offered_by([private], ["https://user:secret@mirror.lan/cuda/"], inside=True) == [private]


def test_versions_are_sorted_as_people_count() -> None:
    rows = [Candidate("a", version, "m") for version in ("580.65.06-1", "580.178.04-1", "580.95.05-1")]
    assert by_name(rows) == {"a": ["580.178.04-1", "580.95.05-1", "580.65.06-1"]}


def test_a_transitional_package_that_would_move_the_branch_is_refused() -> None:
    changes = [Change("nvidia-utils", None, U590), Change("libnvidia-gl-595", None, "595.91.07-1ubuntu1")]
    message = (
        r"installing 590\.48\.01 would also bring libnvidia-gl-595 595\.91\.07-1ubuntu1, another version of the driver"
    )
    with pytest.raises(InvalidInputError, match=message):
        refuse_strange(changes, Found(U590), request(), "gpu-a")


def test_nobody_elses_package_is_removed() -> None:
    changes = [Change("nvidia-utils", None, U590), Change("my-cuda-app", "1", None)]
    with pytest.raises(InvalidInputError, match=r"installing 590\.48\.01 would remove my-cuda-app, which is no part"):
        refuse_strange(changes, Found(U590), request(), "gpu-a")


def test_a_transaction_of_the_driver_alone_is_fine() -> None:
    changes = [
        Change("nvidia-utils", None, U590),
        Change("nvidia-utils-580", U580, None),
        Change("glx-alternative-nvidia", "1.2.2", None),
        Change("dkms", None, "3.2.2-1"),
        Change("nvidia-imex", None, "580.65.06-1"),
    ]
    refuse_strange(changes, Found(U590), request(loose=["nvidia-imex"]), "gpu-a")
