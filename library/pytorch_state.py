#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""An exact release and build of PyTorch in one environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pytorch_state
short_description: Decide, install and verify PyTorch in one Python environment
description:
  - Holds release and build of the lock against the node's GPUs and driver by a table of releases, and compares them
    with what is installed. Nothing is copied or asked from a network when release, build and files are as they should
    be.
  - With O(state=present) installs what is missing, repairs what was interrupted and verifies the result by importing
    it, and with a usable GPU by launching a kernel on every one.
  - A simulated GPU cannot run kernels and counts as none.
options:
  venv:
    description: Directory of the environment.
    type: path
    required: true
  version:
    description: Exact release, for example C(2.13.0).
    type: str
    required: true
  build:
    description: V(cpu) or a CUDA build such as V(cu130). One that could not run on a GPU that answers is refused.
    type: str
    required: true
  table:
    description: Table of releases and builds (C(frameworks.yml) as data).
    type: dict
    required: true
  gpu:
    description: Facts of M(gpu_facts) for this node.
    type: dict
    default: {}
  state:
    description:
      - V(checked) only looks; V(present) also installs.
      - V(planned) looks too and accepts that there is no environment yet.
    type: str
    choices: [planned, checked, present]
    default: checked
  source:
    description:
      - V(wheelhouse) installs the O(files) in O(wheels_dir) without any index.
      - V(index) asks the indexes the node is configured for, then PyTorch's own.
      - V(system) uses the operating system's package, through an environment that sees it.
    type: str
    choices: [wheelhouse, index, system]
    default: wheelhouse
  packages:
    description: Requirements installed along with torch.
    type: list
    elements: str
    default: [numpy]
  system_packages:
    description: OS packages that carry torch, the one with its version first, for O(source=system).
    type: list
    elements: str
    default: [python3-torch, python3-numpy]
  python:
    description: Interpreter to reckon with in check mode while the environment does not exist yet.
    type: str
    default: /usr/bin/python3
  node:
    description: Name of the node in messages.
    type: str
    default: this node
  wheels_dir:
    description: Directory on the node that holds the copied wheels.
    type: path
    default: /var/cache/rackwright/wheels
  files:
    description: The wheels to install, each with file, sha256, size, installed, name and version.
    type: list
    elements: dict
    default: []
  keep_wheels:
    description: Whether the copied wheels stay on the node after a successful install.
    type: bool
    default: false
  index_url:
    description: The site's own index, instead of the one the node is configured for.
    type: str
  extra_args:
    description: Further arguments for the installer, for O(source=index).
    type: list
    elements: str
    default: []
  environment:
    description:
      - Environment variables for the installer, for O(source=index).
      - Keep credentials in the node's C(pip.conf) or C(netrc) instead, the node's log may show what is set here.
    type: dict
    default: {}
  timeout:
    description: Seconds the import and the kernel launches may take.
    type: int
    default: 180
attributes:
  check_mode:
    description: Says what would be installed and changes nothing.
    support: full
  diff_mode:
    description: Shows release, build and reasons before and after.
    support: full
author:
  - Rackwright
"""

EXAMPLES = r"""
- name: See whether torch is as wanted
  pytorch_state:
    venv: /opt/rackwright/venv
    version: 2.13.0
    table: "{{ lookup('file', 'frameworks.yml') | from_yaml }}"
    gpu: "{{ ansible_facts['gpu'] }}"
"""

RETURN = r"""
pytorch_state:
  description: What is there, what it should be, and what was done.
  type: dict
  returned: always
  contains:
    schema: {description: Version of this structure., type: int}
    action: {description: V(none) when everything is as wanted, else V(install)., type: str}
    reasons: {description: Why something must be installed., type: list, elements: str}
    choice: {description: "Release, build, CUDA version, reason and requirements chosen for this node.", type: dict}
    interpreter: {description: "The environment's Python: version, tag, arch, glibc, markers.", type: dict}
    torch:
      description: "What the imported torch says: version, cuda, numpy, devices. None before it was verified."
      type: dict
    packages: {description: "Installed distributions that torch needs, with versions.", type: dict}
    whole: {description: "Undamaged distributions in the environment, when something must be installed.", type: dict}
    space: {description: Free bytes and device of the file systems that are written to., type: dict}
    installed: {description: What was installed by this call., type: list, elements: str}
    kernels_launched: {description: GPUs that ran a kernel., type: int}
    missing_packages:
      description: OS packages to install first, for O(source=system).
      type: list
      elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.pyenv_build import system_error
from ansible.module_utils.rackwright.torch_env import (
    TorchRequest,
    TorchState,
    check_system_candidate,
    decide,
    present,
)
from ansible.module_utils.rackwright.wheel_install import IndexSource, discard_wheels

ARGUMENT_SPEC = {
    "venv": {"type": "path", "required": True},
    "version": {"type": "str", "required": True},
    "build": {"type": "str", "required": True},
    "table": {"type": "dict", "required": True},
    "gpu": {"type": "dict", "default": {}},
    "state": {"type": "str", "choices": ["planned", "checked", "present"], "default": "checked"},
    "source": {"type": "str", "choices": ["wheelhouse", "index", "system"], "default": "wheelhouse"},
    "packages": {"type": "list", "elements": "str", "default": ["numpy"]},
    "system_packages": {"type": "list", "elements": "str", "default": ["python3-torch", "python3-numpy"]},
    "python": {"type": "str", "default": "/usr/bin/python3"},
    "node": {"type": "str", "default": "this node"},
    "wheels_dir": {"type": "path", "default": "/var/cache/rackwright/wheels"},
    "files": {"type": "list", "elements": "dict", "default": []},
    "keep_wheels": {"type": "bool", "default": False},
    "index_url": {"type": "str", "no_log": True},
    "extra_args": {"type": "list", "elements": "str", "default": []},
    "environment": {"type": "dict", "default": {}},
    "timeout": {"type": "int", "default": 180},
}


def build_request(params: dict[str, Any]) -> TorchRequest:
    """Turn module parameters into a request."""
    environment = tuple((str(name), str(value)) for name, value in sorted(params["environment"].items()))
    return TorchRequest(
        venv=params["venv"].rstrip("/"),
        version=params["version"],
        table=params["table"],
        build=params["build"],
        source=params["source"],
        packages=tuple(params["packages"]),
        gpu=params["gpu"],
        node=params["node"],
        python=params["python"],
        wheels_dir=params["wheels_dir"],
        index=IndexSource(params["index_url"] or None, tuple(params["extra_args"]), environment),
        timeout=params["timeout"],
    )


def installed_version(module: AnsibleModule, package: str) -> str | None:
    """Return the upstream version of an OS package that is installed or could be, without epoch and revision."""
    if module.get_bin_path("apt-cache"):
        status, output, _ = module.run_command(["apt-cache", "policy", package], environ_update={"LC_ALL": "C"})
        lines = [line.split(":", 1)[1] for line in output.splitlines() if line.strip().startswith("Candidate:")]
        version = lines[0].strip() if status == 0 and lines else "(none)"
    else:
        command = ["dnf", "--quiet", "repoquery", "--latest-limit=1", "--queryformat=%{version}\n", package]
        status, output, _ = module.run_command(command)
        version = output.strip().splitlines()[0] if status == 0 and output.strip() else "(none)"
    if version == "(none)":
        return None
    return version.split(":")[-1].split("-")[0].split("+")[0]


def system_packages(module: AnsibleModule, request: TorchRequest, state: TorchState) -> list[str]:
    """Return the OS packages to install for a system torch, after refusing one of another release."""
    if not state.reasons:
        return []
    names: list[str] = module.params["system_packages"]
    check_system_candidate(request, state, installed_version(module, names[0]))
    return names


def shown(state: TorchState) -> dict[str, Any]:
    """Return what a person wants to see in a diff."""
    found = state.torch or {}
    return {"version": found.get("version"), "cuda": found.get("cuda"), "reasons": state.reasons}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    request = build_request(module.params)

    def run(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        status, output, error = module.run_command(command, environ_update=environment)
        return status, output, error

    try:
        looking = module.params["state"] != "present"
        before, _ = decide(run, request, module.check_mode or module.params["state"] == "planned")
        missing = system_packages(module, request, before) if request.source == "system" else []
        after = before
        if not looking and before.reasons and not missing:
            after = present(run, request, module.params["files"], module.check_mode)
            if not module.check_mode and not module.params["keep_wheels"] and request.source == "wheelhouse":
                discard_wheels(request.wheels_dir, module.params["files"])
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    except OSError as error:
        module.fail_json(**system_error("install torch", request.venv, error).to_result())
    wanted = {"version": after.choice["version"], "build": after.choice["build"], "reasons": []}
    module.exit_json(
        changed=not looking and bool(before.reasons),
        pytorch_state={**after.to_dict(), "missing_packages": missing},
        diff={"before": shown(before), "after": shown(after) if after.torch else wanted},
    )


if __name__ == "__main__":
    main()
