#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Keep the record of a node's update: where it is, where it came from, and how it ended."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: update_state
short_description: Write the next state of a node's update, on the node and on the control node
description:
  - The record survives reboots of the node and the death of the control process, so that the next run goes on where
    this one was.
  - The action plugin of the same name works out the record, keeps a copy of it below C(reports) of O(update) on the
    control node, and has this module write it on the node. A node that does not answer makes the task fail like any
    other, so that a C(rescue) catches it.
  - Bookkeeping, not a change of the node, so C(changed) is always false.
options:
  update:
    description: What update_plan placed with the host, with the record as the run begins with it.
    type: dict
  step:
    description: Step that begins; the one before it ends.
    type: str
  state:
    description: State of the update.
    type: str
    choices: [open, done, rolled_back, stuck, refused, busy, unreachable, forgotten]
  phase:
    description: Phase of the update.
    type: str
    choices: [prepare, forward, back]
  reason:
    description: Why it ended as it did.
    type: str
  drain:
    description: What node_drain returned.
    type: dict
  before:
    description: What the node is compared with afterwards; kept once.
    type: dict
  return_point:
    description: What the module return_point found; kept once.
    type: dict
  measured:
    description: What was measured before the update (C(command) and its C(stdout), C(torch)); kept once.
    type: dict
  answer:
    description: Whether a node that does not answer is a failure.
    type: bool
    default: true
  path:
    description: File on the node.
    type: path
    default: /var/lib/rackwright/update.json
  content:
    description: The record to write; the action plugin fills it.
    type: dict
attributes:
  check_mode:
    support: full
    description: Nothing is written.
  diff_mode:
    support: none
    description: The record is no configuration.
  platform:
    support: full
    platforms: linux
    description: Linux with Python 3.9 or later.
author:
  - Rackwright contributors
"""

EXAMPLES = r"""
- name: Note that the installation begins
  update_state:
    update: "{{ __update }}"
    step: install
    phase: forward
  become: true
"""

RETURN = r"""
record:
  description: The record as it was written.
  returned: always
  type: dict
answered:
  description: Whether the node took it.
  returned: always
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.rollout_state import PATH, PHASES, STATES
from ansible.module_utils.rackwright.update_store import write

# all but the last two are the action plugin's
ARGUMENT_SPEC: dict[str, Any] = {
    "update": {"type": "dict"},
    "step": {"type": "str"},
    "state": {"type": "str", "choices": list(STATES)},
    "phase": {"type": "str", "choices": list(PHASES)},
    "reason": {"type": "str"},
    "drain": {"type": "dict"},
    "before": {"type": "dict"},
    "return_point": {"type": "dict"},
    "measured": {"type": "dict"},
    "answer": {"type": "bool", "default": True},
    "path": {"type": "path", "default": PATH},
    "content": {"type": "dict"},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    content = module.params["content"]
    if content is None:
        module.fail_json(
            msg="Could not write the record: the action plugin did not say which. Call it from a playbook."
        )
    try:
        if not module.check_mode:
            write(module.params["path"], content)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
