#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Pinned packages in one environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: venv_packages
short_description: Install exactly pinned packages into one Python environment
description:
  - Compares what is installed, and whether it is whole, with the pins; no network is asked when all is well.
  - PyTorch has its own module, M(pytorch_state).
options:
  venv:
    description: Directory of the environment.
    type: path
    required: true
  requirements:
    description: Pins such as C(uv==0.13.9).
    type: list
    elements: str
    required: true
  state:
    description:
      - V(checked) only looks; V(present) also installs.
      - V(planned) looks too and accepts that there is no environment yet.
    type: str
    choices: [planned, checked, present]
    default: checked
  source:
    description: V(wheelhouse) installs O(files) without an index, V(index) asks the node's indexes.
    type: str
    choices: [wheelhouse, index]
    default: wheelhouse
  python:
    description: Interpreter to reckon with in check mode while the environment does not exist yet.
    type: str
    default: /usr/bin/python3
  wheels_dir:
    description: Directory on the node that holds the copied wheels.
    type: path
    default: /var/cache/rackwright/wheels
  files:
    description: The wheels to install, each with file, sha256, size, installed, name and version.
    type: list
    elements: dict
    default: []
  keep_wheels:
    description: Whether the copied wheels stay on the node after a successful install.
    type: bool
    default: false
  index_url:
    description: The site's own index, instead of the one the node is configured for.
    type: str
  extra_args:
    description: Further arguments for the installer, for O(source=index).
    type: list
    elements: str
    default: []
  environment:
    description: Environment variables for the installer, for O(source=index). Not a place for credentials.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Says what would be installed and changes nothing.
    support: full
  diff_mode:
    description: Shows the pins that are not met.
    support: full
author:
  - Rackwright
"""

EXAMPLES = r"""
- name: Install uv into its own environment
  venv_packages:
    venv: /opt/rackwright/uv
    requirements: ["uv==0.13.9"]
    source: index
    state: present
"""

RETURN = r"""
venv_packages:
  description: What is there and what was done.
  type: dict
  returned: always
  contains:
    schema: {description: Version of this structure., type: int}
    action: {description: V(none) when every pin is met, else V(install)., type: str}
    reasons: {description: Why something must be installed., type: list, elements: str}
    interpreter: {description: The environment's Python., type: dict}
    whole: {description: "Undamaged distributions, name to version.", type: dict}
    space: {description: Free bytes and device of the file systems that are written to., type: dict}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.pyenv_build import system_error
from ansible.module_utils.rackwright.wheel_install import IndexSource, PinRequest, discard_wheels, pins_present

ARGUMENT_SPEC = {
    "venv": {"type": "path", "required": True},
    "requirements": {"type": "list", "elements": "str", "required": True},
    "state": {"type": "str", "choices": ["planned", "checked", "present"], "default": "checked"},
    "source": {"type": "str", "choices": ["wheelhouse", "index"], "default": "wheelhouse"},
    "python": {"type": "str", "default": "/usr/bin/python3"},
    "wheels_dir": {"type": "path", "default": "/var/cache/rackwright/wheels"},
    "files": {"type": "list", "elements": "dict", "default": []},
    "keep_wheels": {"type": "bool", "default": False},
    "index_url": {"type": "str", "no_log": True},
    "extra_args": {"type": "list", "elements": "str", "default": []},
    "environment": {"type": "dict", "default": {}},
}


def build_request(params: dict[str, Any]) -> PinRequest:
    """Turn module parameters into a request."""
    environment = tuple((str(name), str(value)) for name, value in sorted(params["environment"].items()))
    return PinRequest(
        venv=params["venv"].rstrip("/"),
        requirements=tuple(params["requirements"]),
        source=params["source"],
        python=params["python"],
        wheels_dir=params["wheels_dir"],
        index=IndexSource(params["index_url"] or None, tuple(params["extra_args"]), environment),
    )


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    request = build_request(module.params)
    state = module.params["state"]

    def run(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        status, output, error = module.run_command(command, environ_update=environment)
        return status, output, error

    try:
        installing = state == "present" and not module.check_mode
        tolerant = module.check_mode or state == "planned"
        answer = pins_present(run, request, module.params["files"], installing=installing, tolerant=tolerant)
        if installing and request.source == "wheelhouse" and not module.params["keep_wheels"]:
            discard_wheels(request.wheels_dir, module.params["files"])
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    except OSError as error:
        module.fail_json(**system_error("install packages", request.venv, error).to_result())
    module.exit_json(
        changed=state == "present" and answer["action"] == "install",
        venv_packages=answer,
        diff={"before": {"reasons": answer["reasons"]}, "after": {"reasons": []}},
    )


if __name__ == "__main__":
    main()
