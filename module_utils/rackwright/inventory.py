# SPDX-License-Identifier: Apache-2.0
"""Find the mistakes of an inventory before any node is contacted. Pure: variables and specs in, problems out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

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
    owners = {option: owner for owner, options in specs.items() for option in options}
    found: dict[tuple[str, str], set[str]] = {}
    for host, variables in hosts.items():
        for variable, message in [*_unknown(variables, specs, owners), *_invalid(variables, specs)]:
            found.setdefault((variable, message), set()).add(host)
    problems = [Problem(tuple(sorted(names)), variable, message) for (variable, message), names in found.items()]
    return sorted([*problems, *_address_clashes(hosts)], key=lambda problem: (problem.variable, problem.message))


def _unknown(
    variables: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]], owners: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Variables that carry a role's prefix but that the role does not know, and near misses of known names."""
    problems = []
    for name in variables:
        if name in owners or name.startswith(("_", "ansible_")):
            continue
        if name in _MOVED:
            wish = f"Set {_MOVED[name]} instead, run playbooks/plan-stack.yml and commit the lock."
            problems.append((name, f"Could not use {name}: versions come from the lock. {wish}"))
            continue
        owner = next((o for o in sorted(specs, key=len, reverse=True) if name.startswith(_prefix(o))), None)
        near = difflib.get_close_matches(name, owners, n=1, cutoff=0.75 if owner else _TYPO_RATIO)
        if owner is None and not near:
            continue
        hint = f" Did you mean {near[0]}?" if near else f" roles/{owner}/README.md lists its inputs."
        problems.append((name, f"Could not understand variable {name}: nothing in Rackwright reads it.{hint}"))
    return problems


def _prefix(owner: str) -> str:
    return _OWN_PREFIXES.get(owner, f"{owner}_")


def _invalid(variables: Mapping[str, Any], specs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Known variables whose value has the wrong type or is not among the choices."""
    problems = []
    for owner, options in specs.items():
        for name, option in options.items():
            if name not in variables or (variables[name] is None and not option.get("required")):
                continue
            result = ArgumentSpecValidator({name: _runtime_option(option)}).validate({name: variables[name]})
            for error in result.error_messages:
                where = f"of role {owner}" if owner != "playbooks" else "of the playbooks"
                problems.append((name, f"Could not use {name} {where}: {error.rstrip('.')}."))
    return problems


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
