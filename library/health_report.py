#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action plugin of the same name, which does the work on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_report
short_description: Write what gpu_health found on all nodes of the play, and tell it as one table
description:
  - Runs on the control node as an action plugin, once for all hosts of the play; no connection to any node is made.
  - Writes C(health/<host>.json) for every host that answered; the next M(gpu_health) compares with it.
  - Succeeds whatever was found; C(failed_nodes) says where the severity reaches O(fail_at), or nothing was answered.
options:
  registered:
    description: Name of the variable that M(gpu_health) was registered in.
    type: str
    required: true
  reports_dir:
    description: Directory on the control node for the documents.
    type: path
    required: true
  fail_at:
    description: Least severity of a node that counts as failed.
    type: str
    choices: [monitor, reset, reboot, isolate]
    default: reset
attributes:
  check_mode:
    description: Tells the same and writes nothing.
    support: full
  diff_mode:
    description: Changes nothing on a node, so there is no difference to show.
    support: none
author:
  - The Rackwright authors (@rackwright)
"""

EXAMPLES = r"""
- name: Tell the health of the fleet
  health_report:
    registered: __my_health
    reports_dir: reports
  run_once: true
  register: __my_report
"""

RETURN = r"""
unwritten:
  description: Why reports could not be written, in a sentence; null where they were, or in check mode.
  returned: success
  type: str
severities:
  description: Worst severity by host; silent for one that gave no answer.
  returned: success
  type: dict
  sample: {gpu-a: none, gpu-b: isolate}
failed_nodes:
  description: Hosts whose severity reaches O(fail_at), and those that gave no answer.
  returned: success
  type: list
  elements: str
reasons:
  description: The worst finding of each of them, in one sentence.
  returned: success
  type: dict
table_text:
  description: What people read, as plain text; the callback C(rackwright_summary) prints it.
  returned: success
  type: str
"""
