# SPDX-License-Identifier: Apache-2.0
"""What gpu_facts says of a node agrees with what the node's own tools say. Runs on test and real nodes."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="module")
def gpu(host: Any) -> dict[str, Any]:
    """The fact, gathered without privileges."""
    sysroot = host.ansible.get_variables().get("gpu_facts_sysroot", "/")
    result = host.ansible("gpu_facts", f"sysroot={sysroot}", check=False, become=False)
    facts: dict[str, Any] = result["ansible_facts"]["gpu"]
    return facts


def test_as_many_gpus_answer_as_are_expected(host: Any, gpu: dict[str, Any]) -> None:
    expected = host.ansible.get_variables().get("gpu_expected_count", gpu["pci_count"])
    assert (gpu["situation"], gpu["count"]) == ("ready" if expected else "no_gpu", expected), gpu["cause"]


def test_nvidia_smi_lists_the_same_devices(host: Any, gpu: dict[str, Any]) -> None:
    listed = host.check_output("nvidia-smi --query-gpu=uuid --format=csv,noheader").split()
    assert [device["uuid"] for device in gpu["devices"]] == listed


def test_kernel_module_and_library_are_of_one_version(gpu: dict[str, Any]) -> None:
    driver = gpu["driver"]
    assert driver["kernel_module_version"] == driver["library_version"]
    assert driver["nouveau_loaded"] is False


def test_every_unknown_value_has_a_reason(gpu: dict[str, Any]) -> None:
    for device in gpu["devices"]:
        assert all(device["missing"].values())
        assert device["catalogue_id"] or "catalogue_id" in device["missing"]
