#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which does the work on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_export
short_description: Write inventory, facts and metrics of the fleet for other programs
description:
  - Runs once, on the control node, for all hosts of the play, as an action plugin. Takes the cached facts C(gpu),
    C(gpu_health) and C(gpu_verdict) and the newest report of every node, and writes C(inventory.json),
    C(inventory.yml), C(facts.json) and C(rackwright.prom) into the folder C(export) below O(reports_dir).
    Contacts no node.
  - Each file is replaced whole. What was cached says how old it is, and is marked stale above the host's
    C(facts_max_age) hours (168 where it is not set).
  - Only the variables that O(variables) names are written, so no secret leaves the site by accident. A name that says
    it is a secret, and a value that is in a vault, are refused.
  - Values of simulated GPUs are marked, and no benchmark of a node that has them is written.
  - C(changed) is true when a file says something else than before; ages alone are no change.
options:
  reports_dir:
    description: Directory of the reports.
    type: path
    required: true
  variables:
    description: Variables of the hosts that are written into the inventory, where a host has them.
    type: list
    elements: str
    default: [ansible_host, ansible_port, ansible_user, ansible_connection, ansible_python_interpreter]
  include:
    description: What is written. Files of parts that are not named stay as they are.
    type: list
    elements: str
    choices: [inventory, facts, metrics]
    default: [inventory, facts, metrics]
attributes:
  check_mode:
    support: full
    description: Says which files would change and writes none.
  diff_mode:
    support: none
    description: The summary names the files that changed.
  platform:
    platforms: posix
    support: full
    description: The control node.
author:
  - The Rackwright authors
"""

EXAMPLES = r"""
- name: Export the fleet
  fleet_export:
    reports_dir: reports
    variables: [ansible_host, rack]
  run_once: true
"""

RETURN = r"""
directory:
  description: Where the files are.
  returned: success
  type: str
files:
  description: Names of the files that were written, in check mode of those that would be.
  returned: success
  type: list
  elements: str
changed_files:
  description: Those of them that say something else than before.
  returned: success
  type: list
  elements: str
summary:
  description: Counts of nodes, GPUs, models, verdicts and severities, and the nodes whose facts are stale.
  returned: success
  type: dict
node_metrics:
  description: Metrics of each node for which C(metrics_textfile_dir) is set, as text.
  returned: success
  type: dict
table_text:
  description: What the run shows as plain text, at most 120 columns wide.
  returned: success
  type: str
"""
