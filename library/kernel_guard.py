#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""See to it that every kernel that may boot has its NVIDIA module."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_guard
short_description: See to it that every kernel that may boot has its NVIDIA module
description:
  - What a package manager calls success is no proof of a kernel module. Without headers DKMS is content with a module
    that was only added, and builds nothing for the other installed kernels.
  - Before the driver, O(state=needed) tells which headers, prebuilt modules and which DKMS the node lacks, and
    O(state=ready) refuses a kernel that would be left without. After it, O(state=built) has DKMS build what it did not
    build by itself and fails with the first error of the build log. O(state=explained) says why packages could not be
    configured, where a build that failed is the reason.
  - Nothing here reboots; a failure comes before any reboot.
options:
  state:
    description: Which of the four is asked for.
    type: str
    choices: [needed, ready, built, explained]
    required: true
  kernels:
    description: Kernels that get a module, C(kernels) of M(driver_plan).
    type: list
    elements: str
    default: []
  packages:
    description: What the plan installs, C(name) or C(name=version).
    type: list
    elements: str
    default: []
  version:
    description: NVIDIA's version of the driver. Needed by O(state=built).
    type: str
    default: ""
  headers:
    description: Packages of kernel headers, with C({kernel}) for the release.
    type: list
    elements: str
    default: []
  dkms_minimum:
    description: Least version of DKMS that builds this driver, empty where the distribution's own does.
    type: str
    default: ""
  repository:
    description: Whether the driver comes from a repository of its own, which may have a DKMS that is new enough.
    type: bool
    default: false
  backports:
    description: Whether a newer DKMS may come from Debian's backports.
    type: str
    choices: [auto, never]
    default: auto
  unavailable:
    description: Packages that no source offers, C(unavailable) of M(package_set). Used by O(state=ready).
    type: list
    elements: str
    default: []
  cause:
    description: The message of the task that failed. Used by O(state=explained).
    type: str
    default: ""
  since:
    description: Build logs written before (seconds since the epoch) are of another run. Used by O(state=explained).
    type: float
    default: 0
  lock_timeout:
    description: Seconds to wait for other package managers.
    type: int
    default: 300
attributes:
  check_mode:
    description: Can run in check mode; says what it would build, and builds nothing.
    support: full
  diff_mode:
    description: Modules are binaries, so no difference is shown.
    support: none
  platform:
    description: Target systems.
    support: full
    platforms: debian, rhel
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Find out what the kernels need
  kernel_guard:
    state: needed
    kernels: [6.1.0-50-amd64, 6.1.0-56-amd64]
    packages: [nvidia-kernel-open-dkms=595.91.07-1]
    headers: ["linux-headers-{kernel}"]
    dkms_minimum: 3.1.8
  register: __my_role_guard

- name: Build the module for the kernels that have none yet
  kernel_guard:
    state: built
    kernels: [6.1.0-50-amd64, 6.1.0-56-amd64]
    packages: [nvidia-kernel-open-dkms=595.91.07-1]
    version: 595.91.07
"""

RETURN = r"""
guard:
  description:
    - >-
      C(boots) (the kernel that boots next, null in a container) and C(boots_reason) (where that was read). With
      O(state=needed) also C(headers) (packages), C(modules) (packages of prebuilt modules), C(dkms) (the request for a
      newer DKMS, or nothing), C(files) (what M(config_files) has to write first). With O(state=built) C(states) (the
      state in DKMS of each kernel) and C(built) (kernels that were, or in check mode would be, built).
  returned: success, unless O(state=explained)
  type: dict
  sample: {boots: 6.1.0-56-amd64, headers: [linux-headers-6.1.0-50-amd64], dkms: [], files: [], modules: []}
now:
  description: The node's clock, in seconds since the epoch, for O(since) of a later call.
  returned: success
  type: float
  sample: 1732468000.5
"""

import platform
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.apt_private import PrivateLists
from ansible.module_utils.rackwright.dkms import module_states, parse_dkms
from ansible.module_utils.rackwright.driver_probe_apt import own_sources
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.host import inspect_host
from ansible.module_utils.rackwright.kernel_guard import (
    BACKPORTS_SOURCE,
    backports_files,
    builds_here,
    enough,
    explain_build,
    explain_failed_install,
    needs,
    refuse_old_dkms,
    refuse_unavailable,
)
from ansible.module_utils.rackwright.kernel_module import read_dkms
from ansible.module_utils.rackwright.node_record import dkms as dkms_version
from ansible.module_utils.rackwright.packages_apt import Apt, module_runner
from ansible.module_utils.rackwright.receipt_items import Node

ROOT = Path("/")
ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["needed", "ready", "built", "explained"], "required": True},
    "kernels": {"type": "list", "elements": "str", "default": []},
    "packages": {"type": "list", "elements": "str", "default": []},
    "version": {"type": "str", "default": ""},
    "headers": {"type": "list", "elements": "str", "default": []},
    "dkms_minimum": {"type": "str", "default": ""},
    "repository": {"type": "bool", "default": False},
    "backports": {"type": "str", "choices": ["auto", "never"], "default": "auto"},
    "unavailable": {"type": "list", "elements": "str", "default": []},
    "cause": {"type": "str", "default": ""},
    "since": {"type": "float", "default": 0},
    "lock_timeout": {"type": "int", "default": 300},
}


class Guard:
    """One call on one node."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.options, self.node = module, module.params, platform.node()
        self.host = inspect_host(ROOT)
        self.kernels: list[str] = module.params["kernels"]
        kernel = self.host["kernel"]
        self.record = {"boots": kernel["boots"], "boots_reason": kernel["boots_reason"]}
        self.needs = needs(self.kernels, kernel["headers"], module.params["packages"], module.params["headers"])

    def needed(self) -> dict[str, Any]:
        """Tell what has to be there before the driver."""
        builds = bool(self.kernels) and builds_here(self.options["packages"])
        request, files = self.newer_dkms() if builds and self.options["dkms_minimum"] else ([], [])
        wanted = {
            "headers": sorted({name for names in self.needs.headers.values() for name in names}),
            "modules": sorted({name for names in self.needs.modules.values() for name in names}),
        }
        if wanted["modules"]:
            apt = Apt(module_runner(self.module), self.node, self.options["lock_timeout"])
            offered = {*apt.statuses(), *(row.name for row in apt.candidates(wanted["modules"]))}
            refuse_unavailable(self.needs.modules, {*wanted["modules"]} - offered, "module", self.node)
        return {"changed": False, "guard": {**self.record, **wanted, "dkms": request, "files": files}}

    def newer_dkms(self) -> tuple[list[str], list[dict[str, str]]]:
        """Return the request for a DKMS that is new enough, and the files of the source it comes from."""
        minimum, (found, _why) = self.options["dkms_minimum"], dkms_version(Node())
        ours = (ROOT / BACKPORTS_SOURCE.lstrip("/")).exists()
        codename = self.host["platform"]["codename"]
        files, entries = backports_files(own_sources(ROOT, codename, []).entries, codename)
        if enough(found, minimum):
            return [], files if ours and self.options["backports"] == "auto" else []
        apt = Apt(module_runner(self.module), self.node, self.options["lock_timeout"])
        if apt.lists_age() is None and not self.module.check_mode:
            apt.update()  # the repository of the driver, which may have a DKMS of its own, was added just now
        offered = [row.version for row in apt.candidates(["dkms"]) if enough(row.version, minimum)]
        if offered:
            return [f"dkms={offered[0]}"], files if ours else []
        if self.module.check_mode and self.options["repository"]:
            return ["dkms"], []  # not added yet; whether it has one shows when it is
        if self.options["backports"] == "never":
            refuse_old_dkms(found, minimum, "nvidia_driver_backports is never", self.node)
        if not entries:
            refuse_old_dkms(found, minimum, "no mirror of the distribution is among its sources", self.node)
        with PrivateLists(module_runner(self.module), self.node, self.options["lock_timeout"]) as lists:
            offered = [row.version for row in lists.candidates(entries, ["dkms"]) if enough(row.version, minimum)]
        if not offered:
            refuse_old_dkms(found, minimum, f"the backports of its mirror have none ({entries[0]})", self.node)
        return [f"dkms={offered[0]}"], files

    def ready(self) -> dict[str, Any]:
        """Refuse a kernel that would be left without a module."""
        unavailable = self.options["unavailable"]
        refuse_unavailable(self.needs.headers, unavailable, "headers", self.node)
        still = self.needs.headers
        if still and not self.module.check_mode:
            # the package is installed and brought no configured headers: the name was not the right one
            refuse_unavailable(still, [name for names in still.values() for name in names], "headers", self.node)
        return {"changed": False, "guard": self.record}

    def built(self) -> dict[str, Any]:
        """Have DKMS build for the kernels it did not build for by itself."""
        version = self.options["version"]
        if not builds_here(self.options["packages"]):
            return {"changed": False, "guard": {**self.record, "states": {}, "built": []}}
        program = self.module.get_bin_path("dkms")
        states = self.states(program)
        missing = [kernel for kernel in self.kernels if states[kernel] != "installed"]
        if not self.module.check_mode:
            for kernel in missing:
                self.build(program, kernel)
            states = self.states(program)
        left = next((kernel for kernel in missing if states[kernel] != "installed"), None)
        if left and not self.module.check_mode:
            raise explain_build(ROOT, version, left, self.node)
        return {"changed": bool(missing), "guard": {**self.record, "states": states, "built": missing}}

    def states(self, program: str | None) -> dict[str, str]:
        # no module reads DKMS
        _code, out, _err = self.module.run_command([program, "status"]) if program else (1, "", "")
        return module_states(parse_dkms(out), self.kernels, self.options["version"])

    def build(self, program: str | None, kernel: str) -> None:
        """Build and install for one kernel; what comes of it is read from DKMS afterwards."""
        version = self.options["version"]
        if kernel not in self.host["kernel"]["headers"]:
            names = self.needs.headers.get(kernel, [])
            refuse_unavailable({kernel: names}, names, "headers", self.node)
        names = sorted({row["module"] for row in read_dkms(ROOT) or [] if row["version"] == version})
        for name in names if program else []:
            code, _out, _err = self.module.run_command([program, "install", "-m", name, "-v", version, "-k", kernel])
            if code != 0:
                raise explain_build(ROOT, version, kernel, self.node)

    def explained(self) -> dict[str, Any]:
        """Fail, with the reason if it is a build."""
        error = explain_failed_install(ROOT, self.node, self.options["since"])
        if error is not None:
            raise error
        self.module.fail_json(msg=self.options["cause"])
        raise AssertionError("fail_json ends the module")


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    guard = Guard(module)
    try:
        result = {"needed": guard.needed, "ready": guard.ready, "built": guard.built, "explained": guard.explained}[
            module.params["state"]
        ]()
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(**result, now=time.time())


if __name__ == "__main__":
    main()
