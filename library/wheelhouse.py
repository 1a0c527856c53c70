#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""A complete, verified set of wheels on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse
short_description: Download once what many nodes install, for the nodes' Python and not the control node's
description:
  - Makes one directory of wheels per release, build, Python and architecture, with a manifest of hashes, or finds it
    made. A made set needs no network, so a wheelhouse can be carried to a site without one.
  - Asks the indexes and folders pip is configured for on the control node, then O(extra_index_url).
  - Delegate it to the control node. Concurrent calls for the same set wait for the first.
options:
  root:
    description: Directory of the wheelhouse.
    type: path
    required: true
  name:
    description: First part of the set's directory, for example C(torch-2.13.0+cpu).
    type: str
    required: true
  requirements:
    description: Equivalent requirements, most exact first; the first that can be had is taken.
    type: list
    elements: str
    required: true
  packages:
    description: Requirements that go along.
    type: list
    elements: str
    default: []
  python:
    description: Python version of the nodes, for example C(3.11).
    type: str
    required: true
  arch:
    description: Machine architecture of the nodes.
    type: str
    default: x86_64
  markers:
    description: Environment markers the nodes reported; derived from O(python) and O(arch) when left out.
    type: dict
    default: {}
  index_url:
    description: The site's own index, instead of the configured one.
    type: str
  extra_index_url:
    description: Index asked when the configured ones do not have it.
    type: str
  extra_args:
    description: Further arguments for C(pip download).
    type: list
    elements: str
    default: []
  estimate:
    description: Bytes that must be free before a download.
    type: int
    default: 0
  node:
    description: Name of the node, in messages about its space.
    type: str
    default: the node
  whole:
    description: Distributions the node already has undamaged, name to version; their wheels are not needed there.
    type: dict
    default: {}
  node_space:
    description: Free bytes and device of the node's paths, as M(pytorch_state) returns them.
    type: dict
    default: {}
  venv:
    description: Path among O(node_space) that will hold the unpacked wheels.
    type: str
    default: ""
  wheels_dir:
    description: Path among O(node_space) that will hold the copied wheels.
    type: str
    default: ""
attributes:
  check_mode:
    description: Says whether a download would be made; an absent set is returned empty.
    support: full
  diff_mode:
    description: Nothing to show.
    support: none
author:
  - Rackwright
"""

EXAMPLES = r"""
- name: Download PyTorch for Debian 12 nodes
  wheelhouse:
    root: build/wheelhouse
    name: torch-2.13.0+cpu
    requirements: ["torch==2.13.0+cpu"]
    packages: [numpy]
    python: "3.11"
  delegate_to: localhost
"""

RETURN = r"""
wheelhouse:
  description: The set.
  type: dict
  returned: always
  contains:
    path: {description: Directory of the set on the control node., type: str}
    key: {description: Name of that directory., type: str}
    files: {description: All wheels with their sizes and hashes., type: list, elements: dict}
    needed: {description: The wheels the node lacks., type: list, elements: dict}
    bytes: {description: Size of the needed wheels., type: int}
    installed_bytes: {description: Size of the needed wheels when unpacked., type: int}
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.pyenv_build import system_error
from ansible.module_utils.rackwright.wheel_install import Attempt, check_space
from ansible.module_utils.rackwright.wheelhouse import SetRequest, Target, make_set
from ansible.module_utils.rackwright.wheels import Need, canonical

ARGUMENT_SPEC = {
    "root": {"type": "path", "required": True},
    "name": {"type": "str", "required": True},
    "requirements": {"type": "list", "elements": "str", "required": True},
    "packages": {"type": "list", "elements": "str", "default": []},
    "python": {"type": "str", "required": True},
    "arch": {"type": "str", "default": "x86_64"},
    "markers": {"type": "dict", "default": {}},
    "index_url": {"type": "str", "no_log": True},
    "extra_index_url": {"type": "str"},
    "extra_args": {"type": "list", "elements": "str", "default": []},
    "estimate": {"type": "int", "default": 0},
    "node": {"type": "str", "default": "the node"},
    "whole": {"type": "dict", "default": {}},
    "node_space": {"type": "dict", "default": {}},
    "venv": {"type": "str", "default": ""},
    "wheels_dir": {"type": "str", "default": ""},
}


def build_request(params: dict[str, Any]) -> SetRequest:
    """Turn module parameters into a request."""
    attempts = [Attempt(requirement) for requirement in params["requirements"]]
    if params["extra_index_url"] and not params["index_url"]:
        attempts.append(Attempt(params["requirements"][0], params["extra_index_url"]))
    return SetRequest(
        root=Path(params["root"]).resolve(),
        name=params["name"],
        attempts=tuple(attempts),
        packages=tuple(params["packages"]),
        target=Target(params["python"], params["arch"], params["markers"]),
        index_url=params["index_url"] or None,
        extra_args=tuple(params["extra_args"]),
        estimate=params["estimate"],
    )


def check_node(params: dict[str, Any], needed: list[dict[str, Any]]) -> None:
    """Refuse before a byte is copied when the node lacks room for the wheels and for what is inside them."""
    size = sum(entry["size"] for entry in needed)
    installed = sum(entry["installed"] for entry in needed)
    needs = [Need(params["venv"], int(installed * 1.05)), Need(params["wheels_dir"], size)]
    check_space(f"{params['name']} of node {params['node']}", needs, params["node_space"])


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    request = build_request(module.params)
    try:
        manifest, made = make_set(module.run_command, request, module.check_mode)
        whole = module.params["whole"]
        needed = [entry for entry in manifest["files"] if whole.get(canonical(entry["name"])) != entry["version"]]
        check_node(module.params, needed)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    except OSError as error:
        module.fail_json(**system_error("make a set of wheels", str(request.directory), error).to_result())
    module.exit_json(
        changed=made,
        wheelhouse={
            "path": str(request.directory),
            "key": request.key,
            "files": manifest["files"],
            "needed": needed,
            "bytes": sum(entry["size"] for entry in needed),
            "installed_bytes": sum(entry["installed"] for entry in needed),
        },
    )


if __name__ == "__main__":
    main()
