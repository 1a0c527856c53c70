#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Which Python environments of a node hold torch, tensorflow or vllm, and for which GPUs they were built."""

from __future__ import annotations

DOCUMENTATION = r"""
module: framework_state
short_description: Tell which environments hold torch, tensorflow or vllm, and what they were built for
description:
  - Looks at the given environments and, within bounds, at the places where environments usually are (below C(/opt),
    C(/srv), home directories, and the system's own packages), also on a node that Rackwright never touched.
  - Versions, CUDA version and needed C library are read from files, nothing is imported for that.
  - Only torch is then asked, by the environment's own interpreter in a process of its own that is killed after
    O(timeout), for which GPUs it holds code. No GPU is touched and no driver is asked. An import that hangs or crashes
    is a reason in C(missing).
  - What another user owns is run with that user's rights when the module runs as root, and not at all when everybody
    may write it.
  - Needs no privileges and changes nothing, so C(changed) is always false.
options:
  environments:
    description: Directories of environments, or their interpreters, that are looked at in any case.
    type: list
    elements: path
    default: []
  search:
    description: Whether to look at the usual places too.
    type: bool
    default: true
  timeout:
    description: Seconds one environment may take to import torch.
    type: float
    default: 60.0
  budget:
    description: Seconds that all environments together may take; those left are described by their files alone.
    type: float
    default: 300.0
  root:
    description: Root of the file system to look at.
    type: path
    default: /
attributes:
  check_mode:
    description: Nothing is ever changed, so check mode makes no difference.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to show.
    support: none
  platform:
    description: Linux, with Python 3.9 or later.
    support: full
    platforms: linux
author:
  - Rackwright contributors
"""

EXAMPLES = r"""
- name: Look at the usual places
  framework_state:
  register: __my_frameworks

- name: Look at two environments and nowhere else
  framework_state:
    environments: [/data/app/venv, /home/ai/train/bin/python]
    search: false
"""

RETURN = r"""
framework_state:
  description: What was found (schema 1).
  returned: always
  type: dict
  contains:
    environments:
      description:
        - >-
          One record per directory of packages: C(path), C(kind) (venv, conda, user or system), C(python),
          C(python_version), C(site), C(torch), C(tensorflow), C(vllm), and C(missing) with the reason of each null.
        - >-
          C(torch) has C(version), C(build) (like C(cu124) or C(cpu)), C(cuda), C(hip), C(arch_list) (like C(sm_90) for
          code and C(compute_90) for PTX), C(basis) (import or files), C(glibc_needed) and C(import_error).
        - >-
          C(tensorflow) has C(distribution), C(version), C(cuda), C(cudnn), C(arch_list), C(cuda_build) and
          C(cuda_packages) (whether the CUDA libraries from PyPI are beside it). C(vllm) has C(version).
      type: list
      elements: dict
    glibc: {description: Version of the node's C library., type: str}
    system:
      description:
        - >-
          C(driver_libraries) (each with kind driver or compat, path, version) and C(fabric_manager) (installed,
          running).
      type: dict
    missing: {description: Why something was not looked at., type: dict}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError
from ansible.module_utils.rackwright.framework_probe import FrameworkRequest, probe_frameworks

ARGUMENT_SPEC: dict[str, Any] = {
    "environments": {"type": "list", "elements": "path", "default": []},
    "search": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 60.0},
    "budget": {"type": "float", "default": 300.0},
    "root": {"type": "path", "default": "/"},
}


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        for name in ("timeout", "budget"):
            if not 0 < module.params[name] <= 3600:
                raise InvalidInputError(
                    f"use the option {name}",
                    "framework_state",
                    f"it is {module.params[name]:g}",
                    "Give seconds, more than 0 and at most 3600",
                    expected=f"0 < {name} <= 3600",
                    found=module.params[name],
                )
        state = probe_frameworks(FrameworkRequest(**module.params))
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(changed=False, framework_state=state)


if __name__ == "__main__":
    main()
