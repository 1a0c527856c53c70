#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Decide which NVIDIA driver packages a node gets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_plan
short_description: Decide which NVIDIA driver packages of the distribution's archive a node gets
description:
  - Reads the node's sources, lists and packages, and resolves the locked version of the driver to one exact version for
    every package. A version the archive does not have is refused with those it has, before anything is changed.
  - Where the sources lack the components that carry the driver, the mirror is asked through lists in a temporary
    folder. So the
    answer is the real one in check mode too, and the node stays as it is.
  - Changes nothing.
options:
  gpu:
    description: What M(gpu_facts) returned.
    type: dict
    required: true
  anchor:
    description: The package whose versions are the driver's versions.
    type: str
    required: true
  userland:
    description: Packages to install in any case.
    type: list
    elements: str
    required: true
  module_packages:
    description: Packages to install where a kernel module is to be built.
    type: list
    elements: str
    required: true
  sources:
    description: Names of the source packages that have the driver's version.
    type: list
    elements: str
    required: true
  helpers:
    description: Names of source packages that the driver needs and that have versions of their own.
    type: list
    elements: str
    required: true
  components:
    description: Archive components that carry the driver.
    type: list
    elements: str
    required: true
  version:
    description:
      - Exact version of the lock, NVIDIA's (C(535.309.01)) or the package's. Empty where the lock has no driver for
        the node; a node that has a GPU all the same is refused.
    type: str
    required: true
  kernel_module:
    description: >-
      V(auto) builds for each installed kernel that has headers, never in a container; V(build) for all headers there
      are;
      V(none) for none.
    type: str
    choices: [auto, build, none]
    default: auto
  require_gpu:
    description: Whether a node without an NVIDIA GPU on its PCI bus is left alone.
    type: bool
    default: true
  lock_timeout:
    description: Seconds to wait for other package managers.
    type: int
    default: 300
attributes:
  check_mode:
    description: Can run in check mode and returns the same answer.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
  platform:
    description: Target systems.
    support: full
    platforms: debian
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Decide what to install
  driver_plan:
    gpu: "{{ ansible_facts['gpu'] }}"
    anchor: nvidia-smi
    userland: [nvidia-smi, libcuda1]
    module_packages: [nvidia-kernel-dkms]
    sources: [nvidia-graphics-drivers]
    helpers: [nvidia-persistenced]
    components: [contrib, non-free, non-free-firmware]
    version: 535.309.01
  register: __my_role_plan
"""

RETURN = r"""
plan:
  description:
    - >-
      C(action) is C(install) or C(skip) (then only C(reason) follows). C(version) and C(upstream): the chosen version
      of the package and
      NVIDIA's own; C(installed), C(available), C(packages) (name=version), C(pending) (what would change), C(kernels)
      that get a module,
      C(module_note) (why none does), C(source_paths) (the distribution's own source files), C(source_files) and
      C(preferences): what to write.
  returned: success
  type: dict
  sample:
    action: install
    upstream: 535.309.01
    pending: [install nvidia-smi 535.309.01-0+deb12u1]
"""

import platform

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.driver_plan import Request
from ansible.module_utils.rackwright.driver_probe import make_plan
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.host import inspect_host
from ansible.module_utils.rackwright.packages_apt import Apt, module_runner

ARGUMENT_SPEC = {
    "gpu": {"type": "dict", "required": True},
    "anchor": {"type": "str", "required": True},
    "userland": {"type": "list", "elements": "str", "required": True},
    "module_packages": {"type": "list", "elements": "str", "required": True},
    "sources": {"type": "list", "elements": "str", "required": True},
    "helpers": {"type": "list", "elements": "str", "required": True},
    "components": {"type": "list", "elements": "str", "required": True},
    "version": {"type": "str", "required": True},
    "kernel_module": {"type": "str", "choices": ["auto", "build", "none"], "default": "auto"},
    "require_gpu": {"type": "bool", "default": True},
    "lock_timeout": {"type": "int", "default": 300},
}


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = dict(module.params)
    gpu, components = options.pop("gpu"), options.pop("components")
    require_gpu, lock_timeout = options.pop("require_gpu"), options.pop("lock_timeout")
    run = module_runner(module)
    apt = Apt(run, platform.node(), lock_timeout)
    try:
        plan = make_plan(apt, run, inspect_host(), gpu, Request(**options), components, require_gpu)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(changed=False, plan=plan)


if __name__ == "__main__":
    main()
