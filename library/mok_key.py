#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Decide about Secure Boot, make the key that DKMS signs with and stage its enrolment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mok_key
short_description: Decide about Secure Boot, and enrol the key that DKMS signs modules with
description:
  - With Secure Boot on, the kernel loads a module only when the firmware or shim knows the key that signed it. A module
    that DKMS builds is signed with a key of the node, which somebody enrols once at the console.
  - O(state=decided) reads whether Secure Boot is on and refuses a node whose module would be rejected.
    O(state=enrolled) makes key and certificate where DKMS of this distribution looks for them, stages the enrolment
    with mokutil and then fails, with the words that the console will show; once the key is enrolled it changes nothing.
  - The password is given to mokutil as a hash in a file of mode 0600 that is gone when the module ends.
options:
  state:
    description: Which of the two is asked for.
    type: str
    choices: [decided, enrolled]
    required: true
  mode:
    description: What becomes of a node with Secure Boot on whose module is built by DKMS.
    type: str
    choices: [refuse, mok]
    default: refuse
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
  password:
    description: One-time password for the enrolment.
    type: str
    default: ""
  sysroot:
    description: Stands in front of C(/sys) only, as in M(gpu_facts).
    type: path
    default: /
attributes:
  check_mode:
    description: Can run in check mode; says whether a key would be made or staged, and does not fail for it.
    support: full
  diff_mode:
    description: Keys are not shown.
    support: none
  platform:
    description: Target systems.
    support: full
    platforms: debian, rhel
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Decide about Secure Boot
  mok_key:
    state: decided
    mode: mok
    kernels: [6.1.0-56-amd64]
    packages: [nvidia-kernel-open-dkms=595.91.07-1]
  register: __my_role_secure_boot

- name: Enrol the key
  mok_key:
    state: enrolled
    password: "{{ my_role_password }}"
"""

RETURN = r"""
secure_boot:
  description:
    - >-
      With O(state=decided) C(on) (null when unknown), C(action) (none or mok), C(reason) and C(lacking) (packages
      that enrolment needs and that are not there). With O(state=enrolled)
      C(key) and C(certificate) (paths), C(name) (common name of the key, which is what modinfo calls the signer; null
      in check mode before the key is made) and C(enrolment) (enrolled, or in check mode what was found).
  returned: success
  type: dict
  sample: {on: true, action: mok, reason: Secure Boot is on and DKMS builds the module}
"""

import os
import platform
import re
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.host import container_of, platform_of, read_text
from ansible.module_utils.rackwright.kernel_guard import builds_here
from ansible.module_utils.rackwright.node_record import secure_boot_of
from ansible.module_utils.rackwright.secure_boot import (
    Places,
    common_name,
    decide,
    enrolment,
    key_places,
    missing_program,
    refuse_blocked,
    refuse_password,
    staged,
)

ROOT = Path("/")
CONFIGURATION = "etc/dkms/framework.conf"
UBUNTU_WAY = "take the modules that Ubuntu signed (stack_driver_source: distribution, and plan again)"
ARGUMENT_SPEC = {
    "state": {"type": "str", "choices": ["decided", "enrolled"], "required": True},
    "mode": {"type": "str", "choices": ["refuse", "mok"], "default": "refuse"},
    "kernels": {"type": "list", "elements": "str", "default": []},
    "packages": {"type": "list", "elements": "str", "default": []},
    "password": {"type": "str", "default": "", "no_log": True},
    "sysroot": {"type": "path", "default": "/"},
}


class Key:
    """The signing key of one node."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module, self.node = module, platform.node()
        self.distribution = platform_of(ROOT)["id"]
        files = [ROOT / CONFIGURATION, *sorted((ROOT / f"{CONFIGURATION}.d").glob("*.conf"))]
        self.places: Places = key_places(self.distribution, map(read_text, files), self.node)

    def run(self, action: str, command: list[str], data: str | None = None) -> str:
        """Run a program that must succeed; its output may be shown, its input never."""
        # as it is: a second, empty line would be a second password for openssl
        code, out, err = self.module.run_command(command, data=data, binary_data=True)
        if code != 0:
            raise RackwrightError(
                action,
                self.node,
                f"{os.path.basename(command[0])} failed: {' '.join((err or out).split()) or f'exit status {code}'}",
                "Run it on the node to see more",
            )
        return str(out)

    def program(self, name: str, package: str) -> str:
        found = self.module.get_bin_path(name)
        if not found:
            raise missing_program(name, package, self.node)
        return str(found)

    def there(self) -> bool:
        """Whether key and certificate exist; DKMS makes both anew when one lacks, and so does this."""
        return os.path.isfile(self.places.key) and os.path.isfile(self.places.certificate)

    def make(self) -> None:
        """Make key and certificate as DKMS does, but for this node by name and readable by root alone."""
        openssl = self.program("openssl", "openssl")
        name = f"DKMS module signing key of {re.sub('[^A-Za-z0-9.-]', '-', self.node)[:32]}"
        for path in (self.places.key, self.places.certificate):
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(self.places.key)) as folder:
            key, certificate = os.path.join(folder, "key"), os.path.join(folder, "certificate")
            command = [openssl, "req", "-new", "-x509", "-nodes", "-days", "36500", "-subj", f"/CN={name}"]
            command += ["-newkey", "rsa:2048", "-keyout", key, "-addext", "extendedKeyUsage=codeSigning"]
            self.run("make the key that signs the module", [*command, "-outform", "DER", "-out", certificate])
            os.chmod(key, 0o600)
            os.chmod(certificate, 0o644)
            os.replace(key, self.places.key)
            self.module.atomic_move(certificate, self.places.certificate)

    def name(self) -> str | None:
        """Return the common name of the certificate."""
        openssl = self.program("openssl", "openssl")
        command = [openssl, "x509", "-inform", "DER", "-in", self.places.certificate, "-noout"]
        return common_name(
            self.run("read the certificate of the key", [*command, "-subject", "-nameopt", "RFC2253"]).strip()
        )

    def enrolment(self) -> str | None:
        """Ask mokutil about the certificate; its exit status is 0 for keys that are there and 1 for others."""
        mokutil = self.program("mokutil", "mokutil")
        _code, out, err = self.module.run_command([mokutil, "--test-key", self.places.certificate])
        found = enrolment(f"{out}\n{err}")
        if found is None:
            raise RackwrightError(
                "ask whether the key is enrolled",
                self.node,
                f"mokutil --test-key says: {' '.join((out + err).split()) or 'nothing'}",
                "Look with `mokutil --sb-state` whether the node was started by shim",
            )
        return found

    def stage(self) -> None:
        """Ask for the enrolment at the next boot."""
        refuse_password(self.module.params["password"], self.node)
        action = "stage the enrolment of the key"
        openssl, mokutil = self.program("openssl", "openssl"), self.program("mokutil", "mokutil")
        hashed = self.run(action, [openssl, "passwd", "-6", "-stdin"], data=f"{self.module.params['password']}\n")
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.module.tmpdir) as stream:
            stream.write(hashed.strip())
            stream.flush()
            self.run(action, [mokutil, "--import", self.places.certificate, "--hash-file", stream.name])

    def enrolled(self) -> dict[str, Any]:
        """Bring the key to be enrolled, as far as that can be done without the console."""
        ready = self.there() and self.module.get_bin_path("mokutil") is not None
        if self.module.check_mode and not ready:
            record = {"key": self.places.key, "certificate": self.places.certificate, "name": None, "enrolment": None}
            return {"changed": True, "secure_boot": record}
        made = not self.there()
        if made:
            refuse_password(self.module.params["password"], self.node)
            self.make()
        elif os.stat(self.places.key).st_mode & 0o077 and not self.module.check_mode:
            os.chmod(self.places.key, 0o600)
        state, name = self.enrolment(), self.name()
        record = {"key": self.places.key, "certificate": self.places.certificate, "name": name, "enrolment": state}
        if state == "enrolled" or self.module.check_mode:
            return {"changed": state == "unknown_key", "secure_boot": record}
        if state == "blocked":
            raise refuse_blocked(self.places.certificate, self.node)
        if state == "unknown_key":
            self.stage()
        stop = staged(self.node, str(name), state == "pending")
        self.module.fail_json(changed=state != "pending", secure_boot=record, **stop.to_result())
        raise AssertionError("fail_json ends the module")


def decided(module: AnsibleModule) -> dict[str, Any]:
    """Return the decision of this node."""
    on, reason = secure_boot_of(Path(module.params["sysroot"]), container_of(ROOT))
    builds = bool(module.params["kernels"]) and builds_here(module.params["packages"])
    ways = [UBUNTU_WAY] if platform_of(ROOT)["id"] == "ubuntu" else []
    decision = decide(on, reason, builds, module.params["mode"], platform.node(), ways)
    # where nothing lacks apt is not asked: what a failed build left half installed is replaced with the driver
    lacking = [name for name in ("mokutil", "openssl") if module.get_bin_path(name) is None]
    return {
        "changed": False,
        "secure_boot": {"on": on, **decision, "lacking": lacking if decision["action"] == "mok" else []},
    }


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        result = decided(module) if module.params["state"] == "decided" else Key(module).enrolled()
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
