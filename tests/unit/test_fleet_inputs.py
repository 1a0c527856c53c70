# SPDX-License-Identifier: Apache-2.0
"""Inputs of roles, computed for a whole fleet at once: the same values the role itself will see."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from rackwright.errors import InvalidInputError
from rackwright.fleet_inputs import FleetInputs
from rackwright.stack_intent import Intent

ROOT = Path(__file__).resolve().parents[2]
ROLES = ["os_base", "nvidia_driver", "python_env", "pytorch"]
#: what a default may refer to beside the role's own inputs: the fleet-wide computation knows nothing else
ALLOWED = {"role_path", "inventory_dir", "playbook_dir"}


def template(value: Any, variables: Any) -> Any:
    """Jinja as far as defaults use it."""
    if isinstance(value, str) and "{{" in value:
        return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(value).render(**variables)
    return value


@pytest.fixture
def inputs() -> FleetInputs:
    return FleetInputs(ROOT, ROLES, template)


@pytest.mark.parametrize("role", [*ROLES, "gpu_stack"])
def test_defaults_refer_only_to_what_is_known_without_the_node(role: str) -> None:
    defaults = yaml.safe_load((ROOT / "roles" / role / "defaults/main.yml").read_text(encoding="utf-8"))
    every_input = {
        name
        for path in ROOT.glob("roles/*/defaults/main.yml")
        for name in yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    }
    used = {
        word
        for value in defaults.values()
        if isinstance(value, str)
        for expression in re.findall(r"{{(.*?)}}", value)
        for word in re.findall(r"(?<![.'\w])[a-z_]\w*", re.sub(r"'[^']*'|\|\s*\w+", "", expression))
    }

    assert used <= ALLOWED | every_input


def test_what_the_inventory_sets_wins_over_defaults_and_reaches_other_roles(inputs: FleetInputs) -> None:
    given = inputs.given({"python_env_path": "/srv/venv", "somebody_elses": 1, "inventory_dir": "/i"})

    assert given == {"python_env_path": "/srv/venv", "inventory_dir": "/i"}
    assert inputs.values("python_env", given)["python_env_path"] == "/srv/venv"
    assert inputs.values("pytorch", given)["pytorch_env_path"] == "/srv/venv"
    assert inputs.values("pytorch", {})["pytorch_env_path"] == "/opt/rackwright/venv"


def test_a_value_that_is_a_template_is_the_hosts_own(inputs: FleetInputs) -> None:
    given = inputs.given({"python_env_path": "/opt/{{ site }}", "site": "north"})

    assert given == {"python_env_path": "/opt/north"}


def test_expectations_differ_with_inputs_and_with_the_stack(inputs: FleetInputs) -> None:
    stack = {"driver": {"version": "1"}, "python": {"version": "3.11"}}
    one = inputs.expected({}, "kind-a", stack)
    other_input = inputs.expected({"os_base_upgrade": "none"}, "kind-a", stack)
    other_stack = inputs.expected({}, "kind-b", {**stack, "driver": {"version": "2"}})

    assert set(one) == set(ROLES)
    assert {role for role in ROLES if one[role]["digest"] != other_input[role]["digest"]} == {"os_base"}
    assert {role for role in ROLES if one[role]["digest"] != other_stack[role]["digest"]} == {"nvidia_driver"}


def test_equal_hosts_are_computed_once(inputs: FleetInputs) -> None:
    assert inputs.expected({"os_base_upgrade": "none"}, "kind", {}) is inputs.expected(
        {"os_base_upgrade": "none"}, "kind", {}
    )


@pytest.mark.parametrize(
    ("raw", "probe", "failure"),
    [
        ({}, {}, None),
        ({}, {"unreachable": True, "msg": " no route \n"}, "unreachable: no route"),
        ({}, {"unreachable": True}, "unreachable: no answer"),
        ({"__site_failure": {"message": "gpu_facts failed"}}, {"failed": True}, "gpu_facts failed"),
    ],
)
def test_a_member_knows_why_it_is_silent(inputs: FleetInputs, raw: Any, probe: Any, failure: str | None) -> None:
    member = inputs.member("n1", raw, probe)

    assert (member.failure, member.intent) == (failure, Intent())


def test_a_wish_with_a_mistake_is_kept_as_the_reason_to_refuse(inputs: FleetInputs) -> None:
    member = inputs.member("n1", {"stack_policy": "fast"}, {})

    assert isinstance(member.intent, InvalidInputError)
    assert "stack_policy" in str(member.intent)
