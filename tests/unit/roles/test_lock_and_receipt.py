# SPDX-License-Identifier: Apache-2.0
"""Every role that changes a node takes its versions from the lock, says which entries, and leaves a receipt last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible.module_utils.rackwright.stack_intent import Intent
from ansible.module_utils.rackwright.stack_node import _DESCRIPTION_KEYS

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.parents[1] for path in ROOT.glob("roles/*/tasks/main.yml") if path.parents[1].name != "gpu_stack")
GPU_STACK = ROOT / "roles/gpu_stack"
each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def imported(role: Path, task: dict[str, Any]) -> list[dict[str, Any]]:
    """The tasks a task of main.yml stands for."""
    name = task.get("ansible.builtin.import_tasks")
    tasks: list[dict[str, Any]] = load(role / "tasks" / name) if name else [task]
    return tasks


def code_of(role: Path) -> str:
    """Everything of a role that runs: tasks, handlers, vars and templates."""
    files = [path for folder in ("tasks", "handlers", "vars", "templates") for path in (role / folder).rglob("*")]
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(files) if path.is_file())


def test_the_roles_are_found() -> None:
    assert {role.name for role in ROLES} >= {"os_base", "nvidia_driver", "python_env", "pytorch"}


@each_role
def test_the_lock_is_read_first(role: Path) -> None:
    first = load(role / "tasks/main.yml")[0]

    assert first["ansible.builtin.include_role"] == {"name": "gpu_stack"}
    assert first["when"] == "__stack is not defined"


@each_role
def test_the_receipt_is_written_last_and_by_nobody_else(role: Path) -> None:
    *before, last = [task for entry in load(role / "tasks/main.yml") for task in imported(role, entry)]

    assert last["receipt"]["role"] == role.name
    assert "when" not in last  # a role with nothing to do is fresh too
    assert not [task for task in before if "receipt" in task]
    assert code_of(role).count("\n  receipt:\n") == 1


@each_role
def test_handlers_have_run_before_the_receipt(role: Path) -> None:
    """A handler that fails must find no receipt."""
    if not (role / "handlers").is_dir():
        return
    *before, _receipt = [task for entry in load(role / "tasks/main.yml") for task in imported(role, entry)]
    flushes = [number for number, task in enumerate(before) if task.get("ansible.builtin.meta") == "flush_handlers"]
    notifies = [number for number, task in enumerate(before) if "notify" in task]

    assert flushes
    assert max(notifies) < max(flushes)


@each_role
def test_the_receipt_covers_every_entry_of_the_lock_that_is_used(role: Path) -> None:
    used = set(re.findall(r"__stack\.(\w+)", code_of(role)))

    assert used <= {key.split(".")[0] for key in load(role / "meta/receipt.yml")["lock"]}
    assert "__stack[" not in code_of(role)  # an entry used this way would not be seen here


@each_role
def test_no_input_decides_a_version_of_what_the_lock_decides(role: Path) -> None:
    names = set(load(role / "defaults/main.yml"))

    assert not {name for name in names if re.search(r"_(version|branch|build|flavour|python)$", name)} - {
        "python_env_uv_version"  # a tool for building, pinned by the project
    }


def test_the_wishes_are_those_that_planning_reads() -> None:
    defaults = load(GPU_STACK / "defaults/main.yml")
    repository = {"stack_repository_url", "stack_repository_key", "stack_repository_key_fingerprint"}
    own = {"stack_lock_file", "stack_extra_tables", "node_description", *repository}

    assert {name: value for name, value in defaults.items() if name not in own} == Intent().as_dict()


def test_a_description_may_hold_what_planning_reads() -> None:
    options = load(GPU_STACK / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]

    assert set(options["node_description"]["options"]) == set(_DESCRIPTION_KEYS)


@pytest.mark.parametrize(("role", "watched"), [("os_base", {"kernels"}), ("nvidia_driver", {"kernels", "modules"})])
def test_a_kernel_that_comes_later_makes_its_roles_stale(role: str, watched: set[str]) -> None:
    """Test nodes are containers without kernels, so no scenario can show it; tests/unit/test_receipt_items.py does."""
    receipt = load(ROOT / "roles" / role / "tasks/receipt.yml")[0]["receipt"]

    assert watched <= set(receipt)
