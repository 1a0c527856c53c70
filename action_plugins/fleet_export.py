# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``fleet_export``: it needs variables, groups and cached facts of all hosts."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import EncryptedString

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import fleet_export, reports
from rackwright.ages import MAX_AGE_HOURS
from rackwright.control_action import ControlAction
from rackwright.errors import InvalidInputError
from rackwright.fleet_inputs import plain

ARGUMENT_SPEC = {
    "reports_dir": {"type": "path", "required": True},
    "variables": {"type": "list", "elements": "str", "default": list(fleet_export.VARIABLES)},
    "include": {
        "type": "list",
        "elements": "str",
        "choices": list(fleet_export.PARTS),
        "default": list(fleet_export.PARTS),
    },
}
_FACTS = ("gpu", "gpu_health", "gpu_verdict")


class ActionModule(ControlAction):
    """Export every host of the play; contacts no node."""

    SPEC = ARGUMENT_SPEC

    def answer(self) -> dict[str, Any]:
        """Collect what is cached and write the files."""
        names = plain(self._options["variables"])
        fleet_export.check_names(names)
        hosts = {name: self._host(name, names) for name in plain(self._vars.get("ansible_play_hosts_all") or [])}
        return fleet_export.export(
            hosts,
            plain(self._vars.get("groups") or {}),
            reports.from_here(self._options["reports_dir"]),
            datetime.datetime.now(datetime.timezone.utc),
            include=self._options["include"],
            check_mode=self._task.check_mode,
        )

    def _host(self, name: str, names: Sequence[str]) -> dict[str, Any]:
        raw = self._vars["hostvars"].raw_get(name)
        facts = raw.get("ansible_facts") or {}
        return {
            "facts": plain({key: facts[key] for key in _FACTS if key in facts}),
            "variables": {key: self._value(name, raw, key) for key in names if key in raw},
            "max_age": self._max_age(name, raw),
            "textfile": bool(self._value(name, raw, "metrics_textfile_dir")),
        }

    def _value(self, host: str, raw: Mapping[str, Any], key: str) -> Any:
        """The value of a variable as a task on this host would see it; a vault's content never leaves."""
        if _from_vault(raw.get(key)):
            raise InvalidInputError(
                "export the variable", f"{key} of {host}", "its value is in a vault", "Take it out of export_vars"
            )
        try:
            return plain(self._templar.copy_with_new_env(available_variables=dict(raw)).template(raw.get(key)))
        except (AnsibleError, TypeError) as error:
            cause = " ".join(str(error).split())
            raise InvalidInputError(
                "export the variable", f"{key} of {host}", cause, "Correct its value in the inventory"
            ) from error

    def _max_age(self, host: str, raw: Mapping[str, Any]) -> float:
        value = self._value(host, raw, "facts_max_age")
        try:
            return MAX_AGE_HOURS if value in (None, "") else float(value)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                "use facts_max_age", host, f"{value!r} is no number", "Give the hours, like 168"
            ) from error


def _from_vault(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_from_vault(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return any(_from_vault(inner) for inner in value)
    return isinstance(value, EncryptedString)
