#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Look at a node once: GPU facts, what planning needs besides, and its receipts."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: node_probe
short_description: Tell in one round trip what a node is and whether its receipts still hold
description:
  - Returns the fact C(gpu) of M(gpu_facts), the fact C(node) with what planning decides by beside the GPUs, and every
    receipt that roles left on the node, compared with the node as it is now.
  - Every value is either known or C(null) with a reason in C(missing).
  - Read-only. Without root, receipts and some managed items cannot be read, which counts against them.
  - The action plugin of the same name sends one packed script over a pipelined connection, which costs less than an
    ordinary module. Where the connection cannot do that, the ordinary module runs, with the same answer.
options:
  sysroot:
    description:
      - Root put in front of every path below C(/proc), C(/sys), C(/dev) and C(/run) that is read for the GPUs.
      - Other than C(/) only for nodes whose kernel files are prepared elsewhere, as on simulated nodes.
    type: path
    default: /
  timeout:
    description: Seconds the driver may take for all answers together.
    type: float
    default: 30.0
  extra_gpus:
    description: Rows added to the catalogue of GPU models, as for M(gpu_facts).
    type: list
    elements: dict
    default: []
  receipts_dir:
    description: Where the node keeps its receipts.
    type: path
    default: /var/lib/rackwright/receipts
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed, so check mode makes no difference.
  diff_mode:
    support: none
    description: Nothing is ever changed.
  facts:
    support: full
    description: Returns the facts C(gpu) and C(node), which are cached where a fact cache is configured.
  platform:
    support: full
    platforms: linux
    description: Linux, also in containers and in WSL2, with Python 3.9 or later.
author:
  - Rackwright contributors
"""

EXAMPLES = r"""
- name: Probe the node
  node_probe:
  become: true
  register: __site_probe

- name: Show what drifted
  ansible.builtin.debug:
    msg: "{{ __site_probe.receipts | dict2items | map(attribute='value.drift') | flatten }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts of the node.
  returned: always
  type: complex
  contains:
    gpu:
      description: The fact of M(gpu_facts); its schema is in docs/gpu-facts.md.
      returned: always
      type: dict
    node:
      description: What planning decides by beside the GPUs.
      returned: always
      type: dict
      contains:
        schema:
          description: Version of this structure.
          type: int
          returned: always
          sample: 1
        platform:
          description: Distribution (id, version, major, codename, name, key, family, machine).
          type: dict
          returned: always
          sample: {id: debian, version: "12", key: debian 12, family: debian}
        kernel:
          description: The running kernel, the installed ones and those with headers; a container has none installed.
          type: dict
          returned: always
          sample: {running: 6.1.0-56-amd64, installed: [6.1.0-56-amd64], headers: [6.1.0-56-amd64]}
        container:
          description: Kind of container this is, null on a machine with a kernel of its own.
          type: str
          returned: always
          sample: null
        wsl:
          description: Whether this is WSL2.
          type: bool
          returned: always
          sample: false
        machine:
          description: Processor architecture.
          type: str
          returned: always
          sample: x86_64
        python:
          description: Version of /usr/bin/python3.
          type: str
          returned: always
          sample: 3.11.2
        pythons:
          description: Interpreters in /usr/bin and /usr/local/bin by minor version.
          type: dict
          returned: always
          sample: {"3.11": /usr/bin/python3.11}
        glibc:
          description: Version of the GNU C library.
          type: str
          returned: always
          sample: "2.36"
        secure_boot:
          description: Whether the firmware enforces secure boot; false where the system was not started by EFI.
          type: bool
          returned: always
          sample: false
        secure_boot_reason:
          description: Why RV(ansible_facts.node.secure_boot) is null, else null.
          type: str
          returned: always
          sample: null
        dkms:
          description: Version of DKMS.
          type: str
          returned: always
          sample: 3.0.10
        missing:
          description: Why each null value is null.
          type: dict
          returned: always
receipts:
  description:
    - By role what its receipt says (C(role), C(digest), C(inputs), C(lock), C(files_digest), C(written_at)), C(drift)
      with one sentence for each managed item that is not as the role left it, and C(problem).
    - With a C(problem), the receipt cannot be believed, and has none of the other keys but C(drift).
  returned: always
  type: dict
  sample:
    os_base:
      role: os_base
      digest: sha256:5d0f
      problem: null
      drift: [/etc/modprobe.d/rackwright-nouveau.conf edited by hand]
receipts_problem:
  description: Why no receipt could be looked at, null where they could.
  returned: always
  type: str
  sample: could not read the receipts as an unprivileged user
update:
  description: Record of the node's last update (module C(update_state)), null when it never had one.
  returned: always
  type: dict
update_problem:
  description: Why there is none that can be believed, null where there is one or was none to read.
  returned: always
  type: str
  sample: the record of its update is damaged (not JSON)
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.node_record import look
from ansible.module_utils.rackwright.receipts import DIRECTORY

ARGUMENT_SPEC: dict[str, Any] = {
    "sysroot": {"type": "path", "default": "/"},
    "timeout": {"type": "float", "default": 30.0},
    "extra_gpus": {"type": "list", "elements": "dict", "default": []},
    "receipts_dir": {"type": "path", "default": DIRECTORY},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = look(module.params)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
