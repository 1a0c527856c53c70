#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Wait until no process holds a GPU of this node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_idle
short_description: Wait until no process holds a GPU, fail, or end what holds one
description:
  - Looks at NVML's lists of compute, graphics and MPS processes, of MIG devices too, and at the open handles of
    C(/dev/nvidia*) of all processes. A driver can be replaced only when both are empty.
  - Daemons that hold GPUs by design are listed apart and not waited for; whoever replaces the driver restarts them.
  - NVML is asked in a child process. A driver that does not answer is a failure of its own kind, C(driver_hangs).
options:
  policy:
    description:
      - V(wait) waits until O(timeout_s) is over and then fails, naming the processes. V(fail) fails at once.
      - V(terminate) waits like V(wait), then sends SIGTERM, and SIGKILL after O(grace_s). It never ends process 1, what
        O(ignore) names, what this task runs under, nor a process that has no NVIDIA device open.
    type: str
    choices: [wait, fail, terminate]
    default: wait
  timeout_s:
    description: Seconds to wait. V(0) looks once.
    type: int
    default: 300
  grace_s:
    description: Seconds between SIGTERM and SIGKILL.
    type: int
    default: 30
  poll_s:
    description: Seconds between two looks.
    type: int
    default: 2
  on_timeout:
    description:
      - For V(wait), V(fail) fails when the time is over, V(report) returns C(idle=false), so that a task with C(until)
        and C(retries) can show how it goes on.
    type: str
    choices: [fail, report]
    default: fail
  ignore:
    description:
      - Names of processes that hold GPUs by design. Compared with the name of the program file and with the first 15
        characters that the kernel keeps. The list given replaces the default one.
    type: list
    elements: str
    default: [nvidia-persistenced, nv-fabricmanager, nvidia-imex, nv-hostengine, dcgm-exporter]
  sysroot:
    description: Device files below this root count too. Other than C(/) only for simulated GPUs.
    type: path
    default: /
  nvml_timeout_s:
    description: Seconds that the driver may take to answer.
    type: int
    default: 30
attributes:
  check_mode:
    description: Looks once, waits for nothing, ends nothing, and does not fail because of processes.
    support: full
  diff_mode:
    description: There is no text to compare.
    support: none
  platform:
    description: Target systems.
    support: full
    platforms: posix
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Wait up to ten minutes
  gpu_idle:
    timeout_s: 600
  become: true

- name: Wait, and show every half minute what is waited for
  gpu_idle:
    timeout_s: 30
    on_timeout: report
  become: true
  register: __idle
  until: __idle.idle
  retries: 20
  delay: 1

- name: Give them five minutes, then end them
  gpu_idle:
    policy: terminate
    timeout_s: 300
  become: true
"""

RETURN = r"""
idle:
  description: Whether no process holds a GPU, apart from RV(daemons).
  returned: always
  type: bool
holders:
  description: Processes that hold a GPU, in order of their number.
  returned: always
  type: list
  elements: dict
  contains:
    pid:
      description: Number of the process.
      type: int
    name:
      description: Name that the kernel keeps, null when the process is not visible from here.
      type: str
    user:
      description: Who runs it.
      type: str
    unit:
      description: The systemd unit, Slurm job or container scope it belongs to.
      type: str
    gpus:
      description: NVML's numbers of the GPUs it is known to use.
      type: list
      elements: int
    memory_bytes:
      description: GPU memory it uses, over all GPUs; null when the driver does not say.
      type: int
    types:
      description: How it is known, of C(compute), C(graphics), C(mps) (NVML's lists) and C(handle).
      type: list
      elements: str
    devices:
      description: NVIDIA device files it has open.
      type: list
      elements: str
daemons:
  description: Processes that O(ignore) names, in the same form.
  returned: always
  type: list
  elements: dict
terminated:
  description: Processes that were sent a signal, with C(pid), C(name), C(user) and the last C(signal).
  returned: always
  type: list
  elements: dict
waited_s:
  description: Seconds this call took.
  returned: always
  type: float
sources:
  description: For C(nvml) and C(handles), V(ok) or what could not be seen and why. Null when no look succeeded.
  returned: always
  type: dict
msg:
  description: One line for people.
  returned: always
  type: str
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.gpu_daemons import DAEMONS
from ansible.module_utils.rackwright.gpu_holders import look
from ansible.module_utils.rackwright.gpu_idle import Machine, Settling, Wish

ARGUMENT_SPEC: dict[str, Any] = {
    "policy": {"type": "str", "choices": ["wait", "fail", "terminate"], "default": "wait"},
    "timeout_s": {"type": "int", "default": 300},
    "grace_s": {"type": "int", "default": 30},
    "poll_s": {"type": "int", "default": 2},
    "on_timeout": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
    "ignore": {"type": "list", "elements": "str", "default": list(DAEMONS)},
    "sysroot": {"type": "path", "default": "/"},
    "nvml_timeout_s": {"type": "int", "default": 30},
}


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    wish = Wish(
        policy=params["policy"],
        timeout_s=float(params["timeout_s"]),
        grace_s=float(params["grace_s"]),
        poll_s=float(max(1, params["poll_s"])),
        report_timeout=params["on_timeout"] == "report",
        ignore=tuple(params["ignore"]),
        check_mode=module.check_mode,
    )
    machine = Machine(look=lambda: look(params["sysroot"], float(params["nvml_timeout_s"])))
    settling = Settling(wish, machine, platform.node())
    try:
        settling.run()
    except RackwrightError as error:
        module.fail_json(**{**settling.report(), **error.to_result()})
    module.exit_json(**settling.report(), msg=settling.msg)


if __name__ == "__main__":
    main()
