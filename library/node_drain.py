#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Take a node out of service, and put it back only if this drain took it out."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_drain
short_description: Take a node out of service for work on it, and put it back only if this drain took it out
description:
  - Drains a node through its scheduler (Slurm, Kubernetes), by stopping the systemd units that serve on it, or by the
    site's own commands, and waits until no work is left there.
  - What somebody else took out of service stays out of service. A node that was drained before gives C(ours=false), and
    V(resumed) then leaves it alone. A node whose drain somebody changed since (another reason in Slurm, the annotation
    gone in Kubernetes, a unit disabled) is left alone too.
  - Each drain has an O(id). Calling again with the same id recognises the drain, also when the answer of the first call
    was lost, so that an interrupted rollout can go on.
  - See C(docs/draining.md) for what each adapter does exactly, and for its limits.
options:
  adapter:
    description:
      - V(none) does nothing, V(systemd) stops units, V(slurm) uses scontrol, V(kubernetes) uses kubectl, V(command)
        runs O(drain_command), O(resume_command) and O(status_command).
    type: str
    choices: [none, systemd, slurm, kubernetes, command]
    required: true
  state:
    description:
      - V(status) looks and changes nothing. V(drained) takes the node out of service and waits until it is empty.
        V(resumed) undoes what the drain with this O(record) or O(id) did.
    type: str
    choices: [status, drained, resumed]
    default: status
  node_name:
    description:
      - Name of the node in its scheduler, for example the C(NodeName) of C(slurm.conf) or what C(kubectl get nodes)
        shows. Required for V(slurm) and V(kubernetes), unless O(record) says it.
      - Otherwise the name of the host on which the module runs.
    type: str
  id:
    description:
      - Identifier of this drain, 1 to 64 letters, digits, dots, dashes and underscores. Keep it before draining, and a
        drain whose answer was lost can still be recognised and undone. A random one by default.
    type: str
  reason:
    description: One line for people. It becomes the reason in Slurm and the annotation in Kubernetes, after the id.
    type: str
    default: maintenance by Rackwright
  record:
    description: What an earlier call returned as RV(drain.record), unchanged.
    type: dict
  timeout_s:
    description: Seconds until this call gives up waiting.
    type: int
    default: 3600
  poll_s:
    description: Seconds between two looks.
    type: int
    default: 5
  on_timeout:
    description:
      - V(fail) fails when the time is over. V(report) returns C(drained=false) and what is waited for, so that a task
        with C(until) and C(retries) can show how it goes on.
    type: str
    choices: [fail, report]
    default: fail
  units:
    description: For V(systemd), names or shell patterns of the units that serve, such as V(vllm@*.service).
    type: list
    elements: str
    default: []
  hold:
    description:
      - For V(systemd), keep the units off across a reboot for as long as the node is drained, by a drop-in with a
        condition. Whether they are enabled is never changed.
    type: bool
    default: true
  drain_command:
    description: For V(command), program and arguments, run without a shell. Has to end with 0.
    type: list
    elements: str
    default: []
  resume_command:
    description: The same for putting the node back.
    type: list
    elements: str
    default: []
  status_command:
    description:
      - The same for looking. Has to end with 0 (drained), 1 (in service), 2 (draining, work is left) or 3 (drained by
        somebody else). Without it only Rackwright's own drains are known.
    type: list
    elements: str
    default: []
  state_dir:
    description: For V(systemd) and V(command), where the drain is written down before anything is stopped.
    type: path
    default: /var/lib/rackwright/drains
  kubectl:
    description: Name or path of kubectl.
    type: str
    default: kubectl
  kubeconfig:
    description: Path of the kubeconfig on the host on which the module runs. By default kubectl's own choice.
    type: path
  kube_context:
    description: Context in the kubeconfig.
    type: str
  delete_emptydir_data:
    description: For V(kubernetes), evict pods with emptyDir volumes too. Their data is lost.
    type: bool
    default: false
  force:
    description: For V(kubernetes), evict pods without a controller too. Nothing starts them again.
    type: bool
    default: false
  pod_selector:
    description: For V(kubernetes), evict and wait for pods with these labels only.
    type: str
  grace_period_s:
    description: For V(kubernetes), seconds that pods get to end. By default what each pod asks for.
    type: int
attributes:
  check_mode:
    description: Looks, says what it would do, changes and waits for nothing.
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
- name: Drain the node in Slurm, asked on the controller
  node_drain:
    adapter: slurm
    state: drained
    node_name: "{{ inventory_hostname_short }}"
    id: "{{ update_id }}"
    reason: driver update
    timeout_s: 86400
  delegate_to: slurm-controller
  become: true
  register: __drain

- name: Put it back if it was this drain that took it out
  node_drain:
    adapter: slurm
    state: resumed
    record: "{{ __drain.drain.record }}"
    timeout_s: 300
  delegate_to: slurm-controller
  become: true

- name: Stop what serves, showing every half minute what is waited for
  node_drain:
    adapter: systemd
    state: drained
    units: ["vllm@*.service"]
    id: "{{ update_id }}"
    timeout_s: 30
    on_timeout: report
  become: true
  register: __drain
  until: __drain.drain.drained
  retries: 20
  delay: 1
"""

RETURN = r"""
drain:
  description:
    - Also part of a failure, complete with its record, once the options have been accepted.
  returned: success, and failure after the options were accepted
  type: dict
  contains:
    adapter:
      description: The option O(adapter).
      type: str
    node:
      description: Name of the node in its scheduler.
      type: str
    id:
      description: Identifier of this drain.
      type: str
    state:
      description: V(in_service), V(draining) (takes no new work), V(drained), V(down) or V(unknown).
      type: str
    drained:
      description: Whether the node takes no new work and has none left.
      type: bool
    ours:
      description: Whether it is this drain (this id or record) that keeps the node out of service.
      type: bool
    foreign:
      description: Whether somebody else does.
      type: bool
    overridden:
      description: Whether it was this drain, and somebody changed that since.
      type: bool
    resumed:
      description: Whether the node is in service.
      type: bool
    reason:
      description: Reason that stands at the node.
      type: str
    by:
      description: Who set it, where the scheduler says so.
      type: str
    before:
      description: What the adapter found before this drain changed it.
      type: dict
    units:
      description: For V(systemd), each unit with C(name), C(was) and C(enabled) as they were before.
      type: list
      elements: dict
    waiting_for:
      description: Work that is left, one phrase each.
      type: list
      elements: str
      sample: ["job 12 of alice (train, running)"]
    actions:
      description: What was done, in check mode what would be done.
      type: list
      elements: str
    note:
      description: What else is worth knowing, such as why a node was not put back.
      type: str
    record:
      description: To be kept as it is and given back as O(record). Null in check mode unless one was given.
      type: dict
msg:
  description: One line for people.
  returned: success
  type: str
  sample: would drain gpu-1 in Slurm
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.drain import Job, NoJob, sentence_of
from ansible.module_utils.rackwright.drain_command import Command
from ansible.module_utils.rackwright.drain_journal import DIRECTORY
from ansible.module_utils.rackwright.drain_kubernetes import Kubernetes
from ansible.module_utils.rackwright.drain_request import Request, make_request
from ansible.module_utils.rackwright.drain_run import run
from ansible.module_utils.rackwright.drain_slurm import Slurm
from ansible.module_utils.rackwright.drain_systemd import Systemd
from ansible.module_utils.rackwright.errors import RackwrightError

ARGUMENT_SPEC: dict[str, Any] = {
    "adapter": {
        "type": "str",
        "choices": ["none", "systemd", "slurm", "kubernetes", "command"],
        "required": True,
    },
    "state": {"type": "str", "choices": ["status", "drained", "resumed"], "default": "status"},
    "node_name": {"type": "str"},
    "id": {"type": "str"},
    "reason": {"type": "str", "default": "maintenance by Rackwright"},
    "record": {"type": "dict"},
    "timeout_s": {"type": "int", "default": 3600},
    "poll_s": {"type": "int", "default": 5},
    "on_timeout": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
    "units": {"type": "list", "elements": "str", "default": []},
    "hold": {"type": "bool", "default": True},
    "drain_command": {"type": "list", "elements": "str", "default": []},
    "resume_command": {"type": "list", "elements": "str", "default": []},
    "status_command": {"type": "list", "elements": "str", "default": []},
    "state_dir": {"type": "path", "default": DIRECTORY},
    "kubectl": {"type": "str", "default": "kubectl"},
    "kubeconfig": {"type": "path"},
    "kube_context": {"type": "str"},
    "delete_emptydir_data": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "pod_selector": {"type": "str"},
    "grace_period_s": {"type": "int"},
}
SCHEDULERS = {"slurm": Slurm, "kubernetes": Kubernetes, "command": Command}


def make_job(request: Request) -> Job | Systemd | NoJob:
    """Choose what can do it."""
    if request.adapter == "none":
        return NoJob(request)
    if request.adapter == "systemd":
        return Systemd(request, run)
    return Job(request, SCHEDULERS[request.adapter](request, run))


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params, state = module.params, module.params["state"]
    job: Job | Systemd | NoJob | None = None
    try:
        request = make_request(params, state, module.check_mode, platform.node())
        job = make_job(request)
        {"status": job.status, "drained": job.drain, "resumed": job.resume}[state]()
    except RackwrightError as error:
        rest = {"drain": job.report(), "changed": job.changed} if job else {}
        module.fail_json(**error.to_result(), **rest)
        raise  # never reached: fail_json ends the process
    report = job.report()
    module.exit_json(changed=job.changed, drain=report, msg=sentence_of(report, state, module.check_mode))


if __name__ == "__main__":
    main()
