#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of this name, which does all the work."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: update_plan
short_description: Order, gates, judgement and report of an update over a fleet
description:
  - Runs on the control node as an action plugin and contacts no node. The playbooks update-driver.yml and
    update-kernel.yml are built from its modes.
options:
  mode:
    description:
      - V(validate) refuses settings that cannot be meant. V(plan) decides what every node is to this run and writes its
        document.
      - V(gate) says which nodes of a batch may begin. V(precheck) and V(prove) judge one node before and after.
      - V(report) writes what became of every node; after a rollback it also exchanges the two locks.
    type: str
    choices: [validate, plan, gate, precheck, prove, report]
    required: true
  what:
    description: What is updated.
    type: str
    choices: [driver, kernel]
    default: driver
  settings:
    description: >-
      C(batch), C(canaries), C(max_unavailable), C(max_failures), C(rollback), C(retry), C(forget),
      C(without_return_point): the variables update_* of the same names.
    type: dict
    default: {}
  reports:
    description: Directory on the control node for documents and records.
    type: path
    required: true
  run:
    description: Id of the run, as V(plan) returned it.
    type: str
  probe:
    description: Variable in which the hosts have what node_probe returned.
    type: str
    default: __site_probe
  gpu:
    description: Fact C(gpu) of the node.
    type: dict
  stack:
    description: Stack that the node has (V(precheck)) or was brought to (V(prove)).
    type: dict
  found:
    description: What the module return_point found.
    type: dict
    default: {}
  measured:
    description: C(command) and its C(stdout), and C(torch) as torch_benchmark returned it.
    type: dict
    default: {}
  tolerance:
    description: Percent by which a number may drop.
    type: float
    default: 5.0
  extra_tables:
    description: Rows that are added to the tables, as for gpu_plan.
    type: raw
  today:
    description: Date as C(YYYY-MM-DD), by default today.
    type: str
attributes:
  check_mode:
    support: full
    description: Nothing is written; V(report) tells what would be done.
  diff_mode:
    support: none
    description: It changes no node.
  platform:
    support: full
    platforms: linux
    description: The control node.
author:
  - Rackwright contributors
"""

EXAMPLES = r"""
- name: Decide the order
  update_plan:
    mode: plan
    settings: {batch: [1, "10%", "30%"], max_failures: 1}
    reports: reports
  run_once: true
"""

RETURN = r"""
run:
  description: Id of the run.
  returned: mode plan
  type: str
batches:
  description: Number of nodes in each batch.
  returned: mode plan
  type: list
placements:
  description: Hosts in their order with what each is given.
  returned: mode plan
  type: list
go:
  description: Whether further nodes are begun.
  returned: mode gate
  type: bool
admitted:
  description: Nodes of this batch that may begin.
  returned: mode gate
  type: list
before:
  description: What the node is compared with afterwards, null where its GPUs do not answer.
  returned: mode precheck
  type: dict
bad:
  description: Node to the reason why it was not updated.
  returned: mode report
  type: dict
"""
