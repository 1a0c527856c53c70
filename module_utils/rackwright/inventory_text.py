# SPDX-License-Identifier: Apache-2.0
"""An inventory as text: JSON in the form of ``ansible-inventory --list``, and YAML. Pure. Control node only (PyYAML).

What nodes say of themselves is data. Ansible evaluates templates in an inventory, so a text that looks like one is
written as unsafe: a card that calls itself ``{{ lookup(...) }}`` runs nothing on whoever reads the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from .errors import InvalidInputError

HEADER = "# Written by playbooks/export-inventory.yml, which replaces it whole: edit the inventory it was made from.\n"
_TEMPLATE = re.compile(r"\{[{%#]")
_BUILTIN = ("all", "ungrouped")
#: what the YAML form of an inventory would read as a port or as a range of hosts
_NO_NAME = re.compile(r"^[^:]*:\d+$|\[[^\]]*:[^\]]*\]|^\[.*\]:\d+$")


def listing(hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what ``ansible-inventory --list`` would print.

    Args:
        hosts: host name to its variables, plain data.
        groups: group name to its hosts; hosts that are not in ``hosts`` are left out, and so is an empty group.
    """
    kept = members(hosts, groups)
    grouped = {name for names in kept.values() for name in names}
    alone = [name for name in hosts if name not in grouped]
    return {
        "_meta": {"hostvars": {name: _marked(values, _unsafe_json) for name, values in hosts.items()}},
        "all": {"children": ["ungrouped", *kept]},
        **({"ungrouped": {"hosts": alone}} if alone else {}),
        **{group: {"hosts": names} for group, names in kept.items()},
    }


def members(hosts: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the groups that have any of the hosts, with those of them, in a stable order."""
    found = {group: [name for name in names if name in hosts] for group, names in sorted(groups.items())}
    return {group: names for group, names in found.items() if names and group not in _BUILTIN}


def to_json(hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> str:
    """Return the JSON form."""
    return json.dumps(listing(hosts, groups), indent=2, allow_nan=False) + "\n"


def to_yaml(hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> str:
    """Return the YAML form, which ``ansible-playbook -i`` reads.

    Raises:
        InvalidInputError: a host has a name that this form cannot hold.
    """
    for name in hosts:
        if _NO_NAME.search(name):
            raise InvalidInputError(
                "write the inventory",
                f"host {name!r}",
                "a YAML inventory reads this name as a port or as a range of hosts",
                "Rename the host, or export without the inventory (export_include)",
                found=name,
            )
    everything = {
        "all": {
            "hosts": {name: _marked(values, _Unsafe) for name, values in hosts.items()},
            "children": {
                group: {"hosts": {name: {} for name in names}} for group, names in members(hosts, groups).items()
            },
        }
    }
    text: str = yaml.dump(everything, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return HEADER + text


class _Unsafe(str):
    """A text that must never be evaluated."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes such texts with Ansible's tag, and repeats what occurs twice: people read this file."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))


def _marked(value: Any, unsafe: Callable[[str], Any]) -> Any:
    """Plain data in which every text that looks like a template is what ``unsafe`` makes of it."""
    if isinstance(value, str):
        return unsafe(value) if _TEMPLATE.search(value) else value
    if isinstance(value, Mapping):
        return {key: _marked(inner, unsafe) for key, inner in value.items()}
    return [_marked(inner, unsafe) for inner in value] if isinstance(value, list) else value


def _unsafe_json(text: str) -> dict[str, str]:
    return {"__ansible_unsafe": text}
