# SPDX-License-Identifier: Apache-2.0
"""What holds for every module: its documentation is its argument spec, and its name shadows nothing of Ansible's."""

from __future__ import annotations

import importlib
import stat
from pathlib import Path
from typing import Any

import ansible.modules
import pytest
import yaml

LIBRARY = Path(__file__).resolve().parents[2] / "library"
MODULES = sorted(path.stem for path in LIBRARY.glob("*.py"))
DOCUMENTED_BY_ACTION = {"validate_inventory"}  # an action plugin does the work; the module file only documents it
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


@pytest.mark.parametrize("name", [name for name in MODULES if name not in DOCUMENTED_BY_ACTION])
def test_documented_options_are_the_argument_spec(name: str) -> None:
    module = importlib.import_module(name)
    documented = yaml.safe_load(module.DOCUMENTATION)

    assert options(documented["options"]) == options(module.ARGUMENT_SPEC)


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
