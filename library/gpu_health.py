#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module gpu_health: is this node fit for work. Entry only; the rules are in module_utils/rackwright."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_health
short_description: Check the health of a node with NVIDIA GPUs, with severity and ordered actions for each finding
description:
  - >-
    Checks GPU memory (ECC, row remapping, retired pages), NVLink and NVSwitch fabric, PCIe, power, heat, throttling,
    modes and firmware through NVML; Xid, SXid and other events of the kernel's log; and the host (memory, file systems,
    clock, units, RDMA ports, NVMe drives, settings). C(docs/health.md) lists every check with threshold and source.
  - >-
    What the node must have comes from what is declared (O(expected), O(modes)), from the catalogue of GPU models, and
    from the node's own earlier checks (O(baseline)), never from a list of machine types.
  - >-
    Each check is C(ok), C(finding), C(not_applicable) (the hardware has no such thing, or nothing is declared) or
    C(not_measured) (it could not be read). The last two have a reason and never count as passed.
  - Findings have a severity, C(monitor < reset < reboot < isolate), and actions in their order. Nothing is done.
  - Read-only. Root sees more (kernel log, PCI bridges, drives); without it those checks are not measured.
  - Driver, host, kernel log and DCGM are asked in child processes with limits of time.
options:
  expected:
    description: What the site declares of this node; what is not given is not judged, or taken from earlier checks.
    type: dict
    default: {}
    suboptions:
      gpu_count:
        description: Number of GPUs.
        type: int
      driver_version:
        description: Version of the driver, where no O(expected.stack) is given.
        type: str
      stack:
        description: The node's entry of the lock, as M(gpu_plan) in the mode C(expect) gives it, for coherence.
        type: dict
      vbios:
        description: VBIOS versions that are allowed.
        type: list
        elements: str
      memory_gib:
        description: Memory of the node in GiB.
        type: float
      nics:
        description: RDMA ports that have to be active, as a list of names like V(mlx5_0) or a mapping of them to Gb/s.
        type: raw
      swap:
        description: Whether the node may have swap.
        type: str
        choices: [none, any]
      governor:
        description: CPU frequency governor, like V(performance).
        type: str
      thp:
        description: Mode of transparent huge pages, like V(madvise).
        type: str
      numa_balancing:
        description: Value of C(kernel.numa_balancing).
        type: int
      iommu:
        description: Mode of the IOMMU.
        type: str
        choices: [disabled, enabled, passthrough]
  modes:
    description:
      - Declared modes of the GPUs, in the form of M(gpu_modes), as C(mig), C(ecc), C(persistence_mode),
        C(power_limit_w) and C(application_clocks_mhz).
    type: dict
    default: {}
  baseline:
    description:
      - The C(baseline) that the check before returned. Counters are judged by their growth since then, and GPUs, links,
        lanes, memory, ports and drives by what they were.
    type: dict
    default: {}
  reports_dir:
    description:
      - Directory on the control node where C(health/<host>.json) of the check before lies; its baseline is used unless
        O(baseline) is given. Handled on the control node.
    type: path
  limits:
    description: Thresholds by name in place of those of C(docs/health.md); an unknown name is refused.
    type: dict
    default: {}
  window_s:
    description:
      - Seconds that the kernel's log is looked back.
      - Events of before a restart that the restart cured are not findings.
    type: float
    default: 86400.0
  kernel_log:
    description: File to read in place of the kernel's log, as journalctl (json, short-iso) or dmesg write it.
    type: path
  dcgm_level:
    description: Level of C(dcgmi diag) to run and to fold in, where dcgmi is installed. Its tests need idle GPUs.
    type: str
    choices: [none, "1", "2", "3", "4"]
    default: none
  smart:
    description: Whether NVMe drives are asked for their SMART log, which only root may.
    type: bool
    default: true
  sysroot:
    description: Root in front of C(/proc), C(/sys), C(/dev) and C(/run); not C(/) only on nodes with simulated GPUs.
    type: path
    default: /
  timeout:
    description: Seconds the driver may take for all answers together.
    type: float
    default: 60.0
  extra_gpus:
    description: Rows added to the catalogue of GPU models, as of M(gpu_facts).
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed, so check mode makes no difference.
  diff_mode:
    support: none
    description: Nothing is ever changed.
  facts:
    support: full
    description: Returns the fact C(gpu_health), a digest, which is cached where a fact cache is configured.
  platform:
    support: full
    platforms: linux
    description: Linux with Python 3.9 or later; nothing else is needed.
author:
  - Rackwright contributors
"""

EXAMPLES = r"""
- name: Check the node
  gpu_health:
    expected: {gpu_count: 8, nics: {mlx5_0: 400, mlx5_1: 400}}
  become: true
  register: my_health

- name: Keep the node out of work where that is asked for
  ansible.builtin.fail:
    msg: "{{ my_health.ansible_facts.gpu_health.worst }}"
  when: my_health.gpu_health.severity in ['reboot', 'isolate']

- name: Compare with the last check, allow GPUs that are warmer, and look back an hour only
  gpu_health:
    reports_dir: reports
    limits: {temperature_margin: 2}
    window_s: 3600
  become: true
"""

RETURN = r"""
gpu_health:
  description: The whole document; its schema is docs/schema/health.schema.json.
  returned: success
  type: dict
  contains:
    severity:
      description: Worst severity of all findings (none, monitor, reset, reboot or isolate).
      type: str
      returned: success
      sample: reset
    summary:
      description: How many checks are C(ok), C(finding), C(not_applicable) and C(not_measured).
      type: dict
      returned: success
    checks:
      description:
        - >-
          One record per check, with C(id), C(subject) (node, gpu3, nic mlx5_0/1 ...), C(state), C(observed),
          C(expected), C(severity), C(actions) (ordered; each C(action) and C(text)), C(reason) and C(source).
      type: list
      elements: dict
      returned: success
    events:
      description: Events of the kernel's log with their severity, at most 100; C(events_dropped) says how many more.
      type: list
      elements: dict
      returned: success
    window_s:
      description: Seconds that were looked back.
      type: float
      returned: success
    boot_id:
      description: The boot that the node was checked in.
      type: str
      returned: success
    collected_at:
      description: When (UTC, ISO 8601).
      type: str
      returned: success
    simulated:
      description: Whether the GPUs are simulated.
      type: bool
      returned: success
    gpu:
      description: Situation, count, names and driver.
      type: dict
      returned: success
    baseline:
      description: What the next check is given as O(baseline).
      type: dict
      returned: success
ansible_facts:
  description: The fact C(gpu_health), with severity, worst finding, findings in short, summary, time and boot.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.health_probe import check_node

ARGUMENT_SPEC = {
    "expected": {
        "type": "dict",
        "default": {},
        "options": {
            "gpu_count": {"type": "int"},
            "driver_version": {"type": "str"},
            "stack": {"type": "dict"},
            "vbios": {"type": "list", "elements": "str"},
            "memory_gib": {"type": "float"},
            "nics": {"type": "raw"},
            "swap": {"type": "str", "choices": ["none", "any"]},
            "governor": {"type": "str"},
            "thp": {"type": "str"},
            "numa_balancing": {"type": "int"},
            "iommu": {"type": "str", "choices": ["disabled", "enabled", "passthrough"]},
        },
    },
    "modes": {"type": "dict", "default": {}},
    "baseline": {"type": "dict", "default": {}},
    "reports_dir": {"type": "path"},
    "limits": {"type": "dict", "default": {}},
    "window_s": {"type": "float", "default": 86400.0},
    "kernel_log": {"type": "path"},
    "dcgm_level": {"type": "str", "choices": ["none", "1", "2", "3", "4"], "default": "none"},
    "smart": {"type": "bool", "default": True},
    "sysroot": {"type": "path", "default": "/"},
    "timeout": {"type": "float", "default": 60.0},
    "extra_gpus": {"type": "list", "elements": "dict", "default": []},
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**check_node(module.params))
    except RackwrightError as error:
        module.fail_json(**error.to_result())


if __name__ == "__main__":
    main()
