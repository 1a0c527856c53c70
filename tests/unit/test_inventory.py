# SPDX-License-Identifier: Apache-2.0
"""Mistyped inventories are refused with a sentence that names the slip; sound ones pass."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.inventory import Problem, check_inventory

SPECS: dict[str, dict[str, Any]] = {
    "pytorch": {
        "pytorch_timeout": {"type": "int"},
        "pytorch_source": {"type": "str", "choices": ["index", "wheelhouse"]},
    },
    "os_base": {"os_base_limits": {"type": "dict"}, "os_base_hold": {"type": "bool"}},
    "gpu_stack": {
        "stack_framework": {"type": "str", "choices": ["pytorch", "none"]},
        "stack_driver_branch": {"type": "str", "default": "auto"},
        "node_description": {
            "type": "dict",
            "options": {
                "os": {"type": "str", "required": True},
                "gpus": {"type": "list", "elements": "dict", "options": {"model": {"type": "str"}}},
            },
        },
    },
    "playbooks": {"gpu_expected_count": {"type": "int"}},
}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"pytorch_tiemout": "180"}, "Did you mean pytorch_timeout?"),
        ({"pytoch_timeout": "180"}, "Did you mean pytorch_timeout?"),
        ({"pytorch_zzz": 1}, "roles/pytorch/README.md lists its inputs"),
        ({"pytorch_source": "galaxy"}, "value of pytorch_source must be one of: index, wheelhouse"),
        ({"gpu_expected_count": "eight"}, "Could not use gpu_expected_count of the playbooks"),
        ({"nvidia_driver_branch": "535"}, "versions come from the lock. Set stack_driver_branch instead"),
        ({"stack_frameworkk": "pytorch"}, "Did you mean stack_framework?"),
        ({"stack_driver_brnach": "580"}, "Did you mean stack_driver_branch?"),
        ({"stack_zzz": 1}, "roles/gpu_stack/README.md lists its inputs"),
        ({"node_descripton": {}}, "Did you mean node_description?"),
        ({"stack_framework": "jax"}, "Could not use stack_framework of role gpu_stack: 'jax' is none of pytorch,"),
        ({"stack_framework": "tensorflow-gpu"}, "Set stack_framework to tensorflow; it installs tensorflow[and-cuda]."),
        ({"stack_driver_branch": 580.5}, "580.5 is not a text. Write it in quotes, like 580."),
        (
            {"node_description": {"os": "debian12", "gpu": []}},
            "node_description.gpu is not known. Supported parameters include: gpus, os.",
        ),
        ({"node_description": []}, "is of type list and we were unable to convert to dict."),
        ({"node_description": {"gpus": []}}, "missing required arguments: os found in node_description"),
        ({"node_description": {"os": "debian12", "gpus": [{"modell": "t4"}]}}, "modell"),
        ({"os_base_hold": "perhaps"}, "Could not use os_base_hold of role os_base"),
    ],
)
def test_a_mistake_is_named(variables: dict[str, Any], expected: str) -> None:
    problems = check_inventory({"n1": variables}, SPECS)

    assert [p.hosts for p in problems] == [("n1",)]
    assert expected in problems[0].message


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"pytorch_timeout": "180", "pytorch_source": "index"},
        {"os_base_hold": "true", "gpu_expected_count": "8"},  # -e gives strings
        {"pytorch_source": None},
        {"stack_driver_branch": 580, "stack_framework": "none"},
        {"node_description": {"os": "debian12", "gpus": [{"model": "t4"}]}},
        {"node_description": None},
        {"node_exporter_port": 9100},  # somebody else's
        {"team": "vision", "ansible_host": "192.0.2.1", "__pytorch_state": {}},
    ],
)
def test_a_sound_host_passes(variables: dict[str, Any]) -> None:
    assert check_inventory({"n1": variables}, SPECS) == []


def test_one_mistake_on_many_hosts_is_said_once() -> None:
    problems = check_inventory({f"n{i}": {"pytorch_tiemout": 1} for i in range(9)}, SPECS)

    assert len(problems) == 1
    assert problems[0].sentence().endswith("(on n0, n1, n2 and 6 more)")


def test_two_names_for_one_machine_are_refused() -> None:
    problems = check_inventory(
        {"a": {"ansible_host": "192.0.2.1"}, "b": {"ansible_host": "192.0.2.1"}, "c": {"ansible_host": "192.0.2.2"}},
        SPECS,
    )

    assert [(p.hosts, p.variable) for p in problems] == [(("a", "b"), "ansible_host")]


def test_one_machine_behind_two_ports_is_accepted() -> None:
    hosts = {"a": {"ansible_host": "192.0.2.1", "ansible_port": 2201}, "b": {"ansible_host": "192.0.2.1"}}

    assert check_inventory(hosts, SPECS) == []


def test_a_single_host_is_not_abbreviated() -> None:
    assert Problem(("n1",), "x", "Could not x").sentence() == "Could not x (on n1)"
