# SPDX-License-Identifier: Apache-2.0
"""Mistyped inventories are refused with a sentence that names the slip; sound ones pass."""

from __future__ import annotations

from typing import Any

import pytest

from ansible.module_utils.rackwright.inventory import Problem, check_inventory

SPECS: dict[str, dict[str, Any]] = {
    "pytorch": {
        "pytorch_version": {"type": "str"},
        "pytorch_source": {"type": "str", "choices": ["index", "wheelhouse"]},
    },
    "os_base": {"os_base_limits": {"type": "dict"}, "os_base_hold": {"type": "bool"}},
    "playbooks": {"gpu_expected_count": {"type": "int"}},
}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"pytorch_vresion": "2.13.0"}, "Did you mean pytorch_version?"),
        ({"pytoch_version": "2.13.0"}, "Did you mean pytorch_version?"),
        ({"pytorch_zzz": 1}, "roles/pytorch/README.md lists its inputs"),
        ({"pytorch_source": "galaxy"}, "value of pytorch_source must be one of: index, wheelhouse"),
        ({"gpu_expected_count": "eight"}, "Could not use gpu_expected_count of the playbooks"),
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
        {"pytorch_version": "2.13.0", "pytorch_source": "index"},
        {"os_base_hold": "true", "gpu_expected_count": "8"},  # -e gives strings
        {"pytorch_source": None},
        {"team": "vision", "ansible_host": "192.0.2.1", "__pytorch_state": {}},
    ],
)
def test_a_sound_host_passes(variables: dict[str, Any]) -> None:
    assert check_inventory({"n1": variables}, SPECS) == []


def test_one_mistake_on_many_hosts_is_said_once() -> None:
    problems = check_inventory({f"n{i}": {"pytorch_vresion": 1} for i in range(9)}, SPECS)

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
