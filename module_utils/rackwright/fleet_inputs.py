# SPDX-License-Identifier: Apache-2.0
"""What the inventory says about every host, as the plan needs it. Control node only: it reads the roles."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import RackwrightError
from .fleet_plan import Member
from .lock import canonical, stack_of
from .role_inputs import expected, role_facts
from .stack_intent import intent_from_vars

#: what a role's default may refer to beside inputs; tests hold the roles to it
_MAGIC = ("inventory_dir", "playbook_dir")
Template = Callable[[Any, Mapping[str, Any]], Any]


class FleetInputs:
    """Effective values of role inputs per host, templated once for all hosts that share them.

    Args:
        root: the checkout.
        roles: roles whose inputs are wanted, beside those of gpu_stack.
        template: (value, variables) to the templated value.
        trust: marks a text of the checkout as a template; Ansible evaluates no other.
    """

    def __init__(self, root: Path, roles: Sequence[str], template: Template, trust: Callable[[str], str] = str) -> None:
        self.root = root
        self.roles = list(roles)
        self._template = template
        self._defaults = {
            role: {
                name: trust(default) if isinstance(default, str) else default
                for name, default in role_facts(root, role).defaults.items()
            }
            for role in [*self.roles, "gpu_stack"]
        }
        self._options = sorted({name for values in self._defaults.values() for name in values})
        self._values: dict[tuple[str, str], dict[str, Any]] = {}
        self._expected: dict[tuple[str, str | None], dict[str, Any]] = {}

    def given(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs that the inventory itself sets for a host, templated and plain."""
        names = [name for name in self._options if name in raw]
        names += [name for name in _MAGIC if raw.get(name) is not None]
        return {name: plain(self._template(raw[name], raw)) for name in names}

    def values(self, role: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the value of every input of a role as the role will see it."""
        key = (role, canonical(given))
        if key not in self._values:
            nowhere = dict.fromkeys(_MAGIC, "")  # an inventory that is no file has no directory
            variables = {**nowhere, **self._defaults[role], **given, "role_path": str(self.root / "roles" / role)}
            self._values[key] = {
                name: given[name] if name in given else plain(self._template(default, variables))
                for name, default in self._defaults[role].items()
            }
        return self._values[key]

    def expected(
        self, given: Mapping[str, Any], name: str | None, stack: Mapping[str, Any] | None
    ) -> dict[str, dict[str, Any]]:
        """Return role to what its receipt has to say on a host with these inputs and the stack ``name``."""
        key = (canonical(given), name)
        if key not in self._expected:
            self._expected[key] = {
                role: expected(self.root, role, self.values(role, given), stack) for role in self.roles
            }
        return self._expected[key]

    def host(
        self,
        name: str,
        raw: Mapping[str, Any],
        probe: str,
        *,
        cached: bool = False,
        locked: Mapping[str, Any] | None = None,
        proof: Mapping[str, Any] | None = None,
    ) -> Member:
        """Return a host as a member of the fleet, with what the variable ``probe`` holds of it.

        Args:
            name: inventory name.
            raw: its variables, not templated.
            probe: name of the variable with what node_probe returned.
            cached: whether facts of an earlier run are believed.
            locked: the lock, where receipts are to be held against it.
            proof: its entry in the record of proofs.
        """
        seen = raw.get(probe) or {}
        facts = seen.get("ansible_facts") or (raw.get("ansible_facts") if cached else None) or {}
        known = {"gpu": facts.get("gpu"), "node": facts.get("node"), "proof": proof, "update": seen.get("update")}
        if locked is not None:
            stack = stack_of(locked, name)
            known["expected"] = self.expected(self.given(raw), locked["nodes"].get(name), stack)
        return self.member(name, raw, seen, **known)

    def member(self, name: str, raw: Mapping[str, Any], probe: Mapping[str, Any], **known: Any) -> Member:
        """Return a host as a member of the fleet; a wish that means nothing becomes its reason to be refused."""
        given = self.given(raw)
        try:
            intent: Any = intent_from_vars(name, self.values("gpu_stack", given))
        except RackwrightError as error:
            intent = error
        return Member(
            name=name,
            intent=intent,
            description=given.get("node_description"),
            receipts=probe.get("receipts") or {},
            receipts_problem=probe.get("receipts_problem"),
            failure=_failure(raw, probe),
            **known,
        )


def _failure(raw: Mapping[str, Any], probe: Mapping[str, Any]) -> str | None:
    """Why nothing is known of a host in this run, None when it answered or was not asked."""
    if probe.get("unreachable"):
        return f"unreachable: {str(probe.get('msg') or 'no answer').strip()}"
    failure = raw.get("__site_failure")
    return str(failure["message"]) if failure else None


def plain(value: Any) -> Any:
    """Return a value without the origin that Ansible tags every text and number with."""
    return json.loads(json.dumps(value))
