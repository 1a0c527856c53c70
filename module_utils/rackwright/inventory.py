# SPDX-License-Identifier: Apache-2.0
"""Find the mistakes of an inventory before any node is contacted. Pure: variables and specs in, problems out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .stack_intent import wish_problem

# A name this similar to a public variable is taken for a slip of the finger, not for somebody's own variable.
_TYPO_RATIO = 0.9
# People write these into every inventory, so they do without the whole name of their role.
_OWN_PREFIXES = {"gpu_stack": "stack_"}
# Inputs that went to the lock, and the wish that decides there.
_MOVED = {
    "nvidia_driver_version": "stack_driver_version",
    "nvidia_driver_branch": "stack_driver_branch",
    "nvidia_driver_update": "stack_driver_version",
    "nvidia_driver_module_flavour": "stack_module_flavour",
    "pytorch_version": "stack_framework_version",
    "pytorch_build": "stack_framework_version",
    "python_env_python": "stack_python",
    "python_env_python_minimum": "stack_python",
}


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Attributes:
        hosts: names of the hosts that carry it, sorted.
        variable: the variable at fault, or the connection variable for address clashes.
        message: one sentence saying what is wrong and what to do.
    """

    hosts: tuple[str, ...]
    variable: str
    message: str

    def sentence(self) -> str:
        """The problem with the hosts it was found on, shortened for big fleets."""
        shown = ", ".join(self.hosts[:3]) + (f" and {len(self.hosts) - 3} more" if len(self.hosts) > 3 else "")
        return f"{self.message} (on {shown})"


def check_inventory(
    hosts: Mapping[str, Mapping[str, Any]], specs: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> list[Problem]:
    """Every mistake found in the variables of all hosts, each once, with the hosts that share it.

    Args:
        hosts: host name to its variables (already templated).
        specs: owner (a role's name, or ``playbooks``) to its options as in ``argument_specs.yml``.

    Returns:
        Problems in a stable order: by variable, then message.
    """
    checks = _Checks(specs)
    found: dict[tuple[str, str], set[str]] = {}
    for host, variables in hosts.items():
        for name, value in variables.items():
            for message in checks.messages(name, value):
                found.setdefault((name, message), set()).add(host)
    problems = [Problem(tuple(sorted(names)), variable, message) for (variable, message), names in found.items()]
    return sorted([*problems, *_address_clashes(hosts)], key=lambda problem: (problem.variable, problem.message))


class _Checks:
    """Judges every name, and every value of it, once: hosts of a fleet share most of both."""

    def __init__(self, specs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        self._specs = specs
        self._owners: dict[str, list[str]] = {}
        for owner, options in specs.items():
            for option in options:
                self._owners.setdefault(option, []).append(owner)
        self._judged: dict[tuple[str, str], list[str]] = {}

    def messages(self, name: str, value: Any) -> list[str]:
        """Return what is wrong with a variable, in sentences."""
        known = name in self._owners
        key = (name, repr(value) if known else "")
        if key not in self._judged:
            self._judged[key] = self._invalid(name, value) if known else self._unknown(name)
        return self._judged[key]

    def _unknown(self, name: str) -> list[str]:
        """Carries a role's prefix but the role does not know it, or is a near miss of a known name."""
        if name.startswith(("_", "ansible_")):
            return []
        if name in _MOVED:
            wish = f"Set {_MOVED[name]} instead, run playbooks/plan-stack.yml and commit the lock."
            return [f"Could not use {name}: versions come from the lock. {wish}"]
        owner = next((o for o in sorted(self._specs, key=len, reverse=True) if name.startswith(_prefix(o))), None)
        near = difflib.get_close_matches(name, self._owners, n=1, cutoff=0.75 if owner else _TYPO_RATIO)
        if owner is None and not near:
            return []
        hint = f" Did you mean {near[0]}?" if near else f" roles/{owner}/README.md lists its inputs."
        return [f"Could not understand variable {name}: nothing in Rackwright reads it.{hint}"]

    def _invalid(self, name: str, value: Any) -> list[str]:
        """The value has the wrong type or is not among the choices."""
        problems = []
        for owner in self._owners[name]:
            option = self._specs[owner][name]
            if value is None and not option.get("required"):
                continue
            where = f"of role {owner}" if owner != "playbooks" else "of the playbooks"
            wish = wish_problem(name, value)
            if wish:
                problems.append(f"Could not use {name} {where}: {wish}")
                continue
            result = ArgumentSpecValidator({name: _runtime_option(option)}).validate({name: value})
            problems += [f"Could not use {name} {where}: {_plainly(error)}." for error in result.error_messages]
        return problems


def _plainly(error: str) -> str:
    """What the validator of Ansible says, without names of its own classes and with the word that is missing."""
    text = re.sub(r": <class '[^']*'> cannot be converted to an? (?:dict|list)", "", error.rstrip("."))
    return re.sub(r"^(\S+)\. (Supported parameters include: )", r"\1 is not known. \2", text)


def _prefix(owner: str) -> str:
    return _OWN_PREFIXES.get(owner, f"{owner}_")


def _runtime_option(option: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a documented option that the validator acts on."""
    kept = {key: option[key] for key in ("type", "elements", "choices", "required") if key in option}
    if "options" in option:
        kept["options"] = {name: _runtime_option(sub) for name, sub in option["options"].items()}
    return kept


def _address_clashes(hosts: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """Two names for one machine: the usual slip of a copied inventory line."""
    by_address: dict[tuple[str, int], list[str]] = {}
    for host, variables in hosts.items():
        if variables.get("ansible_connection") == "local" or not variables.get("ansible_host"):
            continue
        address = (str(variables["ansible_host"]), int(variables.get("ansible_port") or 22))
        by_address.setdefault(address, []).append(host)
    return [
        Problem(
            tuple(sorted(names)),
            "ansible_host",
            f"Could not tell {' and '.join(sorted(names)[:2])} apart: both are {address} port {port}. "
            "Give each host its own ansible_host.",
        )
        for (address, port), names in by_address.items()
        if len(names) > 1
    ]
