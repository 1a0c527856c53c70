#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Decide which NVIDIA driver packages a node gets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_plan
short_description: Decide which NVIDIA driver packages a node gets
description:
  - Reads the node's sources, lists and packages, and resolves the driver of the lock to one exact version for every
    package. A version the source does not have is refused with those it has, before anything is changed.
  - Where the node's own lists cannot answer (a repository that is not configured yet, components that are lacking), the
    repository is asked through lists in a temporary folder. So the answer is the real one in check mode too, and the
    node stays as it is.
  - Changes nothing.
options:
  gpu:
    description: What M(gpu_facts) returned.
    type: dict
    required: true
  driver:
    description:
      - The C(driver) of the node's entry in the lock. Left out where the lock has no driver for the node; a node that
        has a GPU all the same is refused.
    type: dict
  fabric_manager:
    description:
      - The stack's C(fabric_manager) in the lock, empty where the node needs none. Its packages come with the driver's,
        in the driver's version; one that the node has and the lock does not is removed.
      - Refused where lock and node disagree about NVSwitch.
    type: dict
  repository:
    description: The repository to take the driver from, where it is not the lock's; as in M(vendor_repository).
    type: dict
    default: {}
  extra_packages:
    description: Further packages of the driver.
    type: list
    elements: str
    default: []
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
  replace_busy:
    description: Whether a loaded driver may be replaced by another version while processes hold a GPU.
    type: bool
    default: false
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
    driver: "{{ __stack.driver }}"
  register: __my_role_plan
"""

RETURN = r"""
plan:
  description:
    - >-
      C(action) is C(install) or C(skip) (then only C(reason) follows).
    - >-
      C(manager) (apt, dnf), C(source), C(anchor) (the package whose version is the driver's), C(version) and
      C(upstream) (the chosen version of the package and NVIDIA's own), C(sources) (patterns of the source packages
      that have it; empty where names tell), C(installed), C(available).
    - >-
      C(packages) (name=version), C(remove), C(precedes) (name=version, installed before the driver),
      C(precedes_remove), C(streams), C(holds), C(pending) (what would change), C(notes).
    - >-
      C(kernels) that get a module, C(module_note) (why none does), C(replaces) (installed driver that another one would
      replace, or null), C(busy) (processes that hold a GPU).
    - >-
      C(files), C(source_files) (what to write), C(source_paths) (the distribution's own source files), C(repository)
      (what M(vendor_repository) is to be called with).
  returned: success
  type: dict
  sample:
    action: install
    upstream: 535.309.01
    pending: [install nvidia-smi 535.309.01-0+deb12u1]
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright import fabric
from ansible.module_utils.rackwright.driver_plan import request_from_lock
from ansible.module_utils.rackwright.driver_probe import make_plan, side_for
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.host import inspect_host
from ansible.module_utils.rackwright.packages import Installed
from ansible.module_utils.rackwright.packages_apt import module_runner

ARGUMENT_SPEC = {
    "gpu": {"type": "dict", "required": True},
    "driver": {"type": "dict"},
    "fabric_manager": {"type": "dict"},
    "repository": {"type": "dict", "default": {}},
    "extra_packages": {"type": "list", "elements": "str", "default": []},
    "kernel_module": {"type": "str", "choices": ["auto", "build", "none"], "default": "auto"},
    "require_gpu": {"type": "bool", "default": True},
    "replace_busy": {"type": "bool", "default": False},
    "lock_timeout": {"type": "int", "default": 300},
}


def drop_leftovers(
    plan: dict[str, Any], statuses: dict[str, Installed], manager: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the plan without the fabric managers that the lock does not have: they go with the same transaction."""
    gone = fabric.leftovers(statuses, manager) if plan["action"] == "install" else []
    if not gone:
        return plan
    new = [name for name in gone if name not in plan["remove"]]
    return {
        **plan,
        "packages": [one for one in plan["packages"] if one.partition("=")[0] not in gone],
        "holds": [one for one in plan["holds"] if one not in gone],
        "remove": plan["remove"] + new,
        "pending": plan["pending"] + [f"remove {name} {statuses[name].version}" for name in new],
    }


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    driver, manager = fabric.with_services(options["driver"], options["fabric_manager"]), options["fabric_manager"]
    request = request_from_lock(driver, options["repository"], options["extra_packages"], options["kernel_module"])
    host = inspect_host()
    try:
        fabric.refuse_mismatch(options["gpu"], driver, manager, platform.node())
        side = side_for(module_runner(module), platform.node(), options["lock_timeout"], host)
        plan = make_plan(
            side,
            host,
            options["gpu"],
            request,
            require_gpu=options["require_gpu"],
            replace_busy=options["replace_busy"],
        )
        plan = drop_leftovers(plan, side.statuses(), manager)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(changed=False, plan=plan)


if __name__ == "__main__":
    main()
