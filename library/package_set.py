#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Bring the packages of a node to a wanted set, with apt or with dnf."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_set
short_description: Repair, refresh, upgrade, install and hold packages in one call, with apt or with dnf
description:
  - Uses dnf on the Red Hat family and apt elsewhere.
  - Waits for the locks of the package manager, repairs what an interrupted run left half done, refreshes the package
    lists when needed, upgrades, installs exact versions and sets holds, in this order and each only where something is
    to be done.
  - M(ansible.builtin.apt) stops at an interrupted database, knows no security-only upgrade and no holds, and answers
    a dead mirror or a
    full disk with apt's raw output. This module needs only apt-get, dpkg and Python 3.9 on the node.
  - M(ansible.builtin.dnf) needs dnf's bindings in the interpreter that runs it, which on EL 8 is too old for modules.
    This module calls the programs dnf and rpm, so any Python from 3.9 on will do.
  - A repair is made only when dpkg's database (what C(dpkg --audit) reads) has half-done packages. Configuration
    files that a person changed are kept.
options:
  packages:
    description: Packages that have to be installed, as C(name) or C(name=version); with dnf the version is
      C([epoch:]version-release). Recommended packages are not pulled in.
    type: list
    elements: str
    default: []
  optional:
    description: The same, but a package that no source offers is reported under RV(unavailable) and is no error.
    type: list
    elements: str
    default: []
  remove:
    description: Packages that must not be installed. They go in the transaction that installs the others.
    type: list
    elements: str
    default: []
  upgrade:
    description:
      - V(none) upgrades nothing; V(security) only what comes from a security suite; V(safe) everything that needs no
        removal;
        V(full) also what removes packages.
    type: str
    choices: [none, security, safe, full]
    default: none
  cache_valid_time:
    description:
      - Age in seconds up to which the package lists are used as they are. They are refreshed all the same when the
        sources changed
        or a wanted package is unknown, and never when there is nothing to install or upgrade.
    type: int
    default: 86400
  hold:
    description: Shell patterns of installed packages to hold. With dnf they are locked by its versionlock plugin,
      which is installed where it is missing, and a pattern may also name versions (C(*nvidia*580*)).
    type: list
    elements: str
    default: []
  hold_sources:
    description: Shell patterns of source packages; everything installed that was built from them is held.
    type: list
    elements: str
    default: []
  release:
    description: Shell patterns of packages whose hold is taken away, unless they are to be held.
    type: list
    elements: str
    default: []
  streams:
    description: Module streams of dnf (C(module:stream)) to enable before packages are installed. A stream of the same
      module that is enabled is left. Where the installation then fails, the earlier stream comes back.
    type: list
    elements: str
    default: []
  enable:
    description: Repositories of the Red Hat family to enable before anything else. V(crb) and V(epel) stand for what
      they are called on this node; EPEL is also installed from C(epel-release) where that is offered. One the node
      does not know is an error.
    type: list
    elements: str
    default: []
  allow_downgrade:
    description: Whether an exact version may be older than the installed one.
    type: bool
    default: false
  lock_timeout:
    description: Seconds to wait for other package managers.
    type: int
    default: 300
attributes:
  check_mode:
    description: Simulates and says what would be done. The package lists are not refreshed, but dnf fetches metadata
      it does not have.
    support: full
  diff_mode:
    description: Lists each package action.
    support: full
  platform:
    description: Target systems.
    support: full
    platforms: debian, redhat
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Install a compiler and keep the kernel where it is
  package_set:
    packages: [build-essential, cmake]
    upgrade: safe
    hold: [linux-image-amd64]

- name: Install one exact driver version
  package_set:
    packages: [nvidia-smi=535.309.01-0+deb12u1]
    hold_sources: [nvidia-graphics-drivers]
    allow_downgrade: true

- name: Install another branch of the driver on EL 9
  package_set:
    packages: ["nvidia-driver-cuda=3:590.48.01-1.el9"]
    streams: ["nvidia-driver:590-open"]
    hold: ["*nvidia*"]
    allow_downgrade: true
"""

RETURN = r"""
actions:
  description: What was done (in check mode, what would be done), one line for each package.
  returned: success
  type: list
  elements: str
  sample: ["install nvidia-smi 535.309.01-0+deb12u1", "hold nvidia-smi"]
repaired:
  description: Packages that an interrupted run had left half done; C((journal)) and C((database)) stand for the
    database of dpkg and rpm itself.
  returned: success
  type: list
  elements: str
cache_updated:
  description: Whether the package lists were refreshed. This alone does not count as a change.
  returned: success
  type: bool
on_hold:
  description: Every installed package that O(hold) and O(hold_sources) match, whether or not it was on hold before.
  returned: success
  type: list
  elements: str
unavailable:
  description: Optional packages that no source offers.
  returned: success
  type: list
  elements: str
streams:
  description: Module streams newly enabled.
  returned: success
  type: list
  elements: str
enabled:
  description: Repositories newly enabled.
  returned: success
  type: list
  elements: str
held:
  description: Packages newly put on hold.
  returned: success
  type: list
  elements: str
released:
  description: Packages whose hold was taken away.
  returned: success
  type: list
  elements: str
lock_waited_s:
  description: Longest wait for a lock, in seconds.
  returned: success
  type: float
"""

import platform

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.package_set import PackageSet, Wish
from ansible.module_utils.rackwright.packages_any import package_manager
from ansible.module_utils.rackwright.packages_base import module_runner

ARGUMENT_SPEC = {
    "packages": {"type": "list", "elements": "str", "default": []},
    "optional": {"type": "list", "elements": "str", "default": []},
    "remove": {"type": "list", "elements": "str", "default": []},
    "upgrade": {"type": "str", "choices": ["none", "security", "safe", "full"], "default": "none"},
    "cache_valid_time": {"type": "int", "default": 86400},
    "hold": {"type": "list", "elements": "str", "default": []},
    "hold_sources": {"type": "list", "elements": "str", "default": []},
    "release": {"type": "list", "elements": "str", "default": []},
    "allow_downgrade": {"type": "bool", "default": False},
    "streams": {"type": "list", "elements": "str", "default": []},
    "enable": {"type": "list", "elements": "str", "default": []},
    "lock_timeout": {"type": "int", "default": 300},
}


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = dict(module.params)
    lock_timeout = options.pop("lock_timeout")
    try:
        manager = package_manager(module_runner(module), platform.node(), lock_timeout)
        outcome = PackageSet(manager, Wish(**options), module.check_mode).run()
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(**outcome.to_result())


if __name__ == "__main__":
    main()
