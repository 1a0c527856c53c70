# SPDX-License-Identifier: Apache-2.0
"""Control-side half of ``node_probe``: one packed script over the open connection, where the connection can take it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT / "module_utils"))
from rackwright import probe_pack
from rackwright.errors import MissingError, ProbeError, RackwrightError
from rackwright.receipts import DIRECTORY

ARGUMENT_SPEC: dict[str, Any] = {
    "sysroot": {"type": "str", "default": "/"},
    "timeout": {"type": "float", "default": 30.0},
    "extra_gpus": {"type": "list", "elements": "dict", "default": []},
    "receipts_dir": {"type": "str", "default": DIRECTORY},
}
_NO_PROGRAM = (126, 127)


class ActionModule(ActionBase):
    """Look at a node once; a connection that fails is left to Ansible, which calls the node unreachable."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send the script, or run the ordinary module where the connection or the interpreter asks for it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        interpreter = self._interpreter(variables)
        if interpreter is None or not self._is_pipelining_enabled("new"):
            result.update(self._execute_module(module_name="node_probe", task_vars=variables))
            return result
        try:
            result.update(self._ask(interpreter, options, str(variables.get("inventory_hostname", "the node"))))
        except RackwrightError as error:
            result.update(error.to_result(), failed=True)
        return result

    def _interpreter(self, variables: Mapping[str, Any]) -> str | None:
        """The interpreter that is named for this host; None where Ansible has to find one, or another host answers."""
        if self._task.delegate_to:
            return None
        named = variables.get("ansible_python_interpreter")
        found = (
            constants.config.get_config_value("INTERPRETER_PYTHON", variables=dict(variables))
            if named is None
            else self._templar.template(named)
        )
        return None if not found or str(found).startswith("auto") else str(found)

    def _ask(self, interpreter: str, options: Mapping[str, Any], host: str) -> dict[str, Any]:
        script = probe_pack.packed(_ROOT / "module_utils" / probe_pack.PACKAGE, _ROOT / ".cache" / "probe")
        data = probe_pack.message(json.loads(json.dumps(options)), script)
        words = " ".join(shlex.quote(word) for word in [*shlex.split(interpreter), "-c", probe_pack.START])
        environment = self._compute_environment_string()
        answered = self._low_level_execute_command(f"{environment} {words}".strip(), in_data=data, sudoable=True)
        answer = probe_pack.parse(answered["stdout"])
        if answer is None:
            raise _no_answer(interpreter, host, answered)
        if "python" in answer:
            raise MissingError(
                "probe the node",
                host,
                f"{interpreter} is Python {answer['python']}",
                "Install Python 3.9 or later there, or name one as ansible_python_interpreter",
                expected=">= 3.9",
                found=answer["python"],
            )
        return answer


def _no_answer(interpreter: str, host: str, answered: Mapping[str, Any]) -> RackwrightError:
    said = " ".join((answered["stderr"] or answered["stdout"]).split())[-300:]
    if answered["rc"] in _NO_PROGRAM:
        return MissingError(
            "probe the node",
            host,
            f"{interpreter} does not start ({said})",
            "Install Python 3.9 or later there, or name the one to use as ansible_python_interpreter",
            expected=interpreter,
            found=said,
        )
    return ProbeError(
        "probe the node",
        host,
        f"{interpreter} ended with status {answered['rc']} and gave no whole answer ({said or 'no output'})",
        "Run the same command on the node by hand; with -vvv Ansible shows it",
        found=said,
    )
