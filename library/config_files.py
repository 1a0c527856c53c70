#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Bring several small files to a wanted state in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Write several configuration files in one call
description:
  - Brings a list of text files to the wanted content, mode and owner, or removes them. All entries are checked before
    the first is
    written; each is replaced atomically; missing parent directories are made with mode 0755.
  - One round trip for all files of a role, where a loop over M(ansible.builtin.copy) costs two for each file.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path on the node.
        type: path
        required: true
      content:
        description: The whole text. Needed unless O(files[].state=absent).
        type: str
      mode:
        description: Octal mode, as a string.
        type: str
        default: "0644"
      owner:
        description: User name.
        type: str
        default: root
      group:
        description: Group name.
        type: str
        default: root
      state:
        description: Whether the file has to be there.
        type: str
        choices: [present, absent]
        default: present
attributes:
  check_mode:
    description: Can run in check mode and says what would change.
    support: full
  diff_mode:
    description: Returns one difference for each file that changes.
    support: full
  platform:
    description: Target systems.
    support: full
    platforms: posix
author: Rackwright contributors
"""

EXAMPLES = r"""
- name: Write the package manager's configuration
  config_files:
    files:
      - path: /etc/apt/apt.conf.d/50rackwright
        content: |
          DPkg::Lock::Timeout "300";
      - path: /etc/apt/apt.conf.d/49old
        state: absent
"""

RETURN = r"""
changed_files:
  description: Paths that were, or in check mode would be, written or removed.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright.errors import RackwrightError
from ansible.module_utils.rackwright.files import apply, difference, wanted

ARGUMENT_SPEC = {
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "str"},
            "mode": {"type": "str", "default": "0644"},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
    },
}


def main() -> None:
    """Answer one call."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        pending = [(want, diff) for want in map(wanted, module.params["files"]) if (diff := difference(want))]
        if not module.check_mode:
            for want, _diff in pending:
                apply(want)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(
        changed=bool(pending),
        changed_files=[want.path for want, _diff in pending],
        diff=[diff for _want, diff in pending],
    )


if __name__ == "__main__":
    main()
