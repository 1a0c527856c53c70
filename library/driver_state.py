#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Compare installed, built and loaded driver with the plan."""

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_state
short_description: Compare the installed, built and loaded NVIDIA driver with its plan
description:
  - Says whether the node has what the plan names, whether DKMS has the module for each kernel, whether the loaded
    module is the
    installed one, and whether a reboot would help. It helps when the packages came after the last boot; a module that
    is
    not loaded after a boot is a failure, so no node is rebooted again and again.
  - Changes nothing. Fails when the state is C(failed), outside check mode.
options:
  plan:
    description: What M(driver_plan) returned.
    type: dict
    required: true
  gpu:
    description: What M(gpu_facts) returned after the packages were installed.
    type: dict
    required: true
  anchor:
    description: The package whose versions are the driver's versions.
    type: str
    required: true
  sources:
    description: Names of the source packages that have the driver's version.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: Can run in check mode; where the plan has pending changes the state is C(would_install).
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
  platform:
    description: Target systems.
    support: full
    platforms: debian
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Verify the driver
  driver_state:
    plan: "{{ __my_role_plan.plan }}"
    gpu: "{{ ansible_facts['gpu'] }}"
    anchor: nvidia-smi
    sources: [nvidia-graphics-drivers]
  register: __my_role_state
"""

RETURN = r"""
state:
  description:
    - >-
      C(status) (ready, reboot_required, userland_only, installed_without_gpu, skipped, would_install, failed),
      C(reason), C(next_step),
      C(reboot) (required, reason), C(version), C(loaded), C(situation), C(simulated), C(packages), C(held),
      C(modules) (DKMS state for each kernel),
      C(module_note).
  returned: success
  type: dict
  sample: {status: ready, version: 535.309.01, loaded: 535.309.01, situation: ready}
"""

import platform

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.driver_probe import installed_at, source_packages
from ansible.module_utils.rackwright.driver_state import foresee, judge, module_states, parse_dkms, skewed
from ansible.module_utils.rackwright.errors import ProbeError, RackwrightError
from ansible.module_utils.rackwright.host import inspect_host
from ansible.module_utils.rackwright.packages_apt import Apt, module_runner

ARGUMENT_SPEC = {
    "plan": {"type": "dict", "required": True},
    "gpu": {"type": "dict", "required": True},
    "anchor": {"type": "str", "required": True},
    "sources": {"type": "list", "elements": "str", "required": True},
}


def collect(module: AnsibleModule) -> dict[str, object]:
    """Return the state record of this node."""
    plan, gpu, sources = module.params["plan"], module.params["gpu"], module.params["sources"]
    host = inspect_host()
    record: dict[str, object] = {
        "version": plan.get("upstream"),
        "loaded": (gpu.get("driver") or {}).get("kernel_module_version"),
        "situation": gpu.get("situation"),
        "simulated": bool(gpu.get("simulated")),
        "module_note": plan.get("module_note"),
    }
    if plan["action"] == "skip":
        return {**record, **judge(plan, gpu, host, [], {}, None)}
    apt = Apt(module_runner(module), platform.node(), 0)
    statuses = apt.statuses()
    modules: dict[str, str] = {}
    if plan["kernels"]:
        dkms = module.get_bin_path("dkms")
        # no module reads DKMS
        _code, out, _err = module.run_command([dkms, "status"]) if dkms else (1, "", "")
        modules = module_states(parse_dkms(out), plan["kernels"], plan["upstream"])
    packages = source_packages(statuses, sources)
    record.update(packages=packages, held=sorted(apt.holds() & set(packages)), modules=modules)
    if module.check_mode and plan["pending"]:
        return {**record, **foresee(plan, gpu)}
    return {
        **record,
        **judge(
            plan, gpu, host, skewed(statuses, sources, plan["upstream"]), modules, installed_at(module.params["anchor"])
        ),
    }


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        state = collect(module)
        if state["status"] == "failed" and not module.check_mode:
            raise ProbeError(
                "bring up the NVIDIA driver",
                platform.node(),
                str(state["reason"]),
                str(state["next_step"] or "Look at `journalctl -k` for the reason"),
                expected=state["version"],
                found=state["loaded"] or state["situation"],
            )
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(changed=False, state=state)


if __name__ == "__main__":
    main()
