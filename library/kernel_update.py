#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Choose the kernel a node goes to, or take one away again."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kernel_update
short_description: Tell which kernel a node would go to, or remove one that must not boot
description:
  - With O(state=planned) tells the newest kernel of the node's flavour that its sources have, or the one that is asked
    for, and the packages that bring it with its headers. In a container only headers come.
  - With O(state=absent) removes the packages of a kernel, also of the running one, so that the older one boots next.
options:
  state:
    description: What is asked for.
    type: str
    choices: [planned, absent]
    default: planned
  version:
    description: V(newest), or a release like C(6.1.0-57-amd64).
    type: str
    default: newest
  headers:
    description: Packages of headers, with C({kernel}) for the release.
    type: list
    elements: str
    default: []
  packages:
    description: Packages to remove.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Nothing is removed.
  diff_mode:
    support: none
    description: No file is changed by the module itself.
  platform:
    support: full
    platforms: linux
    description: Debian, Ubuntu and the RHEL family.
author:
  - Rackwright contributors
"""

EXAMPLES = r"""
- name: Choose the kernel
  kernel_update:
    headers: ["linux-headers-{kernel}"]
  become: true
  register: __update_kernel
"""

RETURN = r"""
kernel:
  description: C(running), C(present), C(target), C(container), C(packages) to install, C(current) (nothing to be done).
  returned: state planned
  type: dict
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright import kernel_update
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.host import inspect_host

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["planned", "absent"], "default": "planned"},
    "version": {"type": "str", "default": "newest"},
    "headers": {"type": "list", "elements": "str", "default": []},
    "packages": {"type": "list", "elements": "str", "default": []},
}


def remove(module: AnsibleModule, family: str) -> None:
    """Remove the packages and end the module."""
    packages = module.params["packages"]
    if packages and not module.check_mode:
        environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        for command, text in kernel_update.removal(family, packages):
            code, out, err = module.run_command(command, data=text, environ_update=environment)
            if code != 0:
                said = " ".join(f"{err} {out}".split())[-300:]
                module.fail_json(
                    msg=f"Could not remove {', '.join(packages)} on {platform.node()}: {said}. Remove them by hand."
                )
    module.exit_json(changed=bool(packages))


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    host = inspect_host()
    family, node = host["platform"]["family"], platform.node()
    if module.params["state"] == "absent":
        remove(module, family)
    try:
        there = kernel_update.present(host)
        kind = kernel_update.flavour(there[-1] if there else host["kernel"]["running"])
        releases = kernel_update.offered(module.run_command, family, kind, node)
        chosen = kernel_update.plan(host, releases, module.params["version"], module.params["headers"], node)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(changed=False, kernel=chosen)


if __name__ == "__main__":
    main()
