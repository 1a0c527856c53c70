#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Bring the GPUs of a node to a declared MIG layout, ECC mode, limits and clocks, and keep them there across boots."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_modes
short_description: Set MIG layout, ECC, power limit, clocks and other modes of NVIDIA GPUs
description:
  - Reads the modes of every GPU through NVML, checks the whole declaration against what the GPUs offer, and only then
    changes one GPU after the other. A mode that is V(none) is left alone, so is a GPU that a mapping does not name.
  - A step that fails takes back the earlier steps on the same GPU. GPUs that were done before stay done, those after
    it are not touched, and the message names the state of each.
  - ECC mode, and MIG mode before Hopper, are in force after a reset of the GPU. NVML has no reset. With O(reset) an
    idle GPU is reset through C(nvidia-smi --gpu-reset); else RV(reboot) says that the node has to be restarted.
  - Refuses to switch the MIG mode of a GPU, or to destroy one of its instances, while a program uses it.
  - Leaves the declaration in C(/etc/rackwright/gpu-modes.json), and a script and the unit
    C(rackwright-gpu-modes.service) that bring it back at boot; removes all three when nothing is declared.
  - NVML cannot be asked for locked clocks. Those that were locked since the last boot are remembered in C(/run).
options:
  mig:
    description:
      - V(none) leaves MIG alone; V({}) switches it off on every GPU.
      - >-
        Else a mapping of V(all), an index or a UUID to a list of GPU instances by profile name, such as
        V({all: [1g.10gb x7]}); an empty list switches MIG off. Each instance gets one compute instance of its size.
      - An instance that is not declared is destroyed; one that is right stays, where the rest fits around it.
    type: raw
    default: none
  ecc:
    description: V(on), V(off) or V(none), or a mapping of V(all), an index or a UUID to V(on) or V(off).
    type: raw
    default: none
  persistence_mode:
    description: The same for persistence mode.
    type: raw
    default: none
  power_limit_w:
    description: Watts, V(default) or V(none), or a mapping of V(all), an index or a UUID to watts or V(default).
    type: raw
    default: none
  compute_mode:
    description: V(default), V(exclusive_process), V(prohibited) or V(none), or a mapping to one of the first three.
    type: raw
    default: none
  locked_clocks_mhz:
    description: One number or [lowest, highest] in MHz, V(default) (not locked) or V(none), or a mapping to these.
    type: raw
    default: none
  application_clocks_mhz:
    description: C(memory) and C(graphics) with their MHz, V(default) or V(none), or a mapping to these.
    type: raw
    default: none
  reset:
    description: Whether an idle GPU may be reset for a mode that waits for it.
    type: bool
    default: false
  unit:
    description: Text of the unit; C(@PYTHON@) in it becomes the Python that this module runs on.
    type: str
    required: true
  notify:
    description: Units that are restarted after a change of MIG, where the node has them.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds for each call into the driver.
    type: int
    default: 60
attributes:
  check_mode:
    description: Says what would be done to each GPU; nothing is set.
    support: full
  diff_mode:
    description: Lists the steps for each GPU, and the differences of the files.
    support: full
  platform:
    description: Target systems.
    support: full
    platforms: posix
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Divide every GPU into seven and keep it so
  gpu_modes:
    mig: {all: [1g.10gb x7]}
    unit: "{{ lookup('ansible.builtin.template', 'rackwright-gpu-modes.service.j2') }}"

- name: Limit the power of one GPU and leave all else alone
  gpu_modes:
    power_limit_w: {"0": 400}
    unit: "{{ lookup('ansible.builtin.template', 'rackwright-gpu-modes.service.j2') }}"
"""

RETURN = r"""
gpus:
  description:
    - >-
      One entry for each GPU: C(index), C(uuid), C(state) (C(unchanged), C(changed), C(pending), C(rolled_back),
      C(failed), C(not_attempted)), C(done) (what was done, in check mode would be done), C(reason).
  returned: always, empty when nothing is declared
  type: list
  elements: dict
  sample: [{index: 0, uuid: GPU-1, state: changed, done: ["power limit 700 W -> 400 W"], reason: null}]
reboot:
  description: C(required) and C(reason), of a mode that is set and not in force yet.
  returned: always
  type: dict
  sample: {required: true, reason: "GPU 0: the ECC mode waits for a reset of the GPU or a reboot"}
files:
  description: Files that keep the modes across boots; empty when nothing is declared.
  returned: success
  type: list
  elements: str
told:
  description: Units that were restarted.
  returned: success
  type: list
  elements: str
"""

import platform
import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright import gpu_modes, gpu_modes_apply, gpu_modes_boot, gpu_modes_files
from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError
from ansible.module_utils.rackwright.gpu_modes_apply import Outcome, Surroundings

ARGUMENT_SPEC = {
    **{mode: {"type": "raw", "default": "none"} for mode in gpu_modes.MODES},
    "reset": {"type": "bool", "default": False},
    "unit": {"type": "str", "required": True},
    "notify": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 60},
}


def run(module: AnsibleModule) -> None:
    """Bring the node to its declaration and end the module."""
    options = module.params
    where = Surroundings(platform.node(), options["timeout"], options["reset"])
    try:
        declaration = gpu_modes.declared(options)
    except gpu_modes.DeclarationError as wrong:
        step = "Correct the variable of that mode; nothing was changed"
        raise InvalidInputError("set the GPU modes", where.node, str(wrong), step) from wrong
    remembered = gpu_modes_boot.recall()
    outcomes = bring_about(module, declaration, remembered, where) if declaration else []
    result: dict[str, Any] = {"gpus": [one.to_result() for one in outcomes], "reboot": reboot(outcomes)}
    error = gpu_modes_apply.failure(outcomes, where)
    if error:
        module.fail_json(**error.to_result(), **result)
    wanted = gpu_modes_files.wanted_files(declaration, options["unit"], sys.executable)
    found = gpu_modes_files.differences(wanted)
    enabled = gpu_modes_files.is_enabled(options["unit"])
    told: list[str] = []
    if not module.check_mode:
        gpu_modes_files.keep(found, bool(declaration), enabled, commands(module))
        if any(one.mig_changed for one in outcomes):
            told = gpu_modes_files.notify(options["notify"], commands(module))
    lines = [f"GPU {one.index}: {text}\n" for one in outcomes for text in one.done]
    steps = [{"before": "", "after": "".join(lines), "after_header": "GPU modes"}] if lines else []
    module.exit_json(
        changed=bool(lines or found or (declaration and not enabled)),
        files=[want.path for want in wanted] if declaration else [],
        told=told,
        diff=[*steps, *(diff for _want, diff in found)],
        **result,
    )


def bring_about(
    module: AnsibleModule, declaration: dict[str, Any], remembered: dict[str, Any], where: Surroundings
) -> list[Outcome]:
    """Return what became of each GPU, in check mode what would."""
    devices = gpu_modes_apply.read(where)
    steps = gpu_modes_apply.foresee(devices, declaration, remembered, where)
    if module.check_mode:
        return [gpu_modes_apply.would_be(one, steps[one["index"]], where) for one in devices]
    before = dict(remembered)
    outcomes = gpu_modes_apply.settle(devices, declaration, remembered, where)
    if remembered != before:
        gpu_modes_boot.remember(remembered)
    return outcomes


def reboot(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return whether a restart of the node would put a mode in force, and which."""
    waiting = [(one.index, one.reason) for one in outcomes if one.state == "pending" and one.reason]
    return {"required": bool(waiting), "reason": gpu_modes_apply.merged(waiting) if waiting else None}


def commands(module: AnsibleModule) -> gpu_modes_files.Run:
    """Return what runs a command on the node."""

    def run_command(arguments: list[str]) -> tuple[int, str]:
        status, out, err = module.run_command(arguments)
        return status, (err or out).strip()

    return run_command


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        run(module)
    except RackwrightError as error:
        module.fail_json(**error.to_result(), gpus=[], reboot={"required": False, "reason": None})


if __name__ == "__main__":
    main()
