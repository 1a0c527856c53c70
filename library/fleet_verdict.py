#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Turn the evidence of one run into verdicts and write the reports."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_verdict
short_description: Turn the evidence of one run into a verdict per node
description:
  - Runs once, on the control node, for all nodes. Judges what the run registered about each node, writes one
    JSON report per node and one for the fleet, and returns the table that the callback C(rackwright_summary) prints.
  - A node that was unreachable, failed or gave no evidence in this run gets the verdict V(fail) with the reason;
    nothing from an earlier run counts as proof.
  - Keeps the last verdict of every node in C(proofs.json) beside the reports, with what the node was then,
    so that a site run proves only nodes that changed since.
  - The module succeeds whatever the verdicts are, so that reports and table exist before anything fails. Fail on
    RV(failed_nodes) afterwards.
  - Writing reports changes no node, so C(changed) is always false.
options:
  nodes:
    description:
      - Evidence by node name. Each value has C(facts) and C(benchmark) (registered results of M(gpu_facts) and
        M(torch_benchmark)), C(set_aside) (C(role), C(task), C(message) of a role that failed), C(expected)
        (C(gpu_count), C(torch_version), C(driver_version)), C(driver_package_version), and C(reboot) (C(required),
        C(reason)). All are optional.
    type: dict
    required: true
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
    nodes:
      gpu-a:
        facts: "{{ hostvars['gpu-a'].__prove_facts }}"
        benchmark: "{{ hostvars['gpu-a'].__prove_benchmark }}"
        expected: {gpu_count: 8}
    reports_dir: reports
    run_id: 20261123T010203Z
  delegate_to: localhost
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

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright import proof, reports, verdict
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.evidence import read_evidence

ARGUMENT_SPEC: dict[str, Any] = {
    "nodes": {"type": "dict", "required": True},
    "reports_dir": {"type": "path", "required": True},
    "run_id": {"type": "str", "required": True},
    "gates": {"type": "dict", "default": {}},
    "extra_gpus": {"type": "list", "elements": "dict", "default": []},
}


def main() -> None:
    """Judge, write, return the table."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    directory = os.path.abspath(params["reports_dir"])
    try:
        evidence = read_evidence(
            params["nodes"], params["run_id"], params["gates"], params["extra_gpus"], module.check_mode
        )
        documents = verdict.judge_fleet(evidence)
        if not module.check_mode:
            reports.write_reports(directory, params["run_id"], documents)
            proven = {node: proof.entry(document, evidence[node].gpu) for node, document in documents.items()}
            reports.record_proofs(directory, params["run_id"], proven)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    location = None if module.check_mode else os.path.join(directory, "fleet.json")
    ordered = list(documents.values())
    module.exit_json(
        changed=False,
        # without this, the evidence of the whole fleet would travel back, and be kept for every host of the play
        invocation={"module_args": {**params, "nodes": list(documents)}},
        verdicts={
            node: {key: document[key] for key in ("verdict", "verdict_text", "simulated", "reasons")}
            for node, document in documents.items()
        },
        failed_nodes=[document["node"] for document in ordered if document["verdict"] == verdict.FAIL],
        table=[reports.row(document) for document in ordered],
        table_text=reports.table_text(ordered, location, params["run_id"], module.check_mode),
        **({"fleet_report": location} if location else {}),
    )


if __name__ == "__main__":
    main()
