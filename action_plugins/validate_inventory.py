# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``validate_inventory``: it needs the variables of all hosts, which a module never sees."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright.inventory import check_inventory

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ActionModule(ActionBase):
    """Check the variables of every host in the play; contacts no node."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with every problem found, or say how many hosts were read."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        variables = task_vars or {}
        hosts = list(variables.get("ansible_play_hosts_all") or [])
        specs = _specs()
        names = {option for options in specs.values() for option in options} | {"ansible_host", "ansible_port"}
        values = {h: self._public(variables["hostvars"][h], names) for h in hosts}
        problems = check_inventory(values, specs)
        result.update(
            changed=False,
            hosts_checked=len(hosts),
            problems=[p.sentence() for p in problems],
            without_description=[name for name, of in values.items() if not of.get("node_description")],
        )
        if problems:
            sentences = "\n".join(f"  - {problem.sentence()}" for problem in problems)
            result.update(
                failed=True,
                msg=f"Could not accept the inventory: {len(problems)} mistake(s), no node was contacted.\n{sentences}",
            )
        return result

    @staticmethod
    def _public(hostvars: Any, names: set[str]) -> dict[str, Any]:
        """Known variables with their values, every other one by name only (its value may be a secret or undefined)."""
        values: dict[str, Any] = {}
        for name in hostvars:
            if name not in names:
                values[name] = None
                continue
            try:
                values[name] = hostvars[name]
            except AnsibleError as error:
                raise AnsibleError(f"Could not read {name}: {error}. Correct its template in the inventory.") from error
        return values


def _specs() -> dict[str, dict[str, Any]]:
    """Owner to documented options: every role's main entry point, and the variables the playbooks read."""
    specs: dict[str, dict[str, Any]] = {}
    files = {path.parents[1].name: path for path in sorted(_ROOT.glob("roles/*/meta/argument_specs.yml"))}
    files["playbooks"] = _ROOT / "playbooks" / "meta" / "argument_specs.yml"
    for owner, path in files.items():
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
        specs[owner] = document["argument_specs"]["main"].get("options") or {}
    return specs
