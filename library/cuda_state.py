#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Choose the CUDA toolkit of a node and prove that every toolkit compiles."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_state
short_description: Choose the CUDA toolkit of a node and prove that every toolkit compiles
description:
  - Asks each toolkit for its version, chooses a host compiler it takes, and compiles a kernel for every kind of GPU of
    the node. What comes out must be GPU code. Where a GPU can run programs, the kernel is launched and its answer
    compared.
  - Makes C(/usr/local/cuda) name the chosen one, through the alternatives that NVIDIA's packages register.
options:
  toolkit:
    description: The C(toolkit) of the node's entry in the lock.
    type: dict
    required: true
  source:
    description: Where the toolkits are, V(packages) below C(/usr/local), V(wheels) in Python environments.
    type: str
    choices: [packages, wheels]
    default: packages
  env_path:
    description: Directory with one environment for each line, for O(source=wheels).
    type: path
    default: /opt/rackwright/cuda
  link:
    description: Whether C(/usr/local/cuda) is managed.
    type: bool
    default: true
  capabilities:
    description: Compute capabilities of the node's GPUs; without any, the newest one the toolkit knows.
    type: list
    elements: str
    default: []
  launch:
    description: Whether a GPU can run the kernel.
    type: bool
    default: false
  host_compiler:
    description: C++ compiler to use; empty chooses the newest one the toolkit takes.
    type: str
    default: ""
attributes:
  check_mode:
    description: Changes no link; toolkits that are not there yet are no error.
    support: full
  diff_mode:
    description: Shows what C(/usr/local/cuda) names.
    support: full
  platform:
    description: Target systems.
    support: full
    platforms: linux
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Choose and prove
  cuda_state:
    toolkit: "{{ __stack.toolkit }}"
    capabilities: ["9.0"]
  register: __my_role_state
"""

RETURN = r"""
toolkits:
  description: >-
    Line to C(version) of nvcc, C(home), C(host_compiler), C(compiled_for) and C(ran) (null where no GPU can run
    programs).
  returned: success
  type: dict
  sample: {"12.8": {version: 12.8.93, home: /usr/local/cuda-12.8, host_compiler: g++, compiled_for: [sm_90], ran: null}}
linked:
  description: Directory that C(/usr/local/cuda) names.
  returned: success
  type: str
"""

import os
import platform
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.cuda_proof import LINK, link_to, linked, package_home, prove, wheel_home
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.packages_apt import Run, module_runner

ARGUMENT_SPEC = {
    "toolkit": {"type": "dict", "required": True},
    "source": {"type": "str", "choices": ["packages", "wheels"], "default": "packages"},
    "env_path": {"type": "path", "default": "/opt/rackwright/cuda"},
    "link": {"type": "bool", "default": True},
    "capabilities": {"type": "list", "elements": "str", "default": []},
    "launch": {"type": "bool", "default": False},
    "host_compiler": {"type": "str", "default": ""},
}


def prove_all(run: Run, options: dict[str, Any], tolerant: bool, node: str) -> dict[str, Any]:
    """Return what each toolkit showed; one that is not there yet is left out where that is tolerated."""
    found = {}
    for row in options["toolkit"]["releases"]:
        line, env = row["cuda"], Path(options["env_path"]) / row["cuda"]
        home = package_home(line) if options["source"] == "packages" else wheel_home(env, line)
        if tolerant and not home.is_dir():
            continue
        launch, compiler = options["launch"], options["host_compiler"]
        found[line] = prove(run, home, row, options["capabilities"], launch, compiler, node)
    return found


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options, node = module.params, platform.node()
    run = module_runner(module)
    managed = options["link"] and options["source"] == "packages"
    home = package_home(options["toolkit"]["cuda"])
    before = linked()
    changed = managed and before != os.path.realpath(home)
    try:
        toolkits = prove_all(run, options, module.check_mode, node)
        if changed and not module.check_mode:
            link_to(run, home, node)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    after = str(home) if changed and module.check_mode else linked()
    difference = {"before": f"{LINK} -> {before}\n", "after": f"{LINK} -> {after}\n"}
    module.exit_json(changed=changed, toolkits=toolkits, linked=after, diff=difference if changed else {})


if __name__ == "__main__":
    main()
