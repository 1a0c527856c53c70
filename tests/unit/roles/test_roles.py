# SPDX-License-Identifier: Apache-2.0
"""What every role has in common: inputs documented with their values, internal names marked, small task files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
#: Names people write into every inventory; they do without the whole name of their role.
OWN_NAMES = {"gpu_stack": ("stack_", "node_description")}
each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def options(role: Path) -> dict[str, dict[str, Any]]:
    specs = load(role / "meta/argument_specs.yml")
    return (specs or {}).get("argument_specs", {}).get("main", {}).get("options") or {}


def task_files(role: Path) -> list[Path]:
    return sorted((role / "tasks").rglob("*.yml")) if (role / "tasks").is_dir() else []


def test_there_are_roles() -> None:
    assert {"os_base", "nvidia_driver"} <= {role.name for role in ROLES}


@each_role
def test_role_has_a_readme_and_specs(role: Path) -> None:
    assert (role / "README.md").read_text(encoding="utf-8").startswith(f"# {role.name}\n")
    # a role of tables only has no inputs
    assert (role / "meta/argument_specs.yml").is_file() or not task_files(role)


@each_role
def test_defaults_and_specs_agree_by_value(role: Path) -> None:
    defaults = load(role / "defaults/main.yml") or {}
    documented = options(role)
    # a required input has no default; a default of null is documented by leaving it out
    assert {name for name, spec in documented.items() if not spec.get("required")} == set(defaults)
    assert {name: spec.get("default") for name, spec in documented.items() if not spec.get("required")} == defaults


@each_role
def test_inputs_carry_the_role_name_and_a_description(role: Path) -> None:
    wrong = [name for name in options(role) if not name.startswith(OWN_NAMES.get(role.name, f"{role.name}_"))]
    silent = [name for name, spec in options(role).items() if not spec.get("description")]
    assert (wrong, silent) == ([], [])


@each_role
def test_internal_variables_are_marked(role: Path) -> None:
    names = [name for path in sorted((role / "vars").rglob("*.yml")) for name in load(path) or {}]
    assert [name for name in names if not name.startswith(f"__{role.name}_")] == []


@each_role
def test_the_readme_names_the_inputs_or_says_where_they_are(role: Path) -> None:
    readme = (role / "README.md").read_text(encoding="utf-8")
    missing = [name for name in options(role) if f"`{name}`" not in readme]
    assert missing == [] or "`meta/argument_specs.yml`" in readme


@each_role
def test_task_files_are_short(role: Path) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in task_files(role)}
    too_long = {str(path.relative_to(ROOT)): count for path, count in lengths.items() if count > 120}
    assert too_long == {}
    main = role / "tasks/main.yml"
    assert main not in lengths or lengths[main] < 40


@each_role
def test_no_task_hides_a_failure(role: Path) -> None:
    """ignore_errors and failed_when: false turn a broken node into a green run."""
    for path in [*task_files(role), *sorted((role / "handlers").rglob("*.yml"))]:
        for task in flatten(load(path) or []):
            assert "ignore_errors" not in task, f"{path}: {task.get('name')}"
            assert task.get("failed_when") is not False, f"{path}: {task.get('name')}"


@each_role
def test_only_handlers_reboot(role: Path) -> None:
    rebooting = [path.name for path in task_files(role) if "ansible.builtin.reboot" in path.read_text(encoding="utf-8")]
    assert rebooting == []


def flatten(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tasks of a file with those of its blocks."""
    found = []
    for task in tasks:
        found.append(task)
        for part in ("block", "rescue", "always"):
            found += flatten(task.get(part) or [])
    return found


def _tasks(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping below a parsed YAML file: plays, blocks and tasks alike."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _tasks(value)
    elif isinstance(node, list):
        for entry in node:
            yield from _tasks(entry)


def test_every_reading_of_gpu_facts_asks_the_same_way() -> None:
    """A site's time limit and its own cards hold in every role and playbook."""
    files = [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/handlers/*.yml")]
    asked = [
        (path.name, tuple(task[module].values()))
        for path in files
        for task in _tasks(load(path))
        for module in ("gpu_facts", "node_probe")
        if isinstance(task.get(module), dict)
    ]

    assert len(asked) >= 6
    assert {arguments for _name, arguments in asked} == {
        (
            "{{ gpu_facts_sysroot | default('/') }}",
            "{{ gpu_facts_timeout | default(30) | int }}",
            "{{ gpu_facts_extra_gpus | default([]) }}",
        )
    }


@each_role
def test_no_result_takes_the_name_of_a_role_variable(role: Path) -> None:
    """A registered result wins over the variable for the rest of the run, so a second run of the role would read it."""
    variables = {name for path in (role / "vars").rglob("*.yml") for name in load(path) or {}}
    results = {
        task["register"]
        for path in [*task_files(role), *(role / "handlers").rglob("*.yml")]
        for task in _tasks(load(path))
        if "register" in task
    }

    assert variables & results == set()
