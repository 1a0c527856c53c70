# SPDX-License-Identifier: Apache-2.0
"""Who has an NVSwitch, what the lock must say then, and which packages follow."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright import fabric
from ansible.module_utils.rackwright.errors import InvalidInputError

DRIVER: dict[str, Any] = {
    "source": "nvidia",
    "version": "580.65.06",
    "packages": [{"name": "nvidia-open-580", "version": "580.65.06*"}, {"name": "nvidia-imex", "version": None}],
}
MANAGER = {
    "package": "nvidia-fabricmanager",
    "version": "580.65.06",
    "extras": [
        {"package": "nvlsm", "why": ""},
        {"package": "infiniband-diags", "why": ""},
        {"package": "libnvidia-nscq-580", "why": ""},
    ],
}


def node(model: str | None, switches: int | None, remote: str | None = None, **more: Any) -> dict[str, Any]:
    links = [{"link": 0, "active": True, "remote_type": remote}] if remote else []
    device: dict[str, Any] = {"catalogue_id": model, "catalogue_candidates": [], "nvlink": {"links": links or None}}
    return {"topology": {"nvswitch_count": switches}, "devices": [device] * 8, "platform": "host", **more}


@pytest.mark.parametrize(
    ("gpu", "found", "why"),
    [
        (node("h100-sxm5-80gb", 4), True, "it has 4 NVSwitches on the PCI bus"),
        (node("h100-sxm5-80gb", 1), True, "it has 1 NVSwitch on the PCI bus"),
        (node("a100-sxm4-80gb", 0, "gpu"), False, "it has no NVSwitch"),
        (node("rtx-4090", 0), False, "it has no NVSwitch"),
        (node("b200-sxm", 0, "switch"), True, "NVLinks of its GPUs end at switches"),
        (node("b200-sxm", 0), None, "seen only once the driver is loaded"),
        (node("gb200", 0, "switch"), False, "in the rack"),
        (node("h100-sxm5-80gb", None), None, "PCI bus cannot be read"),
        ({"topology": None, "devices": None}, None, "PCI bus cannot be read"),
    ],
)
def test_who_has_an_nvswitch(gpu: dict[str, Any], found: bool | None, why: str) -> None:
    there, said = fabric.nvswitch(gpu)
    assert there is found
    assert why in said


def test_before_the_driver_every_model_of_a_pci_id_counts() -> None:
    gpu = node(None, 0)
    gpu["devices"] = [{"catalogue_id": None, "catalogue_candidates": ["b200-sxm", "b200-other"], "nvlink": None}]
    assert fabric.nvswitch(gpu)[0] is None


@pytest.mark.parametrize(
    ("gpu", "driver", "manager", "said"),
    [
        (node("h100-sxm5-80gb", 4), DRIVER, None, "the lock has none and it has 4 NVSwitches .*802.*nvswitch: true"),
        (node("b200-sxm", 0, "switch"), DRIVER, None, "the lock has none and NVLinks of its GPUs end at switches"),
        (node("rtx-4090", 0), DRIVER, MANAGER, "the lock has nvidia-fabricmanager 580.65.06 and it has no NVSwitch"),
        (node("h100-sxm5-80gb", 4), DRIVER, {**MANAGER, "package": None}, "source of its driver has no fabric manager"),
        (
            node("h100-sxm5-80gb", 4),
            DRIVER,
            {**MANAGER, "version": "570.211.01"},
            "in 570.211.01 and the driver in 580",
        ),
    ],
)
def test_lock_and_node_have_to_agree(gpu: dict[str, Any], driver: Any, manager: Any, said: str) -> None:
    with pytest.raises(InvalidInputError, match=f"Could not choose the fabric manager on gpu-1: .*{said}"):
        fabric.refuse_mismatch(gpu, driver, manager, "gpu-1")


@pytest.mark.parametrize(
    ("gpu", "driver", "manager"),
    [
        (node("h100-sxm5-80gb", 4), DRIVER, MANAGER),
        (node("b200-sxm", 0), DRIVER, MANAGER),  # not known before the driver: the lock is believed
        (node("b200-sxm", 0), DRIVER, None),
        (node("rtx-4090", 0), DRIVER, None),
        (node("h100-sxm5-80gb", 4), None, None),
        (node("h100-sxm5-80gb", 4, simulated=True), DRIVER, None),
        (node("h100-sxm5-80gb", 4, platform="container"), DRIVER, None),
        (node("gb200", 0, "switch"), DRIVER, None),
    ],
)
def test_where_they_agree(gpu: dict[str, Any], driver: Any, manager: Any) -> None:
    fabric.refuse_mismatch(gpu, driver, manager, "gpu-1")


def test_packages_of_the_services() -> None:
    found = fabric.with_services(DRIVER, MANAGER)
    assert found is not None
    assert found["packages"][2:] == [
        {"name": "nvidia-modprobe", "version": None},
        {"name": "nvidia-persistenced", "version": None},
        {"name": "nvidia-fabricmanager", "version": "580.65.06*"},
        {"name": "nvlsm", "version": None},
        {"name": "infiniband-diags", "version": None},
        {"name": "libnvidia-nscq-580", "version": "580.65.06*"},
    ]
    assert len(DRIVER["packages"]) == 2
    assert fabric.with_services(None, MANAGER) is None


def test_a_package_that_the_lock_names_stays_as_it_says() -> None:
    driver = {**DRIVER, "packages": [{"name": "nvidia-persistenced", "version": "580.65.06*"}]}
    found = fabric.with_services(driver, None)
    assert found is not None
    assert [row["name"] for row in found["packages"]] == ["nvidia-persistenced", "nvidia-modprobe"]


INSTALLED = [
    "nvidia-fabricmanager-570",
    "nvidia-fabricmanager",
    "nvidia-fabric-manager",
    "nvidia-fabric-manager-devel",
    "cuda-drivers-fabricmanager-570",
    "nvlsm",
    "libnvidia-nscq-570",
    "nvidia-utils",
]


@pytest.mark.parametrize(
    ("manager", "kept"),
    [
        (None, {"libnvidia-nscq-570", "nvidia-utils"}),
        (MANAGER, {"nvidia-fabricmanager", "nvlsm", "libnvidia-nscq-570", "nvidia-utils"}),
        (
            {"package": "nvidia-fabric-manager", "version": "570.211.01", "extras": []},
            {"nvidia-fabric-manager", "nvidia-fabric-manager-devel", "libnvidia-nscq-570", "nvidia-utils"},
        ),
    ],
)
def test_no_other_fabric_manager_survives(manager: Any, kept: set[str]) -> None:
    assert set(INSTALLED) - set(fabric.leftovers(INSTALLED, manager)) == kept


def test_imex_is_where_the_lock_has_it() -> None:
    assert fabric.has_imex(DRIVER)
    assert not fabric.has_imex({**DRIVER, "packages": []})
    assert not fabric.has_imex(None)
