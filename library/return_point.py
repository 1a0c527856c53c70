#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Tell what a node needs to come back to the driver it has."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: return_point
short_description: Record the packages of a node's driver and tell whether they can be installed again
description:
  - Reads the installed packages of the NVIDIA driver with their versions and holds, asks the package manager whether a
    source still offers each of them, and tells the free space and whether a reboot is pending.
  - Read-only. What an update makes of it is decided by update_plan.
options:
  sources:
    description: Patterns of the driver's source packages (distribution archive); none where package names tell.
    type: list
    elements: str
    default: []
  extra:
    description: Further packages that have to come back with the driver, such as the fabric manager.
    type: list
    elements: str
    default: []
  min_free_mib:
    description: Paths and the MiB that must be free there.
    type: dict
    default: {}
  lock_timeout:
    description: Seconds to wait for another package manager.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed.
  diff_mode:
    support: none
    description: Nothing is ever changed.
  platform:
    support: full
    platforms: linux
    description: Systems with apt or dnf.
author:
  - Rackwright contributors
"""

EXAMPLES = r"""
- name: Record the return point
  return_point:
    min_free_mib: {/usr: 1024, /var: 1024}
  become: true
  register: __update_point
"""

RETURN = r"""
point:
  description:
    - C(packages) (name to version), C(broken) (not completely installed), C(holds), C(unobtainable) (name=version
      that no source has any more), C(free_mib) and C(needed_mib) (path to MiB), C(reboot_pending) (what says so, or
      null).
  returned: success
  type: dict
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.packages_any import package_manager
from ansible.module_utils.rackwright.packages_apt import module_runner
from ansible.module_utils.rackwright.return_point import look

ARGUMENT_SPEC: dict[str, Any] = {
    "sources": {"type": "list", "elements": "str", "default": []},
    "extra": {"type": "list", "elements": "str", "default": []},
    "min_free_mib": {"type": "dict", "default": {}},
    "lock_timeout": {"type": "int", "default": 300},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    needed = {path: int(mib) for path, mib in options["min_free_mib"].items()}
    try:
        manager = package_manager(module_runner(module), platform.node(), options["lock_timeout"])
        point = look(manager, options["sources"], options["extra"], needed)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(changed=False, point=point)


if __name__ == "__main__":
    main()
