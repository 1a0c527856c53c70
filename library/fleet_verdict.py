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
  - Numbers of real GPUs are held against the catalogue, against their peers (the GPUs of the same model, memory, power
    limit and ECC, also those of earlier runs) and against their own past. What was measured of nodes that did not
    fail is added to C(history.json) beside the reports, by the UUID of the GPU.
  - Keeps the last verdict of every node in C(proofs.json) beside the reports, with what the node was then,
    so that a site run proves, and a benchmark measures, only nodes that changed since.
  - The module succeeds whatever the verdicts are, so that reports and table exist before anything fails. Fail on
    RV(failed_nodes) afterwards.
  - Writing reports changes no node, so C(changed) is always false.
options:
  mode:
    description:
      - V(judge) judges, writes the reports and what is remembered.
      - V(repeat) judges provisionally, writes nothing and returns RV(repeat), the suites that are to be measured once
        more because nothing but their numbers would fail a node.
      - V(due) returns which nodes a benchmark has to measure, and writes nothing.
    type: str
    choices: [judge, repeat, due]
    default: judge
  registered:
    description:
      - >-
        Names of the variables that the evidence was registered in: C(facts) (of M(gpu_facts)), C(health) (of
        M(gpu_health)), C(benchmark) (of M(torch_benchmark)), C(again) (of M(torch_benchmark), some suites repeated),
        C(set_aside) (a failure of a role, with C(role), C(task), C(message)), and C(promised) (of M(gpu_plan) with the
        mode V(expect)). All are optional.
      - Beside them each host's C(gpu_expected_count) and C(prove_gates) are read, and the reboots that roles of this
        run found due.
    type: dict
    default: {}
  nodes:
    description:
      - The evidence itself by node name, in place of O(registered). Each value has C(facts), C(health), C(benchmark),
        C(again), C(set_aside), C(expected) (C(gpu_count), C(torch_version), C(driver_version), or C(stack), the node's
        entry of the lock), C(gates) and C(reboot) (C(required), C(reason)). All are optional.
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
    description:
      - Fractions that replace the built-in ones on every node, by gate, with C(warn) and C(fail). A node's own
        C(prove_gates) win over them.
    type: dict
    default: {}
  extra_gpus:
    description: Rows of the table of GPUs for cards that are not in it, as for M(gpu_facts), with peaks and bandwidth.
    type: list
    elements: dict
    default: []
  level:
    description: With O(mode=due), the level of the benchmark that is asked for.
    type: str
    choices: [quick, standard, full]
    default: quick
  suites:
    description:
      - What the benchmark was asked for, where that is less than a whole proof. Only these have to be shown, and a good
        verdict is then no proof for C(proofs.json).
    type: list
    elements: str
  again:
    description: With O(mode=due), whether nodes are measured that nothing changed on.
    type: bool
    default: false
  skipped:
    description:
      - Nodes that a benchmark did not measure, with the reason. With it the text is the table of a benchmark, the worst
        node first, in place of that of a proof.
    type: dict
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

- name: Find the numbers that are to be measured once more before they fail a node
  fleet_verdict:
    mode: repeat
    registered: {facts: __my_facts, benchmark: __my_benchmark}
    reports_dir: reports
    run_id: 20261123T010203Z
  run_once: true
  register: __my_doubts
"""

RETURN = r"""
unwritten:
  description: Why reports, proofs or history could not be written; null where they were, and in check mode.
  returned: success, with O(mode=judge)
  type: str
verdicts:
  description:
    - Per node C(verdict) (V(pass), V(warn), V(unattainable) or V(fail)), C(verdict_text), C(simulated) and C(reasons).
  returned: success, with O(mode=judge)
  type: dict
digests:
  description:
    - Per node C(verdict), C(run_id), C(at) (UTC) and C(simulated), small enough for the fact cache. With O(suites) only
      of nodes that failed.
  returned: success, with O(mode=judge)
  type: dict
failed_nodes:
  description: Names of the nodes whose verdict is V(fail).
  returned: success, with O(mode=judge)
  type: list
  elements: str
stragglers:
  description:
    - >-
      Numbers of GPUs or nodes below their peers or their own past, the slowest first, each with C(node), C(subject),
      C(metric), C(against) (V(peers) or V(history)), C(status), C(value), C(unit) and C(fraction), the part it reached.
  returned: success, with O(mode=judge)
  type: list
  elements: dict
notes:
  description: What is to be known beside the verdicts, such as a damaged history.
  returned: success, with O(mode=judge)
  type: list
  elements: str
repeat:
  description: Node to the suites that are to be measured once more; empty when no number would fail a node.
  returned: success, with O(mode=repeat)
  type: dict
due:
  description: Node to the reason why it is measured.
  returned: success, with O(mode=due)
  type: dict
skipped:
  description: Node to the reason why it is not measured again, with the age of the result that still holds.
  returned: success, with O(mode=due)
  type: dict
unfit:
  description: Node to the reason why it must not be loaded.
  returned: success, with O(mode=due)
  type: dict
table:
  description: One row per node with C(node), C(os), C(gpus), C(driver), C(torch), C(checks), C(verdict).
  returned: success, with O(mode=judge)
  type: list
  elements: dict
table_text:
  description: The table with all reasons as plain text, at most 120 columns wide.
  returned: success, with O(mode=judge)
  type: str
fleet_report:
  description: Path of the fleet's report.
  returned: success, with O(mode=judge), not in check mode
  type: str
"""
