#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Add a vendor's package repository with a key whose fingerprint was checked."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vendor_repository
short_description: Add a vendor's package repository with a key whose fingerprint was checked
description:
  - Fetches the signing key (or takes the one that is given), computes its fingerprint and compares it before anything
    is written. A key that does not fit is refused, and the node stays as it is.
  - On apt, writes one keyring and one entry with one C(Signed-By). Entries of the same repository in other files are
    switched off, because apt refuses all sources when two entries of one repository name different keys; obsolete keys
    are taken out of the keyrings that apt trusts for everything.
  - On dnf, writes the key and one C(.repo) file that checks the signatures of packages and metadata, switches off the
    entries of the same repository in other files and imports the key into rpm's database.
  - Needs no gpg on the node, on dnf only rpm. The package lists are not refreshed.
options:
  name:
    description: Short name of the repository, part of its file names.
    type: str
    required: true
  format:
    description: Kind of the repository.
    type: str
    choices: [deb, rpm]
    required: true
  url:
    description: Where the repository is (http, https or file).
    type: str
    required: true
  key:
    description: >-
      The public key itself, base64 of a file that is armoured or not. It is trusted as it is unless O(fingerprint) says
      which one it must be.
    type: str
  key_url:
    description: Where the public key is fetched from when O(key) is not given and the installed one does not fit.
    type: str
  fingerprint:
    description: Fingerprint of the signing key, 40 hex digits; needed unless O(key) is given.
    type: str
  key_id:
    description: End of the fingerprint, where the vendor has published no more; compared besides O(fingerprint).
    type: str
  suite:
    description: Suite of an apt repository; it ends with a slash where there is only one.
    type: str
    default: /
  components:
    description: Components of an apt repository with suites.
    type: list
    elements: str
    default: []
  replaces:
    description: Beginnings of URLs. Entries of other files with such a URL, or with O(url), are switched off.
    type: list
    elements: str
    default: []
  obsolete_keys:
    description: Ends of fingerprints (8 hex digits or more) of keys that must not be trusted for all repositories.
    type: list
    elements: str
    default: []
  signed_metadata:
    description: Whether the metadata of an rpm repository is signed too.
    type: bool
    default: true
  state:
    description: Whether the repository has to be there.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Can run in check mode; the key is fetched and checked there too.
    support: full
  diff_mode:
    description: Returns one difference for each file; keys are shown by their fingerprints.
    support: full
  platform:
    description: Target systems.
    support: full
    platforms: debian, rhel
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Add NVIDIA's repository
  vendor_repository:
    name: nvidia-cuda
    format: deb
    url: https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/
    key_url: https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/3bf863cc.pub
    fingerprint: EB693B3035CD5710E231E123A4B469963BF863CC
    replaces: ["https://developer.download.nvidia.com/compute/cuda/repos/"]
    obsolete_keys: [7FA2AF80]
"""

RETURN = r"""
fingerprint:
  description: Fingerprints of the keys in the keyring.
  returned: success and O(state=present)
  type: list
  elements: str
files:
  description: Keyring and entry of the repository, whether or not they changed.
  returned: success
  type: list
  elements: str
  sample: [/usr/share/keyrings/rackwright-nvidia-cuda.gpg, /etc/apt/sources.list.d/rackwright-nvidia-cuda.sources]
disabled:
  description: Entries of other files that were switched off, with their URLs.
  returned: success
  type: list
  elements: str
  sample: ["/etc/apt/sources.list.d/cuda.list:
  https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/"]
removed_keys:
  description: Fingerprints that are no longer trusted for all repositories.
  returned: success
  type: list
  elements: str
"""

import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright import repository_apt, repository_rpm
from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.openpgp import certificates
from ansible.module_utils.rackwright.packages_base import Run, module_runner
from ansible.module_utils.rackwright.repository import Outcome, repository_key, wish_from_options

ARGUMENT_SPEC = {
    "name": {"type": "str", "required": True},
    "format": {"type": "str", "choices": ["deb", "rpm"], "required": True},
    "url": {"type": "str", "required": True},
    "key": {"type": "str", "no_log": False},
    "key_url": {"type": "str", "no_log": False},
    "fingerprint": {"type": "str"},
    "key_id": {"type": "str", "no_log": False},
    "suite": {"type": "str", "default": "/"},
    "components": {"type": "list", "elements": "str", "default": []},
    "replaces": {"type": "list", "elements": "str", "default": []},
    "obsolete_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "signed_metadata": {"type": "bool", "default": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def bring(options: dict[str, Any], node: str, check_mode: bool, run: Run) -> tuple[Outcome, list[str]]:
    """Bring the repository to the wanted state; return what was done and the fingerprints of its keyring."""
    wish = wish_from_options(options, node)
    half: Any = repository_rpm if options["format"] == "rpm" else repository_apt
    key = repository_key(options, node, half.keyring_path(half.ROOT, wish.name)) if wish.present else None
    if options["format"] == "rpm":
        outcome = repository_rpm.apply(wish, key, check_mode, run=run)
    else:
        outcome = repository_apt.apply(wish, key, check_mode)
    return outcome, [one.fingerprint for one in certificates(key, wish.name)] if key else []


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        outcome, fingerprints = bring(module.params, platform.node(), module.check_mode, module_runner(module))
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(
        changed=outcome.changed,
        fingerprint=fingerprints,
        files=outcome.files,
        disabled=outcome.disabled,
        removed_keys=outcome.removed_keys,
        diff=outcome.diff,
    )


if __name__ == "__main__":
    main()
