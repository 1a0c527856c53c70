# SPDX-License-Identifier: Apache-2.0
"""Declared GPU modes: what is a declaration, what is possible, what has to be done."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from unit.mig_samples import made, offered

from ansible.module_utils.rackwright import gpu_modes
from ansible.module_utils.rackwright.gpu_modes import DeclarationError


def gpu(**changes: Any) -> dict[str, Any]:
    """A GPU as it comes: no MIG, ECC on."""
    device: dict[str, Any] = {
        "index": 0,
        "uuid": "GPU-a",
        "error": None,
        "missing": {},
        "processes": [],
        "mig": {"current": False, "pending": False, "resetless": False, "profiles": profiles(), "instances": []},
        "ecc": {"current": True, "pending": True},
        "power_limit_w": {"current": 400.0, "default": 400.0, "min": 100.0, "max": 500.0},
        "application_clocks_mhz": {
            "current": {"memory": 1593, "graphics": 1275},
            "default": {"memory": 1593, "graphics": 1275},
            "supported_memory": [1593],
            "supported_graphics": [210, 225, 1275, 1410],
        },
        "locked_clocks_mhz": {"supported": [210, 225, 1275, 1410]},
        "persistence_mode": True,
        "compute_mode": "default",
    }
    return {**device, **changes}


def profiles() -> list[dict[str, Any]]:
    return [dataclasses.asdict(one) for one in offered("a100x4")]


def divided(text: str, **changes: Any) -> dict[str, Any]:
    """A GPU in MIG mode with the instances of a layout."""
    mig = {"current": True, "pending": True, "resetless": False, "profiles": profiles(), **changes}
    return gpu(mig={**mig, "instances": [dataclasses.asdict(one) for one in made(text)] if text else []})


@pytest.mark.parametrize(
    ("mode", "value", "found"),
    [
        ("mig", "none", None),
        ("mig", {}, {"all": []}),
        ("mig", {"all": ["1g.10gb x2"]}, {"all": ["1g.10gb", "1g.10gb"]}),
        ("mig", {0: ["7g.80gb"], "GPU-a": []}, {"0": ["7g.80gb"], "GPU-a": []}),
        ("ecc", True, {"all": True}),
        ("ecc", "off", {"all": False}),
        ("ecc", {"1": "on"}, {"1": True}),
        ("persistence_mode", "ON", {"all": True}),
        ("power_limit_w", "350", {"all": 350}),
        ("power_limit_w", {"all": 300, 1: "default"}, {"1": "default", "all": 300}),
        ("compute_mode", "exclusive_process", {"all": "exclusive_process"}),
        ("locked_clocks_mhz", 1275, {"all": [1275, 1275]}),
        ("locked_clocks_mhz", [210, 1275], {"all": [210, 1275]}),
        ("locked_clocks_mhz", "default", {"all": "default"}),
        ("application_clocks_mhz", {"memory": 1593, "graphics": 1275}, {"all": {"memory": 1593, "graphics": 1275}}),
        ("application_clocks_mhz", {"0": "default"}, {"0": "default"}),
    ],
)
def test_declarations(mode: str, value: Any, found: Any) -> None:
    assert gpu_modes.declared({mode: value}) == ({} if found is None else {mode: found})


@pytest.mark.parametrize(
    ("mode", "value", "said"),
    [
        ("mig", "1g.10gb", "MIG is declared as a mapping such as"),
        ("mig", ["1g.10gb"], "as a mapping"),
        ("mig", {"all": ["1c.1g.10gb"]}, "MIG: '1c.1g.10gb' divides"),
        ("ecc", "maybe", "ECC is 'maybe' and has to be on, off or none"),
        ("ecc", 1, "ECC is 1 and has to be"),
        ("persistence_mode", ["on"], "persistence mode is"),
        ("power_limit_w", True, "power limit is True and has to be a whole number of watts"),
        ("power_limit_w", "300W", "power limit is '300W'"),
        ("power_limit_w", -1, "whole number"),
        ("compute_mode", "exclusive_thread", "one of default, exclusive_process, prohibited"),
        ("locked_clocks_mhz", [1, 2, 3], r"one number or \[lowest, highest\]"),
        ("locked_clocks_mhz", [1400, 300], "begin at 1400 MHz and end at 300 MHz"),
        ("application_clocks_mhz", 1275, "have to be {memory: MHz, graphics: MHz}"),
        ("application_clocks_mhz", {"memory": 1593}, "have to be {memory"),
    ],
)
def test_no_declarations(mode: str, value: Any, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        gpu_modes.declared({mode: value})


def test_the_nearest_selector_counts() -> None:
    declaration = gpu_modes.declared({"power_limit_w": {"all": 300, "1": 350, "GPU-c": 400}})
    devices = [gpu(index=n, uuid=uuid) for n, uuid in enumerate(["GPU-a", "GPU-b", "GPU-c"])]
    assert [gpu_modes.wants_of(one, declaration)["power_limit_w"] for one in devices] == [300, 350, 400]
    assert gpu_modes.unknown_selectors(devices, declaration) == {}
    assert gpu_modes.unknown_selectors(devices[:2], declaration) == {"power_limit_w": ["GPU-c"]}
    assert gpu_modes.wants_of(devices[0], gpu_modes.declared({"mig": {"1": []}})) == {}


@pytest.mark.parametrize(
    ("device", "wants", "said"),
    [
        (gpu(), {"power_limit_w": 501}, "a power limit of 501 W is outside 100 to 500 W"),
        (gpu(), {"power_limit_w": 99}, "outside 100 to 500 W"),
        (gpu(), {"locked_clocks_mhz": [100, 1410]}, "clocks of 100 to 1410 MHz are outside 210 to 1410 MHz"),
        (gpu(), {"application_clocks_mhz": {"memory": 1593, "graphics": 230}}, "nearest: 210, 225 MHz"),
        (gpu(), {"mig": ["1g.5gb"]}, "did you mean"),
        (gpu(), {"mig": ["1g.10gb"] * 8}, "1g.10gb x7 fits, 1g.10gb is left over"),
        (
            gpu(mig=None, missing={"mig": "not supported (NVML 3)"}),
            {"mig": ["1g.10gb"]},
            r"it has no MIG: not supp.*3\)",
        ),
        (gpu(ecc=None), {"ecc": True}, "it has no ECC"),
        (gpu(error="it is lost"), {"ecc": True}, "it does not answer: it is lost"),
    ],
)
def test_what_a_gpu_cannot_have(device: dict[str, Any], wants: dict[str, Any], said: str) -> None:
    assert [bool(re.search(said, one)) for one in gpu_modes.problems(device, wants)] == [True]


@pytest.mark.parametrize(
    ("device", "wants"),
    [
        (gpu(error="it is lost"), {}),
        (gpu(mig=None), {"mig": []}),
        (gpu(ecc=None), {"ecc": False}),
        (gpu(application_clocks_mhz=None), {"application_clocks_mhz": "default"}),
        (gpu(), {"power_limit_w": 100, "locked_clocks_mhz": [210, 1410], "mig": ["3g.40gb", "4g.40gb"]}),
    ],
)
def test_what_it_can_have(device: dict[str, Any], wants: dict[str, Any]) -> None:
    assert gpu_modes.problems(device, wants) == []


CREATED = ["create 4g.40gb at memory slice 0", "create 3g.40gb at memory slice 4"]


@pytest.mark.parametrize(
    ("device", "wants", "texts"),
    [
        (gpu(), {}, []),
        (gpu(), {"ecc": True, "power_limit_w": "default", "mig": [], "compute_mode": "default"}, []),
        (gpu(), {"ecc": False}, ["ECC on -> off (in force after a reset of the GPU)"]),
        (gpu(ecc={"current": True, "pending": False}), {"ecc": False}, ["ECC mode waits for a reset of the GPU"]),
        (gpu(), {"mig": ["3g.40gb", "4g.40gb"]}, ["MIG mode off -> on (resets the GPU)", *CREATED]),
        (divided("4g.40gb, 3g.40gb"), {"mig": ["3g.40gb", "4g.40gb"]}, []),
        (divided(""), {"mig": ["3g.40gb", "4g.40gb"]}, CREATED),
        (divided("1g.10gb"), {}, []),  # nothing declared: what is there stays
        (
            divided("1g.10gb", resetless=True),
            {"mig": []},
            ["destroy 1g.10gb at memory slice 0", "MIG mode on -> off"],
        ),
        (
            divided("7g.80gb"),
            {"mig": ["1g.10gb"]},
            ["destroy 7g.80gb at memory slice 0", "create 1g.10gb at memory slice 0"],
        ),
        (
            gpu(mig={**gpu()["mig"], "profiles": []}),
            {"mig": ["1g.10gb"] * 7},
            ["MIG mode off -> on (resets the GPU)", "then make 1g.10gb x7"],
        ),
        (
            gpu(),
            {"power_limit_w": 350, "persistence_mode": False},
            ["persistence mode on -> off", "power limit 400 W -> 350 W"],
        ),
        (gpu(compute_mode="prohibited"), {"compute_mode": "default"}, ["compute mode prohibited -> default"]),
        (gpu(), {"locked_clocks_mhz": [210, 1275]}, ["locked clocks not locked -> 210 to 1275 MHz"]),
        (gpu(), {"locked_clocks_mhz": "default"}, []),
    ],
)
def test_steps(device: dict[str, Any], wants: dict[str, Any], texts: list[str]) -> None:
    assert [step.text for step in gpu_modes.plan(device, wants, {})] == texts


def test_clocks_that_are_remembered_are_not_locked_again() -> None:
    wants = {"locked_clocks_mhz": [210, 1275]}
    assert gpu_modes.plan(gpu(), wants, {"GPU-a": [210, 1275]}) == []
    unlock = gpu_modes.plan(gpu(), {"locked_clocks_mhz": "default"}, {"GPU-a": [210, 1275]})
    assert [(step.before, step.after) for step in unlock] == [([210, 1275], None)]


VLLM = [{"pid": 42, "name": "vllm"}, {"pid": 43, "name": None}]


@pytest.mark.parametrize(
    ("device", "wants", "said"),
    [
        (
            gpu(processes=VLLM),
            {"mig": ["1g.10gb"]},
            "vllm (pid 42), a process (pid 43) is using it, and this would MIG mode",
        ),
        (
            {**divided("7g.80gb"), "processes": VLLM},
            {"mig": ["1g.10gb"]},
            "vllm (pid 42), a process (pid 43) is using it",
        ),
        ({**divided("1g.10gb"), "processes": VLLM}, {"mig": ["1g.10gb"] * 2}, None),  # one more disturbs nobody
        (gpu(processes=VLLM), {"power_limit_w": 300, "ecc": False}, None),
        (gpu(), {"mig": ["1g.10gb"]}, None),
    ],
)
def test_who_is_in_the_way(device: dict[str, Any], wants: dict[str, Any], said: str | None) -> None:
    found = gpu_modes.busy_problem(device, gpu_modes.plan(device, wants, {}))
    assert (found is None) if said is None else (found or "").startswith(said)
