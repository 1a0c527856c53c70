# SPDX-License-Identifier: Apache-2.0
"""What holds for every module: its documentation is its argument spec, and its name shadows nothing of Ansible's."""

from __future__ import annotations

import importlib
import importlib.util
import stat
from pathlib import Path
from typing import Any

import ansible.modules
import pytest
import yaml

LIBRARY = Path(__file__).resolve().parents[2] / "library"
MODULES = sorted(path.stem for path in LIBRARY.glob("*.py"))
ACTIONS = LIBRARY.parent / "action_plugins"
COMPARED = ("type", "required", "default", "choices", "elements")
NEUTRAL = {"type": "str", "required": False, "default": None, "choices": None, "elements": None}


def options(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The comparable part of documented options or of an argument spec, with defaults filled in."""
    return {
        name: {
            **{key: option.get(key, NEUTRAL[key]) for key in COMPARED},
            "options": options(option.get("suboptions") or option.get("options") or {}),
        }
        for name, option in spec.items()
    }


def argument_spec(name: str) -> dict[str, Any]:
    """What a module accepts; where an action plugin does all the work, the module file only documents it."""
    module = importlib.import_module(name)
    if hasattr(module, "main"):
        spec: dict[str, Any] = module.ARGUMENT_SPEC
        return spec
    location = importlib.util.spec_from_file_location(f"action_{name}", ACTIONS / f"{name}.py")
    assert location is not None
    assert location.loader is not None
    action = importlib.util.module_from_spec(location)
    location.loader.exec_module(action)
    return getattr(action, "ARGUMENT_SPEC", {})


@pytest.mark.parametrize("name", MODULES)
def test_documented_options_are_the_argument_spec(name: str) -> None:
    documented = yaml.safe_load(importlib.import_module(name).DOCUMENTATION)

    assert options(documented["options"]) == options(argument_spec(name))


@pytest.mark.parametrize("name", MODULES)
def test_documentation_is_whole(name: str) -> None:
    module = importlib.import_module(name)
    documented = yaml.safe_load(module.DOCUMENTATION)

    assert documented["module"] == name
    assert documented["attributes"]["check_mode"]["support"] in ("full", "partial")
    assert documented["short_description"]
    assert all("name" in example for example in yaml.safe_load(module.EXAMPLES))
    assert all({"description", "returned", "type"} <= set(value) for value in yaml.safe_load(module.RETURN).values())


@pytest.mark.parametrize("name", MODULES)
def test_file_is_a_module_that_starts_with_python(name: str) -> None:
    first = (LIBRARY / f"{name}.py").read_text(encoding="utf-8").splitlines()[:2]

    assert first[0] == "#!/usr/bin/python"
    assert first[1].startswith("# SPDX-License-Identifier:")
    assert not (LIBRARY / f"{name}.py").stat().st_mode & stat.S_IWOTH


@pytest.mark.parametrize("name", MODULES)
def test_name_shadows_no_module_of_ansible(name: str) -> None:
    builtin = {path.stem for folder in ansible.modules.__path__ for path in Path(folder).glob("*.py")}

    assert name not in builtin
