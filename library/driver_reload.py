#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Load the installed NVIDIA kernel modules in place of those that are loaded."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: driver_reload
short_description: Exchange the loaded NVIDIA kernel modules without a reboot
description:
  - Stops the daemons that hold the GPUs by design, unloads the modules, loads those that are installed, and starts the
    daemons that ran before. A process that still holds a GPU is named, and nothing stays stopped.
options:
  services:
    description: Units that may hold the modules.
    type: list
    elements: str
    default: [dcgm-exporter, nvidia-dcgm, nv-hostengine, nvidia-fabricmanager, nvidia-imex, nvidia-persistenced]
attributes:
  check_mode:
    support: full
    description: Nothing is stopped or unloaded.
  diff_mode:
    support: none
    description: No file is changed.
  platform:
    support: full
    platforms: linux
    description: Linux with systemd.
author:
  - Rackwright contributors
"""

EXAMPLES = r"""
- name: Reload the driver
  driver_reload:
  become: true
"""

RETURN = r"""
actions:
  description: What was done, in order.
  returned: success
  type: list
  sample: [stop nvidia-persistenced, unload nvidia, load nvidia, start nvidia-persistenced]
"""

import os
import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.driver_reload import MODULES, SERVICES, reload
from ansible.module_utils.rackwright.errors import RackwrightError

ARGUMENT_SPEC: dict[str, Any] = {
    "services": {"type": "list", "elements": "str", "default": list(SERVICES)},
}


def holders(proc: str = "/proc") -> list[str]:
    """Return ``name (pid)`` of processes with an open handle of a GPU's device node."""
    found = []
    for pid in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):
        try:
            handles = [os.readlink(f"{proc}/{pid}/fd/{name}") for name in os.listdir(f"{proc}/{pid}/fd")]
            with open(f"{proc}/{pid}/comm", encoding="utf-8", errors="replace") as stream:
                name = stream.read().strip()
        except OSError:
            continue  # it ended while it was looked at
        if any(handle.startswith("/dev/nvidia") for handle in handles):
            found.append(f"{name} ({pid})")
    return found


def loaded(sys_module: str = "/sys/module") -> list[str]:
    """Return the NVIDIA modules that are loaded."""
    return [name for name in MODULES if os.path.isdir(os.path.join(sys_module, name))]


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    if module.check_mode:
        module.exit_json(changed=True, actions=[])
    try:
        actions = reload(
            module.run_command, platform.node(), module.params["services"], loaded() or list(MODULES[-1:]), holders
        )
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(changed=True, actions=actions)


if __name__ == "__main__":
    main()
