# SPDX-License-Identifier: Apache-2.0
"""The verdict about an installed driver, and whether a reboot would help."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.driver_state import foresee, judge, module_states, parse_dkms, skewed
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
    return {"booted_at": booted_at, "container": container, "kernel": {"note": "the host's"}}


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
    verdict = judge(PLAN, facts, node, [], {}, INSTALLED_AT)
    assert (verdict["status"], verdict["reboot"]["required"]) == (status, reboot)
    assert status == "ready" or verdict["reason"]


def test_failure_carries_the_cause_of_the_facts() -> None:
    facts = gpu("driver_not_loaded", cause="Key was rejected", next_step="Enrol the key")
    verdict = judge(PLAN, facts, AFTER, [], {}, INSTALLED_AT)
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
    verdict = judge(PLAN, gpu("version_mismatch", "535.261.03"), AFTER, skew, {}, INSTALLED_AT)
    assert verdict["status"] == "failed"
    assert "libcuda1 535.261.03-1" in verdict["reason"]


DKMS = """\
nvidia-current/535.309.01, 6.1.0-56-amd64, x86_64: installed
nvidia-current/535.309.01, 6.1.0-50-amd64, x86_64: built
nvidia-current/535.261.03, 6.1.0-49-amd64, x86_64: installed
"""


def test_dkms_state_for_each_kernel() -> None:
    states = module_states(parse_dkms(DKMS), ["6.1.0-56-amd64", "6.1.0-50-amd64", "6.1.0-49-amd64"], "535.309.01")
    assert states == {"6.1.0-56-amd64": "installed", "6.1.0-50-amd64": "built", "6.1.0-49-amd64": "added"}
    assert module_states([], ["k"], "535.309.01") == {"k": "missing"}


@pytest.mark.parametrize(
    "line",
    [
        "nvidia-current/535.309.01: added",
        "nvidia-current, 535.309.01: added",
        "nvidia-current, 535.309.01, k, x86_64: added",
    ],
)
def test_dkms_lines_old_and_new(line: str) -> None:
    row = parse_dkms(line)[0]
    assert (row["module"], row["version"], row["state"]) == ("nvidia-current", "535.309.01", "added")


def test_a_module_that_is_only_added_is_a_failure() -> None:
    verdict = judge(PLAN, gpu("ready", "535.309.01"), AFTER, [], {"6.1.0-56-amd64": "added"}, INSTALLED_AT)
    assert verdict["status"] == "failed"
    assert "dkms says 'added'" in verdict["reason"]


def test_skipped_nodes_say_why() -> None:
    verdict = judge({"action": "skip", "reason": "WSL2"}, {}, BEFORE, [], {}, None)
    assert (verdict["status"], verdict["reason"]) == ("skipped", "WSL2")


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
