#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Ansible module gpu_facts: what GPU situation a node is in. Entry only; the probe is in module_utils/rackwright."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_facts
short_description: Tell what NVIDIA GPUs a node has and what situation they are in
description:
  - Returns the fact C(gpu) with driver, devices, topology and one word for the situation, its cause and the next step.
  - Works on a node with nothing installed. Reads NVML through C(nvidia-ml-py) where the interpreter has it, else with
    C(ctypes) on C(libnvidia-ml.so.1), else the PCI bus in C(/sys) alone.
  - Every value is either known or C(null) with a reason; the dotted path of each null value is a key of C(missing).
  - The driver is asked in a child process, so a driver that hangs or crashes can neither hang nor crash the play.
  - Read-only and unprivileged. No setter of NVML is ever called.
  - The schema of the fact is described in C(docs/gpu-facts.md).
options:
  sysroot:
    description:
      - Root put in front of every path below C(/proc), C(/sys), C(/dev) and C(/run) that is read.
      - Other than C(/) only for nodes whose kernel files are prepared elsewhere, as on simulated nodes.
    type: path
    default: /
  timeout:
    description: Seconds the driver may take for all answers together.
    type: float
    default: 30.0
  on_timeout:
    description:
      - What to do when the driver does not answer in time.
      - V(report) returns facts with the situation C(driver_hung) and what is known without the driver.
      - V(fail) fails the task.
    type: str
    choices: [report, fail]
    default: report
  extra_gpus:
    description:
      - Rows added to the catalogue of GPU models, with the columns of C(roles/gpu_stack/files/tables/gpus.yml).
      - Needed are C(id), C(nvml_names) and C(pci_device_ids); C(memory_gb) unless the GPU uses the system's memory.
      - A row with an C(id) of the catalogue replaces that row.
    type: list
    elements: dict
    default: []
  health:
    description:
      - Whether each device also has the part C(health), which only a check of health needs, with hundreds of further
        calls; M(gpu_health) judges it.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Nothing is ever changed, so check mode makes no difference.
  diff_mode:
    support: none
    description: Nothing is ever changed.
  facts:
    support: full
    description: Returns the fact C(gpu), which is cached where a fact cache is configured.
  platform:
    support: full
    platforms: linux
    description: Linux, also in containers and in WSL2, with Python 3.9 or later.
author:
  - Rackwright contributors
"""

EXAMPLES = r"""
- name: Gather GPU facts
  gpu_facts:

- name: Refuse nodes whose GPUs cannot be used
  ansible.builtin.assert:
    that: ansible_facts['gpu'].situation == 'ready'
    fail_msg: "{{ ansible_facts['gpu'].cause }} {{ ansible_facts['gpu'].next_step }}"

- name: Fail instead of reporting when the driver hangs, and know a GPU that is not in the catalogue
  gpu_facts:
    timeout: 60
    on_timeout: fail
    extra_gpus:
      - id: rtx-2000-ada
        nvml_names: [NVIDIA RTX 2000 Ada Generation]
        pci_device_ids: ["28b0"]
        memory_gb: 16
        architecture: Ada Lovelace
        compute_capability: "8.9"
"""

RETURN = r"""
ansible_facts:
  description: Facts of the node's GPUs; the whole schema is in docs/gpu-facts.md.
  returned: always
  type: complex
  contains:
    gpu:
      description: Situation, driver, devices and topology.
      returned: always
      type: dict
      contains:
        schema:
          description: Version of this structure.
          type: int
          returned: always
          sample: 1
        situation:
          description: One word for the state of the node's GPUs.
          type: str
          returned: always
          sample: version_mismatch
        cause:
          description: Why the situation is what it is, in one sentence.
          type: str
          returned: always
          sample: The kernel module 535.261.03 is loaded, but the NVIDIA library is 535.309.01.
        next_step:
          description: What to do about it, in one sentence.
          type: str
          returned: always
          sample: Reboot the node, so that the module of the installed driver is loaded.
        source:
          description: Where the device records come from (nvml-pynvml, nvml-ctypes or pci-sysfs).
          type: str
          returned: always
          sample: nvml-ctypes
        simulated:
          description: Whether the NVML library is the simulation of Rackwright's tests.
          type: bool
          returned: always
          sample: false
        platform:
          description: Whether this is a host (or virtual machine), a container or WSL2.
          type: str
          returned: always
          sample: host
        os:
          description: What runs on the node, as C(name), C(id), C(version_id), C(kernel) and C(machine).
          type: dict
          returned: always
          sample: {name: Debian GNU/Linux 12, id: debian, version_id: "12", kernel: 6.1.0-56-amd64, machine: x86_64}
        count:
          description: GPUs that can be used now.
          type: int
          returned: always
          sample: 8
        pci_count:
          description: NVIDIA GPUs on the PCI bus, null where the bus cannot be read.
          type: int
          returned: always
          sample: 8
        lost_pci_addresses:
          description: PCI addresses of GPUs that should answer but do not.
          type: list
          elements: str
          returned: always
          sample: ["0000:5d:00.0"]
        driver:
          description: Versions of kernel module, library, NVML and CUDA, flavour, loaded modules, persistence daemon.
          type: dict
          returned: always
        devices:
          description: One record per GPU; bytes, MHz, watts, degrees Celsius and nanoseconds as the names say.
          type: list
          elements: dict
          returned: always
        topology:
          description: Connection and peer access of each pair of GPUs, and the number of NVSwitches.
          type: dict
          returned: always
        software:
          description:
            - What NVIDIA software is installed, as C(packages) and C(held), C(modules) of each kernel with C(running)
              and C(boots), C(fabric_manager), C(container_toolkit) and C(cdi).
          type: dict
          returned: always
        missing:
          description: Why each null value outside of C(devices) is null; every device has its own C(missing).
          type: dict
          returned: always
        collected_at:
          description: When the facts were collected (UTC, ISO 8601).
          type: str
          returned: always
          sample: "2026-01-31T12:00:00+00:00"
        duration_ms:
          description: How long the probe took on the node, in milliseconds.
          type: float
          returned: always
          sample: 68.4
"""

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError, TimedOutError
from ansible.module_utils.rackwright.gpu_probe import probe

ARGUMENT_SPEC = {
    "sysroot": {"type": "path", "default": "/"},
    "timeout": {"type": "float", "default": 30.0},
    "on_timeout": {"type": "str", "choices": ["report", "fail"], "default": "report"},
    "extra_gpus": {"type": "list", "elements": "dict", "default": []},
    "health": {"type": "bool", "default": False},
}


def run(module: AnsibleModule) -> None:
    """Probe the node and end the module."""
    timeout = module.params["timeout"]
    if not 0 < timeout <= 3600:
        raise InvalidInputError(
            "use the option timeout",
            "gpu_facts",
            f"it is {timeout:g}",
            "Give the seconds the driver may take, more than 0 and at most 3600",
            expected="0 < timeout <= 3600",
            found=timeout,
        )
    gpu = probe(module.params["sysroot"], timeout, module.params["extra_gpus"], module.params["health"])
    if gpu["situation"] == "driver_hung" and module.params["on_timeout"] == "fail":
        raise TimedOutError(
            "read the GPU facts",
            "this node",
            gpu["cause"],
            gpu["next_step"],
            expected=f"<= {timeout:g} s",
            found="no answer",
        )
    module.exit_json(changed=False, ansible_facts={"gpu": gpu})


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        run(module)
    except RackwrightError as error:
        module.fail_json(**error.to_result())


if __name__ == "__main__":
    main()
