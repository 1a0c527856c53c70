# SPDX-License-Identifier: Apache-2.0
"""The verdict about an installed driver, and whether a reboot would help."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.driver_state import Evidence, foresee, judge, skewed
from ansible.module_utils.rackwright.packages import Installed

PLAN = {
    "action": "install",
    "upstream": "535.309.01",
    "installed": None,
    "module_note": "userland only",
    "pending": ["x"],
}
INSTALLED_AT = 1000.0


def gpu(situation: str, loaded: str | None = None, simulated: bool = True, **more: Any) -> dict[str, Any]:
    driver = {"kernel_module_version": loaded}
    return {"situation": situation, "driver": driver, "simulated": simulated, "pci_count": 2, "count": 0, **more}


def host(booted_at: float, container: str | None = None) -> dict[str, Any]:
    return {"booted_at": booted_at, "container": container, "wsl": False, "kernel": {"note": "the host's"}}


def seen(**values: Any) -> Evidence:
    return Evidence(**{"installed_at": INSTALLED_AT, **values})


BEFORE, AFTER = host(900.0), host(1100.0)


@pytest.mark.parametrize(
    ("facts", "node", "status", "reboot"),
    [
        (gpu("ready", "535.309.01"), AFTER, "ready", False),
        (gpu("driver_not_loaded"), BEFORE, "reboot_required", True),
        (gpu("nouveau_in_use"), BEFORE, "reboot_required", True),
        # booted since and still not loaded: another reboot would not help
        (gpu("driver_not_loaded", cause="Key was rejected", next_step="Enrol the key"), AFTER, "failed", False),
        (gpu("version_mismatch", "535.261.03"), BEFORE, "reboot_required", True),
        (gpu("ready", "535.261.03"), BEFORE, "reboot_required", True),
        # an old module that survived a reboot: rebooting at every run would never end
        (gpu("version_mismatch", "535.261.03"), AFTER, "failed", False),
        (gpu("container_without_devices", simulated=False), host(1100.0, "docker"), "userland_only", False),
        (gpu("driver_not_loaded"), host(900.0, "podman"), "reboot_required", True),
        (gpu("no_gpu", pci_count=0), AFTER, "installed_without_gpu", False),
        (gpu("gpu_lost", "535.309.01", cause="GPU 3 is lost"), AFTER, "failed", False),
    ],
)
def test_verdict(facts: dict[str, Any], node: dict[str, Any], status: str, reboot: bool) -> None:
    verdict = judge(PLAN, facts, node, seen())
    assert (verdict["status"], verdict["reboot"]["required"]) == (status, reboot)
    assert status == "ready" or verdict["reason"]


def test_failure_carries_the_cause_of_the_facts() -> None:
    facts = gpu("driver_not_loaded", cause="Key was rejected", next_step="Enrol the key")
    verdict = judge(PLAN, facts, AFTER, seen())
    assert (verdict["reason"], verdict["next_step"]) == ("Key was rejected", "Enrol the key")


def test_version_skew_is_a_failure_and_no_reboot() -> None:
    statuses = {
        "libcuda1": Installed("libcuda1", "535.261.03-1", "hi ", "nvidia-graphics-drivers"),
        "nvidia-smi": Installed("nvidia-smi", "535.309.01-0+deb12u1", "hi ", "nvidia-graphics-drivers"),
        "libnvidia-ml1": Installed("libnvidia-ml1", "535.309.01-0+deb12u1", "iF ", "nvidia-graphics-drivers"),
        "other": Installed("other", "1", "ii ", "other"),
    }
    skew = skewed(statuses, ["nvidia-graphics-drivers"], "535.309.01")
    assert skew == ["libcuda1 535.261.03-1", "libnvidia-ml1 535.309.01-0+deb12u1 (half done)"]
    verdict = judge(PLAN, gpu("version_mismatch", "535.261.03"), AFTER, seen(skew=skew))
    assert verdict["status"] == "failed"
    assert "libcuda1 535.261.03-1" in verdict["reason"]


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (
            {"modules": {"6.1.0-56-amd64": "added"}},
            "dkms says 'added' for the module 535.309.01 on kernel 6.1.0-56",
        ),
        # one kernel of several is enough: the node may boot it
        ({"modules": {"k1": "installed", "k2": "built"}}, "dkms says 'built' for the module 535.309.01 on kernel k2."),
        (
            {"modules": {"k1": "added"}, "build": {"k1": "nv.c:1: error: too few arguments"}},
            "on kernel k1: nv.c:1: error: too few arguments.",
        ),
        ({"modules": {"k1": "installed"}, "on_disk": "Kernel k1 would load 535.261.03."}, "would load 535.261.03"),
        ({"unsigned": "The NVIDIA module of kernel k1 is not signed, and Secure Boot is on."}, "is not signed"),
        ({"skew": ["libcuda1 535.261.03-1"], "modules": {"k1": "added"}}, "libcuda1 535.261.03-1"),
    ],
)
def test_a_kernel_without_its_module_fails_before_any_reboot(evidence: dict[str, Any], words: str) -> None:
    verdict = judge(PLAN, gpu("driver_not_loaded"), BEFORE, seen(**evidence))

    assert (verdict["status"], verdict["reboot"]["required"]) == ("failed", False)
    assert words in verdict["reason"]


@pytest.mark.parametrize(
    ("facts", "evidence", "reason", "step"),
    [
        (
            gpu("driver_not_loaded", cause="The module is not loaded"),
            {"rejection": ("the kernel rejects the key (Key was rejected by service)", "Enrol the key")},
            "The kernel rejects the key (Key was rejected by service).",
            "Enrol the key",
        ),
        (
            gpu("nouveau_in_use", cause="nouveau holds the GPUs"),
            {"nouveau": "the initramfs /boot/initrd.img-k1 is older than the blacklist"},
            "nouveau drives the GPUs after a boot that came after the driver: the initramfs /boot/initrd.img-k1 is"
            " older than the blacklist.",
            "Rebuild the initramfs",
        ),
        (
            gpu("version_mismatch", "535.261.03"),
            {"old_module": "usr/lib/modules/k1/updates/dkms/nvidia-current.ko"},
            "The initramfs carries usr/lib/modules/k1/updates/dkms/nvidia-current.ko",
            "Rebuild the initramfs",
        ),
        (gpu("nouveau_in_use", cause="nouveau holds the GPUs"), {}, "nouveau holds the GPUs", "None"),
    ],
)
def test_a_boot_that_did_not_load_the_driver_is_a_failure_with_its_cause(
    facts: dict[str, Any], evidence: dict[str, Any], reason: str, step: str
) -> None:
    verdict = judge(PLAN, facts, AFTER, seen(**evidence))

    assert (verdict["status"], verdict["reboot"]["required"]) == ("failed", False)
    assert reason in verdict["reason"]
    assert step in str(verdict["next_step"])


SKIP = {"action": "skip", "reason": "This is WSL2: the driver belongs to Windows."}


@pytest.mark.parametrize(
    ("windows", "minimum", "status", "words"),
    [
        ("580.88", "580.65.06", "skipped", "belongs to Windows"),
        ("576.52", "580.65.06", "failed", "driver of Windows is 576.52, and this stack needs 580.65.06 or newer"),
        (None, "580.65.06", "failed", "does not tell its version: no NVML"),
        ("472.12", None, "skipped", "belongs to Windows"),
    ],
)
def test_under_wsl2_the_driver_of_windows_counts(
    windows: str | None, minimum: str | None, status: str, words: str
) -> None:
    facts = gpu("wsl2", windows, cause="no NVML")
    verdict = judge(SKIP, facts, {**BEFORE, "wsl": True}, Evidence(minimum=minimum))

    assert verdict["status"] == status
    assert words in verdict["reason"]
    assert (status == "skipped") == (verdict["next_step"] is None)
    assert status == "skipped" or "Update the NVIDIA driver in Windows" in verdict["next_step"]


def test_skipped_nodes_say_why() -> None:
    verdict = judge({"action": "skip", "reason": "no GPU"}, {}, BEFORE, Evidence())
    assert (verdict["status"], verdict["reason"]) == ("skipped", "no GPU")


@pytest.mark.parametrize(
    ("installed", "situation", "reboot", "words"),
    [
        (None, "no_driver", True, "the driver 535.309.01"),
        ("535.261.03-1", "ready", True, "from 535.261.03 to 535.309.01"),
        ("535.309.01-0+deb12u1", "ready", False, "Would install"),
        (None, "container_without_devices", False, "Would install"),
    ],
)
def test_check_mode_foresees_install_and_reboot(
    installed: str | None, situation: str, reboot: bool, words: str
) -> None:
    record = foresee({**PLAN, "installed": installed}, {"situation": situation})
    assert record["reboot"]["required"] is reboot
    assert words in record["reason"]
