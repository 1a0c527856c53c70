#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Tell what kind of machine this is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_state
short_description: Tell distribution, container, kernels, limits and pending reboot of a node
description:
  - Reads files only and changes nothing. One call returns everything the roles for the host decide by, so that no task
    has to be skipped or repeated for it.
  - Needs no fact gathering and no program on the node besides Python 3.9.
options:
  root:
    description: Root of the file system to look at.
    type: path
    default: /
attributes:
  check_mode:
    description: Can run in check mode and returns the same values.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
  platform:
    description: Target systems.
    support: full
    platforms: posix
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Inspect the node
  host_state:
  register: __my_role_host
"""

RETURN = r"""
host:
  description:
    - >-
      The record (schema 1): C(hostname), C(platform) (id, version, major, codename, name, key, family, machine),
      C(container) (kind
      or null), C(wsl), C(kernel) (running, installed, images, headers, note; C(boots), the kernel that boots next, null
      in a container or where only root may read it, with C(boots_reason)), C(initramfs) (command or null, note),
      C(time_daemons),
      C(limits) (may_raise, nofile, memlock_kib; null is unlimited), C(booted_at) (seconds since the epoch), C(reboot)
      (required, reason; C(blocked), why a reboot would leave the node without its NVIDIA driver, or null).
  returned: always
  type: dict
  sample:
    platform: {id: debian, version: "12", key: "debian 12", family: debian}
    container: null
    reboot: {required: true, reason: "Kernel 6.1.0-56-amd64 is installed, 6.1.0-50-amd64 is running."}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.host import inspect_host
from ansible.module_utils.rackwright.kernel_guard import blocked_reboot

ARGUMENT_SPEC = {"root": {"type": "path", "default": "/"}}


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    root = Path(module.params["root"])
    host = inspect_host(root)
    host["reboot"]["blocked"] = blocked_reboot(root, host["kernel"], host["container"])
    module.exit_json(changed=False, host=host)


if __name__ == "__main__":
    main()
