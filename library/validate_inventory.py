#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which does the work on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: validate_inventory
short_description: Find mistakes in the inventory before any node is contacted
description:
  - Checks the variables of every host of the play against the argument specs of all roles and of the playbooks.
  - Reports variables that carry a role's prefix but that no role reads (with the nearest known name), values of the
    wrong type or outside the choices, and two hosts that share one address.
  - Runs on the control node as an action plugin; no connection to any node is made.
options: {}
attributes:
  check_mode:
    description: Can run in check mode, changes nothing in any mode.
    support: full
  diff_mode:
    description: There is nothing to show a difference of.
    support: none
author:
  - The Rackwright authors (@rackwright)
"""

EXAMPLES = r"""
- name: Validate the inventory
  validate_inventory:
  run_once: true
"""

RETURN = r"""
hosts_checked:
  description: Number of hosts whose variables were read.
  returned: always
  type: int
  sample: 12
problems:
  description: One sentence for every mistake, with the hosts that share it.
  returned: always
  type: list
  elements: str
  sample: []
without_description:
  description: Hosts without C(node_description), which have to be asked what they are.
  returned: always
  type: list
  elements: str
  sample: [gpu-a, gpu-b]
"""
