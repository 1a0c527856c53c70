#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Write or remove the receipt of a role."""

from __future__ import annotations

DOCUMENTATION = r"""
module: receipt
short_description: Write down what a role left on a node, or take that back
description:
  - The last task of a role. Looks at the files, packages, services, kernel settings, kernels and Python environments
    the role lists and writes them as found to C(<directory>/<role>.json), together with the digest of what the role
    was run with. M(node_probe) compares it with the node later and names what differs.
  - The action plugin of the same name computes the digest on the control node, from the values of all options of the
    role's argument spec, the lock entries that C(roles/<role>/meta/receipt.yml) names, and the role's files.
  - Written last and atomically. A listed item that is missing, or a failure to write, fails the task and leaves no
    receipt. With O(state=absent) as the first task of a role, a role that is interrupted has none either.
  - A receipt is Rackwright's own bookkeeping and no change of the node, so the task never reports a change.
  - What a receipt covers and what not is described in C(docs/receipts.md).
options:
  role:
    description: Name of the role.
    type: str
    required: true
  state:
    description: Whether the role has a receipt.
    type: str
    choices: [present, absent]
    default: present
  files:
    description: Files the role manages; content, owner, group and mode are recorded.
    type: list
    elements: path
    default: []
  absent:
    description: Paths the role removed; they must not be there.
    type: list
    elements: path
    default: []
  packages:
    description:
      - Exact package names (C(name), C(name:architecture); a C(=version) is ignored); version and hold are recorded.
      - One that is not installed, such as a group, is recorded as that, with a warning.
    type: list
    elements: str
    default: []
  present:
    description: Packages that must be installed in whatever version, because the site lets them move.
    type: list
    elements: str
    default: []
  services:
    description: Units the role manages.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the unit.
        type: str
        required: true
      enabled:
        description: Whether the role manages that the unit starts at boot. Enabled or disabled is recorded as found.
        type: bool
        default: true
      active:
        description: Whether the role manages that the unit runs. Running or not is recorded as found.
        type: bool
        default: true
  sysctls:
    description: Kernel settings the role manages; the running value is recorded.
    type: list
    elements: str
    default: []
  kernels:
    description: Whether the installed kernels are recorded, each with its headers. A container has none.
    type: bool
    default: false
  modules:
    description: Kernel modules recorded for each installed kernel, as names. Needs O(kernels=true).
    type: list
    elements: str
    default: []
  venvs:
    description: Python environments the role manages.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Directory of the environment.
        type: path
        required: true
      packages:
        description: Packages the role manages there; every package of the environment when left out.
        type: list
        elements: str
      environment:
        description: Whether the role manages the environment itself (interpreter, settings, owner and mode).
        type: bool
        default: true
  expected:
    description:
      - What the role was run with, as C(digest), C(inputs), C(lock) and C(files_digest). The action plugin fills it in.
    type: dict
  directory:
    description: Where the node keeps its receipts.
    type: path
    default: /var/lib/rackwright/receipts
attributes:
  check_mode:
    support: full
    description: Writes and removes nothing.
  diff_mode:
    support: none
    description: A receipt is no change of the node.
  platform:
    support: full
    platforms: linux
    description: Linux, with Python 3.9 or later. Needs root.
author:
  - Rackwright contributors
"""

EXAMPLES = r"""
- name: Take back the receipt while the role works
  receipt:
    role: os_base
    state: absent

- name: Write the receipt
  receipt:
    role: os_base
    files: [/etc/security/limits.d/90-rackwright.conf]
    absent: [/etc/modprobe.d/rackwright-nouveau.conf]
    packages: [build-essential, cmake]
    services:
      - name: systemd-timesyncd
        active: false
    kernels: true
"""

RETURN = r"""
written:
  description: Whether a receipt was written or removed. False in check mode and where the same one was there.
  returned: success
  type: bool
receipt:
  description: Path of the receipt.
  returned: success
  type: str
  sample: /var/lib/rackwright/receipts/os_base.json
recorded:
  description: The items as found, in the shape of docs/receipts.md.
  returned: success, with O(state=present), not in check mode
  type: dict
"""

import datetime
import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError
from ansible.module_utils.rackwright.receipt_items import Node, not_installed
from ansible.module_utils.rackwright.receipt_store import record, remove
from ansible.module_utils.rackwright.receipts import DIRECTORY

EXPECTED = {"digest", "inputs", "lock", "files_digest"}
ARGUMENT_SPEC: dict[str, Any] = {
    "role": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "files": {"type": "list", "elements": "path", "default": []},
    "absent": {"type": "list", "elements": "path", "default": []},
    "packages": {"type": "list", "elements": "str", "default": []},
    "present": {"type": "list", "elements": "str", "default": []},
    "services": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "enabled": {"type": "bool", "default": True},
            "active": {"type": "bool", "default": True},
        },
    },
    "sysctls": {"type": "list", "elements": "str", "default": []},
    "kernels": {"type": "bool", "default": False},
    "modules": {"type": "list", "elements": "str", "default": []},
    "venvs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "packages": {"type": "list", "elements": "str"},
            "environment": {"type": "bool", "default": True},
        },
    },
    "expected": {"type": "dict"},
    "directory": {"type": "path", "default": DIRECTORY},
}


def check(params: dict[str, Any]) -> None:
    """Refuse what cannot be written down."""
    role = params["role"]
    if not re.fullmatch(r"[a-z][a-z0-9_]*", role):
        raise InvalidInputError("use the option role", "receipt", f"'{role}' names no role", "Give the role's name")
    if params["modules"] and not params["kernels"]:
        raise InvalidInputError(
            "record kernel modules", f"the role {role}", "kernels is false", "Set kernels: true beside modules"
        )
    if params["state"] == "present" and not set(params["expected"] or {}) >= EXPECTED:
        raise InvalidInputError(
            "write the receipt",
            f"the role {role}",
            "the action plugin did not say what the role was run with",
            "Call the module receipt from a playbook of this checkout, where action_plugins/receipt.py lies",
        )


def run(module: AnsibleModule) -> None:
    """Do what was asked for and end the module."""
    params = module.params
    check(params)
    role, directory = params["role"], params["directory"]
    result: dict[str, Any] = {"changed": False, "receipt": os.path.join(directory, f"{role}.json")}
    if params["state"] == "absent":
        there = remove(directory, role, check=module.check_mode)
        module.exit_json(written=there and not module.check_mode, **result)
    if module.check_mode:
        module.exit_json(written=False, **result)
    names = {kind: [name.partition("=")[0] for name in params[kind]] for kind in ("packages", "present")}
    wanted = {**params, **names}
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    written, items = record(directory, role, params["expected"], wanted, Node(), now)
    missing = not_installed(items)
    if missing:
        module.warn(
            f"{role} lists packages that are not installed: {', '.join(missing)}. Only their coming is noticed."
        )
    module.exit_json(written=written, recorded=items, **result)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        run(module)
    except RackwrightError as error:
        module.fail_json(**error.to_result())


if __name__ == "__main__":
    main()
