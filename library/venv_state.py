#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""One Python environment, present and whole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: venv_state
short_description: Create, repair or rebuild one Python environment
description:
  - One call looks at the interpreter and at the environment, decides, and acts.
  - An environment is built anew when its interpreter is gone or became another Python, when its build was interrupted,
    or when it was built from another interpreter, by another provider or with other visibility of system packages.
    The packages inside are lost with it.
  - An edited C(pyvenv.cfg), a wrong owner or a wrong mode is put right in place.
  - The system's own Python is never written to.
options:
  path:
    description: Directory of the environment. It must be absent, empty or a Python environment.
    type: path
    required: true
  python:
    description: Base interpreter, as a path or a name on the node's search path.
    type: str
    default: /usr/bin/python3
  python_version:
    description: Python the interpreter must be, such as C(3.11); another one is refused. Left out, any is accepted.
    type: str
  provider:
    description: What builds the environment. V(conda) is refused with a sentence until it exists.
    type: str
    choices: [venv, uv, conda]
    default: venv
  uv:
    description: Path of the C(uv) program, for O(provider=uv).
    type: path
  system_site_packages:
    description: Whether packages of the system's Python are visible inside.
    type: bool
    default: false
  owner:
    description: Owner of every file, by name or number.
    type: str
    default: root
  group:
    description: Group of every file, by name or number; the owner's own group when left out.
    type: str
  mode:
    description: Mode of the directory itself.
    type: raw
    default: "0755"
attributes:
  check_mode:
    description: Says what would be done and changes nothing.
    support: full
  diff_mode:
    description: Shows the environment before and after.
    support: full
author:
  - Rackwright
"""

EXAMPLES = r"""
- name: Create the environment
  venv_state:
    path: /opt/rackwright/venv
    system_site_packages: false
"""

RETURN = r"""
venv_state:
  description: What is there, and what was done.
  type: dict
  returned: always
  contains:
    schema: {description: Version of this structure., type: int}
    path: {description: Directory of the environment., type: str}
    python: {description: Path of the environment's interpreter., type: str}
    interpreter: {description: "What the base interpreter says about itself: version, tag, arch, glibc.", type: dict}
    created:
      description: Whether it was built anew, or in check mode would be. Packages that were inside are gone then.
      type: bool
    actions: {description: What was done or would be done, type: list, elements: str}
    missing_packages:
      description: OS packages to install first. When not empty nothing was built, and the call must be repeated.
      type: list
      elements: str
"""

import grp
import pwd
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError
from ansible.module_utils.rackwright.pyenv import VenvRequest
from ansible.module_utils.rackwright.pyenv_build import Outcome, ensure, system_error

ARGUMENT_SPEC = {
    "path": {"type": "path", "required": True},
    "python": {"type": "str", "default": "/usr/bin/python3"},
    "python_version": {"type": "str"},
    "provider": {"type": "str", "choices": ["venv", "uv", "conda"], "default": "venv"},
    "uv": {"type": "path"},
    "system_site_packages": {"type": "bool", "default": False},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str"},
    "mode": {"type": "raw", "default": "0755"},
}


def account(path: str, owner: str, group: str | None) -> tuple[int, int]:
    """Return user and group numbers, or refuse a name the node does not know."""
    try:
        user = pwd.getpwuid(int(owner)) if owner.isdigit() else pwd.getpwnam(owner)
        if group is None:
            return user.pw_uid, user.pw_gid
        return user.pw_uid, int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise InvalidInputError(
            "set the owner",
            path,
            f"the node knows no such account: {error.args[0]}",
            "Create it first, or set python_env_owner and python_env_group to accounts that exist",
            expected="an existing user and group",
            found={"owner": owner, "group": group},
        ) from error


def build_request(params: dict[str, Any]) -> VenvRequest:
    """Turn module parameters into a request."""
    uid, gid = account(params["path"], params["owner"], params["group"])
    mode = params["mode"] if isinstance(params["mode"], int) else int(str(params["mode"]), 8)
    return VenvRequest(
        path=params["path"].rstrip("/") or "/",
        python=params["python"],
        version=params["python_version"],
        provider=params["provider"],
        uv=params["uv"],
        system_site_packages=params["system_site_packages"],
        uid=uid,
        gid=gid,
        mode=mode,
    )


def result(request: VenvRequest, outcome: Outcome) -> dict[str, Any]:
    """Shape what the module returns."""
    return {
        "changed": outcome.changed,
        "venv_state": {
            "schema": 1,
            "path": request.path,
            "python": f"{request.path}/bin/python",
            "interpreter": outcome.interpreter,
            "created": outcome.created,
            "actions": outcome.actions,
            "missing_packages": outcome.missing_packages,
        },
        "diff": {"before": outcome.before, "after": outcome.after},
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        request = build_request(module.params)
        outcome = ensure(module.run_command, request, module.check_mode)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    except OSError as error:
        module.fail_json(**system_error("create a Python environment", module.params["path"], error).to_result())
    module.exit_json(**result(request, outcome))


if __name__ == "__main__":
    main()
