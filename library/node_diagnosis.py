#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which does the work on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_diagnosis
short_description: Explain what keeps GPU programs from running, on all nodes of the play at once
description:
  - Runs on the control node as an action plugin, once for all hosts of the play; no connection to any node is made.
  - Compares what was registered about each host with the tables of the role C(gpu_stack), says for each finding its
    cause, what to do in which order, and where that is known from.
  - An error text that somebody pasted leads the findings, with what it means and whether the node shows its cause.
  - A check that could not be made is named with the reason, it never counts as passed.
  - Succeeds whatever is found.
options:
  registered:
    description:
      - >-
        Names of the variables that the results were registered in, by what they tell: C(gpu) (M(gpu_facts) or
        M(node_probe)), C(host) (M(host_state)) and C(frameworks) (M(framework_state)).
    type: dict
    required: true
  error:
    description: Error text to explain.
    type: str
  report:
    description: File on the control node for all findings as JSON.
    type: path
  extra_tables:
    description: The site's own rows for the tables, as a mapping or the path of a YAML file with one; merged last.
    type: raw
  today:
    description: Date as V(YYYY-MM-DD) against which ends of support are held. By default the date of the control node.
    type: str
attributes:
  check_mode:
    description: Explains the same and writes no report.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
author:
  - The Rackwright authors (@rackwright)
"""

EXAMPLES = r"""
- name: Explain what was found
  node_diagnosis:
    registered: {gpu: __my_gpu, host: __my_host, frameworks: __my_frameworks}
    error: "CUDA error: no kernel image is available for execution on the device"
  run_once: true
"""

RETURN = r"""
nodes:
  description:
    - >-
      One record per host: C(node), C(simulated), C(counts) by severity, C(not_measured) (id, subject, reason), and
      C(findings), worst first, each with C(id), C(subject), C(severity) (error, warning or info), C(observed),
      C(expected), C(cause), C(steps) in their order and C(source).
  returned: success
  type: list
  elements: dict
with_errors:
  description: Names of the hosts with a finding of severity error that is not only the explanation of a pasted text.
  returned: success
  type: list
  elements: str
table_text:
  description: What people read, as plain text; the callback C(rackwright_summary) prints it.
  returned: success
  type: str
"""
