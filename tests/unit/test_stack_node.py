"""A node is the same whether it is described or probed; whatever is wrong with a description is one sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible.module_utils.rackwright.errors import InvalidInputError
from ansible.module_utils.rackwright.stack_node import (
    Gpu,
    node_from_description,
    node_from_facts,
    platform_id,
)

GPUS: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "roles" / "gpu_stack" / "files" / "tables" / "gpus.yml").read_text()
)
H100 = Gpu("h100-sxm5-80gb", "NVIDIA H100 80GB HBM3", "9.0", "hopper", 8)


def describe(**changes: Any) -> dict[str, Any]:
    return {"os": "ubuntu2404", "gpus": [{"model": "h100-sxm5-80gb", "count": 8}], **changes}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("ubuntu2404", "ubuntu2404"),
        ("Ubuntu 24.04", "ubuntu2404"),
        ("Debian 12", "debian12"),
        ("rocky9", "rocky9"),
        ("Rocky Linux 9", "rocky9"),
        ("AlmaLinux 9", "almalinux9"),
        ("alma9", "almalinux9"),
        ("CentOS Stream 9", "centos9"),
        ("centos8", "centos8"),
        ("RHEL 10", "rhel10"),
        ("wsl-ubuntu", "wsl-ubuntu"),
        ("WSL2", "wsl-ubuntu"),
    ],
)
def test_platforms_have_one_name(written: str, expected: str) -> None:
    assert platform_id(written) == expected


def test_a_description_becomes_a_node() -> None:
    node = node_from_description(
        "gpu-a",
        describe(
            arch="amd64",
            python="3.12.3",
            pythons={"3.13": "/usr/bin/python3.13", "3.12": "/usr/bin/python3.12"},
            glibc="2.39",
            kernel="6.8.0-45-generic",
            secure_boot="no",
            nvswitch=True,
            dkms="3.0.11",
            installed_driver="580.65.06",
        ),
        GPUS,
    )
    assert (node.os, node.arch, node.python, node.glibc) == ("ubuntu2404", "x86_64", "3.12", "2.39")
    assert (node.secure_boot, node.nvswitch, node.wsl, node.simulated) == (False, True, False, False)
    assert node.gpus == (H100,)
    assert node.pythons == (("3.12", "/usr/bin/python3.12"), ("3.13", "/usr/bin/python3.13"))
    assert node.origin == "description"


def test_what_a_description_leaves_out_is_unknown() -> None:
    node = node_from_description("gpu-a", {"os": "debian12"}, GPUS)
    assert (node.python, node.glibc, node.kernel, node.secure_boot, node.nvswitch) == (None, None, None, None, None)
    assert node.gpus == ()
    assert node_from_description("w", {"os": "WSL2"}, GPUS).wsl


def test_models_are_found_by_nvml_name_and_counted_together() -> None:
    gpus = [{"model": "NVIDIA H100 80GB HBM3", "count": 2}, {"model": "h100-sxm5-80gb"}, {"model": "t4", "count": "1"}]
    node = node_from_description("gpu-a", describe(gpus=gpus), GPUS)
    assert [(gpu.id, gpu.count) for gpu in node.gpus] == [("h100-sxm5-80gb", 3), ("t4", 1)]


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("debian12", "it is not a mapping"),
        ({"gpus": []}, "(node_description.os): it is missing"),
        (describe(pyhton="3.12"), "it has the unknown key pyhton (did you mean python"),
        (describe(python=3.1), "(node_description.python): 3.1 is not a text. Write it in quotes"),
        (describe(python="three"), "'three' is not a version"),
        (describe(kernel="latest"), "'latest' is not a kernel release. Write it like 6.8.0-45-generic"),
        (describe(arch="riscv64"), "riscv64 is not known. Write x86_64 or aarch64"),
        (describe(secure_boot="maybe"), "'maybe' is neither true nor false"),
        (describe(nvswitch=2), "2 is neither true nor false"),
        (describe(gpus={"model": "t4"}), "it is not a list"),
        (describe(gpus=["t4"]), "(node_description.gpus[0]): it names no model"),
        (describe(gpus=[{"model": "t4", "memory": 16}]), "it has the unknown key memory"),
        (describe(gpus=[{"model": "t4", "count": 0}]), "0 is no number of GPUs"),
        (describe(gpus=[{"model": "t4", "count": True}]), "True is no number of GPUs"),
        (describe(gpus=[{"model": "rtx4090"}]), "(did you mean rtx-4090"),
        (describe(gpus=[{"model": "H100"}]), "(did you mean h100-pcie-80gb or h100-sxm5-80gb or h100-nvl-94gb?)"),
        (describe(gpus=[{"model": "quantum-1"}]), "add the model by stack_extra_tables"),
        (describe(pythons=["3.12"]), "it does not map versions to paths"),
    ],
)
def test_a_wrong_description_is_one_sentence(description: Any, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        node_from_description("gpu-a", description, GPUS)
    assert words in str(caught.value)
    assert "gpu-a" in str(caught.value)
    assert "\n" not in str(caught.value)


def node_fact(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "platform": {"id": "debian", "version": "12", "major": "12", "name": "Debian GNU/Linux 12 (bookworm)"},
        "kernel": {"running": "6.1.0-27-amd64", "installed": [], "headers": []},
        "container": None,
        "wsl": False,
        "machine": "x86_64",
        "python": "3.11.2",
        "pythons": {"3.11": "/usr/bin/python3.11"},
        "glibc": "2.36",
        "secure_boot": None,
        "secure_boot_reason": "no EFI",
        "dkms": "3.0.10",
        "missing": {},
        **changes,
    }


def device(**changes: Any) -> dict[str, Any]:
    return {
        "name": "NVIDIA H100 80GB HBM3",
        "catalogue_id": "h100-sxm5-80gb",
        "catalogue_candidates": ["h100-sxm5-80gb"],
        "compute_capability": "9.0",
        "architecture": "hopper",
        "pci": {"device_id": "2330", "kernel_driver": "nvidia"},
        **changes,
    }


def gpu_fact(*devices: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "situation": "ready",
        "simulated": False,
        "driver": {"kernel_module_version": "535.309.01", "library_version": "535.309.01"},
        "devices": list(devices),
        "topology": {"nvswitch_count": 4},
        **changes,
    }


def test_facts_become_the_node_that_its_description_is() -> None:
    found = node_from_facts("gpu-a", gpu_fact(*[device()] * 8), node_fact(), GPUS)
    described = node_from_description(
        "gpu-a",
        describe(
            os="debian12",
            python="3.11",
            pythons={"3.11": "/usr/bin/python3.11"},
            glibc="2.36",
            kernel="6.1.0-27-amd64",
            nvswitch=True,
            dkms="3.0.10",
            installed_driver="535.309.01",
        ),
        GPUS,
    )
    same = dataclasses.replace(described, os_name=found.os_name, origin="facts")
    assert found == same


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ({"id": "ubuntu", "version": "24.04", "major": "24"}, "ubuntu2404"),
        ({"id": "rocky", "version": "9.4", "major": "9"}, "rocky9"),
        ({"id": "almalinux", "version": "10.1", "major": "10"}, "almalinux10"),
        ({"id": "centos", "version": "8", "major": "8"}, "centos8"),
    ],
)
def test_facts_name_the_platform(platform: dict[str, str], expected: str) -> None:
    assert node_from_facts("n", gpu_fact(), node_fact(platform=platform), GPUS).os == expected


def bare(*candidates: str, **changes: Any) -> dict[str, Any]:
    """A device as the PCI bus shows it, before any driver exists."""
    nothing = {"name": None, "catalogue_id": None, "compute_capability": None, "architecture": None}
    return device(**{**nothing, "catalogue_candidates": list(candidates), **changes})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (bare("t4"), Gpu("t4", "Tesla T4", "7.5", "turing", 1)),
        # one PCI id, two models: what both share is known
        (bare("a2", "a16"), Gpu(None, "a2 or a16", "8.6", "ampere", 1)),
        (bare("v100-pcie-16gb", "t4"), Gpu(None, "v100-pcie-16gb or t4", None, None, 1)),
        (bare(), Gpu(None, "NVIDIA GPU with PCI device id 2330", None, None, 1)),
        (bare(architecture="hopper"), Gpu(None, "NVIDIA GPU with PCI device id 2330", None, "hopper", 1)),
        (
            device(catalogue_id=None, catalogue_candidates=[], name="NVIDIA New Card", compute_capability="8.9"),
            Gpu(None, "NVIDIA New Card", "8.9", "hopper", 1),
        ),
    ],
)
def test_without_a_driver_only_what_the_candidates_agree_on_is_known(found: dict[str, Any], expected: Gpu) -> None:
    assert node_from_facts("n", gpu_fact(found), node_fact(), GPUS).gpus == (expected,)


def test_gpus_given_to_virtual_machines_are_not_this_systems() -> None:
    passed = device(pci={"device_id": "2330", "kernel_driver": "vfio-pci"})
    assert [gpu.count for gpu in node_from_facts("n", gpu_fact(passed, device()), node_fact(), GPUS).gpus] == [1]


@pytest.mark.parametrize(
    ("gpu", "node", "field", "expected"),
    [
        ({"topology": {"nvswitch_count": 0}}, {}, "nvswitch", False),
        ({"topology": {"nvswitch_count": None}}, {}, "nvswitch", None),
        ({"situation": "wsl2"}, {}, "wsl", True),
        ({}, {"wsl": True}, "wsl", True),
        ({"simulated": True}, {}, "simulated", True),
        ({}, {"container": "podman"}, "container", True),
        ({}, {"machine": "aarch64"}, "arch", "aarch64"),
        ({}, {"secure_boot": True}, "secure_boot", True),
        ({}, {"python": None}, "python", None),
        ({"driver": {}}, {}, "installed_driver", None),
    ],
)
def test_facts_say_what_decides(gpu: dict[str, Any], node: dict[str, Any], field: str, expected: Any) -> None:
    found = node_from_facts("n", gpu_fact(**gpu), node_fact(**node), GPUS)
    assert getattr(found, field) == expected
