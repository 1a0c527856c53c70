#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Decide which packages of CUDA toolkits a node gets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cuda_plan
short_description: Decide which packages of CUDA toolkits a node gets
description:
  - Resolves the toolkit releases of the lock, and its versions of cuDNN and NCCL where they are asked for, to one exact
    version of each package that the node's sources offer. What is installed and fits stays.
  - A version that no source has is refused with those there are. Changes nothing.
options:
  toolkit:
    description: The C(toolkit) of the node's entry in the lock.
    type: dict
    required: true
  libraries:
    description: The C(libraries) of that entry.
    type: dict
    required: true
  cudnn:
    description: Whether the packages of cuDNN are wanted.
    type: bool
    default: false
  nccl:
    description: Whether the packages of NCCL are wanted.
    type: bool
    default: false
  refresh:
    description: Whether the package lists are refreshed first. Not in check mode.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for other package managers.
    type: int
    default: 300
attributes:
  check_mode:
    description: >-
      Can run in check mode. Where the sources do not offer a package, its name alone stands in: the repository may not
      be configured yet.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
  platform:
    description: Target systems.
    support: full
    platforms: debian, rhel
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Choose the packages
  cuda_plan:
    toolkit: "{{ __stack.toolkit }}"
    libraries: "{{ __stack.libraries }}"
    nccl: true
  register: __my_role_plan
"""

RETURN = r"""
packages:
  description: C(name=version) of each package, for M(package_set).
  returned: success
  type: list
  elements: str
  sample: [cuda-toolkit-12-8=12.8.1-1]
names:
  description: The names alone.
  returned: success
  type: list
  elements: str
pins:
  description: What the lock says, for messages.
  returned: success
  type: list
  elements: str
  sample: [cuda-toolkit-12-8 12.8.1]
"""

import platform

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.cuda_toolkit import resolve, wanted_packages
from ansible.module_utils.rackwright.errors import MissingError, RackwrightError
from ansible.module_utils.rackwright.packages_any import package_manager
from ansible.module_utils.rackwright.packages_apt import module_runner

ARGUMENT_SPEC = {
    "toolkit": {"type": "dict", "required": True},
    "libraries": {"type": "dict", "required": True},
    "cudnn": {"type": "bool", "default": False},
    "nccl": {"type": "bool", "default": False},
    "refresh": {"type": "bool", "default": False},
    "lock_timeout": {"type": "int", "default": 300},
}


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options, node = module.params, platform.node()
    try:
        wanted = wanted_packages(options["toolkit"], options["libraries"], options["cudnn"], options["nccl"], node)
        manager = package_manager(module_runner(module), node, options["lock_timeout"])
        if options["refresh"] and not module.check_mode:
            manager.update()
        names = [item.name for item in wanted]
        pins = [f"{item.name} {item.prefix}{item.part}" for item in wanted]
        try:
            packages = resolve(wanted, manager.candidates(names), manager.statuses(), node)
        except MissingError:
            if not module.check_mode:
                raise
            packages = names
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(changed=False, packages=packages, names=names, pins=pins)


if __name__ == "__main__":
    main()
