#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Compare installed, built and loaded driver with the plan."""

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_state
short_description: Compare the installed, built and loaded NVIDIA driver with its plan
description:
  - Says whether the node has what the plan names, whether every kernel has the module of that version (DKMS says
    C(installed), modprobe would load it, the right key signed it), whether the loaded module is the installed one, and
    whether a reboot would help. It helps when the packages came after the last boot; a module that is not loaded after
    a boot is a failure with its cause, so no node is rebooted again and again.
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
    description: Patterns of the source packages that have the driver's version; none where names tell them.
    type: list
    elements: str
    required: true
  signer:
    description: Common name of the key that has to sign every module, empty where none has to.
    type: str
    default: ""
  minimum:
    description: Least driver version that the stack needs. Under WSL2 the driver of Windows is compared with it.
    type: str
    default: ""
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
    platforms: debian, rhel
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
      C(module_note), C(boots) (the kernel that boots next), C(initramfs) (C(stale): kernels whose initramfs is older
      than the module or the blacklist of nouveau; C(command) that rebuilds, null where none is).
  returned: success
  type: dict
  sample: {status: ready, version: 535.309.01, loaded: 535.309.01, situation: ready}
"""

import platform
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.driver_evidence import Looker, stale_initramfs
from ansible.module_utils.rackwright.driver_names import members
from ansible.module_utils.rackwright.driver_probe import installed_at
from ansible.module_utils.rackwright.driver_state import Evidence, foresee, judge, skewed
from ansible.module_utils.rackwright.errors import ProbeError, RackwrightError
from ansible.module_utils.rackwright.host import inspect_host
from ansible.module_utils.rackwright.packages_any import package_manager
from ansible.module_utils.rackwright.packages_base import Run, module_runner

ROOT = Path("/")

ARGUMENT_SPEC = {
    "plan": {"type": "dict", "required": True},
    "gpu": {"type": "dict", "required": True},
    "anchor": {"type": "str", "required": True},
    "sources": {"type": "list", "elements": "str", "required": True},
    "signer": {"type": "str", "default": ""},
    "minimum": {"type": "str", "default": ""},
}


def collect(module: AnsibleModule) -> dict[str, object]:
    """Return the state record of this node."""
    plan, gpu = module.params["plan"], module.params["gpu"]
    host = inspect_host(ROOT)
    record: dict[str, object] = {
        "version": plan.get("upstream"),
        "loaded": (gpu.get("driver") or {}).get("kernel_module_version"),
        "situation": gpu.get("situation"),
        "simulated": bool(gpu.get("simulated")),
        "module_note": plan.get("module_note"),
        "boots": host["kernel"]["boots"],
        "initramfs": {"stale": [], "command": host["initramfs"]["command"]},
    }
    seen = Evidence(minimum=module.params["minimum"] or None)
    if plan["action"] == "skip":
        return {**record, **judge(plan, gpu, host, seen)}
    run = module_runner(module)
    manager = package_manager(run, platform.node(), 0)
    packages = {name: row.version for name, row in members(manager.statuses(), module.params["sources"]).items()}
    record.update(packages=packages, held=sorted(manager.holds() & set(packages)), modules={})
    if module.check_mode and plan["pending"]:
        return {**record, **foresee(plan, gpu)}
    looker = Looker(run, ROOT, host, plan)
    seen.skew = skewed(manager.statuses(), module.params["sources"], plan["upstream"])
    looker.modules(seen, module.params["signer"])
    seen.installed_at = looker.changed_at(installed_at(module.params["anchor"]) or rpm_installed_at(run, module))
    looker.after_boot(seen, gpu)
    if host["initramfs"]["command"]:
        record["initramfs"] = {**host["initramfs"], "stale": stale_initramfs(ROOT, host["kernel"]["installed"])}
    return {**record, "modules": seen.modules, **judge(plan, gpu, host, seen)}


def rpm_installed_at(run: Run, module: AnsibleModule) -> float | None:
    """Return when rpm installed the anchor package, None where there is no rpm or no such package."""
    if module.get_bin_path("rpm") is None:
        return None
    code, out, _err = run(["rpm", "-q", "--queryformat", "%{INSTALLTIME}\n", module.params["anchor"]])
    return float(out.split()[0]) if code == 0 and out.split()[:1] and out.split()[0].isdigit() else None


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
