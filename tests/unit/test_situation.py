# SPDX-License-Identifier: Apache-2.0
"""The rules alone: evidence in, one word, one cause and one next step out."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.gpu_evidence import Evidence
from ansible.module_utils.rackwright.situation import SITUATIONS, judge

GPU = {"address": "0000:01:00.0", "kernel_driver": None}


def evidence(**changes: Any) -> Evidence:
    """A bare server with one GPU and no driver; ``host__x`` changes the host, ``driver__x`` the driver."""
    host: dict[str, Any] = {
        "kernel_release": "6.1.0-50-amd64",
        "pci": {"gpus": [dict(GPU)], "switches": [], "reason": None},
        "modules": [],
        "driver_text": None,
        "module_version": None,
        "device_nodes": [],
        "container": None,
        "wsl": False,
        "dxg": False,
        "installed_module": None,
    }
    driver: dict[str, Any] = {"kernel_module_version": None, "library_version": None}
    library = {"found": True, "simulated": False}
    plain = {}
    for key, value in changes.items():
        place, _, name = key.partition("__")
        if name:
            {"host": host, "driver": driver, "library": library}[place][name] = value
        else:
            plain[key] = value
    return Evidence(host=host, library=library, driver=driver, **plain)


CASES: list[tuple[str, dict[str, Any], str, str, str]] = [
    (
        "bare server",
        {"init_error": 12, "library__found": False},
        "no_driver",
        "1 NVIDIA GPU found",
        "role nvidia_driver",
    ),
    (
        "module without library",
        {
            "init_error": 12,
            "library__found": False,
            "host__modules": ["nvidia"],
            "driver__kernel_module_version": "535.1.2",
        },
        "no_driver",
        "module 535.1.2 is loaded, but libnvidia-ml.so.1 is not installed",
        "exactly that driver version",
    ),
    (
        "nothing there",
        {"init_error": 9, "host__pci": {"gpus": [], "switches": [], "reason": None}},
        "no_gpu",
        "no NVIDIA GPU on the PCI bus",
        "Nothing to do",
    ),
    (
        "PCI bus unreadable",
        {"init_error": 12, "host__pci": {"gpus": [], "switches": [], "reason": "gone"}},
        "no_driver",
        "PCI bus cannot be read",
        "Install",
    ),
    (
        "installed, reboot pending",
        {
            "init_error": 9,
            "driver__library_version": "535.309.01",
            "host__installed_module": {"version": "535.309.01", "license": "NVIDIA", "reason": None},
        },
        "driver_not_loaded",
        "kernel module 535.309.01 are installed, but the module is not loaded",
        "Reboot the node",
    ),
    (
        "installed, never built",
        {
            "init_error": 9,
            "driver__library_version": "535.309.01",
            "host__installed_module": {
                "version": None,
                "license": None,
                "reason": "no NVIDIA module is installed for kernel x",
            },
        },
        "driver_not_loaded",
        "no kernel module is loaded: no NVIDIA module is installed for kernel x",
        "dkms status",
    ),
    (
        "loaded, no device nodes",
        {"init_error": 9, "host__modules": ["nvidia"]},
        "driver_not_loaded",
        "there is no /dev/nvidiactl",
        "nvidia-modprobe",
    ),
    (
        "mismatch",
        {"init_error": 18, "driver__kernel_module_version": "535.261.03", "driver__library_version": "535.309.01"},
        "version_mismatch",
        "kernel module 535.261.03 is loaded, but the NVIDIA library is 535.309.01",
        "Reboot",
    ),
    (
        "nouveau loaded",
        {"init_error": 9, "host__modules": ["nouveau"]},
        "nouveau_in_use",
        "nouveau holds it",
        "Blacklist",
    ),
    (
        "nouveau bound",
        {
            "init_error": 12,
            "host__pci": {"gpus": [{**GPU, "kernel_driver": "nouveau"}], "switches": [], "reason": None},
        },
        "nouveau_in_use",
        "nouveau holds it",
        "Blacklist",
    ),
    (
        "container, nothing given",
        {"init_error": 9, "host__container": "/.dockerenv", "host__driver_text": "NVRM"},
        "container_without_devices",
        "has no /dev/nvidia* devices",
        "--gpus all",
    ),
    (
        "container, no libraries either",
        {"init_error": 12, "library__found": False, "host__container": "/.dockerenv", "host__driver_text": "NVRM"},
        "container_without_devices",
        "neither NVIDIA devices nor the NVIDIA libraries",
        "--gpus all",
    ),
    ("forbidden", {"init_error": 4}, "no_permission", "may not use the NVIDIA driver", "0666"),
    ("lost at init", {"init_error": 15, "unseen": ["0000:01:00.0"]}, "gpu_lost", "0000:01:00.0", "reboot"),
    ("reset at init", {"init_error": 16}, "gpu_reset_required", "must be reset first", "gpu-reset"),
    ("unknown", {"init_error": 999, "init_reason": "odd (NVML 999)"}, "nvml_error", "odd (NVML 999)", "kernel log"),
    (
        "hung",
        {"child_status": "timeout", "child_detail": "No answer within 30 s; the process was ended."},
        "driver_hung",
        "no answer within 30 s",
        "reboot",
    ),
    (
        "slow start without the persistence daemon",
        {
            "child_status": "timeout",
            "child_detail": "No answer within 30 s; the process was ended.",
            "host__pci": {"gpus": [dict(GPU), dict(GPU)], "switches": [], "reason": None},
            "host__persistence_daemon": {"running": False, "reason": None},
        },
        "driver_hung",
        "no answer within 30 s",
        "Try a longer timeout, because nvidia-persistenced does not run and 2 GPUs start anew",
    ),
    (
        "crashed",
        {
            "child_status": "crashed",
            "child_detail": "The process was ended by signal SIGSEGV.",
            "child_signal": "SIGSEGV",
        },
        "driver_crashed",
        "SIGSEGV",
        "same driver",
    ),
    (
        "own defect",
        {"child_status": "error", "child_detail": "KeyError: 'x'"},
        "probe_error",
        "KeyError: 'x'",
        "defect",
    ),
    (
        "old WSL",
        {"init_error": 12, "library__found": False, "host__wsl": True},
        "wsl2",
        "without /dev/dxg",
        "wsl --update",
    ),
    (
        "WSL2 without driver",
        {"init_error": 12, "library__found": False, "host__wsl": True, "host__dxg": True},
        "wsl2",
        "libnvidia-ml.so.1 is not there",
        "driver of Windows",
    ),
]


@pytest.mark.parametrize(("changes", "name", "cause", "step"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_situation_cause_and_next_step(changes: dict[str, Any], name: str, cause: str, step: str) -> None:
    situation = judge(evidence(**changes))
    assert situation.name == name
    assert cause in situation.cause
    assert step in situation.next_step


@pytest.mark.parametrize("changes", [c[1] for c in CASES], ids=[c[0] for c in CASES])
def test_cause_and_next_step_are_single_closed_sentences(changes: dict[str, Any]) -> None:
    situation = judge(evidence(**changes))
    assert situation.name in SITUATIONS
    for text in (situation.cause, situation.next_step):
        assert text[0].isupper() or text[0].isdigit()
        assert text.endswith(".")
        assert ".." not in text
        assert "\n" not in text


def test_every_unexpected_code_still_has_a_verdict() -> None:
    for code in (*range(1, 31), 999, -1, 12345):
        situation = judge(evidence(init_error=code, init_reason="reason"))
        assert situation.name in SITUATIONS
