#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which does the work on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_plan
short_description: Solve the versions of a whole fleet, or hold it against its lock
description:
  - Runs on the control node as an action plugin, once for all hosts of the play; no connection to any node is made.
  - Reads the intent (C(stack_*) variables), the facts C(gpu) and C(node) of this run or C(node_description), and the
    tables of the role C(gpu_stack).
  - A node that cannot be solved stops no other; it is named with the gate that failed and the nearest alternatives.
options:
  mode:
    description:
      - V(plan) solves every host and writes the lock. Hosts that are not in the play, or that did not answer, keep
        their entry.
      - V(check) holds every host against the lock and its receipts, and says what is stale and why.
      - V(entry) returns what the lock has for this host.
      - V(expect) returns the versions that the proof of each host has to find; without a lock none.
    type: str
    choices: [plan, check, entry, expect]
    required: true
  lock:
    description:
      - Path of the lock on the control node. By default C(stack_lock_file), else C(stack.lock.yml) in the directory of
        the inventory.
    type: path
  roles:
    description: For V(check), the roles in the order in which they are applied.
    type: list
    elements: str
    default: []
  probe:
    description: Name of the variable that M(node_probe) was registered in.
    type: str
    default: __site_probe
  facts:
    description: V(gather) believes only facts of this run, V(cache) also cached ones, and says how old they are.
    type: str
    choices: [gather, cache]
    default: gather
  max_age:
    description: Hours after which cached facts are called stale.
    type: float
    default: 168
  receipts:
    description: V(ignore) counts every role as stale.
    type: str
    choices: [use, ignore]
    default: use
  prove:
    description: Which nodes are to be proven, those on which something changed or all.
    type: str
    choices: [changed, all]
    default: changed
  proofs:
    description: Record of the last proofs, which M(fleet_verdict) writes.
    type: path
  report:
    description: File on the control node for the whole answer as JSON.
    type: path
  extra_tables:
    description: The site's own rows for the tables, as a mapping or the path of a YAML file with one; merged last.
    type: raw
  today:
    description: Date as V(YYYY-MM-DD) against which ends of support are held. By default the date of the control node.
    type: str
attributes:
  check_mode:
    description: Writes neither lock nor report.
    support: full
  diff_mode:
    description: Returns the difference of the lock.
    support: full
author:
  - The Rackwright authors (@rackwright)
"""

EXAMPLES = r"""
- name: Solve the fleet and write the lock
  gpu_plan:
    mode: plan
  run_once: true

- name: Hold the fleet against its lock
  gpu_plan:
    mode: check
    roles: [os_base, nvidia_driver, python_env, pytorch]
  run_once: true
  register: __site_plan
"""

RETURN = r"""
table_text:
  description: What people read, as plain text; the callback C(rackwright_summary) prints it.
  returned: mode plan or check
  type: str
unsolved:
  description: Names of the hosts that have no plan.
  returned: mode plan
  type: list
  elements: str
changes:
  description: Per host C(state) (V(new), V(changed), V(same), V(removed), V(explained anew)) and C(reboot).
  returned: mode plan
  type: dict
stale:
  description: Per host the roles to be applied, each with its reasons.
  returned: mode check
  type: dict
set_aside:
  description: Names of the hosts that nothing may be done to.
  returned: mode check
  type: list
  elements: str
placements:
  description: Per host that needs something C(name), C(groups) and C(variables) for M(ansible.builtin.add_host).
  returned: mode check
  type: list
  elements: dict
expected:
  description: Per host C(driver_version) and C(torch_version), as far as the lock promises them.
  returned: mode expect
  type: dict
stack:
  description: What the lock has for this host.
  returned: mode entry
  type: dict
"""
