#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which does the work on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_verdict
short_description: Turn the evidence of one run into a verdict per node
description:
  - Runs once, on the control node, for all hosts of the play, as an action plugin. Judges what the run registered
    about each node, writes one JSON report per node and one for the fleet, and returns the table that the callback
    C(rackwright_summary) prints.
  - A node that was unreachable, failed or gave no evidence in this run gets the verdict V(fail) with the reason;
    nothing from an earlier run counts as proof.
  - Keeps the last verdict of every node in C(proofs.json) beside the reports, with what the node was then,
    so that a site run proves only nodes that changed since.
  - The module succeeds whatever the verdicts are, so that reports and table exist before anything fails. Fail on
    RV(failed_nodes) afterwards.
  - Writing reports changes no node, so C(changed) is always false.
options:
  registered:
    description:
      - >-
        Names of the variables that the evidence was registered in: C(facts) (of M(gpu_facts)), C(benchmark) (of
        M(torch_benchmark)), C(set_aside) (a failure of a role, with C(role), C(task), C(message)), and C(promised) (of
        M(gpu_plan) with the mode V(expect)). All are optional.
      - Beside them each host's C(gpu_expected_count) is read, and the reboots that roles of this run found due.
    type: dict
    default: {}
  nodes:
    description:
      - The evidence itself by node name, in place of O(registered). Each value has C(facts), C(benchmark),
        C(set_aside), C(expected) (C(gpu_count), C(torch_version), C(driver_version), or C(stack), the node's entry of
        the lock) and C(reboot) (C(required), C(reason)). All are optional.
    type: dict
  reports_dir:
    description: Directory for the reports, created when missing.
    type: path
    required: true
  run_id:
    description: Identifier of this run. A benchmark with another one is no proof.
    type: str
    required: true
  gates:
    description: Fractions of the catalogue's peak that replace the built-in ones, by gate, with C(warn) and C(fail).
    type: dict
    default: {}
  extra_gpus:
    description: Rows of the table of GPUs for cards that are not in it, as for M(gpu_facts), with peaks and bandwidth.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    support: full
    description: Judges and returns the table, writes no report.
  diff_mode:
    support: none
    description: There is nothing to compare.
  platform:
    platforms: posix
    support: full
    description: The control node.
author:
  - The Rackwright authors
"""

EXAMPLES = r"""
- name: Judge the fleet
  fleet_verdict:
    registered: {facts: __my_facts, benchmark: __my_benchmark, promised: __my_expect}
    reports_dir: reports
    run_id: 20261123T010203Z
  run_once: true
"""

RETURN = r"""
verdicts:
  description: Per node C(verdict) (V(pass), V(warn) or V(fail)), C(verdict_text), C(simulated) and C(reasons).
  returned: success
  type: dict
failed_nodes:
  description: Names of the nodes whose verdict is V(fail).
  returned: success
  type: list
  elements: str
table:
  description: One row per node with C(node), C(os), C(gpus), C(driver), C(torch), C(checks), C(verdict).
  returned: success
  type: list
  elements: dict
table_text:
  description: The table with all reasons as plain text, at most 120 columns wide.
  returned: success
  type: str
fleet_report:
  description: Path of the fleet's report.
  returned: success, not in check mode
  type: str
"""
